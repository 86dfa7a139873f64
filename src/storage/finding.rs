//! Everything under a guest as this host sees it, and what became known of each thing on another node.

use super::chain;
use super::item::{self, Item, Source};
use super::kind::Kind;
use super::look::{self, Facts, Sight};
use crate::deadline::{Deadline, Task, Unanswered};
use crate::log;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long a look at one thing may take.
pub const LOOK: Duration = Duration::from_secs(2);

/// How many things are looked at at the same time: each takes a thread and a process, and with many the last of them would not be begun in time.
const AT_ONCE: usize = 32;

/// Where a volume of a pool (the two names) is: libvirt knows, or why that is not known.
pub type Volumes<'a> = &'a dyn Fn(&str, &str) -> Result<PathBuf, String>;

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
    let mut findings = Vec::with_capacity(items.len());
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        // A look that is cut short would say of storage that it does not answer.
        let is_in_time = findings.is_empty() || deadline.left() > LOOK;
        let begin = |item: Item| {
            let path = path(&item, volumes);
            let task = path.clone().map(|path| {
                let (path, limit) = (path?, deadline.within(LOOK));
                if !is_in_time {
                    return Err("there was no time to look".to_owned());
                }
                Ok(Task::start(move || look::look(&path, &limit)))
            });
            (item, path, task)
        };
        let tasks: Vec<_> = items.by_ref().take(AT_ONCE).map(begin).collect();
        let seen = |task: Result<Task<Sight>, String>| task.map_or_else(Sight::Untold, |task| sight(task.answer(deadline)));
        findings.extend(tasks.into_iter().map(|(item, path, task)| Finding {
            item,
            path: path.and_then(Result::ok),
            sight: task.map(seen),
            same: None,
        }));
    }
    findings
}

/// What was seen. Who could not be sent has not asked the storage.
fn sight(answer: Result<Sight, Unanswered>) -> Sight {
    answer.unwrap_or_else(|unanswered| match unanswered {
        Unanswered::Late => Sight::Silent,
        Unanswered::Never => Sight::Untold("nobody could be sent to look".into()),
    })
}

/// Where a thing is for the host whose volumes these are, or why that is not known; `None` for what has no path.
#[must_use]
pub fn path(item: &Item, volumes: Volumes) -> Option<Result<PathBuf, String>> {
    match &item.source {
        Source::Path(path) => Some(Ok(path.clone())),
        Source::Volume { pool, volume } => Some(volumes(pool, volume)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_could_not_be_sent_has_not_seen_a_silence() {
        let soon = Deadline::after(Duration::from_secs(60));
        let never = Task::start(|| -> Sight { panic!("on purpose") });
        assert_eq!(sight(never.answer(&soon)), Sight::Untold("nobody could be sent to look".into()));
        // Nor is it one when the time is over.
        assert!(matches!(sight(never.answer(&soon.within(Duration::ZERO))), Sight::Untold(_)));
        assert_eq!(sight(Err(Unanswered::Late)), Sight::Silent);
        assert_eq!(sight(Ok(Sight::Missing("i/o error".into()))), Sight::Missing("i/o error".into()));
    }

    #[test]
    fn many_are_looked_at_in_turns_and_those_without_time_are_not_called_silent() {
        let disk = |number: usize| format!("<disk type='file'><source file='/nonexistent/{number}'/><target dev='v{number}'/></disk>");
        let count = 2 * AT_ONCE + 1;
        let xml = format!("<domain><devices>{}</devices></domain>", (0..count).map(disk).collect::<String>());
        let look = |time| look_at(item::items(&xml), &|_, _| Err("no pool".to_owned()), &Deadline::after(time));
        let findings = look(LOOK / 2);
        assert_eq!(findings.len(), count);
        let untold = |finding: &Finding| matches!(&finding.sight, Some(Sight::Untold(text)) if text == "there was no time to look");
        assert!(!findings.iter().take(AT_ONCE).any(untold) && findings.iter().skip(AT_ONCE).all(untold), "{findings:?}");
    }
}
