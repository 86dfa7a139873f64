//! What each action does.

use super::action::Action;
use super::limits::{Caller, Limits, for_acting, for_start, is_unlimited};
use super::list::{list, list_status};
use super::note;
use super::options::{Options, uuid};
use super::password::printed;
use super::plug::{Done, Plug};
use super::pool::Pool;
use super::report::{Report, changed, failed, status};
use super::sight::Target;
use super::told::{Nodes, TELLING};
use crate::cluster::view::View;
use crate::deadline::{self, Deadline, Task};
use crate::domain::{Error, Kind, Result};
use crate::log;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long Pacemaker may take to say which nodes there are.
const ALONE: Duration = Duration::from_secs(2);

/// Carries out `action`.
pub(super) fn run(action: Action, options: &Options, caller: Caller) -> Report {
    Request::new(action, options, caller).map_or_else(Report::failed, Request::carry_out)
}

/// What is asked for, and what that needs.
pub(super) struct Request {
    action: Action,
    /// The options, with the password.
    pub(super) options: Options,
    caller: Caller,
    limits: Limits,
    /// The hosts.
    pub(super) pool: Pool,
    plugs: Vec<Plug>,
    begin: Instant,
}

impl Request {
    /// # Errors
    /// It makes no sense, or the password cannot be had.
    pub(super) fn new(action: Action, options: &Options, caller: Caller) -> std::result::Result<Self, String> {
        let begin = deadline::now();
        let limits = Limits::of(options, caller);
        let mut options = options.clone();
        if let Some(program) = options.password_script.clone().filter(|_| options.password.is_none() && action != Action::ValidateAll) {
            options.password = Some(printed(&program, &Deadline::after(limits.login))?);
        }
        let pool = Pool::new(&options, limits)?;
        if caller == Caller::Fencer {
            insist_on_names(&pool, action, &options)?;
        }
        let plugs = plugs(action, &options, &pool, &Nodes::new(caller))?;
        if let Some(file) = options.identity_file.as_ref().filter(|file| !file.exists()) {
            return Err(format!("identity_file {} does not exist", file.display()));
        }
        Ok(Self { action, options, caller, limits, pool, plugs, begin })
    }

    /// The guests that other options mean, at the same hosts.
    pub(super) fn plugs(&self, action: Action, options: &Options) -> std::result::Result<Vec<Plug>, String> {
        plugs(action, options, &self.pool, &Nodes::new(self.caller))
    }

    fn carry_out(self) -> Report {
        let Self { action, options, caller, limits, pool, plugs, begin } = self;
        let used = deadline::now() - begin;
        if matches!(action, Action::Off | Action::Reboot) && !options.delay.is_zero() {
            let _ = Deadline::after(options.delay).pause(options.delay);
        }
        // The delay comes on top of all that the action takes.
        let begin = deadline::now() - used;
        let asking = limits.login + limits.shell * 2;
        let acting = for_acting(limits, options.power_wait, used, is_unlimited(&options, caller));
        match action {
            Action::ValidateAll | Action::Metadata | Action::Tell => Report::default(),
            Action::Monitor => monitor(&pool, &Deadline::after(asking)),
            Action::List => list(&pool, &options.separator, &Deadline::after(asking)),
            Action::ListStatus => list_status(&pool, &Nodes::new(caller), &options.separator, &Deadline::after(asking * 2)),
            Action::Status => {
                let deadline = Deadline::after(asking * 2);
                all(plugs, &deadline, move |plug| plug.status(&deadline)).map_or_else(Report::failed, |states| status(&states))
            }
            Action::Off => off(plugs, acting).map_or_else(|text| failed(&text), |done| changed(&done, "OFF")),
            Action::On => on(plugs, acting).map_or_else(|text| failed(&text), |done| changed(&done, "ON")),
            Action::Reboot => match off(plugs.clone(), acting) {
                Ok(_) => rebooted(plugs, for_start(deadline::now() - begin, acting, options.power_wait, is_unlimited(&options, caller))),
                Err(text) => failed(&text),
            },
        }
    }
}

