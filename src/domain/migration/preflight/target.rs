//! What is asked of the target, each question in a task of its own.

use super::needs::Needs;
use super::{Answers, Check, Verdict};
use super::{job, shared, tls, way};
use crate::deadline::{Deadline, Task};
use crate::domain::connection::Connection;
use crate::domain::definition::Identity;
use crate::domain::host::Version;
use crate::domain::migration::defects::{self, Defect, Versions, Way};
use crate::domain::migration::plan::Plan;
use crate::domain::status::ask_through;
use crate::domain::{Error, Kind, Uri, ffi};
use std::sync::Arc;
use virt::error::ErrorNumber;

/// Both hosts, the guest, and the move.
pub(super) struct Target {
    pub(super) there: Connection,
    pub(super) here: Connection,
    pub(super) identity: Identity,
    pub(super) plan: Plan,
    pub(super) needs: Needs,
    /// The guest's definition.
    pub(super) xml: String,
}

/// Whether a libvirt is this host's.
pub(super) fn is_here(libvirt: &Connection) -> bool {
    let name = nix::sys::utsname::uname().map_or_else(|_| String::new(), |name| name.nodename().to_string_lossy().into_owned());
    Uri::parse(libvirt.uri()).is_ok_and(|uri| uri.is_on(&name))
}

/// libvirt has refused every guest with virtiofs up to this version at least (`qemuMigrationSrcIsAllowed`); from then on it depends on virtiofsd.
const VIRTIOFS_MOVES: Version = Version::of(10, 5);

/// The question for a guest of the same name or UUID, which is always asked.
const NAME: &str = "name";

type Question = fn(&Target, &Deadline) -> Vec<Check>;

/// What the answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matter {
    /// The target, for a start there too.
    Start,
    /// The way to this target, or a move there.
    Move,
    /// The guest here alone: the answer is the same for every target, and another one when the guest was started elsewhere.
    Guest,
}

/// The others, each with its name.
const QUESTIONS: &[(&str, Matter, Question)] = &[
    ("version", Matter::Move, Target::version),
    ("devices", Matter::Guest, Target::virtiofs),
    ("machine", Matter::Start, Target::machine),
    ("cpu", Matter::Start, Target::cpu),
    ("memory", Matter::Start, Target::memory),
    ("network", Matter::Start, Target::networks),
    ("storage", Matter::Start, Target::pools),
    ("job", Matter::Guest, job::question),
    ("storage", Matter::Move, shared::question),
    ("ports", Matter::Move, way::question),
    ("tls", Matter::Move, tls::question),
];

impl Target {
    /// Whether the guest's host is this one, so that what is seen here of files and networks is seen of it.
    pub(super) fn is_here(&self) -> bool {
        is_here(&self.here)
    }

    /// The answers to those of which the matter is `wanted`, in the order of the questions.
    pub(super) fn ask(self, wanted: impl Fn(Matter) -> bool, deadline: &Deadline) -> Answers {
        let shared = Arc::new(self);
        let late = |name| Check::warning(name, "no answer in time", "");
        let transport = Check::ok("target", format!("{} answers", shared.plan.remote));
        let name = {
            let (target, deadline) = (Arc::clone(&shared), *deadline);
            Task::start(move || target.name(&deadline))
        };
        let tasks: Vec<_> = QUESTIONS
            .iter()
            .filter(|(_, matter, _)| wanted(*matter))
            .map(|(name, _, question)| {
                let (target, deadline, question) = (Arc::clone(&shared), *deadline, *question);
                (*name, Task::start(move || question(&target, &deadline)))
            })
            .collect();
        let name = name.wait(deadline).unwrap_or_else(|| late(NAME));
        let free = name.verdict == Verdict::Ok;
        let answers = tasks.into_iter().flat_map(|(name, task)| task.wait(deadline).unwrap_or_else(|| vec![late(name)]));
        Answers { checks: [transport, name].into_iter().chain(answers).collect(), free }
    }

