//! `kvmha adopt`: a running cluster changes from one agent to the other, and no guest stops; whatever goes wrong.

use crate::cluster::{
    OURS, Placed, THEIRS, adopt, adopt_until, all_well, check, cib, configure, kill_adopt, nothing_left, other_than, placed, primitive,
    said_until, settle, signal_adopt, speaker,
};
use crate::props::{PATH, stand_in};
use crate::stage::{Frozen, PATIENCE};
use anyhow::{Context, Result, ensure};
use lab::process::wait_until;
use lab::promised;
use lab::scene::LIMIT;
use lab::{Lab, Watcher};
use nix::sys::signal::Signal;
use std::time::Duration;

/// The lines by which the command says where it is.
const STEPS: [&str; 5] = [": 1 ", ": 2 ", ": 3 ", ": 4 ", ": 5 "];

/// Rounds of there and back; more of them by the environment.
fn rounds() -> usize {
    std::env::var("KVMHA_ADOPT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Ten guests, all at once, there and back: no guest is stopped, none pauses, and each can be reloaded afterwards.
pub fn ten_there_and_back(lab: &Lab) -> Result<()> {
    let (beating, empty) = (["ten1", "ten2"], ["ten3", "ten4", "ten5", "ten6", "ten7", "ten8", "ten9", "ten10"]);
    placed(lab, &beating, &empty, THEIRS)?;
    let names: Vec<&str> = beating.iter().chain(&empty).copied().collect();
    let guests = Placed::all(lab, &names)?;
    let watchers = beating.iter().map(|name| Watcher::start(&lab.guest_image(name))).collect::<Result<Vec<_>>>()?;
    let before = cib(lab)?;
    let plan = adopt(lab, &["--all", "--dry-run"])?.success("adopt --all --dry-run")?;
    ensure!(names.iter().all(|name| plan.contains(&format!("  {name} "))), "not all are in the plan: {plan}");
    ensure!(cib(lab)? == before, "--dry-run has changed the CIB");
    for _ in 0..rounds() {
        adopt(lab, &["--all"])?.success("adopt --all")?;
        all_well(lab, &guests, OURS)?;
        let again = adopt(lab, &["--all"])?.success("adopt --all, again")?;
        ensure!(again.starts_with("Nothing to do"), "{again}");
        let again = adopt(lab, &["ten1"])?.success("adopt ten1, again")?;
        ensure!(again.starts_with("Nothing to do"), "{again}");
        // What the nodes know of the new agent is enough for a reload.
        check(lab, "pcs resource update ten1 migration_speed=50")?;
        all_well(lab, &guests, OURS)?;
        check(lab, "pcs resource update ten1 migration_speed=")?;
        settle(lab)?;
        // Nobody listens any more after the plan: it is brought to its end all the same.
        // Whether it was is its own code, not that of head.
        let line = "kvmha adopt --all --back | head -n 20";
        lab.exec(&speaker(lab)?, &["bash", "-o", "pipefail", "-c", line], LIMIT * 5)?.success(line)?;
        all_well(lab, &guests, THEIRS)?;
    }
    let words = |text: &str| text.split_whitespace().filter(|word| !word.contains("utilization")).map(str::to_owned).collect::<Vec<_>>();
    ensure!(words(&cib(lab)?).len() >= words(&before).len(), "something of the configuration is gone");
    for (name, watcher) in beating.iter().zip(&watchers) {
        ensure!(watcher.wait_beat(LIMIT), "{name} does not beat any more");
        let watch = watcher.snapshot();
        promised!(watch.boots().len() == 1 && watch.two_writers.is_none(), "{name} was restarted: {:?}", watch.boots());
        let pause = watch.worst_pause().and_then(|gap| gap.pause_ms).unwrap_or(0.0);
        ensure!(pause < 1000.0, "{name} stood still for {pause:.0} ms");
    }
    Ok(())
}

/// The command is killed at each step, in both directions: the guest runs on, and the next run brings it to its end.
pub fn killed_at_each_step(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["victim", "other"], THEIRS)?;
    let guests = Placed::all(lab, &["victim"])?;
    let node = speaker(lab)?;
    for (number, step) in STEPS.iter().enumerate() {
        let (words, agent): (&[&str], &str) = if number % 2 == 0 { (&["victim"], OURS) } else { (&["--back", "victim"], THEIRS) };
        let (code, said) = adopt_until(lab, &node, words, step, || kill_adopt(lab, &node))?;
        ensure!(code != Some(0), "it was not killed: {said}");
        promised!(guests[0].emulator.alive(), "the guest was stopped, killed at {step:?}");
        // What is left is left to this command: what else ends the maintenance restarts the guest.
        if cib(lab)?.contains("victim-kvmha-adopt-goal") {
            let found = lab.exec(&node, &["kvmha", "doctor", "--quiet"], LIMIT)?.stdout;
            ensure!(found.contains(&format!("kvmha adopt {}; nothing else", words.join(" "))), "killed at {step:?}: {found}");
        } else {
            ensure!(number == 0 || number == 4, "killed at {step:?}, and nothing is left");
        }
        // A run for something else finds what is left, and finishes it.
        let next: &[&str] = if number == 2 { &["other"] } else { words };
        let said = adopt(lab, next)?.success("the next run")?;
        ensure!(said.contains("victim") || number == 4, "the next run does not mention it: {said}");
        all_well(lab, &guests, agent).with_context(|| format!("killed at {step:?}"))?;
    }
    Ok(())
}

/// The nodes remember of a guest nothing but its recurring monitor: a find that was forgotten is gone from the memory of a node's controller,
/// and with the next election from the CIB. In maintenance Pacemaker cancels the monitor and remembers nothing then, but does not look by
/// itself. Also after a run that was killed at that point.
pub fn known_by_its_monitor_alone(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["scant"], THEIRS)?;
    let guests = Placed::all(lab, &["scant"])?;
    let node = speaker(lab)?;
    for killed in [false, true] {
        adopt(lab, &["scant"])?.success("adopt scant")?;
        all_well(lab, &guests, OURS)?;
        forget_all_but_the_monitor(lab, &guests[0])?;
        if killed {
            let in_maintenance = || cib(lab).is_ok_and(|text| text.contains("scant-kvmha-adopt-maintenance"));
            let (code, said) = adopt_until(lab, &node, &["--back", "scant"], STEPS[0], || {
                ensure!(wait_until(LIMIT, Duration::from_millis(10), in_maintenance), "it does not begin");
                kill_adopt(lab, &node)
            })?;
            ensure!(code != Some(0), "it was not killed: {said}");
        }
        adopt(lab, &["--back", "scant"])?.success("adopt --back scant")?;
        all_well(lab, &guests, THEIRS)?;
    }
    Ok(())
}

