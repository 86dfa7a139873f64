//! The guest's own sign of life: its agent, and what its devices do as a second opinion.
//!
//! An agent that does not answer is not yet a guest that hangs: it may never have been started, or be busy. So only one that has answered
//! before is missed, and a guest whose disks or network move is never called hung (the lesson of systems that reset guests by a
//! heartbeat alone).

use super::wire::{self, Pulse};
use super::{Connection, Error, Kind, Result, Uri};
use crate::deadline::Deadline;
use serde::{Deserialize, Serialize};

/// The name by which the agent's channel is known in the guest, and to libvirt.
const CHANNEL: &str = "org.qemu.guest_agent.0";

/// What is known of a guest's pulse from one monitor to the next; begun anew with each emulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulses {
    /// The emulator it is about.
    pub pid: i32,
    /// How often in a row the agent has been silent while the guest's devices stood still.
    pub silent: u64,
    /// The devices' counters when it was silent last; there are none when it has answered since.
    pub activity: Option<u64>,
}

impl Pulses {
    /// After the agent was silent once more, with the devices' counters now.
    #[must_use]
    pub fn missed(self, activity: u64) -> Self {
        // The first silence has nothing to be compared with.
        let silent = if self.activity == Some(activity) { self.silent + 1 } else { 0 };
        Self { silent, activity: Some(activity), ..self }
    }
}

/// Asks the agent for a sign of life, over the local daemon's socket.
///
/// # Errors
/// It cannot be asked: libvirt gives no answer or is none that can be asked so, or the guest has no channel for an agent.
pub fn ping(name: &str, uri: &Uri, deadline: &Deadline) -> Result<Pulse> {
    let socket =
        wire::socket(uri).ok_or_else(|| Error::new(Kind::Refused, format!("the agent of {name} cannot be asked through {uri}")))?;
    wire::ping(&socket, wire::SYSTEM, name, deadline).map_err(|trouble| Error::new(Kind::Unresponsive, trouble.to_string()))
}

/// The sum of all that the guest has read, written and sent so far: requests of its disks, packets of its network interfaces. What it
/// receives is not counted, others send that. `None` if nobody in the guest has the agent's channel open.
///
/// # Errors
/// libvirt's own words.
pub fn activity(name: &str, uri: &Uri, deadline: &Deadline) -> Result<Option<u64>> {
    let connection = Connection::open(&uri.to_string(), deadline)?;
    let guest = connection.guest(name, deadline)?.ok_or_else(|| Error::new(Kind::NotFound, format!("{name} is not there any more")))?;
    guest.call("counting what is done by", deadline, |domain| {
        let xml = domain.xml_desc(0)?;
        if is_closed(&xml) {
            return Ok(None);
        }
        let (mut sum, devices) = (0, devices(&xml));
        if devices.is_empty() {
            return Err(Error::new(Kind::State, "it has no disk and no network interface that counts what it does"));
        }
        for device in devices {
            sum += match device {
                Device::Disk(target) => domain.block_stats(&target).map(|disk| disk.rd_req.max(0) + disk.wr_req.max(0))?,
                Device::Interface(target) => domain.interface_stats(&target).map(|interface| interface.tx_packets.max(0))?,
            };
        }
        Ok(Some(sum.unsigned_abs()))
    })
}

/// Whether nobody has the agent's channel open, by a running guest's definition.
pub(super) fn is_closed(xml: &str) -> bool {
    let Ok(document) = roxmltree::Document::parse(xml) else { return false };
    let channels = document.descendants().filter(|node| node.has_tag_name("channel"));
    let targets = channels.flat_map(|channel| channel.children()).filter(|node| node.has_tag_name("target"));
    let mut agents = targets.filter(|target| target.attribute("name") == Some(CHANNEL));
    agents.any(|target| target.attribute("state") == Some("disconnected"))
}

/// A device that counts what the guest does, by its target's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Device {
    Disk(String),
    Interface(String),
}

/// The disks and network interfaces of a running guest's definition.
pub(super) fn devices(xml: &str) -> Vec<Device> {
    let Ok(document) = roxmltree::Document::parse(xml) else { return Vec::new() };
    let nodes = document.descendants().filter(|node| node.parent().is_some_and(|parent| parent.has_tag_name("devices")));
    let device = |node: roxmltree::Node| {
        let target = node.children().find(|child| child.has_tag_name("target"))?.attribute("dev")?.to_owned();
        match node.tag_name().name() {
            "disk" => Some(Device::Disk(target)),
            "interface" => Some(Device::Interface(target)),
            _ => None,
        }
    };
    nodes.filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_without_activity_counts() {
        let first = Pulses { pid: 7, ..Pulses::default() }.missed(10);
        assert_eq!((first.pid, first.silent), (7, 0));
        let second = first.missed(10);
        assert_eq!(second.silent, 1);
        assert_eq!(second.missed(11).silent, 0);
        assert_eq!(second.missed(10).silent, 2);
    }

    #[test]
    fn a_channel_that_nobody_holds_open() {
        let with = |state: &str, name: &str| {
            format!(
                "<domain><devices><channel type='unix'><target type='virtio' name='{name}' {state}/></channel>\
                 <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0' state='disconnected'/></channel></devices></domain>"
            )
        };
        assert!(is_closed(&with("state='disconnected'", CHANNEL)));
        for (state, name) in [("state='connected'", CHANNEL), ("", CHANNEL), ("state='disconnected'", "org.other.0")] {
            assert!(!is_closed(&with(state, name)), "{state} {name}");
        }
        assert!(!is_closed("<domain"));
    }

    #[test]
    fn disks_and_interfaces() {
        let xml = "<domain><devices><disk><target dev='vda' bus='virtio'/></disk><disk><mirror><target dev='no'/></mirror></disk>\
                   <interface><target dev='vnet0'/></interface><interface/><serial><target port='0'/></serial></devices></domain>";
        assert_eq!(devices(xml), [Device::Disk("vda".into()), Device::Interface("vnet0".into())]);
        assert_eq!(devices("<domain"), []);
    }
}
