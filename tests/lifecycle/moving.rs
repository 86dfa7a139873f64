//! Live migration between the two nodes, by hand: the order of Pacemaker's calls, and everything that can be in the way.

use crate::stage::{Answer, Frozen, HERE, PATIENCE, Resource, SOON, THERE, soon};
use anyhow::{Context, Result, ensure};
use lab::node::Terminal;
use lab::process::{replace, wait_until};
use lab::promised;
use lab::{Lab, Watcher};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A guest that can move in this lab: TCP without authentication, and a folder of which libvirt does not know that it is shared.
pub(super) fn mover<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    Ok(Resource::new(lab, name)?.with("migration_transport", "tcp").with("migrate_options", "--unsafe"))
}

fn to(target: &str) -> [(&str, &str); 2] {
    [("OCF_RESKEY_CRM_meta_migrate_target", target), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)]
}

pub(super) fn migrate_to(guest: &Resource, from: &str, target: &str, seconds: u64) -> Result<Answer> {
    guest.call_with(from, "migrate_to", seconds, &to(target))
}

/// migrate_to, migrate_from, stop at the source: one boot, no two writers.
fn move_it(guest: &Resource, from: &str, target: &str, boot: u64) -> Result<()> {
    let before = guest.ring()?.newest.sequence;
    migrate_to(guest, from, target, 90)?.is(0)?;
    guest.call_with(target, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", from)])?.is(0)?;
    guest.call(from, "stop", 60)?.is(0)?.at_once(Duration::from_secs(30))?;
    guest.beats(boot)?;
    guest.absent(from)?;
    ensure!(guest.emulators(target)?.len() == 1, "the guest is not on {target}");
    ensure!(guest.ring()?.newest.sequence > before, "the counter went back");
    guest.call(target, "recurring", 20)?.is(0)?;
    guest.call(from, "monitor", 20)?.is(7)?;
    Ok(())
}

/// There and back; and migrate_to when it is done already.
pub fn there_and_back(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "traveller")?;
    let boot = guest.boot(HERE)?;
    let watcher = Watcher::start(&lab.guest_image("traveller"))?;
    move_it(&guest, HERE, THERE, boot)?;
    migrate_to(&guest, HERE, THERE, 60)?.is(0)?;
    guest.beats(boot)?;
    move_it(&guest, THERE, HERE, boot)?;
    let watch = watcher.stop();
    promised!(watch.boots() == [boot] && watch.two_writers.is_none(), "boots {:x?}, {:?}", watch.boots(), watch.two_writers);
    guest.end(HERE, 60)?;
    guest.call(THERE, "stop", 60)?.is(0)?;
    migrate_to(&guest, HERE, THERE, 30)?.says(1, &["traveller", THERE])?;
    Ok(())
}

/// A guest that a person has paused arrives paused. Its scripts are not asked: what runs in it cannot answer.
pub fn paused(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "sleeper")?;
    let boot = guest.boot(HERE)?;
    guest.virsh(HERE, "suspend", &[])?;
    migrate_to(&guest, HERE, THERE, 60)?.is(0)?;
    guest.with("monitor_scripts", "/bin/false").call(THERE, "migrate_from", 30)?.is(0)?;
    guest.call(HERE, "stop", 30)?.is(0)?;
    guest.absent(HERE)?;
    ensure!(guest.virsh(THERE, "domstate", &[])? == "paused", "it was resumed");
    guest.virsh(THERE, "resume", &[])?;
    guest.beats(boot)?;
    guest.end(THERE, 60)?;
    Ok(())
}