/// For a call by the fencer, on whatever node is at hand.
///
/// # Errors
/// The libvirt of that node, or of a user, is one of those that are to be asked, and would be taken for another's.
fn insist_on_names(pool: &Pool, action: Action, options: &Options) -> std::result::Result<(), String> {
    let sessions = pool.session()?;
    // No libvirt but that of its own host knows the guest, and "not known here" would be "off". The same holds of a user's own.
    if let Some(oddity) = sessions.as_ref().filter(|_| options.missing_as_off) {
        return Err(format!("{oddity}; with missing_as_off=1 a guest that runs would be \"off\""));
    }
    let own = pool.own_libvirt()?;
    if let Some(oddity) = own.as_ref().filter(|_| options.missing_as_off && !is_alone()) {
        return Err(format!(
            "{oddity}; with missing_as_off=1 a guest that runs would be \"off\" on any other node. If all guests are on one host, name it \
             (qemu+ssh://HOST/system)"
        ));
    }
    if action.acts() || action == Action::Monitor {
        sessions.into_iter().chain(own).for_each(log::warning);
    }
    Ok(())
}

fn off(plugs: Vec<Plug>, time: Duration) -> std::result::Result<Vec<Done>, String> {
    let deadline = Deadline::after(time);
    all(plugs, &deadline, move |plug| plug.off(&deadline))
}

fn on(plugs: Vec<Plug>, time: Duration) -> std::result::Result<Vec<Done>, String> {
    let deadline = Deadline::after(time);
    all(plugs, &deadline, move |plug| plug.on(&deadline))
}

/// The second half of a reboot, for which there may be no time: they are off, and that is what counts.
fn rebooted(plugs: Vec<Plug>, time: Option<Duration>) -> Report {
    let started = time.map_or_else(|| Err("no time was left for that".to_owned()), |time| on(plugs, time));
    let mut report = Report::said("Success: Rebooted");
    report.complaints.extend(started.err().map(|text| format!("is off, but was not started again: {text}")));
    report
}

/// Whether Pacemaker says that the cluster has one node, Pacemaker Remote nodes aside: the fencer is always on the same host then.
fn is_alone() -> bool {
    View::query(&Deadline::after(ALONE)).is_ok_and(|view| view.nodes.iter().filter(|node| !node.remote).count() == 1)
}

/// Tells the other nodes what the notes of this one say.
pub(super) fn tell() -> Report {
    let told = Nodes::new(Caller::Person).tell(Path::new(note::FOLDER), &Deadline::after(TELLING));
    told.map_or_else(|text| failed(&text), |()| Report::said("Success: Told"))
}

/// The guests that are meant.
fn plugs(action: Action, options: &Options, pool: &Pool, nodes: &Nodes) -> std::result::Result<Vec<Plug>, String> {
    if !action.wants_plug() {
        return Ok(Vec::new());
    }
    let given = options.plug.as_deref().filter(|plug| !plug.is_empty());
    let words: Vec<&str> = match (given, options.nodename.as_deref()) {
        (Some(plug), _) if options.plug_separator.is_empty() => vec![plug],
        (Some(plug), _) => plug.split(options.plug_separator.as_str()).map(str::trim).collect(),
        (None, Some(node)) => vec![node],
        (None, None) => return Err("no plug is given: which guest?".into()),
    };
    words.into_iter().map(|word| plug(word, options, pool, nodes)).collect()
}

