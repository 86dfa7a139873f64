//! Everything under a guest as this host sees it, and what became known of each thing on another node.

use super::chain;
use super::item::{self, Item, Source};
use super::kind::Kind;
use super::look::{self, Facts, Sight};
use crate::deadline::{Deadline, Task};
use crate::log;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long a look at one thing may take.
pub const LOOK: Duration = Duration::from_secs(2);

/// Where a volume of a pool (the two names) is: libvirt knows.
pub type Volumes<'a> = &'a dyn Fn(&str, &str) -> Option<PathBuf>;

/// What is known about a thing on another node, each with a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Same {
    /// It is the same.
    Proven(String),
    /// It looks the same; two that were copied from one another would too.
    Alike(String),
    /// It is another one, or none.
    Different(String),
    /// Cannot be told.
    Unknown(String),
}

/// A thing under the guest, what was seen of it here, and what is known of it on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The thing.
    pub item: Item,
    /// Its path here, if it has one; that of a volume is its pool's word.
    pub path: Option<PathBuf>,
    /// What was seen of it here; `None` if it is nothing that this host's kernel knows.
    pub sight: Option<Sight>,
    /// What is known of it on another node, if one was asked.
    pub same: Option<Same>,
}

impl Finding {
    /// The facts, if it could be looked at.
    #[must_use]
    pub fn facts(&self) -> Option<&Facts> {
        match &self.sight {
            Some(Sight::Facts(facts)) => Some(facts),
            _ => None,
        }
    }

    /// Its kind, if that could be told.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match &self.item.source {
            Source::Network { protocol, .. } => Some(Kind::of_protocol(protocol)),
            _ => self.facts().map(|facts| facts.kind),
        }
    }

    /// What tells it apart, printable; `local` for what only this host has, as far as it shows.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        match &self.item.source {
            Source::Network { .. } => Some(self.item.source.to_string()),
            _ => self.facts().map(|facts| facts.token.clone().unwrap_or_else(|| "local".to_owned())),
        }
    }
}

/// Everything under the guest with this definition, as it is here.
#[must_use]
pub fn look(xml: &str, volumes: Volumes, deadline: &Deadline) -> Vec<Finding> {
    let mut findings = look_at(item::items(xml), volumes, deadline);
    // An image is not opened before its storage was seen to answer.
    let mut based = Vec::new();
    for finding in findings.iter().filter(|finding| finding.item.chain_unknown && finding.facts().is_some()) {
        let read = finding.path.as_deref().map(|path| chain::read(&finding.item, path, &deadline.within(LOOK)));
        match read {
            Some(Ok(items)) => based.extend(items),
            Some(Err(text)) => log::warning(format_args!("what {} is based on cannot be told: {text}", finding.item)),
            None => {}
        }
    }
    findings.extend(look_at(based, volumes, deadline));
    findings
}

fn look_at(items: Vec<Item>, volumes: Volumes, deadline: &Deadline) -> Vec<Finding> {
    let tasks: Vec<_> = items
        .into_iter()
        .map(|item| {
            let path = path(&item, volumes);
            let (wanted, deadline) = (path.clone(), deadline.within(LOOK));
            (item, path, wanted.map(|path| Task::start(move || look::look(&path, &deadline))))
        })
        .collect();
    let answer = |task: Task<Sight>| task.wait(deadline).unwrap_or(Sight::Silent);
    tasks.into_iter().map(|(item, path, task)| Finding { item, path, sight: task.map(answer), same: None }).collect()
}

/// Where a thing is for the host whose volumes these are.
#[must_use]
pub fn path(item: &Item, volumes: Volumes) -> Option<PathBuf> {
    match &item.source {
        Source::Path(path) => Some(path.clone()),
        Source::Volume { pool, volume } => volumes(pool, volume),
        _ => None,
    }
}