/// Targets that are not there, or not in order: the guest stays where it is and runs on.
pub fn bad_targets(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "homebody")?;
    let boot = guest.boot(HERE)?;
    let stays = |answer: Answer, says: &[&str]| -> Result<()> {
        answer.says(1, says)?;
        guest.beats(boot)?;
        guest.absent(THERE)?;
        guest.call(HERE, "recurring", 20)?.is(0).map(drop)
    };
    stays(guest.call(HERE, "migrate_to", 20)?, &["target"])?;
    stays(migrate_to(&guest, HERE, "nowhere", 20)?, &["homebody", "nowhere"])?;
    stays(migrate_to(&guest, HERE, "-oProxyCommand=id", 20)?, &["no host name"])?;
    stays(migrate_to(&guest, HERE, HERE, 30)?, &["homebody", HERE])?;
    {
        let _frozen = Frozen::libvirt(lab, THERE)?;
        stays(migrate_to(&guest, HERE, THERE, 15)?, &["homebody", THERE])?;
    }
    lab.kill(THERE, "libvirtd")?;
    stays(migrate_to(&guest, HERE, THERE, 15)?, &["homebody", THERE, "refused"])?;
    lab.start(THERE, "libvirtd")?;
    // TLS, libvirt's default, is not set up here.
    let tls = Resource {
        parameters: guest.parameters.iter().filter(|(name, _)| name != "migration_transport").cloned().collect(),
        ..guest.clone()
    };
    stays(migrate_to(&tls, HERE, THERE, 20)?, &["homebody", THERE])?;
    stays(migrate_to(&guest.with("migrate_options", "--unheard-of"), HERE, THERE, 20)?, &["--unheard-of"])?;
    let careful =
        Resource { parameters: guest.parameters.iter().filter(|(name, _)| name != "migrate_options").cloned().collect(), ..guest.clone() };
    stays(migrate_to(&careful, HERE, THERE, 30)?, &["homebody", "unsafe"])?;
    // And now it goes.
    move_it(&guest, HERE, THERE, boot)
}

/// Another guest of the same name runs at the target.
pub fn name_taken(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "twin")?;
    let boot = guest.boot(HERE)?;
    let other = Resource::empty(lab, "other")?;
    other.edit(|text| text.replace("<name>other<", "<name>twin<"))?;
    lab.check(THERE, &["virsh", "create", "/srv/vms/other.xml"], SOON)?;
    migrate_to(&guest, HERE, THERE, 30)?.says(1, &["twin", THERE])?;
    guest.beats(boot)?;
    promised!(guest.lives(THERE), "the other guest was ended");
    Ok(())
}

/// A migration that cannot end in time is called off before it, and the guest runs on.
pub fn too_slow(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "heavy")?;
    let boot = guest.boot(HERE)?;
    migrate_to(&guest.with("migration_speed", "1"), HERE, THERE, 20)?.says(1, &["heavy", "called off"])?;
    guest.beats(boot)?;
    guest.absent(THERE)?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.call(THERE, "monitor", 20)?.is(7)?;
    // Nothing is left that is in the way of the next.
    move_it(&guest, HERE, THERE, boot)
}

/// migrate_from where nothing comes does not wait for it.
pub fn nothing_comes(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "godot")?;
    guest.call(THERE, "migrate_from", 90)?.says(1, &["godot"])?.at_once(Duration::from_secs(30))?;
    guest.call_with(THERE, "migrate_from", 90, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.says(1, &[HERE])?;
    Ok(())
}

/// An agent that moves a guest slowly, until it is killed as Pacemaker does it after a timeout: with its whole process group.
struct Mover(Child);

impl Mover {
    fn start(guest: &Resource) -> Result<Self> {
        let words = guest.with("migration_speed", "1").words(HERE, "migrate_to", 120, &to(THERE));
        let mut command = guest.lab.enter(HERE, &words, Terminal::None)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mover = Self(command.spawn().context("failed to start the agent")?);
        soon("the guest comes in", || guest.lives(THERE))?;
        soon("memory flows", || guest.virsh(HERE, "domjobinfo", &[]).is_ok_and(|job| job.contains("Memory processed")))?;
        Ok(mover)
    }

    fn kill(mut self) -> Result<()> {
        killpg(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGKILL)?;
        self.0.wait()?;
        Ok(())
    }
}

/// While a guest comes in, the target does not say that it is not there; and a stop there costs the guest nothing.
pub fn target_in_mid_migration(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "incoming")?;
    let boot = guest.boot(HERE)?;
    let mover = Mover::start(&guest)?;
    let probe = guest.call(THERE, "monitor", 10)?;
    ensure!(probe.code != 7, "the probe says 7 of a guest that comes in");
    guest.call(THERE, "start", 10)?.is(1)?;
    guest.call(THERE, "stop", 60)?.is(0)?;
    guest.absent(THERE)?;
    guest.beats(boot)?;
    mover.kill()?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.beats(boot)?;
    Ok(())
}