    /// A guest of this name or UUID at the target.
    fn name(&self, deadline: &Deadline) -> Check {
        let (name, target) = (&self.identity.name, &self.plan.target);
        let other = match ask_through(&self.there, &self.identity, deadline) {
            Ok(Some((condition, _))) if condition.is_active() => {
                let text = format!("{target} already has a guest of this name, {condition}");
                return Check::refuse(NAME, text, "end it there if it is not this resource's, or clean up the resource if it is");
            }
            Ok(Some((_, uuid))) => self.identity.is_another(&uuid),
            Ok(None) => false,
            Err(error) => return unanswered(NAME, &error),
        };
        if other {
            let text = format!("{target} has another guest called {name} defined");
            return Check::refuse(NAME, text, "undefine it there, or rename it");
        }
        let Some(uuid) = self.identity.uuid.clone() else { return Check::ok(NAME, format!("{name} is free")) };
        let found = self
            .there
            .call(&format!("looking up the UUID {uuid}"), deadline, move |connect| connect.lookup_domain_by_uuid_string(&uuid)?.name());
        match found {
            Ok(owner) if owner != *name => {
                let text = format!("{target} knows this guest's UUID as {owner}");
                Check::refuse(NAME, text, "two guests must not share a UUID: undefine the other, or give one a new UUID")
            }
            Ok(_) => Check::ok(NAME, format!("{name} is defined there too and will stay so")),
            Err(error) if error.kind == Kind::NotFound => Check::ok(NAME, format!("{name} is free")),
            Err(error) => unanswered(NAME, &error),
        }
    }

    /// Defects of libvirt, and a QEMU that is older than the one here.
    fn version(&self, deadline: &Deadline) -> Vec<Check> {
        let ask = |connection: &Connection| {
            let numbers = connection.call("asking the version", deadline, |connect| Ok((connect.lib_version()?, connect.hyp_version()?)));
            numbers.map(|(libvirt, qemu)| Versions { libvirt: Version(libvirt), qemu: Version(qemu) })
        };
        let (here, there) = match (ask(&self.here), ask(&self.there)) {
            (Ok(here), Ok(there)) => (here, there),
            (Err(error), _) | (_, Err(error)) => return vec![unanswered("version", &error)],
        };
        let text = format!("libvirt {} and QEMU {} there, {} and {} here", there.libvirt, there.qemu, here.libvirt, here.qemu);
        let way = Way::of(&self.xml, self.plan.policy, self.plan.options.is_encrypted());
        let warn = |defect: &Defect| Check::warning("version", format!("{text}: {}", defect.text), defect.remedy());
        let mut checks: Vec<Check> = defects::met(&way, &here, &there).map(warn).collect();
        if there.qemu < here.qemu {
            checks.push(Check::warning(
                "version",
                format!("{text}: to an older QEMU"),
                "QEMU supports moves to the same or a newer version only",
            ));
        }
        if checks.is_empty() {
            checks.push(Check::ok("version", text));
        }
        checks
    }

    /// A folder that libvirt here does not move.
    fn virtiofs(&self, deadline: &Deadline) -> Vec<Check> {
        if !self.needs.virtiofs {
            return Vec::new();
        }
        match self.here.libvirt_version(deadline) {
            Ok(here) if here < VIRTIOFS_MOVES => {
                let text = format!("a folder of the host by virtiofs, which libvirt {here} here does not move");
                vec![Check::refuse("devices", text, "take it out of the guest before it is moved")]
            }
            Ok(_) => Vec::new(),
            Err(error) => vec![unanswered("devices", &error)],
        }
    }

    /// Emulator, architecture, machine type, domain type, firmware.
    fn machine(&self, deadline: &Deadline) -> Vec<Check> {
        let platform = self.needs.platform.clone();
        let machine = platform.machine.clone().unwrap_or_default();
        let what = "asking for the machine type";
        let answer = self.there.call(what, deadline, move |connect| {
            let [emulator, architecture, machine, kind] = [&platform.emulator, &platform.architecture, &platform.machine, &platform.kind];
            let answer = connect.domain_capabilities(emulator.as_deref(), architecture.as_deref(), machine.as_deref(), kind.as_deref(), 0);
            let is_gone = answer.is_err() && ffi::is_not_there();
            Ok(answer.map_err(|error| (ffi::error(&error), is_gone)))
        });
        let answer = match answer {
            Ok(answer) => answer.map_err(|(error, is_gone)| (error.context(format_args!("{what} at {}", self.there.uri())), is_gone)),
            Err(error) => Err((error, false)),
        };
        match answer {
            Ok(_) if self.needs.loader.is_none() => vec![Check::ok("machine", format!("{machine} is there"))],
            Ok(text) => {
                let loader = self.needs.loader.clone().unwrap_or_default();
                if text.contains(&format!("<value>{loader}</value>")) {
                    return vec![Check::ok("machine", format!("{machine} with {loader} is there"))];
                }
                vec![Check::warning(
                    "machine",
                    format!("libvirt there does not list the firmware {loader}"),
                    "install the same firmware package there",
                )]
            }
            Err((error, is_gone)) if is_gone || lacks_the_machine(&error) => {
                vec![Check::refuse("machine", error.text, "install the same emulator there, or one that has this machine type")]
            }
            Err((error, _)) => vec![unanswered("machine", &error)],
        }
    }

