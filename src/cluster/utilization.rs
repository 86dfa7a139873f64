//! A resource's utilization attributes in the CIB.

use super::tool::{self, Trouble};
use crate::deadline::Deadline;
use std::collections::BTreeMap;

/// The attributes of a resource.
///
/// # Errors
/// The CIB cannot be had, or has no such resource.
pub fn read(resource: &str, deadline: &Deadline) -> Result<BTreeMap<String, String>, Trouble> {
    // A name of a resource has no quotes in it (it is an XML id); anything else must not become part of the question.
    if !resource.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(Trouble::Nonsense(format!("{resource:?} is no name of a resource")));
    }
    let path = format!("//primitive[@id='{resource}']");
    // This node's own copy answers, whatever Pacemaker's version: a question without a node's name goes nowhere else.
    let text = tool::run("cibadmin", &["--query", "--xpath", &path], deadline)?;
    parse(&text).ok_or_else(|| Trouble::Nonsense(format!("cibadmin: what it says of {resource} is not understood")))
}

pub(super) fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let document = roxmltree::Document::parse(text).ok()?;
    let primitive = document.descendants().find(|node| node.has_tag_name("primitive"))?;
    let sets = primitive.children().filter(|node| node.has_tag_name("utilization"));
    let pairs = sets.flat_map(|set| set.children()).filter(|node| node.has_tag_name("nvpair"));
    Some(pairs.filter_map(|pair| Some((pair.attribute("name")?.to_owned(), pair.attribute("value")?.to_owned()))).collect())
}

/// Writes an attribute, or removes it.
///
/// # Errors
/// It was not changed.
pub fn write(resource: &str, name: &str, value: Option<&str>, deadline: &Deadline) -> Result<(), Trouble> {
    let words = match value {
        Some(value) => vec!["--resource", resource, "--utilization", "--set-parameter", name, "--parameter-value", value],
        None => vec!["--resource", resource, "--utilization", "--delete-parameter", name],
    };
    tool::run("crm_resource", &words, deadline).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mangled_answers_of_cibadmin() {
        let sample = "<primitive id='web1'><utilization id='u'><nvpair id='c' name='cpu' value='2'/></utilization></primitive>";
        crate::mangled::texts(&[sample], 4000, |text| parse(text).is_some());
    }

    #[test]
    fn attributes_of_a_primitive() {
        let text = "<primitive id='web1'><instance_attributes id='a'><nvpair id='b' name='cpu' value='9'/></instance_attributes>\
            <utilization id='web1-utilization'><nvpair id='c' name='cpu' value='2'/><nvpair id='d' name='hv_memory' value='80'/></utilization></primitive>";
        let found = parse(text).unwrap();
        assert_eq!(found.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(), ["cpu=2", "hv_memory=80"]);
        assert_eq!(parse("<primitive id='web1'/>"), Some(BTreeMap::new()));
        assert_eq!(parse("no xml"), None);
        assert!(read("a' or '1'='1", &Deadline::after(std::time::Duration::from_secs(1))).is_err());
    }
}
