//! One change of the CIB, as `cibadmin` is told it. A command that changes a resource for a while does so by a set of meta attributes of its own:
//! the operator's are left alone, and a run that was killed is found by the next.

use crate::cluster::tool::{self, Trouble};
use crate::deadline::Deadline;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    words: Vec<&'static str>,
    xml: String,
}

impl Change {
    /// Gives `resource` a set of meta attributes called `set`, which counts more than any other; each as the end of its id, its name and its value.
    /// What is in the set already stays.
    #[must_use]
    pub fn meta(resource: &str, set: &str, attributes: &[(&str, &str, &str)]) -> Self {
        let pair = |(end, name, value): &(&str, &str, &str)| format!("<nvpair id=\"{set}-{end}\" name=\"{name}\" value=\"{value}\"/>");
        let pairs: String = attributes.iter().map(pair).collect();
        Self {
            words: vec!["--modify", "--allow-create", "--scope", "resources"],
            xml: format!(
                "<primitive id=\"{resource}\"><meta_attributes id=\"{set}\" score=\"INFINITY\">{pairs}</meta_attributes></primitive>"
            ),
        }
    }

    /// Takes the element with this id away.
    #[must_use]
    pub fn without(tag: &str, id: &str) -> Self {
        Self { words: vec!["--delete"], xml: format!("<{tag} id=\"{id}\"/>") }
    }

    /// Makes it.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn make(&self, deadline: &Deadline) -> Result<(), Trouble> {
        tool::run("cibadmin", &self.all_words(), deadline).map(drop)
    }

    /// Like [`Self::make`], tried again until the deadline ([`tool::persist`]).
    ///
    /// # Errors
    /// See [`Trouble`]: the last one.
    pub fn persist(&self, deadline: &Deadline) -> Result<(), Trouble> {
        tool::persist("cibadmin", &self.all_words(), deadline).map(drop)
    }

    fn all_words(&self) -> Vec<&str> {
        self.words.iter().copied().chain(["--xml-text", &self.xml]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cibadmin_is_told() {
        let set = Change::meta("web1", "web1-x", &[("time", "failure-timeout", "1s"), ("goal", "g", "kvmha")]);
        assert_eq!(
            set.all_words(),
            [
                "--modify",
                "--allow-create",
                "--scope",
                "resources",
                "--xml-text",
                "<primitive id=\"web1\"><meta_attributes id=\"web1-x\" score=\"INFINITY\"><nvpair id=\"web1-x-time\" name=\"failure-timeout\" \
                 value=\"1s\"/><nvpair id=\"web1-x-goal\" name=\"g\" value=\"kvmha\"/></meta_attributes></primitive>"
            ]
        );
        assert_eq!(Change::without("nvpair", "web1-x-goal").all_words(), ["--delete", "--xml-text", "<nvpair id=\"web1-x-goal\"/>"]);
    }
}
