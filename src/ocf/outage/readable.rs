//! Whether the disks of a guest that is to be started can be read here, with `outage_policy=relocate`.
//!
//! A start that fails is what makes Pacemaker go on to another node, and not come back (`start-failure-is-fatal`): so only what surely cannot
//! be read is refused at once. Storage that does not answer may be in the middle of its own failover, and is waited for.

use crate::deadline::Deadline;
use crate::domain::{Connection, Definition};
use crate::log;
use crate::ocf::Call;
use crate::ocf::exit::Failure;
use crate::ocf::parameters::OutagePolicy;
use crate::storage::finding::{self, LOOK};
use crate::storage::{Finding, Sight, Source, item};
use std::time::Duration;

/// How long one look at all disks may take.
const LOOKING: Duration = Duration::from_secs(5);

/// Between two looks at storage that does not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// What a look at the disks says about the start.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Readable {
    /// Nothing is in its way, as far as can be told.
    Yes,
    /// A disk does not answer: a sentence.
    NotNow(String),
    /// A disk cannot be read: a sentence.
    No(String),
}

impl Call {
    /// Refuses the start of a guest whose disks this node does not read, before libvirt is asked for it: so Pacemaker goes on to another.
    /// Storage that does not answer has half of the time that is left.
    pub(in crate::ocf) fn insist_on_storage(&self, definition: &Definition) -> Result<(), Failure> {
        let patience = self.deadline.before_part(2);
        // Less than one look: nothing could be told.
        if self.parameters.outage_policy != OutagePolicy::Relocate || patience.left() < LOOK {
            return Ok(());
        }
        let refused = |text: String| Err(Failure::generic(format!("start of {} refused: {text}", definition.identity.name)));
        let mut said = false;
        loop {
            match readable(&self.look_before_start(definition, &patience.within(LOOKING))) {
                Readable::Yes => return Ok(()),
                Readable::No(text) => return refused(text),
                Readable::NotNow(text) if !patience.pause(AGAIN) || patience.left() < LOOK => return refused(text),
                Readable::NotNow(text) => {
                    if !std::mem::replace(&mut said, true) {
                        log::info(format_args!("{text}, the start waits for it"));
                    }
                }
            }
        }
    }

    fn look_before_start(&self, definition: &Definition, deadline: &Deadline) -> Vec<Finding> {
        // Pools are libvirt's to know; who cannot ask it gets its own error from the start. One that hangs leaves the time for a look.
        let soon = deadline.before(LOOK);
        let asks = item::items(&definition.xml).iter().any(|item| matches!(item.source, Source::Volume { .. }));
        let here = asks.then(|| Connection::open(&self.parameters.hypervisor.to_string(), &soon));
        let volume = |pool: &str, volume: &str| match &here {
            Some(Ok(here)) => here.volume(pool, volume, &soon),
            Some(Err(error)) => Err(error.text.clone()),
            None => Err("it is in no pool".to_owned()),
        };
        finding::look(&definition.xml, &volume, deadline)
    }
}

/// Only what this host's kernel knows by a path is judged: how QEMU reaches a disk on the network is not tried in the way that it would. What could
/// not be looked at says nothing about it.
fn readable(findings: &[Finding]) -> Readable {
    let judged = |finding: &&Finding| finding.item.matters() && !finding.item.optional && finding.path.is_some();
    let mut silent = None;
    for finding in findings.iter().filter(judged) {
        match &finding.sight {
            Some(Sight::Missing(text)) => {
                return Readable::No(format!("{} cannot be read: {text}", finding.item));
            }
            Some(Sight::Silent) => silent = Some(format!("{} does not answer", finding.item)),
            _ => {}
        }
    }
    silent.map_or(Readable::Yes, Readable::NotNow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(disk: &str, sight: Option<Sight>) -> Finding {
        let item = item::items(&format!("<domain><devices><disk {disk}<target dev='vda'/></disk></devices></domain>")).remove(0);
        Finding { item, path: sight.is_some().then(|| "/srv/a".into()), sight, same: None }
    }

    const FILE: &str = "type='file'><source file='/srv/a'/>";

    fn missing(text: &str) -> Option<Sight> {
        Some(Sight::Missing(text.into()))
    }

    #[test]
    fn what_is_gone_is_refused_and_what_is_silent_is_waited_for() {
        let (gone, silent) = (finding(FILE, missing("i/o error")), finding(FILE, Some(Sight::Silent)));
        let no = Readable::No("vda (/srv/a) cannot be read: i/o error".into());
        assert_eq!(readable(&[silent.clone(), gone.clone()]), no);
        assert_eq!(readable(&[gone]), no);
        assert_eq!(readable(&[silent]), Readable::NotNow("vda (/srv/a) does not answer".into()));
        assert_eq!(readable(&[]), Readable::Yes);
    }

    #[test]
    fn what_libvirt_may_take_all_the_same_is_not_refused() {
        for started in [
            finding("type='network'><source protocol='rbd' name='p/i'><host name='ceph'/></source>", None),
            finding("type='volume'><source pool='vms' volume='a'/>", None),
            finding("type='file'><source file='/srv/a' startupPolicy='optional'/>", missing("no such file or directory")),
            finding("type='file'><source file='/srv/a' startupPolicy='requisite'/>", Some(Sight::Silent)),
            finding("type='file' device='cdrom'><source file='/srv/a'/>", missing("no such file or directory")),
            finding(FILE, Some(Sight::Untold("permission denied".into()))),
        ] {
            assert_eq!(readable(std::slice::from_ref(&started)), Readable::Yes, "{}", started.item);
        }
        let mandatory = finding("type='file'><source file='/srv/a' startupPolicy='mandatory'/>", missing("no such file or directory"));
        assert!(matches!(readable(&[mandatory]), Readable::No(_)));
    }
}
