//! `ocf:heartbeat:VirtualDomain` and this agent side by side: what each does in the same situation. Where they differ, the row has the number
//! of the difference that the manual announces; a difference without a number fails, and so does a number without a difference.
//!
//! `AGENT_UNDER_TEST=theirs` or `ours` in the environment runs one of them only.

use crate::props::without;
use crate::stage::{AGENT, HERE, Resource, THERE};
use anyhow::{Context, Result, bail, ensure};
use kvmha::ocf::differences::DIFFERENCES;
use lab::{Lab, Output};
use std::fs;
use std::time::Duration;

const INCUMBENT: &str = "/usr/lib/ocf/resource.d/heartbeat/VirtualDomain";

/// One agent, and the guest it is tried on.
struct Side<'a> {
    guest: Resource<'a>,
    agent: &'static str,
}

/// A situation, what each agent does, and the number of the difference.
struct Row {
    name: &'static str,
    theirs: &'static str,
    ours: &'static str,
    difference: Option<u8>,
    run: fn(&Side) -> Result<String>,
}

const fn same(name: &'static str, both: &'static str, run: fn(&Side) -> Result<String>) -> Row {
    Row { name, theirs: both, ours: both, difference: None, run }
}

const fn differ(number: u8, name: &'static str, theirs: &'static str, ours: &'static str, run: fn(&Side) -> Result<String>) -> Row {
    Row { name, theirs, ours, difference: Some(number), run }
}

