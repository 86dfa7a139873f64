//! What a guest needs of libvirt besides itself: the networks and storage pools that its definition names.

use super::{Connection, Result, ffi};
use crate::deadline::Deadline;
use crate::log;
use std::collections::BTreeSet;

/// The names in a definition, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Storage pools, of disks.
    pub pools: BTreeSet<String>,
    /// Networks, of interfaces.
    pub networks: BTreeSet<String>,
}

impl Needs {
    /// The needs of the definition `xml`; none if it is no XML.
    #[must_use]
    pub fn of(xml: &str) -> Self {
        let Ok(document) = roxmltree::Document::parse(xml) else { return Self::default() };
        let named = |attribute: &str| {
            let sources = document.descendants().filter(|node| node.has_tag_name("source"));
            sources.filter_map(|node| node.attribute(attribute)).filter(|name| !name.is_empty()).map(Into::into).collect()
        };
        Self { pools: named("pool"), networks: named("network") }
    }

    /// Starts what is not active, at the libvirt at `uri`, and refreshes the pools that are.
    ///
    /// # Errors
    /// The first that is not there or cannot be started. A pool that cannot be refreshed is only logged: it is active.
    pub fn start(&self, uri: &str, deadline: &Deadline) -> Result<()> {
        if self.pools.is_empty() && self.networks.is_empty() {
            return Ok(());
        }
        let connection = Connection::open(uri, deadline)?;
        for name in &self.pools {
            let wanted = name.clone();
            let refreshed = connection.call(&format!("starting storage pool {name}"), deadline, move |connect| {
                let pool = connect.lookup_storage_pool_by_name(&wanted)?;
                if pool.is_active()? { Ok(pool.refresh(0).err()) } else { pool.create(0).map(|()| None) }
            });
            match refreshed? {
                Some(error) => log::warning(format_args!("storage pool {name} cannot be refreshed: {}", ffi::error(&error))),
                None => log::debug(|| format!("storage pool {name} is active")),
            }
        }
        for name in &self.networks {
            let wanted = name.clone();
            let started = connection.call(&format!("starting network {name}"), deadline, move |connect| {
                let network = connect.lookup_network_by_name(&wanted)?;
                if network.is_active()? { Ok(()) } else { network.create() }
            });
            started?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_in_a_definition() {
        let xml = "<domain><devices><disk type='volume'><source pool='vms' volume='a'/></disk><disk><source file='/x'/></disk>\
            <disk type='volume'><source pool='vms' volume='b'/></disk>\
            <interface type='network'><source network='front'/></interface><interface><source network=\"b&amp;b\"/></interface>\
            </devices></domain>";
        let needs = Needs::of(xml);
        assert_eq!(needs.pools.iter().collect::<Vec<_>>(), ["vms"]);
        assert_eq!(needs.networks.iter().collect::<Vec<_>>(), ["b&b", "front"]);
        assert_eq!(Needs::of("no xml"), Needs::default());
    }
}
