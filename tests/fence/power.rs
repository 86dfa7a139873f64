//! Off and on of guests in all their states.

use crate::stage::{FROM, Guest, PATIENCE, SOON, Says, Way, fence};
use anyhow::{Result, anyhow, ensure};
use lab::Lab;
use lab::promised;
use std::fs;
use std::thread;
use std::time::Duration;

/// A transient guest comes back: by reboot, and by an `on` after an `off`.
pub fn transient(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "transient")?;
    let first = guest.run("node1")?;
    guest.fence("reboot", &[])?.says(0, "Success: Rebooted\n")?;
    let second = guest.booted(Some(first))?;
    guest.lives("node1")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()?;
    // It is known here now, so that it is no wrong name.
    guest.fence("off", &[])?.says(0, "Success: Already OFF\n")?;
    guest.fence("status", &[])?.says(2, "Status: OFF\n")?;
    let modes = lab.check(FROM, &["sh", "-c", "stat -c %a /run/kvmha/fence /run/kvmha/fence/*"], SOON)?;
    ensure!(modes == "700\n600\n", "others can read what was kept: {modes}");
    guest.fence("on", &[])?.says(0, "Success: Powered ON\n")?;
    guest.booted(Some(second))?;
    guest.lives("node1")?;
    // What was kept counts for ten minutes: somebody may have started it since, where nobody is asked.
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    let age =
        "cd /run/kvmha/fence && sed -i \"s/\\\"at\\\":[0-9]*/\\\"at\\\":$(($(date +%s) - 700))/\" *.json && grep -c '\"at\":1' *.json";
    lab.check(FROM, &["sh", "-c", age], SOON)?;
    for action in ["off", "status", "on"] {
        guest.fence(action, &[])?.fails(&["transient"])?;
    }
    guest.fence("off", &[("missing_as_off", "1")])?.says(0, "Success: Already OFF\n").map(drop)
}

/// A persistent guest is started where it is defined; autostart does not bring it back.
pub fn persistent(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "persistent")?;
    guest.define("node2")?;
    guest.virsh("node2", &["autostart"])?;
    guest.fence("off", &[])?.says(0, "Success: Already OFF\n")?;
    guest.fence("on", &[])?.says(0, "Success: Powered ON\n")?;
    guest.booted(None)?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()?;
    guest.fence("reboot", &[("method", "cycle")])?.says(0, "Success: Rebooted\n")?;
    guest.lives("node2")
}

/// One that was saved is off, and comes back without the memory that it had, whether from here or by hand.
pub fn saved(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "saved")?;
    guest.define("node1")?;
    guest.virsh("node1", &["start"])?;
    let first = guest.booted(None)?;
    guest.virsh("node1", &["managedsave"])?;
    guest.fence("status", &[])?.says(2, "Status: OFF\n")?;
    guest.fence("reboot", &[])?.says(0, "Success: Rebooted\n")?;
    let second = guest.booted(Some(first))?;
    guest.lives("node1")?;
    guest.virsh("node1", &["managedsave"])?;
    guest.fence("off", &[])?.says(0, "Success: Already OFF\n")?;
    guest.is_off()?;
    guest.virsh("node1", &["start"])?;
    guest.booted(Some(second)).map(drop)
}

/// Somebody starts it again whenever it is off, at once: that is not off, and what was said is that. When he stops it is.
pub fn started_again_by_somebody(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "again")?;
    let file = lab.guest_definition("again");
    let text = fs::read_to_string(&file)?;
    let restarts = text.replace("<on_poweroff>destroy<", "<on_poweroff>restart<").replace("<on_crash>destroy<", "<on_crash>restart<");
    ensure!(text != restarts, "the definition has other words");
    fs::write(file, restarts)?;
    guest.define("node2")?;
    guest.virsh("node2", &["autostart"])?;
    let again = "touch /run/again; (while [ -e /run/again ]; do echo start again; sleep 0.01; done) 2>&1 | virsh -q >/dev/null 2>&1 </dev/stdin & \
                 echo $! >/run/again.pid";
    lab.check("node2", &["sh", "-c", again], SOON)?;
    let outcome =
        guest.booted(None).and_then(|_| guest.fence("off", &[("power_timeout", "3"), ("login_timeout", "2"), ("shell_timeout", "2")]));
    // A virsh that is behind would go on for minutes.
    lab.check("node2", &["sh", "-c", "rm /run/again; kill $(cat /run/again.pid)"], SOON)?;
    let output = outcome?;
    ensure!(output.code == Some(1) && output.stderr.contains("again: Timed out waiting to power OFF"), "{output:?}");
    thread::sleep(Duration::from_millis(500));
    let output = guest.fence("off", &[])?;
    ensure!(output.code == Some(0), "{output:?}");
    guest.is_off()
}