    /// The guest's CPU on the target's.
    fn cpu(&self, deadline: &Deadline) -> Vec<Check> {
        let Some((xml, mode)) = self.needs.cpu.clone() else { return vec![Check::ok("cpu", "the emulator's default")] };
        if mode == "host-passthrough" {
            return vec![self.same_cpu(deadline)];
        }
        let platform = self.needs.platform.clone();
        let answer = self.there.call("comparing the CPU", deadline, move |connect| Ok(ffi::accepts_cpu(connect, &platform, &xml)));
        match answer.and_then(|answer| answer) {
            Ok(true) => vec![Check::ok("cpu", "accepted")],
            Ok(false) => {
                vec![Check::refuse(
                    "cpu",
                    "the target's CPU or emulator has not got all features of the guest's",
                    "give the guest a CPU model that all nodes have",
                )]
            }
            Err(error) => vec![unanswered("cpu", &error)],
        }
    }

    /// A guest that sees the host's own CPU must find the same one.
    fn same_cpu(&self, deadline: &Deadline) -> Check {
        let model = |connection: &Connection| {
            let text = connection.call("asking for the CPU", deadline, virt::connect::Connect::capabilities)?;
            let document = roxmltree::Document::parse(&text).map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
            let cpu =
                document.descendants().find(|node| node.has_tag_name("cpu") && node.parent().is_some_and(|node| node.has_tag_name("host")));
            let model = cpu.and_then(|cpu| cpu.children().find(|node| node.has_tag_name("model"))).and_then(|node| node.text());
            Ok(model.unwrap_or_default().to_owned())
        };
        match (model(&self.here), model(&self.there)) {
            (Ok(here), Ok(there)) if here == there => Check::ok("cpu", format!("host-passthrough, {here} on both hosts")),
            (Ok(here), Ok(there)) => {
                let text = format!("host-passthrough, but the CPU is {here} here and {there} there");
                Check::warning("cpu", text, "the guest may crash there: give it a CPU model that all nodes have")
            }
            (Err(error), _) | (_, Err(error)) => unanswered("cpu", &error),
        }
    }

    fn memory(&self, deadline: &Deadline) -> Vec<Check> {
        let answer =
            self.there.call("asking for the memory", deadline, |connect| Ok((connect.node_info()?.memory, ffi::available_memory(connect))));
        let mib = |kib: u64| kib / 1024;
        let needed = self.needs.memory;
        match answer {
            Ok((whole, _)) if whole < needed => {
                let text = format!("the target has {} MiB in all, the guest {}", mib(whole), mib(needed));
                vec![Check::refuse("memory", text, "choose another node")]
            }
            Ok((_, Ok(free))) if free < needed => {
                let text = format!("{} MiB are available there, the guest has {}", mib(free), mib(needed));
                vec![Check::warning("memory", text, "move another guest away first, or let utilization place them")]
            }
            Ok((_, Ok(free))) => vec![Check::ok("memory", format!("{} MiB are available, {} needed", mib(free), mib(needed)))],
            Ok((_, Err(error))) | Err(error) => vec![unanswered("memory", &error)],
        }
    }

    fn networks(&self, deadline: &Deadline) -> Vec<Check> {
        let mut checks = Vec::new();
        for name in &self.needs.networks {
            let wanted = name.clone();
            let active = self
                .there
                .call(&format!("looking up network {name}"), deadline, move |connect| connect.lookup_network_by_name(&wanted)?.is_active());
            checks.push(thing("network", name, active));
        }
        for name in &self.needs.bridges {
            let wanted = name.clone();
            // libvirt may have no driver that lists interfaces; then nothing can be said.
            let found = self
                .there
                .call(&format!("looking up bridge {name}"), deadline, move |connect| connect.lookup_interface_by_name(&wanted).map(|_| ()));
            checks.push(match found {
                Ok(()) => Check::ok("network", format!("bridge {name} is there")),
                Err(error) => Check::warning("network", format!("bridge {name}: {}", error.text), "see that the bridge is there and up"),
            });
        }
        checks
    }

