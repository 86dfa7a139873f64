//! What happens by itself, and what may come between any two calls of the program.

use super::*;

impl World {
    /// Has happen what was to happen by now.
    pub(crate) fn catch_up(&mut self) {
        while let Some(at) = (0..self.events.len()).filter(|at| self.events[*at].0 <= now()).min_by_key(|at| self.events[*at].0) {
            let (_, event) = self.events.remove(at);
            tell(|| format!("  {event:?}"));
            let stirred = self.stirred.replace(now());
            match event {
                Event::Ended(number) => {
                    if let Some(host) = self.place(number) {
                        self.remove(host);
                    }
                }
                Event::Forgotten(number) => {
                    if let Some(host) = self.place(number) {
                        self.remove(host);
                        self.hosts[host].forgotten.push(number);
                    }
                }
                Event::Runs(number) => {
                    if let Some(copy) = self.place(number).and_then(|host| self.hosts[host].copy.as_mut()) {
                        (copy.state, copy.reason) = (RUNNING, 1);
                    }
                }
                Event::Next(step) => match self.transfer {
                    // Nothing has happened.
                    Some(transfer) if self.is_stuck(transfer) => {
                        self.stirred = stirred;
                        self.events.push((now() + CLEARING, event));
                    }
                    Some(Move { step: is, orphan: None, apart: false, .. }) if is == step => self.go_on(),
                    _ => {}
                },
                Event::GivesUp => self.give_up(),
                Event::Lost(step) => self.lose(step),
                Event::Unsaid(time) => self.leave_unsaid(time),
                Event::Created(host) => self.create(host),
                Event::Starts(host) => self.run_on(host),
                Event::Asks(host, since) => self.ask_again(host, since),
                Event::Heals(host) => self.heal(host),
                Event::Falls(host) => self.hosts[host].reach = Reach::Down,
                Event::Halves(comes) => self.come(comes),
                Event::MoveEnds => {
                    if let Some(Move { step, to, orphan: Some(_), .. }) = self.transfer {
                        self.transfer = None;
                        if matches!(step, Step::Filling | Step::HandedOver) {
                            self.remove(to);
                        }
                    }
                }
            }
            self.watch();
        }
    }

    /// The place between two calls: whatever may happen there.
    pub(super) fn between(&mut self) {
        if self.quiet || self.goes_on && !self.is_worth_a_choice() {
            return;
        }
        let all = 0..self.hosts.len();
        let mut possible: Vec<Happens> = (1..=self.steps_left()).map(Happens::Moves).collect();
        let of_hosts: [fn(usize) -> Happens; 7] =
            [Happens::Cut, Happens::Freezes, Happens::Heals, Happens::Starts, Happens::Rivals, Happens::Ends, Happens::Hangs];
        let steps = [Step::Asked, Step::Filling, Step::HandedOver, Step::Runs];
        let parts = steps.iter().flat_map(|step| [Happens::Parts(*step, false), Happens::Parts(*step, true)]);
        possible.extend(parts.filter(|happens| self.is_possible(*happens) && (self.may)(self, *happens)));
        possible.extend(
            of_hosts
                .iter()
                .flat_map(|kind| all.clone().map(kind))
                .filter(|happens| self.is_possible(*happens) && (self.may)(self, *happens)),
        );
        let of_halves = [Happens::Breaks, Happens::Mends, Happens::Unhears];
        possible.extend(of_halves.into_iter().filter(|happens| self.is_possible(*happens) && (self.may)(self, *happens)));
        let Some(happens) = deviate(possible.len()).checked_sub(1).map(|at| possible[at]) else { return };
        tell(|| format!("  {happens:?}"));
        super::super::chosen(self.calling, happens);
        self.disturbed = true;
        self.stirred = Some(now());
        self.happens_to_halves(happens);
        match happens {
            Happens::Breaks | Happens::Mends | Happens::Unhears => {}
            Happens::Moves(steps) => (0..steps).for_each(|_| self.go_on()),
            Happens::Cut(host) => {
                self.hosts[host].reach = Reach::Down;
                self.crash(host);
            }
            Happens::Freezes(host) => self.hosts[host].reach = Reach::Silent,
            Happens::Heals(host) => self.heal(host),
            Happens::Starts(host) => {
                let mut copy = self.new_copy(PAUSED, STARTING_UP);
                copy.since = Some(now());
                self.hosts[host].saved = false;
                self.events.push((now() + START, Event::Runs(copy.number)));
                self.hosts[host].copy = Some(copy);
            }
            Happens::Rivals(host) => {
                self.hosts[host].copy = Some(self.new_copy(PAUSED, BY_USER));
                self.events.push((now() + self.rival.0, Event::Asks(host, now())));
            }
            Happens::Ends(host) => self.remove(host),
            Happens::Hangs(host) => self.hang(host, Some(Duration::ZERO)),
            Happens::Parts(step, cut) => self.part(step, cut),
        }
        self.watch();
    }