/// Deletes what the CIB has of a guest where it runs, but for the recurring monitor.
fn forget_all_but_the_monitor(lab: &Lab, guest: &Placed) -> Result<()> {
    let entries = format!("//node_state[@uname='{}']//lrm_resource[@id='{}']/lrm_rsc_op", guest.node, guest.name);
    let (others, monitor) = (format!("{entries}[@interval='0']"), format!("{entries}[@interval!='0']"));
    let query = |path: &str| lab.exec(&guest.node, &["cibadmin", "--query", "--xpath", path], PATIENCE);
    while query(&others)?.ok() {
        lab.check(&guest.node, &["cibadmin", "--delete", "--xpath", &others], PATIENCE)?;
    }
    settle(lab)?;
    ensure!(!query(&others)?.ok() && query(&monitor)?.ok(), "{} is not known by its monitor alone", guest.name);
    Ok(())
}

/// The steps at which a fault comes: the one given, or each of them if the environment wants that.
fn struck(usual: usize) -> Vec<(String, &'static str)> {
    let all = std::env::var("KVMHA_ADOPT_STEPS").is_ok_and(|text| text == "all");
    let wanted = STEPS.iter().enumerate().filter(|(number, _)| all || *number == usual);
    wanted.map(|(number, step)| (format!("{}", number + 1), *step)).collect()
}