    fn pools(&self, deadline: &Deadline) -> Vec<Check> {
        let mut checks = Vec::new();
        for name in &self.needs.pools {
            let wanted = name.clone();
            let active = self.there.call(&format!("looking up storage pool {name}"), deadline, move |connect| {
                connect.lookup_storage_pool_by_name(&wanted)?.is_active()
            });
            checks.push(thing("storage", name, active));
        }
        checks
    }
}

/// Whether libvirt says that there is no such emulator, architecture, machine or domain type (`virQEMUCapsCacheLookupDefault`). That a probe of the
/// emulator has failed (`virQEMUCapsInitQMP`) may be for a moment, as on a host without memory for one more process.
fn lacks_the_machine(error: &Error) -> bool {
    [ErrorNumber::InvalidArg, ErrorNumber::ConfigUnsupported].into_iter().any(|number| error.is_libvirts(number))
}

/// A network or pool, which must be there and active.
fn thing(kind: &'static str, name: &str, active: Result<bool, Error>) -> Check {
    match active {
        Ok(true) => Check::ok(kind, format!("{name} is active")),
        Ok(false) => Check { name: kind, verdict: Verdict::Refuse, text: format!("{name} is not active there"), advice: "start it there" },
        Err(error) if error.is_libvirts(ErrorNumber::NoNetwork) || error.is_libvirts(ErrorNumber::NoStoragePool) => {
            Check::refuse(kind, format!("{name} is not there"), "define and start it there")
        }
        Err(error) => unanswered(kind, &error),
    }
}

pub(super) fn unanswered(name: &'static str, error: &Error) -> Check {
    Check::warning(name, format!("cannot be told: {}", error.text), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_that_could_not_be_asked_is_not_one_that_lacks_the_machine() {
        let lacks = |number, text: &str| lacks_the_machine(&Error::of_libvirt(Kind::Refused, Some(number), text));
        assert!(lacks(
            ErrorNumber::InvalidArg,
            "invalid argument: the machine 'pc-99' is not supported by emulator '/usr/bin/qemu-system-x86_64'"
        ));
        assert!(lacks(ErrorNumber::ConfigUnsupported, "unsupported configuration: Emulator does not support virt type 'kvm'"));
        assert!(!lacks(ErrorNumber::InternalError, "internal error: Failed to probe QEMU binary with QMP: "));
        assert!(!lacks(ErrorNumber::SystemError, "cannot fork child process: Cannot allocate memory"));
        assert!(!lacks(ErrorNumber::NoSupport, "this function is not supported by the connection driver"));
    }

    #[test]
    fn what_is_missing_is_refused_and_what_cannot_be_told_is_not() {
        let verdict = |active| thing("network", "default", active).verdict;
        assert_eq!(verdict(Ok(true)), Verdict::Ok);
        assert_eq!(verdict(Ok(false)), Verdict::Refuse);
        let says = |number, text: &str| verdict(Err(Error::of_libvirt(Kind::Refused, Some(number), text)));
        assert_eq!(says(ErrorNumber::NoNetwork, "Network not found: no network with matching name 'default'"), Verdict::Refuse);
        assert_eq!(says(ErrorNumber::NoNetwork, "Netzwerk nicht gefunden: kein Netzwerk mit passendem Namen 'default'"), Verdict::Refuse);
        assert_eq!(says(ErrorNumber::NoStoragePool, "ストレージプールが見つかりません: 名前 'default' に一致しません"), Verdict::Refuse);
        assert_eq!(says(ErrorNumber::NoSupport, "this function is not supported by the connection driver"), Verdict::Warning);
        assert_eq!(says(ErrorNumber::SystemError, "the program virtnetworkd was not found"), Verdict::Warning);
        assert_eq!(verdict(Err(Error::new(Kind::Unresponsive, "no answer"))), Verdict::Warning);
    }
}
