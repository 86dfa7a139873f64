//! A device of the cluster, asked as Pacemaker's fencer asks it, but for `kvmha doctor`: does the guest of each node run? Nothing is changed.

use super::actions::Request;
use super::limits::Caller;
use super::options::{self, Options};
use super::plug::Plug;
use super::power::Status;
use super::{action::Action, input};
use crate::deadline::{Deadline, Task};
use crate::domain::{Error, Kind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A device.
#[derive(Clone)]
pub struct Device {
    request: Arc<Request>,
}

/// What a device says of the guest of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It runs.
    On,
    /// It does not, or is not known, and counts as off.
    Off,
    /// The plug is no guest's, or that of several; in the agent's words.
    Nobody(String),
    /// Cannot tell, and why.
    Unknown(String),
}

impl Device {
    /// The device of these parameters, as they are configured.
    ///
    /// # Errors
    /// It cannot work with them, and why.
    pub fn new(parameters: &BTreeMap<String, String>) -> Result<Self, String> {
        let request = Request::new(Action::List, &options(parameters)?, Caller::Fencer)?;
        Ok(Self { request: Arc::new(request) })
    }

    /// The names of all guests that its hosts know.
    ///
    /// # Errors
    /// A host cannot be asked.
    pub fn guests(&self, deadline: &Deadline) -> Result<Vec<String>, String> {
        let lists: Result<Vec<_>, Error> = self.request.pool.list(deadline).into_iter().collect();
        Ok(lists.map_err(|error| error.text)?.into_iter().flatten().map(|entry| entry.name).collect())
    }

    /// Asks about these nodes, each with the plug that Pacemaker gives it; a device with a plug of its own goes by that. The first question makes the
    /// connections, the others are asked side by side.
    #[must_use]
    pub fn look(&self, nodes: &[(String, String)], deadline: &Deadline) -> Vec<Said> {
        let start = |(node, plug): &(String, String)| {
            let (device, node, plug, limit) = (self.clone(), node.clone(), plug.clone(), *deadline);
            Task::start(move || device.ask(node, plug, &limit))
        };
        let end = |task: Task<Said>| task.wait(deadline).unwrap_or_else(|| Said::Unknown("no answer in time".to_owned()));
        let Some((first, others)) = nodes.split_first() else { return Vec::new() };
        let first = end(start(first));
        let tasks: Vec<Task<Said>> = others.iter().map(start).collect();
        std::iter::once(first).chain(tasks.into_iter().map(end)).collect()
    }

    fn ask(&self, node: String, plug: String, deadline: &Deadline) -> Said {
        let given = &self.request.options;
        let options = Options { plug: given.plug.clone().or(Some(plug)), nodename: Some(node), ..given.clone() };
        let plugs = match self.request.plugs(Action::Status, &options) {
            Ok(plugs) => plugs,
            Err(text) => return Said::Nobody(text),
        };
        let said = plugs.into_iter().map(|plug| said(plug, deadline));
        // Of several plugs the one that is worst off.
        said.max_by_key(|said| match said {
            Said::On => 0,
            Said::Unknown(_) => 1,
            Said::Off => 2,
            Said::Nobody(_) => 3,
        })
        .unwrap_or_else(|| Said::Nobody("there is no plug".to_owned()))
    }
}

fn said(mut plug: Plug, deadline: &Deadline) -> Said {
    match plug.status(deadline) {
        Ok(Status::On) => Said::On,
        Ok(Status::Off) => Said::Off,
        Err(error) if error.kind == Kind::NotFound => Said::Nobody(error.text),
        Err(error) => Said::Unknown(error.text),
    }
}

/// What the agent would be told: all but what is Pacemaker's own (`append_config_arg` in its `lib/fencing/st_actions.c`).
fn options(parameters: &BTreeMap<String, String>) -> Result<Options, String> {
    let is_own = |name: &str| name == "action" || name.starts_with("pcmk_") || name.starts_with("CRM_meta");
    let lines = parameters.iter().filter(|(name, value)| !is_own(name) && !is_dynamic(name, value));
    let text: String = lines.map(|(name, value)| format!("{name}={value}\n")).collect();
    let (options, faults) = options::read(&input::parse(text.as_bytes())?.values);
    if faults.is_empty() { Ok(options) } else { Err(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")) }
}

/// Whether it stands for the plug that Pacemaker gives each node (`make_args`).
fn is_dynamic(name: &str, value: &str) -> bool {
    options::row_of(name).is_some_and(|row| row.parameter.name == "plug") && (value.is_empty() || value.eq_ignore_ascii_case("dynamic"))
}

/// The plug that such a device has for every node, whichever is to be fenced: by which name, and which.
#[must_use]
pub fn fixed_plug(parameters: &BTreeMap<String, String>) -> Option<(&str, &str)> {
    let is_plug = |name: &str| options::row_of(name).is_some_and(|row| row.parameter.name == "plug");
    let found = parameters.iter().find(|(name, value)| is_plug(name) && !is_dynamic(name, value));
    found.map(|(name, value)| (name.as_str(), value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_the_agent_is_told() {
        let given = parameters(&[
            ("uri", "qemu+tls://a/system"),
            ("pcmk_host_map", "node1:guest1"),
            ("action", "off"),
            ("option", "off"),
            ("port", "dynamic"),
            ("missing_as_off", "1"),
        ]);
        let read = options(&given).unwrap();
        assert_eq!((read.uri.len(), read.plug, read.missing_as_off), (1, None, true));
        assert_eq!(fixed_plug(&given), None);
        assert_eq!(fixed_plug(&parameters(&[("domain", "guest1")])), Some(("domain", "guest1")));
        assert!(options(&parameters(&[("delay", "soon")])).is_err());
        assert!(Device::new(&parameters(&[("delay", "1")])).is_err_and(|text| text.contains("no host is given")));
    }

    #[test]
    fn a_host_that_is_not_there_cannot_tell() {
        let device = Device::new(&parameters(&[("uri", "qemu+unix:///system?socket=/nonexistent"), ("missing_as_off", "1")]));
        let device = device.map_err(|text| panic!("{text}")).unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        let nodes = ["node1", "node2"].map(|node| (node.to_owned(), "guest1".to_owned()));
        let said = device.look(&nodes, &deadline);
        assert!(said.len() == 2 && said.iter().all(|said| matches!(said, Said::Unknown(_))), "{said:?}");
        assert!(device.guests(&deadline).is_err());
        let Said::Nobody(text) = device.ask("node1".into(), "a\tb".into(), &deadline) else { panic!() };
        assert!(text.contains("control"), "{text}");
    }
}
