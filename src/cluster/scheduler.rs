//! What Pacemaker would do: its scheduler, asked by `crm_simulate`.

use super::cib::Cib;
use super::tool::{self, Trouble};
use crate::deadline::Deadline;
use roxmltree::Document;
use std::fmt;
use std::fs;
use std::io::Write;
use tempfile::NamedTempFile;

/// What is done to a resource, or to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Start,
    Stop,
    Demote,
    Monitor,
    MigrateTo,
    MigrateFrom,
    /// The end of a recurring monitor.
    Cancel,
    Notify,
    ClearFailcount,
    /// Of a node.
    Fence,
    /// Another one, by Pacemaker's word.
    Other(String),
}

impl Operation {
    /// By Pacemaker's words.
    const NAMES: [(&str, Self); 10] = [
        ("start", Self::Start),
        ("stop", Self::Stop),
        ("demote", Self::Demote),
        ("monitor", Self::Monitor),
        ("migrate_to", Self::MigrateTo),
        ("migrate_from", Self::MigrateFrom),
        ("cancel", Self::Cancel),
        ("notify", Self::Notify),
        ("clear_failcount", Self::ClearFailcount),
        ("fence", Self::Fence),
    ];
}

impl From<&str> for Operation {
    fn from(word: &str) -> Self {
        let known = Self::NAMES.into_iter().find(|(name, _)| *name == word);
        known.map_or_else(|| Self::Other(word.to_owned()), |(_, operation)| operation)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMES.iter().find(|(_, operation)| operation == self).map(|(name, _)| *name);
        f.write_str(match self {
            Self::Other(word) => word,
            _ => known.unwrap_or_default(),
        })
    }
}

/// One thing that would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The resource; nothing for what is done to a node.
    pub resource: Option<String>,
    /// What is done to it.
    pub operation: Operation,
    /// Where.
    pub node: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.resource {
            Some(resource) => write!(f, "{} {resource} on {}", self.operation, self.node),
            None => write!(f, "{} {}", self.operation, self.node),
        }
    }
}

/// What would be done now, in the order in which it is listed.
///
/// # Errors
/// The scheduler cannot be asked.
pub fn plan(deadline: &Deadline) -> Result<Vec<Step>, Trouble> {
    ask(&["--live-check", "--simulate", "--output-as=xml"], deadline)
}

/// What would be done if the CIB were `cib`.
///
/// # Errors
/// The scheduler cannot be asked.
pub fn plan_for(cib: &Cib, deadline: &Deadline) -> Result<Vec<Step>, Trouble> {
    let file = written(cib.text())?;
    ask(&["--xml-file", &file.path().to_string_lossy(), "--simulate", "--output-as=xml"], deadline)
}

/// Like [`plan_for`], and the CIB as it would be when all of it has been done, and has succeeded.
///
/// # Errors
/// The scheduler cannot be asked.
pub fn outcome_for(cib: &Cib, deadline: &Deadline) -> Result<(Vec<Step>, Cib), Trouble> {
    let (before, after) = (written(cib.text())?, written("")?);
    let [from, to] = [&before, &after].map(|file| file.path().to_string_lossy().into_owned());
    let steps = ask(&["--xml-file", &from, "--simulate", "--save-output", &to, "--output-as=xml"], deadline)?;
    Ok((steps, Cib::parse(read(&to)?)?))
}

/// What would be done if the CIB were `cib`, with what waits for what: Pacemaker's transition graph, as XML.
///
/// # Errors
/// The scheduler cannot be asked.
pub(super) fn graph_for(cib: &Cib, deadline: &Deadline) -> Result<String, Trouble> {
    let (file, graph) = (written(cib.text())?, written("")?);
    let [from, to] = [&file, &graph].map(|file| file.path().to_string_lossy().into_owned());
    tool::run("crm_simulate", &["--xml-file", &from, "--save-graph", &to, "--output-as=xml"], deadline)?;
    read(&to)
}

/// What crm_simulate has written.
fn read(path: &str) -> Result<String, Trouble> {
    fs::read_to_string(path).map_err(|error| Trouble::Silent(format!("what crm_simulate has written cannot be read: {error}")))
}

/// A file for the scheduler. Memory, and only for root: the configuration has passwords in it. It has to be called .xml.
fn written(text: &str) -> Result<NamedTempFile, Trouble> {
    let file = tempfile::Builder::new().prefix("kvmha-").suffix(".xml").tempfile_in("/run").and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        Ok(file)
    });
    file.map_err(|error| Trouble::Silent(format!("a file for crm_simulate cannot be written: {error}")))
}

fn ask(words: &[&str], deadline: &Deadline) -> Result<Vec<Step>, Trouble> {
    let text = tool::run("crm_simulate", words, deadline)?;
    parse(&text).ok_or_else(|| Trouble::Nonsense("crm_simulate: what it says is not understood".into()))
}

pub(super) fn parse(text: &str) -> Option<Vec<Step>> {
    let document = Document::parse(text).ok()?;
    let transition = document.descendants().find(|node| node.has_tag_name("transition"))?;
    let word = |node: roxmltree::Node, name: &str| node.attribute(name).unwrap_or_default().to_owned();
    let operation = |node: roxmltree::Node| Operation::from(node.attribute("op").or(node.attribute("task")).unwrap_or_default());
    let steps = transition.children().filter(|node| node.is_element()).filter_map(|node| match node.tag_name().name() {
        // Marks in the order of things; nobody does them.
        "pseudo_action" => None,
        "rsc_action" => Some(Step { resource: Some(word(node, "resource")), operation: operation(node), node: word(node, "node") }),
        "fencing_action" => Some(Step { resource: None, operation: Operation::Fence, node: word(node, "target") }),
        _ => Some(Step { resource: None, operation: operation(node), node: word(node, "node") }),
    });
    Some(steps.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mangled_answers_of_crm_simulate() {
        let sample = "<r><actions/><transition><rsc_action resource='vm1' op='stop' node='node2'/><fencing_action target='node3' op='off'/></transition></r>";
        crate::mangled::texts(&[sample], 4000, |text| parse(text).is_some());
    }

    #[test]
    fn what_pacemaker_2_1_says() {
        let text = "<r><actions/><transition><rsc_action resource='vm1' op='stop' node='node2'/><pseudo_action task='all_stopped'/>\
            <fencing_action target='node3' op='off'/></transition></r>";
        let steps = parse(text).unwrap();
        assert_eq!(steps.iter().map(ToString::to_string).collect::<Vec<_>>(), ["stop vm1 on node2", "fence node3"]);
        assert_eq!(parse("<r><transition/></r>"), Some(Vec::new()));
        assert_eq!(parse("<r/>"), None);
    }
}