/// The agent is killed in the middle and called again: the migration of the first goes on at the source's libvirt.
pub fn agent_killed_then_again(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "twice")?;
    let boot = guest.boot(HERE)?;
    Mover::start(&guest)?.kill()?;
    let answer = migrate_to(&guest, HERE, THERE, 15)?;
    ensure!(matches!(answer.code, 0 | 1), "code {}", answer.code);
    guest.beats(boot)?;
    let source = if answer.code == 0 { THERE } else { HERE };
    soon("it is in one place", || guest.lives(HERE) != guest.lives(THERE))?;
    promised!(guest.lives(source), "code {}, but the guest is not on {source}", answer.code);
    if answer.code == 1 {
        move_it(&guest, HERE, THERE, boot)?;
    }
    Ok(())
}

/// As before, and libvirt answers by fits and starts: when the time is over in the middle of a question, the migration is called off all the same.
pub fn agent_killed_then_again_at_a_slow_libvirt(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "stutter")?;
    let boot = guest.boot(HERE)?;
    Mover::start(&guest)?.kill()?;
    let answer = std::thread::scope(|scope| -> Result<Answer> {
        let moving = scope.spawn(|| migrate_to(&guest, HERE, THERE, 15));
        while !moving.is_finished() {
            let frozen = Frozen::libvirt(lab, HERE)?;
            std::thread::sleep(Duration::from_millis(600));
            drop(frozen);
            std::thread::sleep(Duration::from_millis(300));
        }
        moving.join().map_err(|_| anyhow::anyhow!("panicked"))?
    })?;
    soon("it is in one place", || guest.lives(HERE) != guest.lives(THERE))?;
    promised!(answer.code == 0 || guest.lives(HERE), "code {}, but the guest is not on {HERE}", answer.code);
    guest.beats(boot)
}

/// The agent is killed in the middle, and the migration comes to its end without it: the next migrate_to finds the guest there, and
/// the stop at the source leaves it alone.
pub fn agent_killed_and_arrived(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "arrived")?;
    let boot = guest.boot(HERE)?;
    Mover::start(&guest)?.kill()?;
    guest.virsh(HERE, "migrate-setspeed", &["1000"])?;
    soon("it has arrived", || !guest.lives(HERE))?;
    move_it(&guest, HERE, THERE, boot)
}

/// As [`agent_killed_and_arrived`], and nothing is called that sees it run there. A probe at the source finds it gone: from then on it is the
/// target's, whose copy a stop at the source leaves alone, whenever that comes.
pub fn agent_killed_and_forgotten(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "settled")?;
    let boot = guest.boot(HERE)?;
    Mover::start(&guest)?.kill()?;
    guest.virsh(HERE, "migrate-setspeed", &["1000"])?;
    soon("it has arrived", || !guest.lives(HERE))?;
    // A moment later libvirt there has nothing to do with it any more.
    soon("its move is over there", || guest.virsh(THERE, "domjobinfo", &[]).is_ok_and(|job| job.contains("None")))?;
    guest.call(HERE, "monitor", 20)?.is(7)?;
    guest.call(HERE, "stop", 60)?.is(0)?;
    promised!(guest.lives(THERE), "the only copy was ended");
    guest.beats(boot)?;
    guest.end(THERE, 60)?;
    Ok(())
}

