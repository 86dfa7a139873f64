//! `kvmha doctor`: nothing is found where nothing is wrong, and every set-up that was broken on purpose is found, with its remedy.

mod broken;

use crate::seen::{json, kvmha, says};
use anyhow::{Context, Result, ensure};
use broken::Do::{self, Ahead, Freeze, Kill, Line, Start, Thaw};
use broken::{BROKEN, HASTY, ORDERED, UNORDERED};
use lab::placed::{Guest, OPERATIONS, PARAMETERS, until};
use lab::process::replace;
use lab::scene::{LIMIT, Stage};
use lab::{GuestOptions, Lab};
use serde_json::Value;
use std::fs;

fn carry_out(lab: &Lab, steps: &[Do]) -> Result<()> {
    for step in steps {
        match step {
            Line(node, line) => lab.check(node, &["sh", "-c", line], LIMIT).map(drop)?,
            Kill(node) => lab.kill(node, "libvirtd")?,
            Start(node) => lab.start(node, "libvirtd")?,
            Freeze(node) => lab.freeze(node, "libvirtd")?,
            Thaw(node) => lab.thaw(node, "libvirtd")?,
            Ahead(node, seconds) => lab.set_clock(node, *seconds)?,
        }
    }
    Ok(())
}

/// What `kvmha doctor` finds on a node.
fn findings(lab: &Lab, node: &str) -> Result<Vec<Value>> {
    let answer = json(lab, node, "doctor --json")?;
    let findings = answer["findings"].as_array().context("no list")?.clone();
    ensure!(answer["healthy"] == findings.is_empty(), "{answer}");
    Ok(findings)
}

fn healthy(lab: &Lab, node: &str) -> Result<()> {
    let mut last = Vec::new();
    until(&format!("nothing is wrong on {node}"), || {
        last = findings(lab, node).unwrap_or_else(|error| vec![Value::String(format!("{error:#}"))]);
        last.is_empty()
    })
    .with_context(|| format!("{last:?}"))
}

/// One guest, stopped: the cluster has nothing to do with it while its surroundings are broken and mended.
pub fn each_broken_set_up_is_found(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    lab.guest_create("web1", &GuestOptions::default())?;
    let operations = OPERATIONS.split_whitespace();
    let line = "pcs resource create web1 ocf:kvmha:VirtualDomain config=/srv/vms/web1.xml migration_transport=tcp";
    let words = line.split_whitespace().chain(operations).chain(["meta", "allow-migrate=true", "--disabled"]);
    lab.check(&stage.speaker()?, &words.collect::<Vec<_>>(), LIMIT)?;
    let xml = fs::read_to_string(lab.guest_definition("web1"))?;
    let lockless = xml.replace("<name>web1<", "<name>lockless<").replace("type='file' device='disk'", "type='block' device='disk'");
    let (begin, end) = (lockless.find("<source file=").context("no disk")?, lockless.find("/web1.img'/>").context("no disk")?);
    let lockless = format!("{}<source dev='/dev/nothing'/>{}", &lockless[..begin], &lockless[end + "/web1.img'/>".len()..]);
    let lockless = lockless.lines().filter(|line| !line.contains("<uuid>")).collect::<Vec<_>>().join("\n");
    replace(&lab.guest_definition("lockless"), &lockless)?;
    let another =
        |line: &str| if line.contains("<uuid>") { "<uuid>6b766d68-0000-4000-8000-0000000000ff</uuid>".to_owned() } else { line.to_owned() };
    let strayed = xml.replace("<name>web1<", "<name>strayed<").lines().map(another).collect::<Vec<_>>().join("\n");
    replace(&lab.guest_definition("strayed-runs"), &strayed)?;
    replace(&lab.guest_definition("strayed"), &strayed.replace("/web1.img", "/old.img"))?;
    stage.settle()?;
    for node in lab.node_names() {
        healthy(lab, &node)?;
    }
    says(&kvmha(lab, "node1", "doctor")?, 0, &["fencing", "every node can be fenced"])?;
    ensure!(kvmha(lab, "node1", "doctor --quiet")?.stdout.is_empty(), "something is said of a healthy cluster");
    // With all in order, as systemd would say it.
    carry_out(
        lab,
        &[
            Line("node1", ORDERED),
            Line(
                "node1",
                "echo '[ $5 = virt-guest-shutdown.target ] && echo active || echo sysinit.target virt-guest-shutdown.target' >>/usr/local/bin/systemctl",
            ),
        ],
    )?;
    let ordered = healthy(lab, "node1");
    carry_out(lab, &[Line("node1", UNORDERED)])?;
    ordered?;
    for broken in BROKEN {
        carry_out(lab, broken.make)?;
        let mut last = Vec::new();
        let mut missing = "";
        let found = until("it is found", || {
            last = findings(lab, "node1").unwrap_or_default();
            let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            let is_found = |(check, what, remedy): &(&str, &str, &str)| {
                last.iter()
                    .any(|one| text(one, "check") == *check && text(one, "text").contains(what) && text(one, "remedy").contains(remedy))
            };
            missing = broken.found.iter().find(|wanted| !is_found(wanted)).map_or("", |wanted| wanted.1);
            missing.is_empty()
        });
        let shown = kvmha(lab, "node1", "doctor --quiet");
        carry_out(lab, broken.mend)?;
        found.with_context(|| format!("{missing:?} is not in {last:?}"))?;
        let (_, what, remedy) = broken.found[0];
        says(&shown?, 1, &[what, "-> ", remedy])?;
    }
    healthy(lab, "node1")?;
    stage.check("pcs resource delete web1")?;
    stage.settle()?;
    for name in ["lockless", "strayed", "strayed-runs"] {
        fs::remove_file(lab.guest_definition(name))?;
    }
    lab.guest_remove("web1")
}

