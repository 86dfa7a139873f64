//! `kvmha metrics`: the guests and the moves for Prometheus, in its text format, as node exporter's textfile collector reads it.

#[cfg(test)]
mod alerts;

use super::overview::{Guest, Overview};
use super::print;
use crate::domain::migration::history::{self, Entry};
use crate::log;
use crate::ocf::HISTORY;
use anyhow::anyhow;
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = "Without Pacemaker kvmha_up is 0, there are no guests, and the code is 1.\n\nExamples:\n  kvmha metrics\n  \
kvmha metrics --output /var/lib/prometheus/node-exporter/kvmha.prom    # once a minute, by a timer")]
pub(super) struct Arguments {
    /// Write them to this file, whole or not at all, instead of to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where the records of moves are
    #[arg(long, value_name = "FOLDER", default_value = HISTORY)]
    folder: PathBuf,
}

/// 0: all of it. 1: Pacemaker cannot be asked, or the records of moves cannot be read.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let overview = Overview::take();
    let moves = history::read(&arguments.folder);
    let text = render(overview.as_ref().ok(), moves.as_deref().unwrap_or_default());
    match &arguments.output {
        Some(path) => write(path, &text).map_err(|error| anyhow!("{} cannot be written: {}", path.display(), said(&error)))?,
        None => {
            print(&text);
        }
    }
    let unread = moves.err().map(|error| format!("{}: {}", arguments.folder.display(), log::plain(&error)));
    let troubles: Vec<String> = overview.err().map(|error| format!("{error:#}")).into_iter().chain(unread).collect();
    troubles.iter().for_each(|text| log::complain(text));
    Ok(u8::from(!troubles.is_empty()))
}

/// The collector reads at any moment: it finds the old file or the new one.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// What is wrong; of a new file tempfile would name one that nobody has heard of.
fn said(error: &std::io::Error) -> String {
    if error.raw_os_error().is_some() { log::plain(error) } else { error.kind().to_string() }
}