fn plug(word: &str, options: &Options, pool: &Pool, nodes: &Nodes) -> std::result::Result<Plug, String> {
    if word.is_empty() || word.chars().any(char::is_control) || word.len() > 255 {
        return Err("a plug is empty, too long, or holds control characters".into());
    }
    let target = match (uuid(word), options.uuid_map.get(word)) {
        (None, Some(pinned)) => Target { word: word.into(), name: Some(word.into()), uuid: Some(pinned.clone()) },
        (None, None) if options.use_uuid => return Err(format!("plug {word:?} is no UUID, which use_uuid wants")),
        (None, None) => Target { word: word.into(), name: Some(word.into()), uuid: None },
        (Some(uuid), _) => Target { word: word.into(), name: None, uuid: Some(uuid) },
    };
    Ok(Plug {
        target,
        pool: pool.clone(),
        pinned: options.uuid_map.get(word).cloned().filter(|_| uuid(word).is_none()),
        missing_as_off: options.missing_as_off,
        power_wait: options.power_wait,
        retry_on: options.retry_on,
        notes: note::FOLDER.into(),
        nodes: nodes.clone(),
    })
}

/// Does `work` for all plugs, side by side. One failure is the failure of all.
fn all<T, F>(plugs: Vec<Plug>, deadline: &Deadline, work: F) -> std::result::Result<Vec<T>, String>
where
    T: Send + 'static,
    F: Fn(&mut Plug) -> Result<T> + Clone + Send + 'static,
{
    // Everything below keeps to the deadline; this is for a thread that could not be made, or panicked.
    let late = Deadline::after(deadline.left() + Duration::from_secs(5));
    let tasks: Vec<(String, Task<Result<T>>)> = plugs
        .into_iter()
        .map(|mut plug| {
            let work = work.clone();
            (plug.target.word.clone(), Task::start(move || work(&mut plug)))
        })
        .collect();
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for (word, task) in tasks {
        match task.wait(&late).unwrap_or_else(|| Err(Error::new(Kind::Internal, format!("{word}: no answer")))) {
            Ok(answer) => done.push(answer),
            Err(error) => failures.push(error.text),
        }
    }
    if failures.is_empty() { Ok(done) } else { Err(failures.join("; ")) }
}

/// Succeeds only if every host takes a connection, lists its guests, and lets this connection change something.
fn monitor(pool: &Pool, deadline: &Deadline) -> Report {
    let complaints: Vec<String> = pool.ready(deadline).into_iter().filter_map(|answer| answer.err().map(|error| error.text)).collect();
    Report { code: u8::from(!complaints.is_empty()), output: String::new(), complaints }
}