/// The agent is killed while both hosts have a copy, and the target says nothing: the one here stands still, and a recurring monitor shows that. A
/// stop ends it, and does not wait for the target: libvirt would let it go on.
pub fn agent_killed_in_the_handover(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "handed")?;
    guest.boot(HERE)?;
    let mover = Mover::start(&guest)?;
    let frozen = Frozen::libvirt(lab, THERE)?;
    guest.virsh(HERE, "migrate-setspeed", &["1000"])?;
    let stands = || guest.virsh(HERE, "domstate", &["--reason"]).is_ok_and(|state| state == "paused (migrating)");
    soon("it is paused for the handover", stands)?;
    mover.kill()?;
    guest.call(HERE, "recurring", 20)?.says(190, &["paused (migrating)", "the end of its move to", THERE, "is not known"])?;
    guest.with("pause_policy", "ignore").call(HERE, "recurring", 20)?.is(0)?;
    guest.call(HERE, "status", 20)?.is(0)?;
    ensure!(stands(), "libvirt has gone on: the answers say nothing");
    let last = guest.ring()?.newest.sequence;
    guest.call(HERE, "stop", 60)?.is(0)?.at_once(Duration::from_secs(20))?;
    ensure!(guest.ring()?.newest.sequence == last, "it was let go on");
    guest.absent(HERE)?;
    drop(frozen);
    lab.wait_libvirt(THERE)?;
    guest.call(THERE, "stop", 40)?.is(0)?;
    guest.absent(THERE)
}

/// The agent is killed in the middle; Pacemaker then stops the guest on both nodes and starts it on one.
pub fn agent_killed_then_stop(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "halted")?;
    let boot = guest.boot(HERE)?;
    let watcher = Watcher::start(&lab.guest_image("halted"))?;
    Mover::start(&guest)?.kill()?;
    guest.call(HERE, "stop", 40)?.is(0)?;
    guest.absent(HERE)?;
    // What came in by then, or did not, is the only one.
    let last = watcher.snapshot().newest().context("no beat")?;
    if guest.lives(THERE) && wait_until(Duration::from_secs(3), Duration::from_millis(50), || !guest.lives(THERE)) {
        ensure!(last.record.boot == boot, "booted again");
    }
    guest.call(THERE, "stop", 40)?.is(0)?;
    guest.absent(THERE)?;
    guest.stays_absent(HERE, Duration::from_secs(2))?;
    let again = guest.boot(THERE)?;
    ensure!(again != boot, "not booted again");
    ensure!(wait_until(PATIENCE, Duration::from_millis(50), || watcher.snapshot().boots().contains(&again)), "not seen");
    let watch = watcher.stop();
    promised!(watch.two_writers.is_none() && watch.boots() == [boot, again], "boots {:x?}, {:?}", watch.boots(), watch.two_writers);
    Ok(())
}

/// The source's libvirt freezes in the middle of a migration: nothing can be called off, and that is said in time.
pub fn source_frozen_in_mid_migration(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "iced")?;
    let boot = guest.boot(HERE)?;
    std::thread::scope(|scope| -> Result<()> {
        let slow = guest.with("migration_speed", "1");
        let moving = scope.spawn(move || migrate_to(&slow, HERE, THERE, 15));
        soon("the guest comes in", || guest.lives(THERE))?;
        let frozen = Frozen::libvirt(lab, HERE)?;
        moving.join().map_err(|_| anyhow::anyhow!("panicked"))??.says(1, &["iced"])?;
        drop(frozen);
        Ok(())
    })?;
    // Pacemaker stops it on both.
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.call(THERE, "stop", 60)?.is(0)?;
    guest.absent(HERE)?;
    guest.absent(THERE)?;
    let ring = guest.ring()?;
    promised!(ring.newest.boot == boot && ring.two_writers.is_none(), "{:?}", ring.two_writers);
    Ok(())
}

/// A definition that only the source has: the target's agent still knows which guest it waits for, or says that it does not.
pub fn config_missing_at_the_target(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "local")?;
    let config = lab.path_in(HERE, "/etc/local.xml")?;
    replace(&config, &fs::read_to_string(lab.guest_definition("local"))?)?;
    let guest = guest.with("config", "/etc/local.xml");
    let boot = guest.boot(HERE)?;
    migrate_to(&guest, HERE, THERE, 60)?.is(0)?;
    // It is named like its file; that is enough to take it over, to see it and to end it.
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    guest.call(HERE, "stop", 30)?.is(0)?;
    guest.call(THERE, "monitor", 20)?.is(0)?;
    guest.beats(boot)?;
    guest.call(THERE, "stop", 60)?.is(0)?;
    guest.absent(THERE)
}
