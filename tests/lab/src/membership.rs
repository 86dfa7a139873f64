//! What Pacemaker says of nodes and resources.

use crate::cluster::Lab;
use crate::power::Power;
use crate::process::wait_until;
use anyhow::{Context, Result, bail};
use roxmltree::Document;
use serde::Serialize;
use std::time::Duration;

/// What Pacemaker says of nodes and resources.
#[derive(Clone, Debug, Serialize)]
pub struct Membership {
    /// The designated controller.
    pub dc: Option<String>,
    /// Whether this partition has quorum.
    pub quorum: bool,
    /// The nodes.
    pub nodes: Vec<Member>,
    /// The resources.
    pub resources: Vec<Resource>,
    /// The actions that failed and were not cleaned up.
    pub failures: Vec<Failure>,
}

/// A node as Pacemaker sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it is a member and its daemons answer.
    pub online: bool,
    /// Whether it is only on its way in.
    pub pending: bool,
    /// Whether it must be fenced.
    pub unclean: bool,
}

/// A resource as Pacemaker sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Resource {
    /// Its id.
    pub id: String,
    /// Its agent, for instance `ocf:kvmha:VirtualDomain`.
    pub agent: String,
    /// `Started`, `Stopped`, ...
    pub role: String,
    /// Whether Pacemaker counts it as failed.
    pub failed: bool,
    /// The nodes it runs on.
    pub nodes: Vec<String>,
}

/// An action that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Resource, action and interval: `vm1_monitor_10000`.
    pub operation: String,
    /// Where.
    pub node: String,
    /// What became of it: `complete`, `Timed Out`, ...
    pub status: String,
    /// The exit code of the agent.
    pub code: String,
    /// The exit reason.
    pub reason: String,
}

impl Membership {
    /// How many nodes are members in good standing.
    #[must_use]
    pub fn online(&self) -> usize {
        self.nodes.iter().filter(|node| node.online && !node.pending && !node.unclean).count()
    }

    /// The node on which a resource runs, if it runs well and on one node only.
    #[must_use]
    pub fn runs_on(&self, resource: &str) -> Option<&str> {
        let found = self.resources.iter().find(|found| found.id == resource && found.role == "Started" && !found.failed)?;
        match &found.nodes[..] {
            [node] => Some(node),
            _ => None,
        }
    }

    /// Reads `crm_mon --output-as=xml`.
    pub fn parse(text: &str) -> Result<Self> {
        let document = Document::parse(text).context("crm_mon's answer is no XML")?;
        let all = |tag: &'static str| document.descendants().filter(move |element| element.has_tag_name(tag));
        let dc = all("current_dc").next();
        let flag = |element: roxmltree::Node<'_, '_>, name: &str| element.attribute(name) == Some("true");
        let word = |element: roxmltree::Node<'_, '_>, name: &str| element.attribute(name).unwrap_or_default().to_owned();
        Ok(Self {
            quorum: dc.is_some_and(|dc| flag(dc, "with_quorum")),
            dc: dc.filter(|dc| flag(*dc, "present")).map(|dc| word(dc, "name")),
            nodes: all("node")
                .filter(|node| node.has_attribute("online"))
                .map(|node| Member {
                    name: word(node, "name"),
                    online: flag(node, "online"),
                    pending: flag(node, "pending"),
                    unclean: flag(node, "unclean"),
                })
                .collect(),
            resources: all("resource")
                .map(|resource| Resource {
                    id: word(resource, "id"),
                    agent: word(resource, "resource_agent"),
                    role: word(resource, "role"),
                    failed: flag(resource, "failed"),
                    nodes: resource.children().filter(|child| child.has_tag_name("node")).map(|node| word(node, "name")).collect(),
                })
                .collect(),
            failures: all("failure")
                .map(|failure| Failure {
                    operation: word(failure, "op_key"),
                    node: word(failure, "node"),
                    status: word(failure, "status"),
                    code: word(failure, "exitcode"),
                    reason: word(failure, "exitreason"),
                })
                .collect(),
        })
    }
}

impl Lab {
    /// What Pacemaker says, asked on the first node that has quorum; on a node that is cut off only if no other answers.
    pub fn membership(&self) -> Result<Membership> {
        let mut last = Err(anyhow::anyhow!("no node has power"));
        for node in self.node_names() {
            if self.power(&node)? == Power::Off {
                continue;
            }
            match self.membership_of(&node) {
                Ok(membership) if membership.dc.is_some() && membership.quorum => return Ok(membership),
                Ok(membership) => last = Ok(membership),
                Err(error) => last = last.or(Err(error)),
            }
        }
        last
    }

    /// What Pacemaker says on one node.
    pub fn membership_of(&self, node: &str) -> Result<Membership> {
        let text = self.check(node, &["crm_mon", "-1", "--output-as=xml", "--inactive"], Duration::from_secs(10))?;
        Membership::parse(&text)
    }

    /// Waits until what Pacemaker says pleases `wanted`.
    pub fn wait_membership(&self, limit: Duration, mut wanted: impl FnMut(&Membership) -> bool) -> Result<Membership> {
        let mut last = Err(anyhow::anyhow!("nobody answered"));
        if wait_until(limit, Duration::from_millis(50), || {
            last = self.membership();
            last.as_ref().is_ok_and(&mut wanted)
        }) {
            return last;
        }
        bail!("not within {} s; last seen: {last:?}", limit.as_secs())
    }
}
