//! The guest's agent: one that answers, one that is silent in a guest that works, one in a guest that hangs, and none.

use crate::stage::{HERE, Resource, SOON, soon, together};
use anyhow::{Result, ensure};
use lab::Lab;

/// A guest with a channel for an agent.
fn with_channel<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    let channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices>";
    let guest = Resource::new(lab, name)?;
    guest.edit(|text| text.replace("</devices>", channel))?;
    Ok(guest.with("guest_agent_failures", "2"))
}

/// Types a word on a guest's console, and waits until the guest has said it back.
fn tell(guest: &Resource, word: &str) -> Result<()> {
    let terminal = guest.virsh(HERE, "ttyconsole", &[])?;
    // QEMU looks once a second whether somebody has opened it.
    guest.lab.check(HERE, &["sh", "-c", &format!("{{ sleep 2; echo {word}; sleep 2; }} >{terminal}")], SOON)?;
    soon("the guest has heard it", || guest.console(HERE).is_ok_and(|said| said.contains(&format!("init: {word}"))))
}

/// A recurring monitor at the usual level.
fn monitor(guest: &Resource) -> Result<crate::stage::Answer> {
    guest.call(HERE, "recurring", 30)
}

/// An agent that falls silent is missed only where nothing else moves either.
pub fn silent(lab: &Lab) -> Result<()> {
    let (mute, hung) = (with_channel(lab, "mute")?, with_channel(lab, "hung")?);
    let boots = [mute.boot(HERE)?, hung.boot(HERE)?];
    for (guest, word) in [(&mute, "mute"), (&hung, "hang")] {
        let note = guest.record(HERE)?.with_extension("pulse");
        soon("the agent was heard", || monitor(guest).is_ok_and(|answer| answer.code == 0) && note.exists())?;
        tell(guest, word)?;
    }
    together(vec![
        Box::new(|| {
            for _ in 0..4 {
                monitor(&mute)?.is(0)?;
            }
            mute.beats(boots[0])
        }),
        Box::new(|| {
            // Whatever it was about to do when it fell silent counts as a sign of life, once.
            monitor(&hung)?.is(0)?;
            soon("it is called hung", || monitor(&hung).is_ok_and(|answer| answer.code == 1))?;
            monitor(&hung)?.says(1, &["agent of hung is silent", "stand still, 2 monitors long"])?;
            // Not a probe, not a person's question.
            hung.call(HERE, "monitor", 30)?.is(0)?;
            hung.call(HERE, "status", 30)?.is(0)?;
            hung.with("guest_agent_failures", "0").call(HERE, "recurring", 30)?.is(0)?;
            hung.with("guest_agent_failures", "0").call_with(HERE, "recurring", 30, &[("OCF_CHECK_LEVEL", "10")])?.is(1).map(drop)
        }),
    ])?;
    // A boot is a new beginning. With the memory that was saved it would hang again, and its agent would count as never heard.
    let saving = hung.with("snapshot", "/srv/vms");
    saving.end(HERE, 40)?;
    ensure!(saving.boot(HERE)? != boots[1], "it goes on where it hung");
    monitor(&saving)?.is(0).map(drop)
}

/// A channel without an agent, and no channel: nothing is missed that was never there.
pub fn never_heard(lab: &Lab) -> Result<()> {
    let channel = with_channel(lab, "unheard")?;
    channel.edit(|text| {
        text.lines().filter(|line| !line.contains("<kernel>") && !line.contains("<initrd>") && !line.contains("<cmdline>")).collect()
    })?;
    channel.begin(HERE)?;
    let without = Resource::empty(lab, "channelless")?.with("guest_agent_failures", "1");
    without.begin(HERE)?;
    for _ in 0..3 {
        monitor(&channel)?.is(0)?;
        monitor(&without)?.is(0)?;
    }
    Ok(())
}
