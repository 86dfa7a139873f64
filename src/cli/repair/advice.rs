//! What is said to a person: what is amiss and not for this program to do.

use super::{agent, has_failed, has_to_be_cleaned, has_to_be_refreshed, is_nowhere};
use crate::cli::outlook::{self, Then};
use crate::cli::overview::OURS;
use crate::cli::shell::{self, quoted};
use crate::cli::whereabouts::{Place, Whereabouts};

/// What Pacemaker would do if what it keeps were taken away.
#[derive(Default)]
pub(super) struct Outlook {
    /// What to do about the constraints that a move by hand has left.
    pub(super) clear: Option<String>,
    /// Why its failures are not forgotten.
    pub(super) refresh: Option<String>,
    /// What it does with a guest that is nowhere without its failures.
    pub(super) then: Option<Then>,
}

impl Outlook {
    pub(super) fn take(found: &Whereabouts) -> Self {
        let (Some(view), Some(cib), Some(id)) = (&found.view, &found.cib, &found.resource) else { return Self::default() };
        let failed = found.here().filter(|here| has_to_be_refreshed(found, here));
        let cleaned = has_to_be_cleaned(found).then(|| outlook::cleaning(view, cib, id));
        let (then, objection) = cleaned.map_or((None, None), |cleaned| (cleaned.clone().ok(), cleaned.err()));
        Self {
            clear: outlook::clearing(view, cib, id, &found.constraints),
            refresh: failed.and_then(|here| outlook::refreshing(view, cib, id, &here.node)).or(objection),
            then,
        }
    }
}