/// One metric: name, help, and its samples.
struct Metric {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Metric {
    fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, samples: Vec::new() }
    }

    fn add(&mut self, labels: Vec<(&'static str, String)>, value: f64) {
        self.samples.push((labels, value));
    }

    fn write(&self, text: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        let _ = writeln!(text, "# HELP {} {}\n# TYPE {0} gauge", self.name, self.help);
        for (labels, value) in &self.samples {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{}{labels} {value}", self.name);
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus counts in floating point; seconds since 1970 and bytes of a move are below 2^53"
)]
fn number(value: u64) -> f64 {
    value as f64
}

fn render(overview: Option<&Overview>, moves: &[Entry]) -> String {
    let mut up = Metric::new("kvmha_up", "1 if Pacemaker could be asked.");
    up.add(Vec::new(), f64::from(u8::from(overview.is_some())));
    let mut metrics = vec![up];
    if let Some(overview) = overview {
        let mut quorum = Metric::new("kvmha_cluster_quorum", "1 if this partition has quorum.");
        quorum.add(Vec::new(), f64::from(u8::from(overview.quorum)));
        let mut maintenance = Metric::new("kvmha_cluster_maintenance", "1 if the whole cluster is in maintenance mode.");
        maintenance.add(Vec::new(), f64::from(u8::from(overview.maintenance)));
        let mut online = Metric::new("kvmha_node_online", "1 if the node is a member in good standing.");
        for node in &overview.nodes {
            online.add(vec![("node", node.name.clone())], f64::from(u8::from(node.online)));
        }
        metrics.extend([quorum, maintenance, online]);
        metrics.extend(of_guests(&overview.guests));
    }
    metrics.extend(of_moves(moves));
    let mut text = String::new();
    metrics.iter().for_each(|metric| metric.write(&mut text));
    text
}

fn of_guests(guests: &[Guest]) -> Vec<Metric> {
    let mut started =
        Metric::new("kvmha_guest_started", "1 on the node where Pacemaker has the guest started; node is empty if it has it nowhere.");
    let mut running =
        Metric::new("kvmha_guest_running", "1 if the CPUs of the copy on this node run, 0 if they stand still, by libvirt's word.");
    let mut copies = Metric::new("kvmha_guest_copies", "Copies that were seen, where somebody could be asked.");
    let mut managed = Metric::new("kvmha_guest_managed", "1 if Pacemaker acts on the guest.");
    let mut failed = Metric::new("kvmha_guest_failed", "1 if the resource has failed or is blocked.");
    let mut since = Metric::new("kvmha_guest_since_timestamp_seconds", "Since when the guest is as it is.");
    let mut failure =
        Metric::new("kvmha_guest_last_failure_timestamp_seconds", "When an action of the guest failed last that was not cleaned up.");
    let mut moved = Metric::new("kvmha_guest_last_move_success", "1 if the last move of the guest succeeded.");
    for guest in guests {
        let labels = || vec![("resource", guest.resource.clone())];
        let with = |node: &str| vec![("resource", guest.resource.clone()), ("node", node.to_owned())];
        match &guest.nodes[..] {
            [] => started.add(with(""), 0.0),
            nodes => nodes
                .iter()
                .for_each(|node| started.add(with(node), f64::from(u8::from(matches!(guest.role.as_str(), "Started" | "Migrating"))))),
        }
        for copy in &guest.copies {
            if let Some(runs) = copy.runs {
                running.add(with(&copy.node), f64::from(u8::from(runs)));
            }
        }
        copies.add(labels(), number(guest.copies.len() as u64));
        managed.add(labels(), f64::from(u8::from(guest.managed)));
        failed.add(labels(), f64::from(u8::from(guest.failed)));
        if let Some(seconds) = guest.since {
            since.add(labels(), number(seconds));
        }
        if let Some(at) = guest.last_failure.as_ref().and_then(|failed| failed.at) {
            failure.add(labels(), number(at));
        }
        if let Some(last) = &guest.last_move {
            moved.add(labels(), f64::from(u8::from(last.moved)));
        }
    }
    vec![started, running, copies, managed, failed, since, failure, moved]
}

/// The moves from this node that are on record, and the last of each guest.
fn of_moves(moves: &[Entry]) -> Vec<Metric> {
    let mut count = Metric::new("kvmha_migrations_recorded", "Moves from this node that are on record; the newest are kept.");
    let mut ended = Metric::new("kvmha_migration_last_end_timestamp_seconds", "When the last move of the guest from this node ended.");
    let mut success = Metric::new("kvmha_migration_last_success", "1 if it succeeded.");
    let mut seconds = Metric::new("kvmha_migration_last_duration_seconds", "How long it took.");
    let mut pause = Metric::new("kvmha_migration_last_pause_seconds", "How long the guest stood still, by QEMU's count.");
    let mut bytes = Metric::new("kvmha_migration_last_sent_bytes", "How much was sent.");
    let mut counts: BTreeMap<(&str, bool), u64> = BTreeMap::new();
    let mut last: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in moves {
        *counts.entry((&entry.guest, entry.moved)).or_default() += 1;
        last.insert(&entry.guest, entry);
    }
    for ((guest, moved), times) in counts {
        let result = if moved { "moved" } else { "failed" };
        count.add(vec![("guest", guest.to_owned()), ("result", result.to_owned())], number(times));
    }
    for (guest, entry) in last {
        let labels = || vec![("guest", guest.to_owned()), ("to", entry.to.clone())];
        ended.add(labels(), number(entry.ended));
        success.add(labels(), f64::from(u8::from(entry.moved)));
        seconds.add(labels(), number(entry.total_ms) / 1000.0);
        if let Some(ms) = entry.course.pause_ms {
            pause.add(labels(), number(ms) / 1000.0);
        }
        if let Some(sent) = entry.course.bytes {
            bytes.add(labels(), number(sent));
        }
    }
    vec![count, ended, success, seconds, pause, bytes]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::migration::history::Course;

    fn entry(ended: u64, moved: bool) -> Entry {
        let course = Course { pause_ms: moved.then_some(92), ..Course::default() };
        Entry {
            ended,
            guest: "we\"b\\1".into(),
            from: "node1".into(),
            to: "node2".into(),
            moved,
            reason: String::new(),
            total_ms: 840,
            policy: "plain".into(),
            course,
        }
    }

    #[test]
    fn the_text_format() {
        let text = render(None, &[entry(1, true), entry(2, true), entry(3, false)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["# HELP kvmha_up 1 if Pacemaker could be asked.", "# TYPE kvmha_up gauge", "kvmha_up 0"]);
        assert!(lines.contains(&r#"kvmha_migrations_recorded{guest="we\"b\\1",result="moved"} 2"#), "{text}");
        assert!(lines.contains(&r#"kvmha_migration_last_success{guest="we\"b\\1",to="node2"} 0"#), "{text}");
        assert!(lines.contains(&r#"kvmha_migration_last_duration_seconds{guest="we\"b\\1",to="node2"} 0.84"#), "{text}");
        assert!(!text.contains("last_pause"), "of the last one nothing is known: {text}");
    }

    #[test]
    fn a_file_is_whole_and_readable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvmha.prom");
        write(&path, "one\n").unwrap();
        write(&path, "two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write(&folder.path().join("no/kvmha.prom"), "").is_err());
    }
}
