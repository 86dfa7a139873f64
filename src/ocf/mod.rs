//! The resource agent `ocf:kvmha:VirtualDomain`: the protocol. One call is one action; what the guest needs is done in `domain`.

mod actions;
pub mod answers;
mod asked;
pub mod differences;
mod environment;
mod exit;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod keeping;
mod known;
mod manual;
mod metadata;
mod monitor;
mod moving;
mod newcomers;
mod outage;
mod outlook;
mod parameters;
mod pulse;
mod route;
mod scripts;
mod starting;
mod stopping;
mod table;
mod utilization;
mod validate;

pub(crate) use asked::Asked;
pub(crate) use environment::{Environment, Version};
pub(crate) use manual::page;
pub(crate) use metadata::document;
pub(crate) use moving::HISTORY;

use crate::deadline::{self, Deadline};
use crate::domain::{Error, Kind, Uri, evidence};
use crate::log;
use crate::parameter::{Concerns, Fault};
use actions::{ACTIONS, Action};
use exit::{Code, Failure};
use parameters::Parameters;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// One action that is being carried out.
pub(crate) struct Call {
    /// Which.
    action: Action,
    /// What the caller said.
    environment: Environment,
    /// The resource's parameters.
    parameters: Parameters,
    /// What was wrong with the parameters.
    faults: Vec<Fault>,
    /// When it must be over.
    deadline: Deadline,
}

impl Call {
    fn new(action: Action, environment: Environment, deadline: Deadline) -> Self {
        let (parameters, faults) = parameters::read(&environment);
        Self { action, environment, parameters, faults, deadline }
    }

    fn run(&self, handler: fn(&Self) -> Result<(), Failure>) -> Result<(), Failure> {
        match self.action {
            // Words are the same on every host.
            Action::ValidateAll | Action::ReloadAgent | Action::MetaData => handler(self),
            Action::Stop | Action::Monitor | Action::Status => {
                self.usable_hypervisor().map_or_else(|failure| self.see_without_libvirt(failure), |()| handler(self))
            }
            Action::Start | Action::MigrateTo | Action::MigrateFrom => {
                self.insist_on_this_host()?;
                handler(self)
            }
        }
    }

    /// The failure of this action that `error` means.
    fn failure(&self, error: Error) -> Failure {
        Failure::of(self.action, error)
    }

    /// # Errors
    /// The first parameter that is wrong; they are all logged.
    fn insist_on_parameters(&self) -> Result<(), Failure> {
        self.insist_on(|_| true)
    }

    /// Like [`Self::insist_on_parameters`], but only on those that an action needs; the others keep their defaults.
    fn insist_on(&self, needs: impl Fn(&Fault) -> bool) -> Result<(), Failure> {
        let (wrong, others): (Vec<&Fault>, Vec<&Fault>) = self.faults.iter().partition(|fault| needs(fault));
        others.iter().for_each(|fault| log::warning(format_args!("{fault}; the default is used")));
        wrong.iter().skip(1).for_each(log::error);
        wrong.first().map_or(Ok(()), |fault| Err(Failure::of_fault(self.action, fault)))
    }

    /// # Errors
    /// `hypervisor` is another host's: its emulators cannot be seen from here, so nothing could be proven.
    fn insist_on_this_host(&self) -> Result<(), Failure> {
        if self.parameters.hypervisor.is_on(&self.environment.host) {
            return Ok(());
        }
        let text = format!("hypervisor: {} is not on this host, {}", self.parameters.hypervisor, self.environment.host);
        Err(self.failure(Error::new(Kind::Definition, text)))
    }

    /// # Errors
    /// `hypervisor` is wrong, or another host's.
    fn usable_hypervisor(&self) -> Result<(), Failure> {
        match self.faults.iter().find(|fault| fault.concerns == Concerns::Libvirt) {
            Some(fault) => Err(Failure::of_fault(self.action, fault)),
            None => self.insist_on_this_host(),
        }
    }

    /// For a `hypervisor` that cannot be used, because of `failure`: the process table still proves that the guest is not here, and a node
    /// that never had it must not be fenced for a wrong word.
    fn see_without_libvirt(&self, failure: Failure) -> Result<(), Failure> {
        let record = self.record();
        if record.as_ref().is_some_and(|record| record.creating || record.moving.is_some() || record.seen == Some(false)) {
            return Err(failure);
        }
        let trace = record.map(|record| record.trace()).or_else(|| self.definition().ok().map(|definition| definition.identity.into()));
        let Some(trace) = trace else { return Err(failure) };
        let left = evidence::find(&trace.identity, trace.emulator, &self.deadline).map_err(|error| self.failure(error))?;
        match self.action {
            _ if !left.is_empty() => Err(failure),
            Action::Stop => Ok(()),
            _ => Err(Failure::not_running()),
        }
    }