/// What is amiss and not for this program to do.
pub(super) fn advice(found: &Whereabouts, outlook: &Outlook) -> Vec<String> {
    let name = &found.guest;
    // As a shell takes it.
    let word = quoted(name);
    let mut advice = Vec::new();
    if let Some(pending) = &found.pending {
        advice.push(format!("wait: Pacemaker is at work with it ({pending})"));
    }
    let running: Vec<&str> = found.places.iter().filter(|place| place.runs).map(|place| place.node.as_str()).collect();
    if running.len() > 1 {
        advice.push(format!(
            "{name} runs on {}: its disks may be damaged already. Run this on each of them: a move that failed may have held the older copy, which only \
             its own node can see. Else decide which copy is right, and end the other at once: {} destroy {}",
            running.join(" and "),
            shell::virsh(&found.asked.hypervisor().to_string()),
            shell::guest(name, found.uuid.as_deref())
        ));
    }
    // It may have run where nothing of it is any more, and its disks have gone on then.
    if running.is_empty() && !found.is_unsure() && found.here().is_some_and(|here| here.held) {
        // A refresh does not wait until Pacemaker has looked for it again, and nothing is restarted that is not known to run.
        let how = found.resource.as_ref().map(|id| {
            format!(": crm_resource --refresh --force --resource {id} && crm_resource --wait && crm_resource --restart --resource {id}")
        });
        advice.push(format!(
            "{name} is held on this node. Do not let it go on, its memory may be older than its disks, but stop it and start it anew{}",
            how.unwrap_or_default()
        ));
    }
    let stands = |place: &&&Place| !place.runs && !place.held;
    if let Some(place) = found.copies().iter().find(stands).filter(|_| running.is_empty() && found.pending.is_none() && has_failed(found)) {
        let state = place.state.as_deref().unwrap_or("an emulator lives");
        advice.push(format!(
            "{name} has failed, and is still on {} ({state}): when it has ended there, run this again. One that hangs on its storage ends when that \
             answers again, or when the node is turned off",
            place.node
        ));
    }
    if let Some(id) = found.resource.as_ref().filter(|_| has_failed(found) && is_nowhere(found) && agent(found) != Some(OURS)) {
        advice.push(format!(
            "{name} has failed, and no libvirt has it; its agent does not look for processes: see that no node has one, then {}",
            outlook::cleanup(id)
        ));
    }
    for place in found.places.iter().filter(|place| !place.here && place.copy == Some(true) && !place.runs && !running.is_empty()) {
        advice.push(format!("run kvmha repair {word} on {}: a copy stands still there", place.node));
    }
    for place in found.places.iter().filter(|place| place.copy.is_none()) {
        let why = place.trouble.as_deref().unwrap_or("no answer");
        advice.push(if place.unseen {
            format!("run kvmha repair {word} on {}: {why}", place.node)
        } else if place.misled {
            format!("see that remoteuri has %n for the node's name, and that the name of {} leads to it ({why})", place.node)
        } else {
            format!("{} cannot be asked: bring its libvirt back, or turn it off ({why})", place.node)
        });
    }
    for end in found.here().map(|here| &here.unproven[..]).unwrap_or_default() {
        advice.push(format!(
            "turn the host of {} off, for nobody has seen {name} end there; then rm {}, and run fence_kvmha -o tell",
            end.host,
            quoted(&end.file.display().to_string())
        ));
    }
    advice.extend(outlook.clear.iter().map(|clear| {
        let left = found.constraints.join(", ");
        format!("{clear}; as long as it is there Pacemaker goes on trying to move it ({left})")
    }));
    advice.extend(outlook.refresh.clone());
    for place in found.places.iter().filter(|place| place.autostart) {
        let uri = place.uri.as_deref().unwrap_or("qemu:///system");
        advice.push(format!("virsh -c {} autostart --disable {}", quoted(uri), shell::guest(name, found.uuid.as_deref())));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::super::{Step, plan};
    use super::*;
    use crate::cli::whereabouts::Process;
    use crate::cli::whereabouts::tests::{absent, found};
    use crate::cluster::view::{Failure, View};
    use crate::fence;

    /// web1, in this role, drawn to n2; it runs on n1, which is this node.
    fn drawn(role: &str) -> Whereabouts {
        let text = format!("<resources><resource id='web1' resource_agent='{OURS}' role='{role}'><node name='n1'/></resource></resources>");
        let here = Place { runs: true, copy: Some(true), busy: Some(false), ..absent("n1") };
        Whereabouts { constraints: vec!["cli-prefer-web1".to_owned()], ..found(&text, &[here]) }
    }

    #[test]
    fn while_it_moves_there_is_only_to_wait() {
        let found = drawn("Migrating");
        let outlook = Outlook::take(&found);
        assert_eq!(plan(&found, &outlook), []);
        let [advice] = &advice(&found, &outlook)[..] else { panic!() };
        assert!(advice.starts_with("wait: Pacemaker is at work with it (Migrating)"), "{advice}");
    }

    #[test]
    fn what_is_left_of_a_move_that_is_over() {
        let outlook = Outlook { clear: Some("crm_resource --clear --resource web1".to_owned()), refresh: None, then: None };
        let [advice] = &advice(&drawn("Started"), &outlook)[..] else { panic!() };
        assert!(advice.starts_with("crm_resource --clear --resource web1") && advice.contains("cli-prefer-web1"), "{advice}");
    }

    #[test]
    fn a_failure_is_not_forgotten_where_that_costs_a_stop() {
        let mut found = drawn("Started");
        found.constraints.clear();
        found.view = found.view.map(|view| View {
            failures: vec![Failure {
                key: "web1_migrate_to_0".to_owned(),
                node: "n1".to_owned(),
                call: "7".to_owned(),
                reason: "no route".to_owned(),
            }],
            ..view
        });
        let [Step::Refresh { reason, .. }] = &plan(&found, &Outlook::default())[..] else { panic!() };
        assert_eq!(reason, "web1_migrate_to_0: no route");
        let outlook = Outlook { clear: None, refresh: Some("n1 is in standby".to_owned()), then: None };
        assert_eq!(plan(&found, &outlook), []);
        assert_eq!(advice(&found, &outlook), ["n1 is in standby"]);
    }
    /// A guest whose stop has failed and is blocked, of which no node has anything any more.
    fn blocked(nodes: &[Place]) -> Whereabouts {
        let mut found = drawn("Started");
        found.constraints.clear();
        found.view = found.view.map(|mut view| {
            (view.resources[0].failed, view.resources[0].blocked) = (true, true);
            let failure = ("web1_stop_0".to_owned(), "n1".to_owned(), "9".to_owned(), "it hangs".to_owned());
            let (key, node, call, reason) = failure;
            View { failures: vec![Failure { key, node, call, reason }], ..view }
        });
        found.places = nodes.to_vec();
        found
    }

    #[test]
    fn a_failure_of_a_guest_that_is_nowhere_is_forgotten() {
        let outlook = Outlook { then: Some(Then::Starts("n2".to_owned())), ..Outlook::default() };
        let found = blocked(&[absent("n1"), absent("n2")]);
        let steps = plan(&found, &outlook);
        let [step @ Step::Cleanup { .. }] = &steps[..] else { panic!("{steps:?}") };
        let text = step.to_string();
        assert!(text.contains("runs nowhere: it then starts it on n2 (web1_stop_0: it hangs)"), "{text}");
        assert_eq!(advice(&found, &outlook), [""; 0]);
        // One that is off for certain has nothing, whatever could not be asked there.
        let off = Place { off: Some(1), trouble: Some("no answer".to_owned()), ..absent("n2") };
        assert_eq!(plan(&blocked(&[absent("n1"), off]), &outlook), steps);
        // What Pacemaker would do to others is for a person to decide.
        assert_eq!(plan(&found, &Outlook::default()), []);
        let says = |why: Option<&str>| {
            let then = Some(Then::Stays(why.map(str::to_owned)));
            plan(&found, &Outlook { then, ..Outlook::default() })[0].to_string()
        };
        assert!(says(Some("it has target-role=Stopped")).contains("stays stopped, for it has target-role=Stopped"));
        assert!(says(None).contains("stays stopped, for a reason that Pacemaker's scores show"), "{}", says(None));
    }

    #[test]
    fn a_failure_is_kept_as_long_as_the_guest_may_be_somewhere() {
        let outlook = Outlook { then: Some(Then::Starts("n2".to_owned())), ..Outlook::default() };
        let unseen = fence::Unproven { host: "n2".to_owned(), begun: 1, file: "/run/note".into() };
        let process = Process { pid: 7, since: None, ending: true };
        for there in [
            Place { copy: None, trouble: Some("no answer".to_owned()), ..absent("n2") },
            Place { copy: None, unseen: true, ..absent("n2") },
            Place { trouble: Some("libvirt hangs".to_owned()), ..absent("n1") },
            Place { unproven: vec![unseen], ..absent("n1") },
            Place { emulators: vec![process], ..absent("n1") },
            Place { copy: Some(true), state: Some("shut off".to_owned()), ..absent("n2") },
        ] {
            let other = absent(if there.node == "n1" { "n2" } else { "n1" });
            let found = blocked(&[there.clone(), other]);
            assert!(!plan(&found, &outlook).iter().any(|step| matches!(step, Step::Cleanup { .. })), "{there:?}");
        }
        let mut pending = blocked(&[absent("n1"), absent("n2")]);
        pending.pending = Some("Starting".to_owned());
        assert_eq!(plan(&pending, &outlook), []);
        let mut guessed = blocked(&[absent("n1"), absent("n2")]);
        guessed.troubles.push("it is a guess".to_owned());
        assert_eq!(plan(&guessed, &outlook), []);
        let mut well = blocked(&[absent("n1"), absent("n2")]);
        well.view = well.view.map(|mut view| {
            view.resources[0].failed = false;
            View { failures: Vec::new(), ..view }
        });
        assert_eq!(plan(&well, &outlook), []);
    }

    #[test]
    fn what_keeps_a_failure_from_being_forgotten_is_said() {
        let hung = Place { copy: Some(true), state: Some("emulator 7 lives".to_owned()), ..absent("n2") };
        let found = blocked(&[absent("n1"), hung]);
        let [advice] = &advice(&found, &Outlook::take(&found))[..] else { panic!() };
        assert!(advice.contains("still on n2 (emulator 7 lives)") && advice.contains("run this again"), "{advice}");
    }

    #[test]
    fn a_node_that_was_not_asked_is_not_to_be_turned_off() {
        let trouble = Some("qemu+ssh://n1/system leads to this host".to_owned());
        let found = blocked(&[absent("n1"), Place { copy: None, misled: true, trouble, ..absent("n2") }]);
        let [advice] = &advice(&found, &Outlook::take(&found))[..] else { panic!() };
        assert!(advice.contains("%n") && advice.contains("n2") && !advice.contains("turn"), "{advice}");
    }

    #[test]
    fn one_that_is_held_is_restarted_when_pacemaker_has_found_it() {
        let held = found("", &[Place { copy: Some(true), held: true, ..absent("n1") }]);
        let [advice] = &advice(&held, &Outlook::default())[..] else { panic!() };
        let steps: Vec<&str> = advice.rsplit(": ").next().unwrap_or_default().split(" && ").collect();
        assert_eq!(
            steps,
            ["crm_resource --refresh --force --resource web1", "crm_resource --wait", "crm_resource --restart --resource web1"]
        );
    }

    #[test]
    fn a_name_is_a_word_in_each_command() {
        let two = [Place { copy: Some(true), runs: true, autostart: true, ..absent("n1") }, Place { runs: true, ..absent("n2") }];
        let mut twice = found("", &two);
        twice.guest = "R&D".to_owned();
        let said = advice(&twice, &Outlook::default());
        assert!(said[0].ends_with(": virsh destroy 'R&D'"), "{said:?}");
        assert_eq!(said[1], "virsh -c qemu:///system autostart --disable 'R&D'");
        twice.places[1] = Place { copy: Some(true), ..absent("n2") };
        assert!(advice(&twice, &Outlook::default())[0].starts_with("run kvmha repair 'R&D' on n2"));
        let file = "/run/kvmha/fence/a b".into();
        twice.places[0].unproven = vec![fence::Unproven { host: "n2".to_owned(), begun: 1, file }];
        assert!(advice(&twice, &Outlook::default()).iter().any(|text| text.contains("; then rm '/run/kvmha/fence/a b',")));
        // virsh takes a number for another guest's.
        (twice.guest, twice.uuid) = ("7".to_owned(), Some("u-u".to_owned()));
        assert!(advice(&twice, &Outlook::default()).contains(&"virsh -c qemu:///system autostart --disable u-u".to_owned()));
    }

    #[test]
    fn who_alone_sees_its_processes_is_to_be_asked() {
        let unseen = Place { copy: None, unseen: true, trouble: Some("a stop has failed there".to_owned()), ..absent("n2") };
        let found = blocked(&[absent("n1"), unseen.clone()]);
        assert_eq!(advice(&found, &Outlook::take(&found)), ["run kvmha repair web1 on n2: a stop has failed there"]);
        // A guest that runs here is given back to Pacemaker all the same: nothing is started by that.
        let mut found = drawn("Started");
        found.constraints.clear();
        found.places.push(unseen);
        found.view = blocked(&[]).view;
        assert!(matches!(&plan(&found, &Outlook::default())[..], [Step::Refresh { .. }]));
    }
}