/// The node of the guest loses its power in the middle: the guest is started elsewhere, once, and nothing is left behind.
pub fn node_of_the_guest_lost(lab: &Lab) -> Result<()> {
    for (number, step) in struck(2) {
        let name = &*format!("lost{number}");
        placed(lab, &[name], &[], THEIRS)?;
        let watcher = Watcher::start(&lab.guest_image(name))?;
        ensure!(watcher.wait_beat(LIMIT), "it does not beat");
        let home = Placed::all(lab, &[name])?.remove(0).node;
        let node = other_than(lab, &[&home])?;
        let (code, said) = adopt_until(lab, &node, &["--all"], step, || lab.power_off(&home))?;
        settle(lab)?;
        nothing_left(lab)?;
        let seen = lab.wait_membership(LIMIT, |seen| seen.runs_on(name).is_some()).context("it is not started again")?;
        let agent = seen.resources.iter().find(|one| one.id == name).map(|one| one.agent.clone()).unwrap_or_default();
        // After the last step it is changed, whatever is said about where the guest is by now.
        let changed = code == Some(0) || step == STEPS[4];
        ensure!(agent == if changed { OURS } else { THEIRS }, "{step:?}: code {code:?}, but it is {agent}: {said}");
        ensure!(watcher.wait(LIMIT, |watch| watch.boots().len() == 2), "{step:?}: it does not beat again");
        promised!(watcher.snapshot().two_writers.is_none(), "{step:?}: it ran twice");
    }
    Ok(())
}

/// libvirtd is killed where the guest is: the change is brought to its end or undone, and the guest runs on.
pub fn libvirtd_killed_in_the_middle(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["dusk"], THEIRS)?;
    let guests = Placed::all(lab, &["dusk"])?;
    let (home, node) = (guests[0].node.clone(), speaker(lab)?);
    let mut agent = THEIRS;
    for (number, step) in struck(3) {
        let words: &[&str] = if agent == THEIRS { &["dusk"] } else { &["--back", "dusk"] };
        let other = if agent == THEIRS { OURS } else { THEIRS };
        let (code, said) = adopt_until(lab, &node, words, step, || lab.kill(&home, "libvirtd"))?;
        promised!(guests[0].emulator.alive(), "the guest was stopped, libvirtd killed at step {number}: {said}");
        if code == Some(0) {
            agent = other;
        }
        lab.start(&home, "libvirtd")?;
        check(lab, "crm_resource --cleanup")?;
        all_well(lab, &guests, agent).with_context(|| format!("libvirtd killed at step {number}, code {code:?}: {said}"))?;
    }
    Ok(())
}

/// Pacemaker's scheduler hangs for a while at the last step: the find is forgotten all the same, so that the guest can be reloaded, and no
/// failure is left that counts.
pub fn scheduler_hangs_at_the_end(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["slow"], THEIRS)?;
    let guests = Placed::all(lab, &["slow"])?;
    let nodes = lab.node_names();
    let hang = || -> Result<()> {
        nodes.iter().try_for_each(|node| lab.freeze(node, "pacemaker-schedulerd"))?;
        std::thread::sleep(Duration::from_secs(20));
        nodes.iter().try_for_each(|node| lab.thaw(node, "pacemaker-schedulerd"))
    };
    let (code, said) = adopt_until(lab, &speaker(lab)?, &["slow"], STEPS[4], hang)?;
    ensure!(code == Some(0), "code {code:?}: {said}");
    all_well(lab, &guests, OURS).context(said)?;
    ensure!(!cib(lab)?.contains("fail-count-slow"), "a failure is left that counts: {}", cib(lab)?);
    check(lab, "pcs resource update slow migration_speed=50")?;
    all_well(lab, &guests, OURS)
}