    /// At a stop the state file knows better than the parameters which guest this is, if it was seen for certain and they name another one.
    /// Pacemaker keeps the parameters of a start, a reload or a probe for the stop, but not those of a migrate_from (`update_history_cache`,
    /// pacemaker 2.1.5): so where the guest has come by a move they are those of the last probe there, and may name what is another resource's
    /// guest by now. Of what was deleted from the configuration while it ran, and was only found by a probe, there are none: to refuse that
    /// would cost the node its power, as would a `hypervisor` that was wrong then. What a person has set while the guest ran is in Pacemaker's
    /// configuration, and counts.
    fn take_from_record(&mut self) {
        if self.action != Action::Stop || self.environment.instance.is_none() {
            return;
        }
        let Some(record) = self.shelf().read().filter(|record| !record.guessed) else { return };
        let Ok(hypervisor) = Uri::parse(&record.hypervisor) else { return };
        let missing = self.faults.iter().any(|fault| fault.missing);
        let names_another = || self.definition().is_ok_and(|definition| definition.identity.name != record.name);
        let other_config = record.config != self.parameters.config;
        let other_hypervisor = hypervisor.to_string() != self.parameters.hypervisor.to_string();
        let stale = missing || other_config && names_another() || (other_config || other_hypervisor) && self.was_reconfigured();
        // Without an answer from Pacemaker at least what cannot be right.
        let unusable = self.faults.iter().any(|fault| fault.concerns == Concerns::Libvirt)
            || !self.parameters.hypervisor.is_on(&self.environment.host);
        if !stale && !unusable {
            return;
        }
        let given = if missing { "not set".into() } else { self.parameters.config.display().to_string() };
        log::warning(format_args!("config is {given}, the state file has {} on {hypervisor}", record.config.display()));
        if stale {
            self.parameters.config = record.config;
        }
        self.parameters.hypervisor = hypervisor;
        self.faults.retain(|fault| !fault.missing && fault.concerns != Concerns::Libvirt);
    }

    /// The `config` that a stop was called with, if it is not the one it goes by.
    fn other_config(&self) -> Option<PathBuf> {
        let given = self.environment.parameters.get("config").map(PathBuf::from)?;
        (given.is_absolute() && given != self.parameters.config).then_some(given)
    }

    /// For actions that have to work with wrong parameters too: only what says which guest is needed, the others keep their defaults.
    ///
    /// # Errors
    /// `config` is not set.
    fn tolerate_parameters(&self) -> Result<(), Failure> {
        self.insist_on(|fault| fault.missing)
    }
}

/// What the agent can be asked for.
pub(crate) fn action_words() -> impl Iterator<Item = &'static str> {
    ACTIONS.iter().map(|row| row.word)
}

/// The least timeout that is advised for an action, in seconds.
#[must_use]
pub(crate) fn advised_timeout(action: &str) -> Option<u32> {
    ACTIONS.iter().find(|row| row.word == action).map(|row| row.timeout)
}

/// What is wrong with the parameters of a resource, each a sentence.
#[must_use]
pub(crate) fn faults(given: &BTreeMap<String, String>) -> Vec<String> {
    let mut environment = Environment::new(&BTreeMap::new(), "");
    environment.parameters.clone_from(given);
    parameters::read(&environment).1.iter().map(ToString::to_string).collect()
}

/// Runs the action that the first of `words` names, and gives its exit code. Further words are ignored, as the API says.
#[must_use]
pub(crate) fn run(words: &[OsString]) -> u8 {
    let begin = deadline::now();
    let environment = Environment::of_process();
    log::init(environment.log.clone());
    let word = words.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
    let Some(row) = ACTIONS.iter().find(|row| row.word == word) else {
        return unknown(&word, &environment.reason_prefix) as u8;
    };
    let prefix = environment.reason_prefix.clone();
    let deadline = Deadline::after(environment.budget().saturating_sub(deadline::now() - begin));
    let mut call = Call::new(row.action, environment, deadline);
    call.take_from_record();
    match call.run(row.run) {
        Ok(()) => Code::Success as u8,
        Err(failure) => {
            if let Some(reason) = failure.reason {
                log::exit_reason(&prefix, &reason);
            }
            failure.code as u8
        }
    }
}

/// `usage`, no word at all, or one that is no action.
fn unknown(word: &str, prefix: &str) -> Code {
    let known: Vec<&str> = action_words().collect();
    log::complain(&format!("usage: VirtualDomain {{{}}}", known.join("|")));
    if !matches!(word, "" | "usage" | "help" | "methods") {
        log::exit_reason(prefix, &format!("{word:?}: action not supported"));
    }
    Code::Unimplemented
}

/// The reason of a panic; the code is 1.
pub(crate) fn report_panic(text: &str) {
    log::exit_reason(&Environment::of_process().reason_prefix, text);
}
