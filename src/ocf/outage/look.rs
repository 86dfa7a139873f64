//! A look at all of the storage of a guest that stands still.

use super::LOOKING;
use crate::deadline::Deadline;
use crate::domain::{Connection, Definition, Error, Kind};
use crate::ocf::Call;
use crate::storage::look::Sight;
use crate::storage::{Item, Role, Source, finding, servers};

/// What a look at all of the storage has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All of it answers.
    Answers,
    /// A disk cannot be read.
    Out,
    /// Whether all can be read cannot be told.
    Unclear,
}

/// A look, with a sentence about a part that does not answer, and the disk that cannot be read.
pub(super) struct Looked {
    pub look: Look,
    pub trouble: Option<String>,
    pub out: Option<Item>,
}

impl Call {
    /// Looks at all that the guest needs to run.
    pub(super) fn look_at_storage(&self, name: &str) -> Looked {
        let deadline = self.deadline.share(LOOKING, 3);
        let here = Connection::open(&self.parameters.hypervisor.to_string(), &deadline);
        let definition = here
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|here| Definition::running(here, name, &deadline)?.ok_or_else(|| Error::new(Kind::State, format!("{name} is gone"))));
        let (Ok(here), Ok(definition)) = (here, definition) else {
            return Looked { look: Look::Unclear, trouble: Some("libvirt does not say what its disks are".into()), out: None };
        };
        Self::look_at(&here, &definition.xml, &deadline)
    }

    /// Looks at all that a guest with this definition needs to run.
    fn look_at(here: &Connection, xml: &str, deadline: &Deadline) -> Looked {
        let mut unclear = None;
        for finding in finding::look(xml, &|pool, volume| here.volume(pool, volume, deadline), deadline) {
            let item = &finding.item;
            let out = match (&finding.sight, &item.source) {
                // Not the emulator's own to read and write.
                _ if matches!(item.role, Role::Folder | Role::Tpm) => continue,
                (Some(Sight::Facts(_)), _) => continue,
                (Some(Sight::Untold(_)), _) => None,
                // The time was over before its turn came.
                (Some(Sight::Silent), _) if deadline.expired() => None,
                (Some(Sight::Silent), _) => Some(format!("{item} does not answer")),
                (Some(Sight::Missing(text)), _) => Some(format!("{item} cannot be read: {text}")),
                (None, Source::Network { protocol, hosts, .. }) => match servers::answers(protocol, hosts, deadline) {
                    Some(Ok(())) => continue,
                    Some(Err(text)) if !deadline.expired() => Some(format!("{item}: {text}")),
                    _ => None,
                },
                (None, _) => None,
            };
            match out {
                // What it can do without is no reason to give it up.
                Some(text) if item.matters() => return Looked { look: Look::Out, trouble: Some(text), out: Some(item.clone()) },
                Some(text) => unclear = Some(text),
                None => unclear = Some(format!("whether {item} answers cannot be told")),
            }
        }
        Looked { look: if unclear.is_some() { Look::Unclear } else { Look::Answers }, trouble: unclear, out: None }
    }
}
