//! Guests that write nothing to their disks, with the cluster at rest.

use crate::play::{LIMIT, Play};
use anyhow::Result;
use lab::Membership;
use lab::heartbeat::Ring;
use lab::history::SILENT;
use lab::process::wait_until;
use std::fs;
use std::time::Duration;

/// A guest, and what was the newest on its disk: the boot and the number of the record.
type Newest = (String, Option<(u64, u64)>);

impl Play<'_> {
    /// Waits until every guest that Pacemaker runs has written something, notes those that do not, and that the cluster rests.
    ///
    /// One that storage has paused, or that was killed, is noticed by its next monitor only.
    pub fn listen(&self) -> Result<()> {
        let seen = self.membership()?;
        let mut quiet: Vec<Newest> = self.names().into_iter().map(|name| (name, None)).collect();
        let all_write = |quiet: &mut Vec<Newest>| {
            wait_until(Duration::from_secs_f64(SILENT), Duration::from_millis(300), || {
                self.take_writers(quiet);
                !quiet.iter().any(|(name, _)| place_of(&seen, name).is_some())
            })
        };
        // Where a clock was ahead Pacemaker takes the end of a guest for older than what was done with it before.
        if !all_write(&mut quiet) && self.forget_the_future(|name, _| quiet.iter().any(|(quiet, _)| quiet == name))? {
            self.settle()?;
            all_write(&mut quiet);
        }
        self.settle()?;
        self.take_writers(&mut quiet);
        let now = self.membership()?;
        for (name, _) in &quiet {
            if let (Some(_), Some(node)) = (place_of(&seen, name), place_of(&now, name)) {
                self.recorder.silent(name.clone(), self.stands(name, node));
            }
        }
        self.recorder.rests(quiet.into_iter().map(|(name, _)| name).collect());
        Ok(())
    }

    fn membership(&self) -> Result<Membership> {
        self.stage.wait(|seen| seen.dc.is_some())
    }

    /// Takes those away that have written since they were looked at first.
    fn take_writers(&self, quiet: &mut Vec<Newest>) {
        quiet.retain_mut(|(name, first)| {
            let newest = Ring::read(&self.lab().guest_image(name)).ok().map(|ring| (ring.newest.boot, ring.newest.sequence));
            newest.is_none_or(|newest| newest == *first.get_or_insert(newest))
        });
    }

    /// How a silent guest stands on its node.
    fn stands(&self, name: &str, node: &str) -> String {
        let is_stopped = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, tail)| tail.starts_with('T'))
        };
        if self.emulators(name).iter().any(|emulator| is_stopped(emulator.pid)) {
            return "its emulator is stopped".to_owned();
        }
        match self.lab().check(node, &["virsh", "domstate", "--reason", name], LIMIT) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => format!("{error:#}").lines().next().unwrap_or_default().to_owned(),
        }
    }
}

/// A node on which Pacemaker runs a guest.
pub fn place_of<'a>(seen: &'a Membership, guest: &str) -> Option<&'a str> {
    let found = seen.resources.iter().find(|one| one.id == guest && one.role == "Started")?;
    found.nodes.first().map(String::as_str)
}
