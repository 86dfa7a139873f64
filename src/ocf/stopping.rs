//! stop: whatever may be this resource's guest here is ended, and proven gone.

use super::Call;
use super::exit::Failure;
use crate::domain::definition::Identity;
use crate::domain::emulator::Emulator;
use crate::domain::ending::{self, Manner};
use crate::domain::record::{Record, Slot};
use crate::domain::status::{self, Presence, Trace};
use crate::domain::{Error, Kind, evidence, migration};
use crate::log;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The most that one look takes at a guest that another resource may have.
const ANSWER: Duration = Duration::from_secs(3);

/// How long a probe, or a start or stop whose definition does not answer, waits before it looks again.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// Ends the guest and proves it gone: whatever here may be this resource's, by its state file, its definition, its name, or the `config` that
/// it has by now or was given. A step that fails is the end of the stop, and the state file stays for the next one.
pub(super) fn stop(call: &Call) -> Result<(), Failure> {
    let stopping = Stopping::new(call)?;
    stopping.end_recorded()?;
    let others = call.shelf().others();
    stopping.end_defined()?;
    stopping.end_configured(&others)?;
    stopping.end_given()?;
    call.end_outage();
    call.take_marks(&call.deadline);
    stopping.end_moved();
    // Who was here before stays so for the next start that is refused: no probe comes before that.
    let strangers: Option<Vec<Emulator>> = call.shelf().get(Slot::Strangers);
    call.shelf().remove();
    if let Some(strangers) = strangers {
        call.shelf().put(Slot::Strangers, &strangers);
    }
    Ok(())
}

/// A stop: what it goes by.
struct Stopping<'a> {
    call: &'a Call,
    /// What the state file says of the guest.
    record: Option<Record>,
    /// The parameters of Pacemaker's configuration, if those that are given are old.
    newer: Option<BTreeMap<String, String>>,
    /// How a guest is ended.
    manner: Manner,
}

impl<'a> Stopping<'a> {
    /// # Errors
    /// Nothing says which guest it is.
    fn new(call: &'a Call) -> Result<Self, Failure> {
        let record = call.record().map(|record| call.with_rings(record));
        if record.is_none() {
            call.tolerate_parameters()?;
        }
        // Of a guest that has come by a move while libvirt was silent there is no state file, or an old one of another; and then the parameters
        // are those of the last probe here, see `take_from_record`.
        let is_old =
            |record: &Record| record.trace().emulator.is_none_or(|emulator| emulator.is_dying()) && call.has_strangers().unwrap_or(true);
        let newer = if record.as_ref().is_none_or(is_old) { call.newer_parameters() } else { None };
        let manner = if call.parameters.force_stop { Manner::Force } else { Manner::Ask(call.parameters.shutdown_mode.clone()) };
        Ok(Self { call, record, newer, manner })
    }

    /// Ends the guest of the state file.
    fn end_recorded(&self) -> Result<(), Failure> {
        let Self { call, .. } = self;
        let Some(record) = &self.record else { return Ok(()) };
        if call.is_restored_only(record) {
            ending::stop(&record.trace(), &call.parameters.hypervisor, &Manner::Force, &call.deadline)
                .map_err(|error| call.failure(error.context(format_args!("stop of {}", record.name))))?;
            call.take_back(&record.name);
        } else {
            self.end(record.trace(), &call.parameters.config)?;
        }
        Ok(())
    }

    /// Ends what a move whose end nobody saw may have brought to its target. After all that is here: it may take all the time that is left.
    fn end_moved(&self) {
        if let Some((record, uri)) = self.record.as_ref().and_then(|record| Some((record, record.moving.as_ref()?))) {
            migration::end_arrival(&record.identity(), uri, &self.manner, &self.call.deadline);
        }
    }

    /// Ends the guest of the definition; without one, and without a state file, those that are named like it.
    fn end_defined(&self) -> Result<(), Failure> {
        let Self { call, .. } = self;
        let mut others = None;
        loop {
            match call.definition() {
                Ok(definition) => return self.end_named(definition.identity, &call.parameters.config),
                Err(error) if self.record.is_some() => {
                    log::debug(|| error.text);
                    return Ok(());
                }
                Err(error) => {
                    self.end_guessed(&error)?;
                    let Some(doubt) = self.doubt(error, &mut others) else { return Ok(()) };
                    // Storage that does not answer now may do so yet, and who has come may yet be seen by the resource that it belongs to.
                    if !call.deadline.again(AGAIN) {
                        return Err(call.failure(doubt));
                    }
                }
            }
        }
    }

    /// Why it cannot be said that this resource's guest is not here, when its definition cannot be had because of `error`, and no guest is
    /// named like it.
    ///
    /// Where the definition is not there this resource can have started none. But a move can have brought one: to say that it is stopped
    /// would have it started a second time elsewhere. `others`: as for [`Call::newcomer`].
    fn doubt(&self, error: Error, others: &mut Option<Vec<Identity>>) -> Option<Error> {
        let Self { call, .. } = self;
        if error.kind == Kind::Definition {
            let doubt = |newcomer| format!("{newcomer} has come here by a move and may be this resource's: {error}");
            // Who does not show itself may do so yet.
            return match call.newcomer(others) {
                Ok(newcomer) => newcomer.map(|newcomer| Error::new(Kind::State, doubt(newcomer))),
                Err(unseen) => Some(unseen),
            };
        }
        match call.has_strangers() {
            Ok(false) => None,
            Ok(true) => Some(error.context("a guest runs here that may be this resource's")),
            Err(unseen) => Some(unseen),
        }
    }

