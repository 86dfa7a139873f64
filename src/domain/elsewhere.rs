//! The question to other hosts whether they run a guest, before it is started here or let go on.
//!
//! Fencing is what keeps a guest from running twice; this catches what fencing does not: a guest that a person started on another
//! node, or that the cluster lost sight of. A host that does not answer is no obstacle, or no node could ever take over from one
//! that is gone.

use super::definition::Identity;
use super::status::ask_through;
use super::{Condition, Connection, Error, Kind, State, Uri, ffi, sign};
use crate::deadline::{Deadline, Task, now};
use crate::log;
use std::time::{Duration, Instant};

/// How long a libvirt that cannot be reached is tried again: it may be restarted at this moment. One with little time, because it is lost, is not.
const RESTART: Duration = Duration::from_secs(2);

/// How old a connection may be on which another question is asked: what lies between the hosts may have forgotten an older one, and says
/// nothing then.
const FRESH: Duration = Duration::from_secs(60);

/// By how much the clock of the node that has recorded a moment may differ from this one's.
const CLOCKS: Duration = Duration::from_secs(5);

/// Another host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, for people.
    pub name: String,
    /// Its libvirt's URI.
    pub uri: String,
    /// How long its answer is waited for.
    pub patience: Duration,
}

/// A host that is asked, and the connection on which it has answered, if it has, with the time: another question takes no new one.
pub struct Asked {
    host: Host,
    before: Option<(Connection, Instant)>,
}

impl From<Host> for Asked {
    fn from(host: Host) -> Self {
        Self { host, before: None }
    }
}

impl Asked {
    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// Whether it is the libvirt at `here` itself that has answered, as where a name or an address in its URI is this host's: the guest
    /// that it has is the one that is here. What is not known is no proof.
    #[must_use]
    pub fn has_the_one_at(&self, here: &Uri, identity: &Identity, deadline: &Deadline) -> bool {
        let Some((there, _)) = &self.before else { return false };
        let sign = |connection: &Connection| sign::of(identity, connection, deadline);
        match Connection::open(&here.to_string(), deadline).and_then(|here| Ok((sign(&here)?, sign(there)?))) {
            Ok((here, there)) => here.is_some() && here == there,
            Err(error) => {
                log::debug(|| format!("whether {} leads to this host: {error}", self.host.uri));
                false
            }
        }
    }
}

impl Asked {
    /// Whether it has not been started again since `ago`, by its first CPU, which may count a little more than the time or much less. What is not
    /// known is no proof.
    #[must_use]
    pub fn was_up(&self, ago: Duration, deadline: &Deadline) -> bool {
        let Some((connection, _)) = &self.before else { return false };
        let counted = connection.call("asking for the time of the first CPU", deadline, |connect| Ok(ffi::cpu_time(connect)));
        match counted.and_then(|time| time) {
            Ok(time) => time > ago + ago / 100 + CLOCKS,
            Err(error) => {
                log::debug(|| format!("when {} was started: {error}", self.host.name));
                false
            }
        }
    }
}

/// A host that has the guest.
#[derive(Clone, Debug)]
pub struct Found {
    /// The host's name.
    pub host: String,
    /// A sentence about that.
    pub text: String,
    /// Whether it is paused there.
    pub paused: bool,
    /// Whether it waits there for its memory, or did before the source was lost: then libvirt there ends it by itself.
    pub coming: bool,
}

/// What a host says, and on which connection.
type Word = (Connection, Option<Found>);

/// What hosts have said.
#[derive(Default)]
pub struct Answers {
    /// Those that have the guest.
    pub found: Vec<Found>,
    /// All that have answered.
    pub answered: Vec<Asked>,
    /// Those that have not.
    pub silent: Vec<Host>,
}

/// Asks all `hosts` at once. One that does not answer is passed over.
#[must_use]
pub fn find(identity: &Identity, hosts: Vec<Asked>, deadline: &Deadline) -> Answers {
    let mut answers = Answers::default();
    for (host, answer) in ask(identity, hosts, deadline) {
        match answer {
            Ok((connection, found)) => {
                answers.found.extend(found);
                answers.answered.push(Asked { host, before: Some((connection, now())) });
            }
            Err(_) => answers.silent.push(host),
        }
    }
    answers
}

/// Sees to it that none of `hosts` has the guest.
///
/// # Errors
/// A sentence about one that has it, or that does not say.
pub fn nowhere(identity: &Identity, hosts: Vec<Host>, deadline: &Deadline) -> Result<(), String> {
    let hosts = hosts.into_iter().map(Asked::from).collect();
    ask(identity, hosts, deadline).try_for_each(|(_, answer)| answer?.1.map_or(Ok(()), |found| Err(found.text)))
}

/// What each host says; errors are about those that do not say.
fn ask(identity: &Identity, hosts: Vec<Asked>, deadline: &Deadline) -> impl Iterator<Item = (Host, Result<Word, String>)> {
    let guest = identity.name.clone();
    let start = |Asked { host, before }: Asked| {
        let (asked, identity, deadline) = (host.clone(), identity.clone(), deadline.within(host.patience));
        (host, deadline, Task::start(move || seen_at(&identity, &asked, before, &deadline)))
    };
    // All are started before the first is waited for.
    let tasks: Vec<_> = hosts.into_iter().map(start).collect();
    tasks.into_iter().map(move |(host, deadline, task)| {
        let answer = task.wait(&deadline).unwrap_or_else(|| Err(Error::new(Kind::Unresponsive, "no answer in time")));
        let answer = answer.map_err(|error| {
            log::info(format_args!("{} cannot be asked whether it runs {guest}: {error}", host.name));
            format!("{} does not say whether it runs {guest}", host.name)
        });
        (host, answer)
    })
}

