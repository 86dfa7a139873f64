//! Who has begun to change a resource: it stands with the maintenance in the CIB, so that runs on two nodes do not join in one another.

use crate::cluster::cib::Cib;
use crate::deadline::unix_time;
use std::fmt;
use std::time::Duration;

/// The end of the names of what is put into the CIB.
pub(super) const MARK: &str = "kvmha-adopt";

/// As long as this after its start a run on another node may live: more than the way there, the way back, and the steps between them take.
const LIFE: Duration = Duration::from_secs(600);

/// A run: where and when it began with a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    node: String,
    /// Seconds since 1970, by that node's clock.
    begin: u64,
}

impl Mark {
    pub(super) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), begin: unix_time() }
    }

    /// A mark of the same run, at another resource.
    pub(super) fn again(&self) -> Self {
        Self::new(&self.node)
    }

    fn parse(text: &str) -> Option<Self> {
        let (node, begin) = text.rsplit_once(' ')?;
        Some(Self { node: node.to_owned(), begin: begin.parse().ok()? })
    }

    /// Why `run` has to leave the resource alone that has this mark: its run may live. One on the same node does not, `run` has the lock.
    fn concerns(&self, run: &Self) -> Option<String> {
        let age = run.begin.abs_diff(self.begin);
        (self.node != run.node && age < LIFE.as_secs()).then(|| {
            let rest = LIFE.as_secs() - age;
            format!("kvmha adopt on {} has begun with it {age} s ago; if it was killed, run this there, or here in {rest} s", self.node)
        })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.node, self.begin)
    }
}

/// The set of meta attributes of a resource on its way.
pub(in super::super) fn set_id(resource: &str) -> String {
    format!("{resource}-{MARK}")
}

/// Why `run` has to leave the resource alone whose set of meta attributes this is, if it has to.
pub(super) fn rival(cib: &Cib, set: &str, run: &Mark) -> Option<String> {
    Mark::parse(&cib.value(&format!("{set}-run"))?)?.concerns(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_mark_of_another_node_is_left_alone() {
        let run = Mark { node: "node1".into(), begin: 10_000 };
        let concerns = |text: &str| Mark::parse(text).and_then(|mark| mark.concerns(&run));
        assert!(
            concerns("node2 9900").is_some_and(|text| text.contains("on node2") && text.contains("100 s ago") && text.contains("500 s"))
        );
        // A clock that is ahead.
        assert!(concerns("node2 10100").is_some());
        for text in ["node2 9400", "node1 9999", "node2", "node2 soon", ""] {
            assert_eq!(concerns(text), None, "{text}");
        }
        assert_eq!(Mark::parse(&run.to_string()), Some(run));
    }

    #[test]
    fn the_mark_is_found_in_the_cib() {
        let cib = |node: &str| Cib::parse(format!("<cib><nvpair id=\"web1-x-run\" name=\"r\" value=\"{node} 10000\"/></cib>")).unwrap();
        let run = Mark { node: "node1".into(), begin: 10_001 };
        assert!(rival(&cib("node2"), "web1-x", &run).is_some());
        assert_eq!(rival(&cib("node2"), "web2-x", &run), None);
        assert_eq!(rival(&cib("node1"), "web1-x", &run), None);
    }
}
