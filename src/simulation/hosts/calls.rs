//! What libvirt answers: the calls that the program makes.

use super::*;
use virt::sys;

impl World {
    /// A call reaches the daemon of a host, or does not.
    pub(super) fn call(&mut self, host: usize, what: &'static str) -> Answer<()> {
        self.meddled |= matches!(what, "abort" | "shutdown" | "destroy");
        pass(CALL);
        self.catch_up();
        self.calling = what;
        self.between();
        tell(|| format!("{what} at {}", self.hosts[host].uri));
        match self.hosts[host].reach {
            Reach::Up if self.unanswered == Some(what) => {
                pass(FOR_EVER);
                Err(BROKEN)
            }
            Reach::Up => self.hears(host),
            Reach::Down => Err(OUT_OF_REACH),
            Reach::Silent => {
                self.hosts[host].queued |= what == "destroy";
                self.halves_asked |= what == "start post-copy";
                pass(FOR_EVER);
                Err(BROKEN)
            }
        }
    }

    /// A question that is asked right after another one: nothing happens in between.
    fn also(&mut self, host: usize) -> Answer<&mut Host> {
        Ok(&mut self.hosts[host])
    }

    pub(crate) fn open(&mut self, uri: &str) -> Answer<usize> {
        let host = self.host_at(uri).ok_or(OUT_OF_REACH)?;
        pass(CALL);
        self.catch_up();
        if self.reopens && self.hosts[host].reach != Reach::Up {
            self.calling = "open";
            self.between();
        }
        match self.hosts[host].reach {
            Reach::Up => {
                self.begins_to_hear(host);
                Ok(host)
            }
            Reach::Down => Err(OUT_OF_REACH),
            Reach::Silent => {
                pass(FOR_EVER);
                Err(BROKEN)
            }
        }
    }

    pub(crate) fn look_up(&mut self, host: usize, is_it: bool) -> Answer<usize> {
        self.hosts[host].asked = Some(now());
        self.call(host, "look up")?;
        match &mut self.hosts[host] {
            Host { copy: None, defined: false, told, .. } => {
                *told = true;
                Err(NO_DOMAIN)
            }
            _ if !is_it => Err(NO_DOMAIN),
            _ => Ok(host),
        }
    }

    pub(crate) fn version(&mut self, host: usize) -> Answer<c_ulong> {
        self.call(host, "version").map(|()| 9_000_000)
    }

    pub(crate) fn state(&mut self, host: usize) -> Answer<(c_int, c_int)> {
        self.call(host, "state")?;
        self.hosts[host].told = true;
        match &self.hosts[host] {
            Host { copy: Some(copy), .. } => Ok((copy.state, copy.reason)),
            Host { defined: true, .. } => Ok((SHUT_OFF, 2)),
            _ => Err(NO_DOMAIN),
        }
    }

    pub(crate) fn is_active(&mut self, host: usize) -> Answer<bool> {
        match self.also(host)? {
            Host { copy: None, defined: false, .. } => Err(NO_DOMAIN),
            host => Ok(host.copy.is_some()),
        }
    }

    pub(crate) fn is_persistent(&mut self, host: usize) -> Answer<bool> {
        match self.also(host)? {
            Host { copy: None, defined: false, .. } => Err(NO_DOMAIN),
            host => Ok(host.defined),
        }
    }

    /// Whether the guest was saved there.
    pub(crate) fn has_memory(&mut self, host: usize) -> Answer<bool> {
        self.wait_in_turn(host)?;
        match self.also(host)? {
            Host { copy: None, defined: false, .. } => Err(NO_DOMAIN),
            host => Ok(host.saved),
        }
    }

    pub(crate) fn drop_memory(&mut self, host: usize) -> Answer<()> {
        self.call(host, "remove the saved memory")?;
        self.wait_in_turn(host)?;
        if std::mem::take(&mut self.hosts[host].saved) { Ok(()) } else { Err(NO_FILE) }
    }