/// The end of the maintenance is not taken: what was made to expire with it is not left as a failure that counts.
pub fn end_is_not_taken(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["stuck"], THEIRS)?;
    let guests = Placed::all(lab, &["stuck"])?;
    let node = speaker(lab)?;
    stand_in(
        lab,
        &node,
        "cibadmin",
        "case \"$*\" in *'<nvpair id=\"stuck-kvmha-adopt-maintenance\"/>'*) exit 1;; esac; exec /usr/sbin/cibadmin \"$@\"",
    )?;
    let said = lab.exec(&node, &["env", &format!("PATH={PATH}"), "kvmha", "adopt", "stuck"], LIMIT)?;
    ensure!(said.code == Some(1) && said.stderr.contains("its guest was not stopped, but"), "{said:?}");
    all_well(lab, &guests, OURS).context(said.stderr)?;
    let after = cib(lab)?;
    ensure!(!after.contains("fail-count-stuck") && !after.contains("last-failure-stuck"), "a failure is left that counts: {after}");
    Ok(())
}

/// Another node loses its power: the guest does not notice.
pub fn another_node_lost(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["bystander"], THEIRS)?;
    let guests = Placed::all(lab, &["bystander"])?;
    let node = guests[0].node.clone();
    let lost = other_than(lab, &[&node])?;
    let (code, said) = adopt_until(lab, &node, &["bystander"], STEPS[1], || lab.power_off(&lost))?;
    let agent = if code == Some(0) { OURS } else { THEIRS };
    all_well(lab, &guests, agent).context(said)
}

/// libvirtd is dead or hangs where the guest is: the new agent knows the guest by its process; the old one does not answer if it hangs,
/// so that way is undone.
pub fn libvirtd_down(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["dark"], THEIRS)?;
    let guests = Placed::all(lab, &["dark"])?;
    let node = guests[0].node.clone();
    lab.kill(&node, "libvirtd")?;
    adopt(lab, &["dark"])?.success("adopt with a dead libvirtd")?;
    promised!(guests[0].emulator.alive(), "the guest was stopped");
    lab.start(&node, "libvirtd")?;
    all_well(lab, &guests, OURS)?;
    let frozen = Frozen::libvirt(lab, &node)?;
    let output = adopt(lab, &["--back", "dark"])?;
    ensure!(!output.ok(), "the old agent cannot have answered: {}", output.stdout);
    ensure!(output.stderr.contains("ocf:kvmha:VirtualDomain as before"), "{}", output.stderr);
    nothing_left(lab)?;
    drop(frozen);
    check(lab, "crm_resource --cleanup")?;
    all_well(lab, &guests, OURS)
}

/// What is refused, with a reason, and nothing is touched.
pub fn refused(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["good"], THEIRS)?;
    let wrong =
        primitive("wrong", "heartbeat", "<nvpair id='w-r' name='target-role' value='Stopped'/>").replace("--unsafe", "--copy-storage-all");
    let idle = "<nvpair id='i-r' name='target-role' value='Stopped'/><nvpair id='i-m' name='is-managed' value='false'/>";
    let many =
        primitive("many", "heartbeat", "<nvpair id='m-r' name='target-role' value='Stopped'/>").replace("allow-migrate", "allow-nothing");
    configure(lab, &format!("<resources>{wrong}{}<clone id='clones'>{many}</clone></resources>", primitive("idle", "heartbeat", idle)))?;
    settle(lab)?;
    let before = cib(lab)?;
    for (words, reasons) in [
        (&["nobody"][..], ["there is no resource nobody", ""]),
        (&["fence"], ["fence", "stonith:fence_lab"]),
        (&["good", "wrong"], ["wrong", "--copy-storage-all is refused"]),
        (&["good", "idle"], ["idle", "is-managed"]),
        (&["good", "many"], ["many", "clone"]),
        (&["--all"], ["", "refuse"]),
    ] {
        let output = adopt(lab, words)?;
        let said = output.stderr.trim();
        ensure!(!output.ok() && reasons.iter().all(|reason| said.contains(reason)), "{words:?}: code {:?}: {said}", output.code);
        ensure!(cib(lab)? == before, "{words:?} has changed the CIB");
    }
    check(lab, "pcs property set maintenance-mode=true")?;
    let output = adopt(lab, &["good"])?;
    ensure!(!output.ok() && output.stderr.contains("not quiet") && output.stderr.contains("maintenance mode"), "{}", output.stderr);
    check(lab, "pcs property set maintenance-mode=")?;
    settle(lab)?;
    // Something is on the move.
    let guests = Placed::all(lab, &["good"])?;
    let target = other_than(lab, &[&guests[0].node])?;
    let frozen = Frozen::libvirt(lab, &target)?;
    check(lab, &format!("crm_resource --move --resource good --node {target} --lifetime PT1M"))?;
    let output = adopt(lab, &["good"])?;
    drop(frozen);
    ensure!(!output.ok() && output.stderr.contains("not quiet"), "{}", output.stderr);
    settle(lab)?;
    check(lab, "crm_resource --clear --resource good")?;
    Ok(())
}