#[cfg(test)]
mod tests {
    use super::super::limits::UNLIMITED;
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        super::super::options::read(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()).0
    }

    const NOWHERE: (&str, &str) = ("uri", "qemu+unix:///system?socket=/nonexistent");

    #[test]
    fn a_host_out_of_reach_is_failure_in_every_action() {
        for (action, code) in [
            (Action::On, 1),
            (Action::Off, 1),
            (Action::Reboot, 1),
            (Action::Status, 1),
            (Action::Monitor, 1),
            (Action::List, 1),
            (Action::ListStatus, 1),
            (Action::ValidateAll, 0),
        ] {
            // In little time, in which some ask again.
            let quick = ["login_timeout", "shell_timeout"].map(|name| (name, "1"));
            let all = [&[NOWHERE, ("plug", "web1"), ("missing_as_off", "1"), ("disable_timeout", "0")], &quick[..]].concat();
            let report = run(action, &options(&all), Caller::Fencer);
            assert_eq!(
                (report.code, report.output.as_str(), report.complaints.len()),
                (code, "", usize::from(code)),
                "{action:?}: {report:?}"
            );
        }
    }

    #[test]
    fn the_libvirt_of_whatever_node_is_none_of_a_pool() {
        let of = |uri: &str, caller| run(Action::ValidateAll, &options(&[("uri", uri)]), caller);
        for uri in [
            "qemu:///system,qemu+tls://b/system",
            "qemu+tls://b/system qemu+unix:///system",
            "qemu+ssh://localhost/system,qemu+tls://b/system",
            "qemu+tls://b/system,qemu+tls://[::1]/system",
            "qemu+unix:///system?socket=/run/libvirt/libvirt-sock,qemu+tls://b/system",
        ] {
            let report = of(uri, Caller::Fencer);
            assert!(report.code == 1 && report.complaints.concat().contains("whatever node"), "{report:?}");
            assert_eq!(of(uri, Caller::Person).code, 0, "a person knows where he is");
        }
        for uri in ["qemu:///system", "qemu+tls://a/system,qemu+tls://b/system", "qemu+unix:///system?socket=/a,qemu+tls://b/system"] {
            assert_eq!(of(uri, Caller::Fencer).code, 0, "{uri}");
        }
    }

    /// A user's libvirt knows none of the guests of the host.
    #[test]
    fn the_libvirt_of_a_user_is_none_of_a_pool() {
        let of =
            |uri: &str, missing: &str, caller| run(Action::ValidateAll, &options(&[("uri", uri), ("missing_as_off", missing)]), caller);
        for (uri, missing) in [
            ("qemu+ssh://hosta/session", "1"),
            ("qemu:///session", "1"),
            ("qemu+ssh://hosta/session,qemu+ssh://hostb/system", "0"),
            ("qemu+ssh://hosta/session?keyfile=/k,qemu+ssh://hostb/session", "0"),
        ] {
            let report = of(uri, missing, Caller::Fencer);
            assert!(report.code == 1 && report.complaints.concat().contains("libvirt of a user"), "{uri}: {report:?}");
            assert_eq!(of(uri, missing, Caller::Person).code, 0, "a person knows which one is meant");
        }
        assert_eq!(of("qemu+ssh://hosta/session", "0", Caller::Fencer).code, 0);
    }

    #[test]
    fn no_guest_is_off_because_the_libvirt_of_whatever_node_does_not_know_it() {
        let of = |action, missing: &str, caller| {
            run(
                action,
                &options(&[("uri", "qemu+unix:///system?socket=/run/libvirt/none"), ("plug", "web1"), ("missing_as_off", missing)]),
                caller,
            )
        };
        for action in [Action::Off, Action::Reboot, Action::On, Action::Status, Action::Monitor, Action::ValidateAll] {
            let report = of(action, "1", Caller::Fencer);
            let text = report.complaints.concat();
            assert!(
                report.code == 1 && text.contains("missing_as_off") && text.contains("qemu+ssh://HOST/system"),
                "{action:?}: {report:?}"
            );
            assert!(!of(action, "0", Caller::Fencer).complaints.concat().contains("missing_as_off"), "{action:?}");
            assert!(!of(action, "1", Caller::Person).complaints.concat().contains("missing_as_off"), "a person knows where he is");
        }
    }

    #[test]
    fn which_guest() {
        let pool = Pool::new(&options(&[NOWHERE]), UNLIMITED).unwrap();
        let of = |pairs: &[(&str, &str)]| {
            plugs(Action::Off, &options(pairs), &pool, &Nodes::new(Caller::Person))
                .map(|plugs| plugs.into_iter().map(|plug| plug.target.word).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(of(&[("plug", "a"), ("nodename", "n")]).as_deref(), Ok("a"));
        assert_eq!(of(&[("nodename", "n1,n2")]).as_deref(), Ok("n1,n2"), "a node's name is one name");
        assert_eq!(of(&[("plug", "a, b")]).as_deref(), Ok("a|b"));
        assert_eq!(of(&[("plug", "a,b;c"), ("plug_separator", ";")]).as_deref(), Ok("a,b|c"));
        assert!(of(&[]).is_err());
        assert!(of(&[("plug", "a,")]).is_err());
        assert!(of(&[("plug", "a\tb")]).is_err());
        assert!(of(&[("plug", "a"), ("use_uuid", "1")]).is_err());
        let pinned = plug("web1", &options(&[("uuid_map", "web1:c7a5fdbdcdaf9455926ad65c16db1809")]), &pool, &Nodes::new(Caller::Person))
            .map_err(drop)
            .unwrap();
        assert_eq!(pinned.target.uuid.as_deref(), Some("c7a5fdbd-cdaf-9455-926a-d65c16db1809"));
        assert!(pinned.target.name.is_some());
    }
}