    pub(crate) fn definition(&mut self, host: usize) -> Answer<&'static CStr> {
        match self.also(host)? {
            Host { copy: None, defined: false, .. } => Err(NO_DOMAIN),
            _ => Ok(XML),
        }
    }

    /// Which operation runs as a job: that of the move at its source, where there may be another one; its target does not tell.
    pub(crate) fn job(&mut self, host: usize) -> Answer<Option<c_int>> {
        self.call(host, "job")?;
        if self.hosts[host].copy.is_none() {
            return Err(if self.hosts[host].defined { NOT_RUNNING } else { NO_DOMAIN });
        }
        if let Some(halves) = self.halves {
            return halves.job(host);
        }
        match self.transfer {
            Some(Move { from, .. }) if from == host => Ok(Some(crate::domain::ffi::OPERATION_MIGRATION_OUT)),
            // When it runs the target has done all that it was asked to.
            Some(Move { to, step, .. }) if to == host && step < Step::Runs => Err(NOT_SOURCE),
            _ => Ok(self.busy.filter(|_| host == 0)),
        }
    }

    /// Whether memory of it has gone to the target.
    pub(crate) fn flows(&self) -> bool {
        self.halves.is_some() || self.transfer.is_some_and(|transfer| transfer.step >= Step::Filling)
    }

    /// Calls the move off. When everything has been handed over it is too late.
    pub(crate) fn abort(&mut self, host: usize) -> Answer<()> {
        self.call(host, "abort")?;
        if self.halves.is_some() {
            return Err(invalid("Requested operation is not valid: cannot abort migration in post-copy mode"));
        }
        match self.transfer {
            // The request for a copy at the target is under way still.
            Some(transfer @ Move { from, step: Step::Asked, orphan: None, .. }) if from == host => {
                self.transfer = Some(Move { orphan: Some(now()), ..transfer });
                self.events.push((now() + self.in_flight, Event::MoveEnds));
                self.moved = Some(Err(CALLED_OFF));
                Ok(())
            }
            Some(Move { from, to, step: Step::Filling, .. }) if from == host => {
                self.transfer = None;
                self.moved = Some(Err(CALLED_OFF));
                if let Some(copy) = &self.hosts[to].copy {
                    self.events.push((now() + START, Event::Ended(copy.number)));
                }
                Ok(())
            }
            _ => Err(NO_JOB),
        }
    }

    pub(crate) fn shut_down(&mut self, host: usize) -> Answer<()> {
        self.call(host, "shutdown")?;
        if self.hosts[host].copy.is_none() {
            return Err(NOT_RUNNING);
        }
        if let Some(time) = self.temper.asked {
            self.begin_ending(host, time);
        }
        Ok(())
    }

    /// The answer to the request to move it, which comes when the move is over.
    pub(crate) fn move_away(&mut self, host: usize, flags: u32) -> Answer<()> {
        self.meddled = true;
        if flags & sys::VIR_MIGRATE_POSTCOPY_RESUME != 0 {
            return self.resume(host);
        }
        match self.connects {
            Some(0) => {
                self.connects = None;
                self.transfer = Some(Move { from: host, to: 1 - host, step: Step::Asked, orphan: None, apart: false });
                self.plan();
                while let Some(next) = self.next_event().filter(|_| !self.has_moved()) {
                    pass(next.saturating_duration_since(now()));
                    self.catch_up();
                }
            }
            Some(refused) => {
                self.connects = Some(refused - 1);
                return Err(if self.odd.unloaded { UNLOADED } else { UNCONNECTED });
            }
            None => {}
        }
        tell(|| format!("the move from {}: {:?}", self.hosts[host].uri, self.moved));
        self.moved.take().unwrap_or(Err(NOT_RUNNING))
    }

    pub(crate) fn destroy(&mut self, host: usize) -> Answer<()> {
        self.call(host, "destroy")?;
        if self.is_refused() {
            return Err(REFUSED);
        }
        self.watch_end(host);
        match &self.hosts[host].copy {
            None => return Err(if self.hosts[host].defined { NOT_RUNNING } else { NO_DOMAIN }),
            Some(Copy { ending: Some(end), .. }) => {
                pass(end.saturating_duration_since(now()));
                return Err(NOT_RUNNING);
            }
            Some(Copy { hangs: false, .. }) if self.unruly => match deviate(4) {
                1 => {
                    tell(|| "  slowly".into());
                    self.begin_ending(host, SLOW);
                    pass(SLOW);
                    return Ok(());
                }
                2 => {
                    tell(|| "  refused".into());
                    return Err(REFUSED);
                }
                3 => {
                    tell(|| "  the connection breaks, and it is done later".into());
                    self.begin_ending(host, CLEARING);
                    return Err(BROKEN);
                }
                4 => {
                    tell(|| "  the connection breaks".into());
                    return Err(BROKEN);
                }
                _ => {}
            },
            Some(_) => {}
        }
        let time = self.end(host);
        pass(time);
        Ok(())
    }

    /// A question that the daemon takes up in its turn.
    pub(crate) fn capabilities(&mut self, host: usize) -> Answer<()> {
        self.call(host, "capabilities")?;
        self.wait_in_turn(host)
    }

    /// Creates it, and does not let it run.
    pub(crate) fn create_paused(&mut self, host: usize) -> Answer<usize> {
        self.call(host, "create")?;
        self.wait_in_turn(host)?;
        // It carries out what it was asked for before first.
        if std::mem::take(&mut self.hosts[host].creates) && self.hosts[host].copy.is_none() {
            tell(|| "  as an earlier request wants it".into());
            let copy = self.new_copy(PAUSED, BY_USER);
            self.hosts[host].copy = Some(copy);
        }
        if self.hosts[host].copy.is_some() {
            return Err(ACTIVE);
        }
        let copy = self.new_copy(PAUSED, BY_USER);
        self.hosts[host].copy = Some(copy);
        Ok(host)
    }

    /// Lets it run.
    pub(crate) fn let_run(&mut self, host: usize) -> Answer<()> {
        self.call(host, "resume")?;
        self.wait_in_turn(host)?;
        let Some(copy) = &mut self.hosts[host].copy else { return Err(NOT_RUNNING) };
        (copy.state, copy.reason) = (RUNNING, 1);
        self.watch();
        Ok(())
    }

    /// Starts it from the definition that is there.
    pub(crate) fn start(&mut self, host: usize) -> Answer<()> {
        self.call(host, "start")?;
        if self.is_refused() {
            return Err(REFUSED);
        }
        match &self.hosts[host] {
            Host { copy: Some(_), .. } => return Err(RUNS),
            Host { defined: false, .. } => return Err(NO_DOMAIN),
            _ => self.run_on(host),
        }
        self.watch();
        Ok(())
    }

    fn is_refused(&mut self) -> bool {
        let refused = self.refuses > 0;
        if refused {
            tell(|| "  refused".into());
            self.refuses -= 1;
        }
        refused
    }
}