/// What depends on a guest: between the deletion of what the nodes remember and their answers Pacemaker takes the guest for stopped, and would stop
/// what is to be where it is. That is refused; what waits for the answers, as in a group, is not stopped.
pub fn what_depends_on_it(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["leader", "grouped"], THEIRS)?;
    check(lab, "pcs resource create follower ocf:pacemaker:Dummy")?;
    check(lab, "pcs constraint colocation add follower with leader INFINITY")?;
    check(lab, "pcs resource create behind ocf:pacemaker:Dummy")?;
    check(lab, "pcs resource group add pair grouped behind")?;
    settle(lab)?;
    let guests = Placed::all(lab, &["leader", "grouped"])?;
    let begun = |id: &str| {
        let path = format!("//lrm_resource[@id='{id}']/lrm_rsc_op[@operation='start']");
        lab.check(&speaker(lab)?, &["cibadmin", "--query", "--xpath", &path], PATIENCE)
    };
    let starts = || -> Result<[String; 2]> { Ok([begun("follower")?, begun("behind")?]) };
    let (before, configured) = (starts()?, cib(lab)?);
    for words in [&["leader"][..], &["--all"], &["leader", "--dry-run"]] {
        let output = adopt(lab, words)?;
        settle(lab)?;
        promised!(starts()? == before, "{words:?} has restarted what depends on the guest: {}", output.stdout);
        let reason = output.stderr.contains("leader: Pacemaker would stop follower on ") && output.stderr.contains("is-managed");
        ensure!(!output.ok() && reason && cib(lab)? == configured, "{words:?}: code {:?}: {}", output.code, output.stderr);
    }
    adopt(lab, &["grouped"])?.success("adopt grouped")?;
    settle(lab)?;
    promised!(starts()? == before, "what is in a group with the guest was restarted");
    check(lab, "crm_resource --resource follower --meta --set-parameter is-managed --parameter-value false")?;
    adopt(lab, &["leader"])?.success("adopt leader")?;
    check(lab, "crm_resource --resource follower --meta --delete-parameter is-managed")?;
    all_well(lab, &guests, OURS)?;
    promised!(starts()? == before, "what depends on the guest was restarted");
    check(lab, "pcs resource ungroup pair")?;
    check(lab, "pcs constraint delete colocation-follower-leader-INFINITY")?;
    settle(lab)
}

/// With nohup it goes on when its terminal closes.
pub fn goes_on_without_a_terminal(lab: &Lab) -> Result<()> {
    placed(lab, &[], &["near", "far"], THEIRS)?;
    let guests = Placed::all(lab, &["near", "far"])?;
    let node = speaker(lab)?;
    let (code, said) =
        said_until(lab, &node, &["nohup", "kvmha", "adopt", "near", "far"], STEPS[1], || signal_adopt(lab, &node, Signal::SIGHUP))?;
    ensure!(code == Some(0), "code {code:?}: {said}");
    all_well(lab, &guests, OURS)?;
    // Whoever runs the tests may have begun them with nohup.
    let back = ["env", "--default-signal=HUP", "kvmha", "adopt", "--back", "near", "far"];
    let (code, said) = said_until(lab, &node, &back, STEPS[1], || signal_adopt(lab, &node, Signal::SIGHUP))?;
    ensure!(code == Some(1) && said.contains("interrupted: 1 of 2"), "code {code:?}: {said}");
    nothing_left(lab)
}