fn seen_at(identity: &Identity, host: &Host, before: Option<(Connection, Instant)>, deadline: &Deadline) -> Result<Word, Error> {
    if let Some((connection, since)) = before
        && now() - since < FRESH
    {
        match seen_through(&connection, identity, host, deadline) {
            // Its libvirt may have been restarted since.
            Err(error) if !error.is_silence() => log::debug(|| format!("{error}; asking on a new connection")),
            answer => return answer.map(|found| (connection, found)),
        }
    }
    let connection = Connection::open_again(&host.uri, &deadline.within(RESTART), deadline)?;
    seen_through(&connection, identity, host, deadline).map(|found| (connection, found))
}

fn seen_through(connection: &Connection, identity: &Identity, host: &Host, deadline: &Deadline) -> Result<Option<Found>, Error> {
    let found = |text, condition: Condition| Found {
        host: host.name.clone(),
        text,
        paused: condition.state == State::Paused,
        coming: condition == Condition::PAUSED_MIGRATION,
    };
    let (guest, node) = (&identity.name, &host.name);
    match ask_through(connection, identity, deadline)? {
        Some((condition, uuid)) if condition.is_active() => {
            // The definition may have been given another UUID while it ran. What another guest of that name would be, a person has to say.
            let other = if identity.is_another(&uuid) { format!(" under another UUID, {uuid}") } else { String::new() };
            Ok(Some(found(format!("{guest} is on {node}{other}, {condition}"), condition)))
        }
        _ => {
            let renamed = renamed(identity, connection, deadline)?;
            let text = |name: String, condition| {
                // It was not there yet when its name was asked for.
                if *guest == name {
                    format!("{guest} is on {node}, {condition}")
                } else {
                    format!("its UUID is that of {name}, which is on {node}, {condition}")
                }
            };
            Ok(renamed.map(|(name, condition)| found(text(name, condition), condition)))
        }
    }
}

/// A guest whose definition was given another name while it ran has the UUID of the new one; so has one whose definition was copied without
/// care, and then too somebody has to look at it before anything runs. Its name and state.
fn renamed(identity: &Identity, connection: &Connection, deadline: &Deadline) -> Result<Option<(String, Condition)>, Error> {
    let Some(uuid) = identity.uuid.clone() else { return Ok(None) };
    let domain = connection.call(&format!("looking up the UUID {uuid}"), deadline, move |connect| {
        let domain = connect.lookup_domain_by_uuid_string(&uuid)?;
        Ok((domain.name()?, domain))
    });
    let state = |(name, domain): (String, _)| {
        let condition = connection.with(&name, domain).condition(deadline)?;
        Ok(condition.is_active().then_some((name, condition)))
    };
    match domain.and_then(state) {
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        answer => answer,
    }
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::domain::ffi::simulated;
    use crate::simulation::hosts::{GUEST, Happens, Reach, UUID, World};
    use crate::simulation::{explore, pick};

    const HOSTS: [&str; 3] = ["qemu+tcp://a/system", "qemu+tcp://b/system", "qemu+tcp://c/system"];

    /// Of three hosts any may have the guest, and any other may say that it does not, or not answer.
    #[test]
    fn every_host_counts() {
        simulated::install();
        let create = || {
            // Who only has a definition of that name has not got the guest.
            let mut world = World::new(&HOSTS, pick(2) == 1);
            let place = pick(HOSTS.len());
            world.run_on(place);
            for other in (0..HOSTS.len()).filter(|host| *host != place) {
                world.hosts[other].reach = [Reach::Up, Reach::Down, Reach::Silent][pick(3)];
            }
            world.may = |_, _: Happens| false;
            world
        };
        const PATIENCE: Duration = Duration::from_secs(2);
        let act = || {
            let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
            let other = || "11111111-2222-3333-4444-555555555555".into();
            let identities = [
                (text(GUEST), Some(text(UUID))),
                // Renamed while it ran.
                ("web2".into(), Some(text(UUID))),
                // The definition was given another UUID since, or none.
                (text(GUEST), Some(other())),
                (text(GUEST), None),
            ];
            let (name, uuid) = identities[pick(identities.len())].clone();
            let identity = Identity { name, uuid };
            let hosts = || HOSTS.map(|uri| Host { name: uri.into(), uri: uri.into(), patience: PATIENCE }).to_vec();
            let answers = find(&identity, hosts().into_iter().map(Asked::from).collect(), &Deadline::after(Duration::from_secs(3)));
            let alone = nowhere(&identity, hosts(), &Deadline::after(Duration::from_secs(3)));
            let all = answers.answered.len() + answers.silent.len() == HOSTS.len();
            format!("{} {}", all && answers.found.len() == 1, alone.is_err())
        };
        let judge = |_: &mut World, answer: &str| if answer == "true true" { Ok(()) } else { Err(answer.to_owned()) };
        assert_eq!(explore(0, create, act, judge)["true true"], 216);
    }
}