/// A daemon that comes back and starts its guests of itself, as after a host's boot, while one of them is fenced.
pub fn autostart_while_it_is_fenced(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "selfmade")?;
    guest.define("node1")?;
    guest.virsh("node1", &["autostart"])?;
    // The first time shows that it does, when nobody fences it.
    for phase in [None, Some(0), Some(300), Some(900)] {
        lab.kill("node1", "libvirtd")?;
        if !guest.places()?.is_empty() {
            lab.kill("node1", "guest:selfmade")?;
        }
        lab.check("node1", &["rm", "-f", "/run/libvirt/qemu/autostarted", "/run/libvirt/qemu/selfmade.xml"], SOON)?;
        let start = || lab.start("node1", "libvirtd");
        let Some(phase) = phase else {
            start()?;
            guest.booted(None)?;
            continue;
        };
        let (output, places) = thread::scope(|scope| -> Result<_> {
            let starting = scope.spawn(|| {
                thread::sleep(Duration::from_millis(phase));
                start()
            });
            let output = guest.fence("off", &[])?;
            let places = guest.places()?;
            starting.join().map_err(|_| anyhow!("the daemon's thread panicked"))??;
            Ok((output, places))
        })?;
        promised!(output.code != Some(0) || places.is_empty(), "{output:?}, but it lives on {places:?}");
        if output.code != Some(0) {
            output.fails(&["selfmade", "node1"])?;
            guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
        }
        guest.is_off()?;
    }
    Ok(())
}

/// Several plugs: off when all are, on when any is.
pub fn several(lab: &Lab) -> Result<()> {
    let (one, two) = (Guest::new(lab, "one")?, Guest::new(lab, "two")?);
    one.run("node1")?;
    two.run("node2")?;
    let call = |action| fence(lab, Way::Lines, &[("action", action), ("plug", "one,two")]);
    call("off")?.says(0, "Success: Powered OFF\n")?;
    one.is_off()?;
    two.is_off()?;
    call("status")?.says(2, "Status: OFF\n")?;
    one.run("node2")?;
    call("status")?.says(0, "Status: ON\n")?;
    fence(lab, Way::Lines, &[("action", "off"), ("plug", "one,nobody")])?.fails(&["nobody"])?;
    one.is_off()
}

/// A paused guest is on.
pub fn paused(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "paused")?;
    guest.run("node1")?;
    guest.virsh("node1", &["suspend"])?;
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// An emulator that does not answer (SIGSTOP) is ended by libvirt after its 10 s of patience.
pub fn emulator_stopped(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "stopped")?;
    guest.run("node1")?;
    lab.freeze("node1", "guest:stopped")?;
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// As [`emulator_stopped`], while a monitoring tool waits for its answer: libvirt then answers no question that needs the emulator, or its turn in
/// the queue.
pub fn emulator_stopped_under_a_question(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "queried")?;
    let first = guest.run("node1")?;
    lab.freeze("node1", "guest:queried")?;
    let question = "(timeout 100 virsh -q domstats --balloon --block queried >/dev/null 2>&1 </dev/null &) ; sleep 1; timeout 2 virsh -q dommemstat queried";
    let output = lab.exec("node1", &["sh", "-c", question], SOON)?;
    ensure!(output.code == Some(124), "libvirt still answers: {output:?}");
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    // libvirt 9 gives the definition of a transient guest all the same, libvirt 11 does not: it takes its turn in the queue for that too.
    let gives = lab.exec("node1", &["timeout", "5", "virsh", "-q", "dumpxml", "queried"], SOON)?.code == Some(0);
    let output = guest.fence("reboot", &[])?;
    let said = output.stderr.clone();
    output.says(0, "Success: Rebooted\n")?;
    let left_off = said.contains("was not started again: queried");
    ensure!(!left_off || !gives, "libvirt gave the definition, and it was not started: {said:?}");
    if left_off {
        return guest.is_off();
    }
    guest.booted(Some(first))?;
    guest.lives("node1")
}

/// So many that wait that libvirt has no worker left but those for what is urgent, as a destroy is.
pub fn emulator_stopped_under_many_questions(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "besieged")?;
    guest.run("node1")?;
    besiege(lab, "node1", "besieged")?;
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// The emulator of this guest stops, and libvirt has no ordinary worker left for the questions about it.
fn besiege(lab: &Lab, node: &str, name: &str) -> Result<()> {
    lab.freeze(node, &format!("guest:{name}"))?;
    let questions = format!(
        "for n in $(seq 30); do timeout 100 virsh -q domstats --balloon --block {name} >/dev/null 2>&1 </dev/null & done
        sleep 3; timeout 2 virsh -q dumpxml {name}"
    );
    let output = lab.exec(node, &["sh", "-c", &questions], SOON)?;
    ensure!(output.code == Some(124), "libvirt has workers left: {output:?}");
    Ok(())
}

/// As [`emulator_stopped_under_many_questions`], on a host that has another guest's definition, which runs elsewhere: nothing is asked there for
/// which libvirt keeps no worker.
pub fn defined_where_another_guest_is_under_many_questions(lab: &Lab) -> Result<()> {
    let (guest, other) = (Guest::new(lab, "neighbour")?, Guest::new(lab, "besieged")?);
    other.run("node2")?;
    guest.define("node2")?;
    guest.run("node1")?;
    besiege(lab, "node2", "besieged")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()?;
    other.fence("off", &[])?.says(0, "Success: Powered OFF\n").map(drop)
}

/// One that was asked to shut down and does not is on, and is not asked by the agent.
pub fn guest_that_does_not_listen(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "deaf")?;
    guest.run("node2")?;
    guest.virsh("node2", &["shutdown"])?;
    thread::sleep(Duration::from_millis(500));
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// `power_wait` is waited, and the guest is off all the while.
pub fn waits(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "waits")?;
    guest.run("node1")?;
    let output = guest.fence("off", &[("power_wait", "2")])?.says(0, "Success: Powered OFF\n")?;
    ensure!(output.time >= Duration::from_secs(2) && output.time < PATIENCE, "{output:?}");
    guest.is_off()
}
