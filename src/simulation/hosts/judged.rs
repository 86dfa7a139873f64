//! What a judge knows of the world, and the program does not.

use super::*;

impl World {
    /// What is wrong with the answer "off": an emulator lives, or one may come of what is under way. Somebody who starts the guest after
    /// the last question to all hosts has begun cannot be known of.
    pub(crate) fn not_off(&self) -> Option<String> {
        let last_round = self.hosts.iter().filter_map(|host| host.asked).min();
        for host in &self.hosts {
            if !host.forgotten.is_empty() {
                return Some(format!("an emulator that libvirt has forgotten lives on {}", host.uri));
            }
            if host.saved {
                return Some(format!("its memory is kept on {}", host.uri));
            }
            if let Some(copy) = &host.copy
                && copy.since.is_none_or(|since| last_round.is_none_or(|round| since < round))
            {
                return Some(format!("it lives on {}: {copy:?}", host.uri));
            }
        }
        self.transfer.is_some_and(|transfer| self.may_yet_come(transfer)).then(|| "a copy of it is still to come".into())
    }

    pub(super) fn may_yet_come(&self, transfer: Move) -> bool {
        transfer.orphan.is_none_or(|since| now() < since + self.in_flight)
    }

    /// The guest's CPUs run on this host.
    pub(crate) fn runs(&self, host: usize) -> bool {
        self.hosts[host].copy.as_ref().is_some_and(|copy| copy.state == RUNNING && !copy.held && !copy.gone)
    }

    /// Whether they run, or ran when the program looked last: that was a moment ago.
    pub(crate) fn ran(&self, host: usize) -> bool {
        self.runs(host) || self.hosts[host].ran_until.is_some_and(|end| now() <= end + CALL * 20)
    }

    /// Whether they stand still there, and not because of the move.
    pub(crate) fn is_paused(&self, host: usize) -> bool {
        self.hosts[host].copy.as_ref().is_some_and(|copy| copy.state == PAUSED && !matches!(copy.reason, BY_MIGRATION | STARTING_UP))
    }

    /// For how long nothing has happened.
    pub(crate) fn calm(&self) -> Duration {
        self.stirred.map_or_else(lasted, |stirred| now() - stirred)
    }

    /// Whether its emulator is stopped here, by the program.
    pub(crate) fn is_held(&self, host: usize) -> bool {
        self.hosts[host].copy.as_ref().is_some_and(|copy| copy.held)
    }

    /// Whether a half of the guest is there, all that there is of what is in it.
    pub(super) fn is_half(&self, host: usize) -> bool {
        self.hosts[host].copy.is_some() && !self.hosts.iter().enumerate().any(|(host, _)| self.is_whole(host))
    }

    /// Never twice.
    pub(super) fn watch(&mut self) {
        if (0..self.hosts.len()).filter(|host| self.runs(*host)).count() > 1 {
            self.wrong.get_or_insert("it runs on both hosts".into());
        }
        let stale = |host: &Host| host.copy.as_ref().is_some_and(|copy| Some(copy.number) == self.stale);
        if (0..self.hosts.len()).any(|host| self.runs(host) && stale(&self.hosts[host])) {
            self.wrong.get_or_insert("it goes on with a memory that is older than its disks".into());
        }
    }

    /// The program ends the copy of a host: one that is not needed any more.
    pub(super) fn watch_end(&mut self, host: usize) {
        self.forced = true;
        if self.halves.is_some() && self.is_half(host) {
            self.wrong.get_or_insert("half of it was ended".into());
        }
        if self.goes_on
            && !self.ends
            && self.hosts[host].copy.is_some()
            && !(0..self.hosts.len()).any(|other| other != host && self.runs(other))
        {
            self.wrong.get_or_insert("the last copy was ended".into());
        }
    }
}