    /// A host is there again, and a daemon that was frozen does what it was asked to.
    fn heal(&mut self, host: usize) {
        self.hosts[host].reach = Reach::Up;
        if std::mem::take(&mut self.hosts[host].queued) {
            self.end(host);
        }
        self.plan_creation(host);
        if host == 0 && std::mem::take(&mut self.halves_asked) {
            self.halve();
        }
    }

    /// The move goes on to this step, and then its daemons do not hear each other any more.
    fn part(&mut self, step: Step, cut: bool) {
        while self.transfer.is_some_and(|transfer| transfer.step < step) {
            self.go_on();
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.apart = true;
            if cut {
                self.hosts[transfer.to].reach = Reach::Down;
            }
        }
        self.events.push((now() + KEEPALIVE, Event::GivesUp));
    }

    /// In this step of the move to it the second host is lost for good.
    pub(crate) fn lose(&mut self, step: Step) {
        self.part(step, true);
    }

    /// The second host cannot be asked any more. After this time the move to it comes to this step, and no further.
    pub(crate) fn lose_in(&mut self, step: Step, time: Duration) {
        self.hosts[1].reach = Reach::Down;
        self.events.push((now() + time, Event::Lost(step)));
    }

    /// The daemon of the second host will be lost when the guest runs there and that was not said: the first hears at once that it is lost.
    /// It is there again after this time.
    pub(crate) fn lose_word(&mut self, time: Duration) {
        // While the memory flows, which is seen by then.
        self.events.push((now() + START * 3, Event::Unsaid(time)));
    }

    fn leave_unsaid(&mut self, time: Duration) {
        self.part(Step::Runs, true);
        self.events.retain(|(_, event)| !matches!(event, Event::GivesUp));
        self.events.extend([(now() + START, Event::GivesUp), (now() + time, Event::Heals(1))]);
    }

    /// The guest runs at the second host, and the word of that is lost: after this time the first lets its own copy go on. If it stalls until then it
    /// does nothing else before.
    pub(crate) fn lose_word_for(&mut self, time: Duration) {
        self.part(Step::Runs, false);
        self.events.retain(|(_, event)| !matches!(event, Event::GivesUp));
        self.events.extend([(now() + time, Event::Heals(0)), (now() + time, Event::GivesUp)]);
    }

    /// The daemon of the first host is restarted in the handover: its copy waits for good, and the other one is ended.
    pub(crate) fn leave_waiting(&mut self) {
        self.part(Step::HandedOver, false);
        self.events.clear();
        self.transfer = None;
        self.hosts[1].copy = None;
        self.moved = Some(Err(BROKEN));
    }

    /// A daemon is frozen, and goes on after this time.
    pub(crate) fn freeze_for(&mut self, host: usize, time: Duration) {
        self.hosts[host].reach = Reach::Silent;
        self.events.push((now() + time, Event::Heals(host)));
    }

