//! What Pacemaker would do with a guest that comes under it: asked of its scheduler before the commands for that are printed.

use super::super::outlook;
use super::quiet::is_harmless;
use crate::cluster::boolean;
use crate::cluster::cib::Cib;
use crate::cluster::foresight::disturbance;
use crate::cluster::view::View;
use crate::cluster::{forgotten, scheduler};
use crate::deadline::Deadline;
use anyhow::bail;

/// A guest that runs, and is to become a resource.
pub(super) struct Entrant<'a> {
    pub(super) name: &'a str,
    /// Where it runs.
    pub(super) node: &'a str,
    /// Its meta attributes, from the moment on at which Pacemaker looks after it.
    pub(super) meta: &'a [(&'a str, &'a str)],
}

impl Entrant<'_> {
    /// It is left where it is, and so is everything else: while Pacemaker only looks at it, and then when it looks after it.
    ///
    /// # Errors
    /// What would be done, why, and what to do about it.
    pub(super) fn is_welcome(&self, view: &View, cib: &Cib, deadline: &Deadline) -> anyhow::Result<()> {
        let Self { name, node, .. } = *self;
        let come = cib.with_guest(name, &self.primitive(), node);
        if let Some(harm) = forgotten::harm(&come.with_meta(name, "is-managed", "false"), name, deadline)? {
            bail!("{harm}");
        }
        let (before, after) = (scheduler::plan_for(cib, deadline)?, scheduler::plan_for(&come, deadline)?);
        if let Some(what) = disturbance(&after, name) {
            let (why, remedy) = self.cause(view, cib);
            bail!("as soon as Pacemaker looks after {name} it would {what}, {why}: {remedy} first");
        }
        if let Some(step) = after.iter().find(|step| !is_harmless(step) && !before.contains(step)) {
            bail!("as soon as Pacemaker looks after {name} it would {step}; crm_simulate --live-check --show-scores shows how it weighs");
        }
        Ok(())
    }

    /// The resource, as far as the scheduler asks for it.
    fn primitive(&self) -> String {
        let name = self.name;
        let pair = |(key, value): &(&str, &str)| format!("<nvpair id=\"{name}-meta-{key}\" name=\"{key}\" value=\"{value}\"/>");
        format!(
            "<primitive id=\"{name}\" class=\"ocf\" provider=\"kvmha\" type=\"VirtualDomain\"><operations><op id=\"{name}-monitor\" name=\"monitor\" \
             interval=\"10s\"/></operations><meta_attributes id=\"{name}-meta\">{}</meta_attributes></primitive>",
            self.meta.iter().map(pair).collect::<String>()
        )
    }

    /// Why it is not to be where it is, and what ends that.
    fn cause(&self, view: &View, cib: &Cib) -> (String, String) {
        let Self { name, node, .. } = *self;
        if let Some(standby) = outlook::standby(view, node) {
            return standby;
        }
        if cib.option("symmetric-cluster").is_some_and(|value| boolean(&value) == Some(false)) {
            let why = "for a resource may be only where a constraint says so (symmetric-cluster=false)".to_owned();
            return (why, format!("pcs constraint location 'regexp%^{name}$' prefers {node}"));
        }
        let why = "by a constraint with a pattern or a rule that is true of it (cibadmin --query --scope constraints), or for want of room"
            .to_owned();
        (why, "change that".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view;

    #[test]
    fn why_it_would_not_stay() {
        let entrant = Entrant { name: "web1", node: "n1", meta: &[] };
        let view = |standby: bool| {
            let text = format!(
                "<r><summary><current_dc present='true' name='n1'/></summary><nodes><node name='n1' online='true' standby='{standby}'/></nodes></r>"
            );
            view::parse(&text).unwrap()
        };
        let cib = |symmetric: &str| {
            let text = format!(
                "<cib><configuration><crm_config><cluster_property_set id='o'><nvpair id='s' name='symmetric-cluster' value='{symmetric}'/>\
                 </cluster_property_set></crm_config></configuration></cib>"
            );
            Cib::parse(text).unwrap()
        };
        assert_eq!(entrant.cause(&view(true), &cib("false")).1, "crm_attribute --node n1 --name standby --delete");
        assert_eq!(entrant.cause(&view(false), &cib("False")).1, "pcs constraint location 'regexp%^web1$' prefers n1");
        assert!(entrant.cause(&view(false), &cib("true")).0.contains("pattern"));
    }

    #[test]
    fn the_resource_is_the_one_that_is_made() {
        let entrant = Entrant { name: "web1", node: "n1", meta: &[("resource-stickiness", "INFINITY")] };
        let cib = Cib::parse(format!("<cib><resources>{}</resources></cib>", entrant.primitive())).unwrap();
        let web1 = cib.resource("web1").unwrap();
        assert_eq!((web1.agent.as_str(), web1.meta["resource-stickiness"].as_str()), ("ocf:kvmha:VirtualDomain", "INFINITY"));
    }
}