/// Those that begin with "ocft" are the cases of resource-agents' own test of its agent, under their names.
const ROWS: &[Row] = &[
    same("ocft: check base env", "0", |side| side.codes(&["start"])),
    same("ocft: check base env: invalid 'OCF_RESKEY_config'", "5", |side| side.with("config", "/no_such_file").codes(&["start"])),
    same("ocft: check base env: unset 'OCF_RESKEY_config'", "6", |side| side.with("config", "").codes(&["start"])),
    same("ocft: normal stop", "0 0", |side| side.codes(&["start", "stop"])),
    same("ocft: double start", "0 0", |side| side.codes(&["start", "start"])),
    same("ocft: double stop", "0 0", |side| side.codes(&["stop", "stop"])),
    same("ocft: monitor when running", "0 0", |side| side.codes(&["start", "monitor"])),
    same("ocft: monitor when not running", "7", |side| side.codes(&["monitor"])),
    same("ocft: unimplemented command", "3", |side| side.codes(&["no_cmd"])),
    same("the rest of a life", "7 7 0 0 0 0 0 7 7", |side| {
        side.codes(&["recurring", "status", "validate-all", "start", "recurring", "status", "stop", "recurring", "status"])
    }),
    same("actions that are not offered", "3 3 3", |side| side.codes(&["promote", "demote", "notify"])),
    same("no config: a guest that was never here", "6 6 6", |side| side.with("config", "").codes(&["stop", "monitor", "recurring"])),
    same("config missing: a guest that was never here", "5 0 7 1", |side| {
        side.with("config", "/no_such_file").codes(&["start", "stop", "monitor", "recurring"])
    }),
    same("a definition without a name", "5 0 7", |side| {
        side.guest.edit(|text| text.lines().filter(|line| !line.contains("<name>")).collect::<Vec<_>>().join("\n"))?;
        side.codes(&["start", "stop", "monitor"])
    }),
    same("numbers that are none", "6 6", |side| {
        Ok([side.with("migration_speed", "fast").codes(&["start"])?, side.with("migration_downtime", "x").codes(&["validate-all"])?]
            .join(" "))
    }),
    same("force_stop with snapshot", "6 6", |side| side.with("snapshot", "/srv/vms").codes(&["start", "validate-all"])),
    same("a false boolean in other letters", "0 0", |side| {
        side.with("force_stop", "No").with("save_config_on_stop", "n").codes(&["start", "recurring"])
    }),
    same("stateless without backingfile", "6 6", |side| side.with("stateless", "true").codes(&["start", "validate-all"])),
    same("a guest that a person has paused", "0 0 0 0", |side| {
        side.begin()?;
        side.guest.virsh(HERE, "suspend", &[])?;
        side.codes(&["monitor", "recurring", "status", "start"])
    }),
    same("a guest that has ended by itself", "7 7", |side| {
        side.begin()?;
        side.guest.virsh(HERE, "destroy", &[])?;
        side.codes(&["recurring", "monitor"])
    }),
    same("a move of a guest that is not here", "1", |side| side.codes(&["migrate_to"])),
    same("a move", "0 0 0 7", |side| side.movable()?.moved()),
    same("monitor scripts", "1 0", |side| {
        side.begin()?;
        let fails = side.with("monitor_scripts", "/bin/true /bin/false").codes(&["recurring"])?;
        Ok([fails, side.with("monitor_scripts", "/bin/true").codes(&["recurring"])?].join(" "))
    }),
    same("the guest runs transient", "Persistent:     no", |side| {
        side.begin()?;
        let about = side.guest.virsh(HERE, "dominfo", &[])?;
        Ok(about.lines().find(|line| line.starts_with("Persistent")).unwrap_or_default().to_owned())
    }),
    same("libvirtd dead, the guest runs", "0 0", |side| {
        side.begin()?;
        let lab = side.guest.lab;
        lab.kill(HERE, "libvirtd")?;
        let codes = side.codes(&["recurring", "monitor"]);
        lab.start(HERE, "libvirtd")?;
        codes
    }),
    differ(1, "stop of a guest whose config is gone", "0, it runs", "0, it is gone", |side| {
        side.begin()?;
        let lab = side.guest.lab;
        fs::remove_file(lab.guest_definition(&side.guest.instance))?;
        let code = side.codes(&["stop"])?;
        Ok(format!("{code}, it {}", if side.guest.lives(HERE) { "runs" } else { "is gone" }))
    }),
    differ(1, "monitor of a guest whose config is gone", "1", "0", |side| {
        side.begin()?;
        fs::remove_file(side.guest.lab.guest_definition(&side.guest.instance))?;
        side.codes(&["recurring"])
    }),
    differ(1, "stop of a guest with a wrong parameter", "0, it runs", "0, it is gone", |side| {
        side.begin()?;
        let code = side.with("migration_speed", "fast").codes(&["stop"])?;
        Ok(format!("{code}, it {}", if side.guest.lives(HERE) { "runs" } else { "is gone" }))
    }),
    differ(2, "shutdown_mode", "not tried", "tried", |side| {
        side.begin()?;
        let lab = side.guest.lab;
        let log = || fs::read(lab.layout().on_disk(1, "/var/log/messages")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let before = log()?.len();
        side.with("force_stop", "false").with("shutdown_mode", "agent").call("stop", 8)?;
        // Who asks a guest agent that is not there is told so by libvirt.
        let told = log()?.get(before..).is_some_and(|text| text.contains("guest agent is not configured"));
        Ok(if told { "tried" } else { "not tried" }.into())
    }),
    differ(3, "libvirtd hangs, the guest runs", "killed", "0", |side| {
        side.begin()?;
        let _frozen = crate::stage::Frozen::libvirt(side.guest.lab, HERE)?;
        Ok(side.call("recurring", 6)?.code.map_or("killed".into(), |code| code.to_string()))
    }),
    differ(6, "the reason that is shown", "environment is invalid, resource considered stopped", "/no_such_file", |side| {
        let output = side.with("config", "/no_such_file").call("start", 20)?;
        let last = output.stderr.lines().filter_map(|line| line.strip_prefix("ocf-exit-reason:")).next_back().unwrap_or_default();
        Ok(if last.contains("/no_such_file") { "/no_such_file" } else { last }.into())
    }),
    differ(7, "a definition that libvirt has of the guest", "0, undefined", "0, kept", |side| {
        let (lab, config) = (side.guest.lab, format!("/srv/vms/{}.xml", side.guest.instance));
        lab.check(HERE, &["virsh", "-q", "define", &config], crate::stage::SOON)?;
        let code = side.codes(&["start"])?;
        side.guest.virsh(HERE, "destroy", &[])?;
        let known = side.guest.virsh(HERE, "domstate", &[]).is_ok();
        Ok(format!("{code}, {}", if known { "kept" } else { "undefined" }))
    }),
    differ(10, "save_config_on_stop and a probe", "written", "left alone", |side| {
        side.begin()?;
        side.guest.virsh(HERE, "desc", &["--live", "--title", "changed"])?;
        side.with("save_config_on_stop", "true").call("monitor", 20)?;
        let text = fs::read_to_string(side.guest.lab.guest_definition(&side.guest.instance))?;
        Ok(if text.contains("changed") { "written" } else { "left alone" }.into())
    }),
    differ(11, "a move with an empty hypervisor", "1", "0", |side| {
        let side = side.movable()?.with("hypervisor", "");
        side.begin()?;
        side.codes(&["migrate_to"])
    }),
    differ(13, "csync2 is not there", "5 5", "0 0", |side| {
        side.begin()?;
        without(side.guest.lab, HERE, "/usr/sbin/csync2", || side.with("sync_config_on_stop", "true").codes(&["recurring", "stop"]))
    }),
    differ(15, "a move with a wrong parameter", "6", "1", |side| {
        side.begin()?;
        side.with("migration_speed", "fast").codes(&["migrate_to"])
    }),
    differ(24, "a recurring monitor with a wrong parameter", "1", "190", |side| {
        side.begin()?;
        side.with("migration_speed", "fast").codes(&["recurring"])
    }),
    differ(27, "monitor scripts of a guest that a person has paused", "1", "0", |side| {
        side.begin()?;
        side.guest.virsh(HERE, "suspend", &[])?;
        side.with("monitor_scripts", "/bin/false").codes(&["recurring"])
    }),
    differ(19, "validate-all without the definition", "5", "0", |side| side.with("config", "/no_such_file").codes(&["validate-all"])),
    differ(16, "a boolean that is none", "0", "6", |side| side.with("force_stop", "Yes").codes(&["start"])),
];

/// Differences that are seen elsewhere, where there is more time or no second agent to be had.
const ELSEWHERE: &[(u8, &str)] = &[
    (4, "lifecycle life::deaf"),
    (5, "lifecycle moving::agent_killed_and_arrived, moving::too_slow"),
    (8, "contract the_order_of_a_hosts_shutdown_is_understood_by_systemd"),
    (9, "truth paused_io_error::monitor, paused_watchdog::monitor; hang errors::stop"),
    (12, "the tests beside src/ocf/route.rs"),
    (14, "lifecycle tools::light_monitor, dropin numbers::written_and_left_alone"),
    (17, "lifecycle late::held_in_preparation"),
    (18, "dropin saved::older_than_the_disk, saved::ran_on_without_it"),
    (20, "migration busy::converges, busy::gentle_stays"),
    (21, "storage other::folder"),
    (22, "moves pacemaker::lost_sight_of; lifecycle states::uuid_of_another"),
    (23, "dropin tools::reloaded"),
    (25, "migration preflight::network, transports::filtered, transports::tls; storage tpm::of_both_nodes"),
    (26, "storage same::folder"),
    (28, "truth suspended::monitor; lifecycle states::asleep"),
    (29, "the tests beside src/ocf/starting.rs"),
];

impl<'a> Side<'a> {
    fn new(lab: &'a Lab, agent: &'static str) -> Result<Self> {
        let mut guest = Resource::empty(lab, "pair")?.with("hypervisor", "qemu:///system").with("force_stop", "true");
        if agent == INCUMBENT {
            // It would look for its resource in the CIB at every call.
            for name in ["cpu", "host_memory", "hv_memory"] {
                guest = guest.with(&format!("autoset_utilization_{name}"), "false");
            }
        }
        Ok(Self { guest, agent })
    }

    fn with(&self, name: &str, value: &str) -> Self {
        Self { guest: self.guest.with(name, value), agent: self.agent }
    }

    fn movable(&self) -> Result<Self> {
        Ok(self.with("migration_transport", "tcp").with("migrate_options", "--unsafe"))
    }

    /// A call, killed at its timeout as Pacemaker does: no code then.
    fn call_on(&self, node: &str, action: &str, seconds: u64) -> Result<Output> {
        let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
        let more: &[_] = if action.starts_with("migrate") { &target } else { &[] };
        let mut words = self.guest.words(node, action, seconds, more);
        if self.agent == INCUMBENT {
            for word in &mut words {
                *word = word.replace(AGENT, INCUMBENT).replace("PROVIDER=kvmha", "PROVIDER=heartbeat");
            }
        }
        let time = seconds.to_string();
        words.splice(0..0, ["timeout", "-s", "KILL", &time].map(str::to_owned));
        let mut output = self.guest.lab.exec(node, &words, Duration::from_secs(seconds + 10))?;
        output.code = output.code.filter(|code| *code != 137);
        Ok(output)
    }

    fn call(&self, action: &str, seconds: u64) -> Result<Output> {
        self.call_on(HERE, action, seconds)
    }

    /// The codes of calls, one after the other.
    fn codes(&self, actions: &[&str]) -> Result<String> {
        let code = |action: &&str| Ok(self.call(action, 60)?.code.map_or("killed".into(), |code| code.to_string()));
        Ok(actions.iter().map(code).collect::<Result<Vec<String>>>()?.join(" "))
    }

    fn begin(&self) -> Result<()> {
        let output = self.call("start", 60)?;
        ensure!(output.ok() && self.guest.lives(HERE), "it does not start: {}", output.stderr);
        Ok(())
    }

    /// There and verified: migrate_to, migrate_from, and stop and monitor at the source.
    fn moved(&self) -> Result<String> {
        self.begin()?;
        let to = self.codes(&["migrate_to"])?;
        let from = self.call_on(THERE, "migrate_from", 60)?.code.context("killed")?;
        ensure!(self.guest.lives(THERE), "it is not there");
        Ok(format!("{to} {from} {}", self.codes(&["stop", "monitor"])?))
    }
}

/// Every row, with both agents or the one that is asked for.
pub fn theirs_and_ours(lab: &Lab) -> Result<()> {
    let chosen = std::env::var("AGENT_UNDER_TEST").unwrap_or_else(|_| "both".to_owned());
    ensure!(["theirs", "ours", "both"].contains(&chosen.as_str()), "AGENT_UNDER_TEST is {chosen}");
    let mut wrong = Vec::new();
    for row in ROWS {
        for (side, agent, expected) in [("theirs", INCUMBENT, row.theirs), ("ours", AGENT, row.ours)] {
            if chosen != "both" && chosen != side {
                continue;
            }
            let seen = Side::new(lab, agent).and_then(|side| (row.run)(&side));
            match seen {
                Ok(seen) if seen == expected => {}
                Ok(seen) => wrong.push(format!("{}: {side}: {seen}, not {expected} (difference {:?})", row.name, row.difference)),
                Err(error) => wrong.push(format!("{}: {side}: {error:#}", row.name)),
            }
            for node in [HERE, THERE] {
                let _ = fs::remove_dir_all(lab.path_in(node, "/run/kvmha")?);
            }
            lab.guests_clear()?;
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A number stands for a difference that is announced, and every one that is announced is seen; docs/from-virtualdomain.md has the same list.
pub fn announced(_: &Lab) -> Result<()> {
    for row in ROWS {
        let announced = row.difference.is_none_or(|number| DIFFERENCES.iter().any(|known| known.number == number));
        ensure!(announced && row.difference.is_some() == (row.theirs != row.ours), "{}: difference {:?}", row.name, row.difference);
    }
    let page: String = include_str!("../../docs/from-virtualdomain.md").split_whitespace().collect::<Vec<_>>().join(" ");
    for known in DIFFERENCES {
        let number = known.number;
        let seen = ROWS.iter().any(|row| row.difference == Some(number)) != ELSEWHERE.iter().any(|(other, _)| *other == number);
        ensure!(seen, "difference {number} is seen nowhere, or has two places");
        ensure!(page.contains(&format!("{number}. {}", known.text)), "the page does not have difference {number} as the manual does");
    }
    if DIFFERENCES.iter().enumerate().any(|(at, known)| usize::from(known.number) != at + 1) {
        bail!("the numbers are not one after the other");
    }
    Ok(())
}