    /// A host cannot be reached for this time.
    pub(crate) fn lose_for(&mut self, host: usize, time: Duration) {
        self.hosts[host].reach = Reach::Down;
        self.events.push((now() + time, Event::Heals(host)));
    }

    /// From then on a host cannot be reached.
    pub(crate) fn lose_after(&mut self, host: usize, time: Duration) {
        self.events.push((now() + time, Event::Falls(host)));
    }

    /// A program that asks again and again while nothing changes: something may happen at the first few of these questions and the first of each
    /// kind, and then at fewer and fewer.
    pub(super) fn is_worth_a_choice(&mut self) -> bool {
        let looks = (
            self.transfer.map(|transfer| transfer.step),
            self.halves,
            self.hosts.iter().map(|host| host.reach).collect(),
            self.emulators().len(),
        );
        let (count, mut calls) = match self.same.take() {
            Some((before, count, calls)) if before == looks => (count + 1, calls),
            _ => (0, Vec::new()),
        };
        let new = !calls.contains(&self.calling);
        if new {
            calls.push(self.calling);
        }
        self.same = Some((looks, count, calls));
        new || count < 2 || count.is_power_of_two()
    }

    pub(super) fn is_possible(&self, happens: Happens) -> bool {
        match happens {
            Happens::Moves(_) => false,
            Happens::Breaks | Happens::Mends | Happens::Unhears => self.may_halves(happens),
            Happens::Parts(step, _) => self.transfer.is_some_and(|transfer| !transfer.apart && transfer.step <= step),
            Happens::Cut(host) | Happens::Freezes(host) => self.hosts[host].reach == Reach::Up,
            Happens::Heals(host) => self.hosts[host].reach != Reach::Up,
            Happens::Rivals(_) if self.peers.is_empty() => false,
            Happens::Starts(host) | Happens::Rivals(host) => self.hosts[host].copy.is_none() && self.hosts[host].forgotten.is_empty(),
            Happens::Ends(host) | Happens::Hangs(host) => self.hosts[host].copy.as_ref().is_some_and(|copy| !copy.hangs),
        }
    }

    /// A place in which something may happen while the program waits.
    pub(crate) fn pass_by(&mut self) {
        self.catch_up();
        self.calling = "wait";
        self.between();
    }

    /// When the next thing happens by itself.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.events.iter().map(|(time, _)| *time).min()
    }

    /// Whether libvirt has an answer for who asked for the move.
    pub(crate) fn has_moved(&self) -> bool {
        let lost = match self.halves {
            Some(_) => self.moved.is_some(),
            None => self.transfer.is_none_or(|transfer| transfer.orphan.is_some()),
        };
        // libvirt waits for an emulator that is to let the guest go on, for as long as that is stopped.
        let waits = self.hosts[0].copy.as_ref().is_some_and(|copy| copy.waits);
        lost && !waits && self.hosts[0].reach != Reach::Silent
    }

    /// The daemons give up a move on whose other side nobody is heard: the target ends a copy that was not let run, the source lets its own
    /// go on.
    pub(super) fn give_up(&mut self) {
        let Some(Move { from, to, step, .. }) = self.transfer else { return };
        if self.hosts[from].reach == Reach::Silent {
            self.events.push((now() + CLEARING, Event::GivesUp));
            return;
        }
        self.transfer = None;
        // While the target prepares its copy, or is to let it run, the source waits for the answer to a request, which ends with the connection.
        self.moved = Some(Err(if step == Step::Filling { UNHEARD } else { UNANSWERED }));
        if step != Step::Runs {
            self.hosts[to].copy = None;
        }
        if let Some(copy) = &mut self.hosts[from].copy {
            copy.waits = copy.held;
            if !copy.held {
                (copy.state, copy.reason) = (RUNNING, 6);
            }
        }
    }
}
