//! `autoset_utilization_*`, `unset_utilization_*`: what Pacemaker's placement knows of the guest. And the hidden `trace_ra`.

use crate::props::shared;
use crate::stage::{HERE, PATIENCE, Resource};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use roxmltree::Document;
use std::collections::BTreeMap;
use std::fs;

/// A guest and its resource in the CIB, which Pacemaker leaves alone.
fn known<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    let guest = Resource::empty(lab, name)?;
    guest.edit(|text| text.replace("<vcpu>1</vcpu>", "<vcpu current='1'>2</vcpu>"))?;
    let config = format!("config=/srv/vms/{name}.xml");
    lab.check(HERE, &["pcs", "resource", "create", name, "ocf:kvmha:VirtualDomain", &config, "meta", "is-managed=false"], PATIENCE)?;
    Ok(guest.with("force_stop", "true"))
}

/// Attributes of the resource, and the version of the CIB.
fn cib(lab: &Lab, name: &str) -> Result<(BTreeMap<String, String>, String)> {
    let text = lab.check(HERE, &["cibadmin", "--query"], PATIENCE)?;
    let document = Document::parse(&text)?;
    let primitive = document.descendants().find(|node| node.has_tag_name("primitive") && node.attribute("id") == Some(name));
    let sets = primitive.context("no such resource")?.children().filter(|node| node.has_tag_name("utilization"));
    let pairs = sets.flat_map(|set| set.children()).filter(|node| node.has_tag_name("nvpair"));
    let pairs = pairs.filter_map(|pair| Some((pair.attribute("name")?.to_owned(), pair.attribute("value")?.to_owned())));
    let version = document.root_element().attribute("epoch").context("the CIB has no epoch")?;
    Ok((pairs.collect(), version.to_owned()))
}

/// Time goes by for the agent, which looks at the guest's numbers once a minute and at the CIB every ten.
fn later(guest: &Resource, what: &str) -> Result<()> {
    let path = guest.record(HERE)?.with_extension("utilization");
    let text = fs::read_to_string(&path)?;
    let key = format!("\"{what}\":");
    let (before, rest) = text.split_once(&key).context("the note has changed")?;
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
    Ok(fs::write(&path, format!("{before}{key}-100000{rest}"))?)
}

/// Written at the start; not again while nothing changes; again when the guest has, or somebody else has taken it away.
pub fn written_and_left_alone(lab: &Lab) -> Result<()> {
    let guest = known(lab, "sized")?;
    guest.call(HERE, "monitor", 20)?.is(7)?;
    ensure!(cib(lab, "sized")?.0.is_empty(), "a probe has written");
    guest.begin(HERE)?;
    let (found, written) = cib(lab, "sized")?;
    let expected = |cpus: &str| [("cpu", cpus), ("host_memory", "32"), ("hv_memory", "32")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    ensure!(found == expected("1").into(), "after start: {found:?}");
    for _ in 0..3 {
        guest.call(HERE, "recurring", 20)?.is(0)?;
        later(&guest, "numbers")?;
    }
    later(&guest, "cib")?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(cib(lab, "sized")?.1 == written, "the CIB was written though nothing has changed");
    guest.virsh(HERE, "setvcpus", &["2", "--live"])?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(cib(lab, "sized")?.1 == written, "looked at before its time");
    later(&guest, "numbers")?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(cib(lab, "sized")?.0 == expected("2").into(), "after a CPU was added: {:?}", cib(lab, "sized")?.0);
    lab.check(HERE, &["crm_resource", "-r", "sized", "-z", "-d", "cpu"], PATIENCE)?;
    later(&guest, "numbers")?;
    later(&guest, "cib")?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(cib(lab, "sized")?.0 == expected("2").into(), "after it was removed: {:?}", cib(lab, "sized")?.0);
    guest.end(HERE, 60)?;
    ensure!(cib(lab, "sized")?.0 == expected("2").into(), "stop has changed it");
    Ok(())
}

/// Removed where that is asked for, if it is there; what is switched off is not touched.
pub fn removed(lab: &Lab) -> Result<()> {
    let guest = known(lab, "unsized")?;
    for (name, value) in [("cpu", "7"), ("host_memory", "7"), ("hv_memory", "7"), ("other", "7")] {
        lab.check(HERE, &["crm_resource", "-r", "unsized", "-z", "-p", name, "-v", value], PATIENCE)?;
    }
    let guest = guest.with("autoset_utilization_cpu", "false").with("unset_utilization_cpu", "true");
    let guest = guest.with("autoset_utilization_host_memory", "false").with("autoset_utilization_hv_memory", "false");
    guest.begin(HERE)?;
    let (found, version) = cib(lab, "unsized")?;
    let expected = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "7".to_owned())).collect::<BTreeMap<_, _>>();
    ensure!(found == expected(&["host_memory", "hv_memory", "other"]), "{found:?}");
    later(&guest, "numbers")?;
    later(&guest, "cib")?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(cib(lab, "unsized")?.1 == version, "removed what was not there");
    // A changed parameter counts at the next look.
    let guest = guest.with("unset_utilization_host_memory", "true").with("unset_utilization_hv_memory", "true");
    later(&guest, "numbers")?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(cib(lab, "unsized")?.0 == expected(&["other"]), "{:?}", cib(lab, "unsized")?.0);
    guest.end(HERE, 60)?;
    Ok(())
}

/// What the agent asked, and the answers, for one who looks for a fault.
pub fn traced(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "traced")?.with("trace_ra", "1").with("trace_file", "/srv/vms/trace");
    guest.begin(HERE)?;
    let trace = fs::read_to_string(shared(lab, "trace"))?;
    ensure!(trace.contains("DEBUG: creating traced") && trace.contains("INFO: traced created"), "{trace}");
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}
