//! `kvmha where`: where a guest is, and what it has left where.

use super::table::{Colour, Paint, moment};
use super::whereabouts::{Place, Whereabouts};
use super::{CANNOT_TELL, Given, print};
use clap::Args;
use serde::Serialize;

#[derive(Args)]
#[command(
    after_help = "The code is 0 if there is exactly one copy, 1 if there is none, 2 if there are several, or that cannot be told: a node could not be \
asked, or its libvirt has none while Pacemaker has the guest there or a stop has failed there. Then only that node, which sees its processes, can tell: \
ask there. A node that Pacemaker has proven to be off has none.\n\nExamples:\n  kvmha where web1\n  kvmha where web1 --json\n  \
kvmha where /srv/vms/web1.xml --set migration_transport=ssh --node node2"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    given: Given,
    /// Ask this node too; without Pacemaker only those that are named are known
    #[arg(long, value_name = "NODE")]
    node: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    verdict: &'static str,
    #[serde(flatten)]
    whereabouts: &'a Whereabouts,
}

/// 0: one copy. 1: none. 2: more, or cannot tell.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let found = Whereabouts::take(&arguments.given, &arguments.node)?;
    let (code, verdict) = verdict(&found);
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&Answer { verdict, whereabouts: &found })?));
        return Ok(code);
    }
    print(&Paint::of_stdout().table(&["NODE", "COPY", "PROCESS", "LEFT THERE"], found.places.iter().map(row).collect()));
    print(&found.places.iter().filter_map(|place| Some(format!("{}: {}\n", place.node, place.trouble.as_ref()?))).collect::<String>());
    print(&found.troubles.iter().map(|trouble| format!("{trouble}\n")).collect::<String>());
    if let Some(file) = &found.snapshot {
        print(&format!("saved state: {file}\n"));
    }
    print(&format!("{}\n", conclusion(&found)));
    Ok(code)
}

fn verdict(found: &Whereabouts) -> (u8, &'static str) {
    match (found.copies().len(), found.is_unsure()) {
        (2.., _) => (CANNOT_TELL, "several"),
        (_, true) => (CANNOT_TELL, "unknown"),
        (1, false) => (0, "one"),
        (0, false) => (1, "none"),
    }
}

/// One sentence.
fn conclusion(found: &Whereabouts) -> String {
    let name = &found.guest;
    let places: Vec<String> = found.copies().iter().map(|place| place.node.clone()).collect();
    let mut unsure = String::from(if found.is_unanswered() { "; not everybody could be asked" } else { "" });
    let unseen: Vec<&str> = found.places.iter().filter(|place| place.unseen).map(|place| place.node.as_str()).collect();
    if !unseen.is_empty() {
        unsure += &format!("; whether it is on {} can only be told there: ask there", unseen.join(" or "));
    }
    match &places[..] {
        [] => format!("{name} was found nowhere{unsure}"),
        [place] => format!("{name} is on {place}{unsure}"),
        [first, rest @ ..] => format!("{name} is on {first} and {}{unsure}", rest.join(" and ")),
    }
}

fn row(place: &Place) -> (Colour, Vec<String>) {
    let copy = match (&place.state, place.copy, place.off) {
        (Some(state), ..) if place.incoming => format!("{state}, may be coming in"),
        (Some(state), ..) if place.held => format!("{state}, held"),
        (Some(state), ..) => state.clone(),
        (None, Some(true), _) => "unknown to libvirt".into(),
        (None, Some(false), Some(since)) => format!("off since {} (UTC)", moment(since)),
        (None, Some(false), None) => "-".into(),
        (None, None, _) if place.unseen => "cannot be told from here".into(),
        (None, None, _) if place.misled => "was not asked".into(),
        (None, None, _) => "cannot be asked".into(),
    };
    let processes = place.emulators.iter().map(|process| {
        let since = process.since.map(|since| format!(" since {} (UTC)", moment(since))).unwrap_or_default();
        format!("{}{since}{}", process.pid, if process.ending { ", ending" } else { "" })
    });
    let processes: Vec<String> = processes.collect();
    let process = match (place.here, &processes[..]) {
        (false, _) => "not seen from here".into(),
        (true, []) => "-".into(),
        (true, some) => some.join(", "),
    };
    let left = left(place).join(", ");
    let colour = match (place.copy, place.runs) {
        (None, _) => Colour::Yellow,
        (Some(true), false) => Colour::Red,
        _ => Colour::Plain,
    };
    (colour, vec![place.node.clone(), copy, process, if left.is_empty() { "-".into() } else { left }])
}

fn left(place: &Place) -> Vec<String> {
    let mut left = Vec::new();
    let mut add = |there: bool, text: &str| {
        if there {
            left.push(text.to_owned());
        }
    };
    add(place.defined, "a definition in libvirt");
    add(place.autostart, "autostart");
    add(place.saved, "a saved state in libvirt");
    if let Some(record) = &place.record {
        add(true, "a state file");
        add(record.creating, "a start whose end is not known");
        add(record.moving.is_some(), "a move whose end is not known");
    }
    left.extend(place.unproven.iter().map(|end| format!("an end at {} of {} (UTC) that was not seen", end.host, moment(end.begun))));
    left
}

#[cfg(test)]
mod tests {
    use super::super::whereabouts::tests::{absent, found};
    use super::*;

    #[test]
    fn what_can_only_be_told_on_the_node_itself_is_not_nowhere() {
        let nowhere = found("", &[absent("n1"), absent("n2")]);
        assert_eq!((verdict(&nowhere), conclusion(&nowhere).as_str()), ((1, "none"), "web1 was found nowhere"));
        let unseen = Place { copy: None, unseen: true, ..absent("n2") };
        let unsure = found("", &[absent("n1"), unseen.clone()]);
        assert_eq!(verdict(&unsure), (2, "unknown"));
        assert_eq!(conclusion(&unsure), "web1 was found nowhere; whether it is on n2 can only be told there: ask there");
        assert_eq!(row(&unseen).1[1], "cannot be told from here");
        let silent = found("", &[absent("n1"), Place { copy: None, ..absent("n2") }]);
        assert_eq!((verdict(&silent).0, conclusion(&silent).as_str()), (2, "web1 was found nowhere; not everybody could be asked"));
    }
}
