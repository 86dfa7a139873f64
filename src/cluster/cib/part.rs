//! A part of the CIB: with many nodes and resources the whole has many megabytes.

use super::Cib;
use crate::cluster::tool::{self, Trouble};
use crate::deadline::Deadline;

/// A part, for who needs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The resources, as they are configured.
    Resources,
    /// What is remembered of the nodes.
    Status,
}

impl Cib {
    /// Asks for a part: of the others it then says that nothing is there.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn query_part(part: Part, deadline: &Deadline) -> Result<Self, Trouble> {
        let scope = match part {
            Part::Resources => "resources",
            Part::Status => "status",
        };
        Self::parse(tool::run("cibadmin", &["--query", "--scope", scope], deadline)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TEXT;
    use super::*;

    #[test]
    fn a_part_is_read_as_the_whole_is() {
        let part = |name: &str| {
            let (from, to) = (TEXT.find(&format!("<{name}>")).unwrap(), TEXT.find(&format!("</{name}>")).unwrap());
            Cib::parse(format!("{}</{name}>", &TEXT[from..to])).unwrap()
        };
        let (whole, resources, status) = (Cib::parse(TEXT.to_owned()).unwrap(), part("resources"), part("status"));
        assert_eq!((resources.resources(), resources.histories("web1")), (whole.resources(), Vec::new()));
        assert_eq!((status.resources(), status.histories("web1")), (Vec::new(), whole.histories("web1")));
        assert!(status.has_history("node1") && !status.has_history("node3"));
    }
}