/// Runs the remedies of these checks, and sees that they find nothing any more; how many there were.
fn cure(lab: &Lab, checks: &[&str]) -> Result<usize> {
    let found = |lab: &Lab| -> Result<Vec<String>> {
        let all = findings(lab, "node1")?;
        let wanted = all.iter().filter(|finding| checks.iter().any(|check| finding["check"] == *check));
        Ok(wanted.map(|finding| finding["remedy"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let remedies = found(lab)?;
    for remedy in &remedies {
        // What it is about stands before the command.
        let line = remedy.split_once(": ").map_or(remedy.as_str(), |(_, line)| line);
        lab.check("node1", &["sh", "-c", line], LIMIT)?;
    }
    let left = found(lab)?;
    ensure!(left.is_empty(), "{remedies:#?} were carried out, and there is {left:#?}");
    Ok(remedies.len())
}

/// A node without pcs, and with it again: a node has an overlay of its own over /usr.
const NO_PCS: &str = "mv /usr/sbin/pcs /usr/sbin/pcs.away";
const A_PCS: &str = "mv /usr/sbin/pcs.away /usr/sbin/pcs";

/// What is printed can be pasted: it changes what it is about and nothing else, and costs no guest its life.
pub fn remedies_do_what_they_say(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let run = |line: &str| lab.check("node1", &["sh", "-c", line], LIMIT);
    run(&format!("cibadmin --create --scope resources --xml-text '{HASTY}'"))?;
    let cured = cure(lab, &["timeouts", "on-fail"])?;
    // A timeout of each action, one more monitor; three answers.
    ensure!(cured == 9, "{cured} remedies");
    let text = run("cibadmin --query --xpath '//primitive[@id=\"hasty\"]'")?;
    for whole in [
        r#"<op id="hasty-slow" name="monitor" interval="60s" timeout="30s"/>"#,
        r#"<op id="hasty-fast" name="monitor" interval="10s" timeout="30s" on-fail="restart" start-delay="1s">"#,
        r#"<nvpair id="hasty-l" name="OCF_CHECK_LEVEL" value="10"/>"#,
        r#"<op id="hasty-stop" name="stop" interval="0s" timeout="90s" on-fail="fence"/>"#,
        r#"<op id="hasty-to" name="migrate_to" interval="0s" timeout="120s" on-fail="block"/>"#,
    ] {
        ensure!(text.contains(whole), "{whole} is not in {text}");
    }
    let delete = |id: &str| run(&format!("cibadmin --delete --xml-text '<op id=\"{id}\"/>'")).map(drop);
    delete("hasty-slow")?;
    run("cibadmin --modify --scope resources --xml-text '<op id=\"hasty-fast\" enabled=\"false\"/>'")?;
    ensure!(cure(lab, &["monitor"])? == 1, "a monitor that is disabled is not missed");
    run("cibadmin --modify --scope resources --xml-text '<op id=\"hasty-fast\" interval=\"0s\"/>'")?;
    ensure!(cure(lab, &["monitor"])? == 1, "a probe is taken for a monitor");
    run("cibadmin --delete --xml-text '<primitive id=\"hasty\"/>'")?;
    stage.settle()?;
    // Of two resources that mean a guest that runs one is taken away, and the guest runs on.
    let guest = Guest::placed(&stage, "web1")?;
    run("pcs resource meta web1 resource-stickiness=1000")?;
    // On a cluster with crmsh there is no pcs.
    for (begin, end, tool) in [("true", "true", "pcs resource delete"), (NO_PCS, A_PCS, "crm configure delete")] {
        run(&format!(
            "pcs resource create copy ocf:kvmha:VirtualDomain config=/srv/vms/web1.xml {PARAMETERS} {OPERATIONS} meta allow-migrate=true resource-stickiness=1000 --force"
        ))?;
        stage.wait(|seen| seen.runs_on("copy").is_some()).context("the second resource does not run")?;
        stage.settle()?;
        run(begin)?;
        let said = findings(lab, "node1").map(|all| all.iter().any(|finding| finding["remedy"].to_string().contains(tool)));
        let cured = cure(lab, &["one resource each"]);
        run(end)?;
        ensure!(said?, "{tool} is not advised");
        ensure!(cured? == 1, "two resources of one guest are not found");
        stage.settle()?;
        ensure!(lab.membership()?.resources.iter().all(|placed| placed.id != "copy"), "the second resource is still there");
        ensure!(cure(lab, &["maintenance", "failures"])? == 0, "it has left something");
        guest.goes_on()?;
    }
    stage.no_failures()?;
    guest.end(1).map(drop)
}