    /// Ends the guests that are named like this resource's, whose definition cannot be had because of `error`.
    fn end_guessed(&self, error: &Error) -> Result<(), Failure> {
        log::warning(format_args!("{error}; looking for guests named like it"));
        for guess in self.call.guesses(error) {
            self.end(guess.into(), &self.call.parameters.config)?;
        }
        Ok(())
    }

    /// Ends the guest of the `config` that is configured by now; `others`: the guests of other resources.
    ///
    /// It may have come here by a move, and be nobody else's. What has not come is: this resource has not started it.
    fn end_configured(&self, others: &[Identity]) -> Result<(), Failure> {
        let Self { call, .. } = self;
        let has_come = |wanted: Option<&Identity>| evidence::has_come(wanted, others, &call.part());
        let given = call.environment.parameters.get("config").map(String::as_str);
        let configured = self.newer.as_ref().and_then(|newer| newer.get("config")).map(String::as_str);
        let Some(config) = configured.filter(|config| Some(*config) != given).map(Path::new) else { return Ok(()) };
        let given = given.unwrap_or("not set");
        loop {
            let doubt = match call.definition_of(config, call.deadline.left()) {
                Ok(definition) => match has_come(Some(&definition.identity)) {
                    Ok(true) => {
                        log::warning(format_args!("config is {given}, Pacemaker's configuration has {}", config.display()));
                        return self.end_named(definition.identity, config);
                    }
                    Ok(false) => return Ok(()),
                    Err(unseen) => unseen,
                },
                Err(error) => match if error.kind == Kind::Definition { Ok(false) } else { has_come(None) } {
                    Ok(true) => error.context("a guest has come here that may be this resource's"),
                    Ok(false) => {
                        log::debug(|| error.text);
                        return Ok(());
                    }
                    Err(unseen) => unseen,
                },
            };
            if !call.deadline.again(AGAIN) {
                return Err(call.failure(doubt));
            }
        }
    }

    /// Ends the guest of the `config` that was given, if that is not the one the stop goes by.
    fn end_given(&self) -> Result<(), Failure> {
        let Some(config) = self.call.other_config() else { return Ok(()) };
        match self.call.definition_of(&config, self.call.deadline.left()) {
            Ok(definition) => self.end_named(definition.identity, &config),
            Err(error) => {
                log::debug(|| error.text);
                Ok(())
            }
        }
    }

    /// Ends the guest of a definition that names another guest than the state file: that one may have come since, and be nobody else's.
    fn end_named(&self, identity: Identity, config: &Path) -> Result<(), Failure> {
        if self.record.as_ref().is_some_and(|record| record.name == identity.name) {
            return Ok(());
        }
        // Without a state file `config` alone says whose it is, and may be an old one.
        if (self.newer.is_some() || self.record.as_ref().is_some_and(|record| !record.guessed))
            && let Some(whose) = whose(self.call, &identity)
        {
            log::warning(format_args!("{} is left alone, {whose}", identity.name));
            return Ok(());
        }
        // A stop that fails for a write in flight leaves no other trace of the guest for the next one.
        self.call.with_rings(self.call.new_record(&identity));
        self.end(identity.into(), config)
    }

    /// Ends the guest that the definition in `config` names, or named, unless another resource has it by now.
    fn end(&self, trace: Trace, config: &Path) -> Result<(), Failure> {
        let Self { call, .. } = self;
        let trace = &trace.of(call.place_of(config));
        if let Some(heir) = call.heir(&trace.identity) {
            log::info(format_args!("{} is left to {heir}, whose guest it is now", trace.identity.name));
            return Ok(());
        }
        call.before_end(trace);
        ending::stop(trace, &call.parameters.hypervisor, &self.manner, &call.deadline)
            .map_err(|error| call.failure(error.context(format_args!("stop of {}", trace.identity.name))))
    }
}

/// Why a stop has nothing to do with a guest of which it is doubtful whether it is this resource's, if it has not.
///
/// One that another resource is about to start, and whose emulator that has not seen, may be either's. As soon as it runs its emulator is noted:
/// half of the time is waited for that. Then it is ended: a start of the other's that fails is cheaper than a guest that is called stopped and lives.
fn whose(call: &Call, identity: &Identity) -> Option<String> {
    let shelf = call.shelf();
    let patience = call.deadline.before(ending::reserve(&call.deadline)).part(2);
    loop {
        if let Some(owner) = shelf.owner(identity) {
            return Some(format!("it is the guest of {owner}"));
        }
        let starter = shelf.starter(identity)?;
        let seen = status::look(&identity.clone().into(), &call.parameters.hypervisor, &patience.within(ANSWER));
        if seen.is_ok_and(|presence| presence == Presence::Absent) {
            return Some(format!("it is not here, and {starter} is starting it"));
        }
        if !patience.pause(AGAIN) {
            return None;
        }
    }
}
