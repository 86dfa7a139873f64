//! What a guest needs of libvirt besides itself: the networks and storage pools that its definition names.
//!
//! A pool that is active is left alone as long as it knows the guest's volumes: a refresh that fails has libvirt stop it, under all guests
//! that use it, and forget it if it is transient (`storagePoolRefresh` in libvirt's `src/storage/storage_driver.c`).

use super::{Connection, Error, Kind, Result};
use crate::deadline::Deadline;
use crate::log;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};

/// What passes before something is asked for again that could not be started.
const AGAIN: Duration = Duration::from_millis(250);

/// The names in a definition, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Storage pools, of disks, each with the volumes in it.
    pub pools: BTreeMap<String, BTreeSet<String>>,
    /// Networks, of interfaces.
    pub networks: BTreeSet<String>,
}

impl Needs {
    /// The needs of the definition `xml`; none if it is no XML.
    #[must_use]
    pub fn of(xml: &str) -> Self {
        let Ok(document) = roxmltree::Document::parse(xml) else { return Self::default() };
        let mut needs = Self::default();
        for source in document.descendants().filter(|node| node.has_tag_name("source")) {
            let named = |attribute: &str| source.attribute(attribute).filter(|name| !name.is_empty()).map(str::to_owned);
            if let Some(pool) = named("pool") {
                needs.pools.entry(pool).or_default().extend(named("volume"));
            }
            needs.networks.extend(named("network"));
        }
        needs
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty() && self.networks.is_empty()
    }

    /// Starts what is not active, at this libvirt, and refreshes a pool that is and does not know a volume of the guest's.
    ///
    /// # Errors
    /// The first that is not there or cannot be started.
    pub fn start(&self, libvirt: &Connection, deadline: &Deadline) -> Result<()> {
        for (name, volumes) in &self.pools {
            let pool = Thing::Pool(name.clone());
            if !pool.start(libvirt, deadline)? && lacks(libvirt, name, volumes, deadline)? {
                refresh(libvirt, name, deadline)?;
            }
        }
        self.networks.iter().try_for_each(|name| Thing::Network(name.clone()).start(libvirt, deadline).map(drop))
    }
}

/// Whether a pool that is active does not know one of these volumes. Where libvirt does not say it is taken to know them: if one is
/// missing, the guest's creation will say which.
///
/// # Errors
/// No answer. (libvirt reads the whole pool when it is asked to refresh it, and the guest is locked meanwhile: no stop could be proven then, so it
/// is not asked to.)
fn lacks(libvirt: &Connection, pool: &str, volumes: &BTreeSet<String>, deadline: &Deadline) -> Result<bool> {
    let (name, volumes) = (pool.to_owned(), volumes.clone());
    let looked = libvirt.call(&format!("looking up the volumes in storage pool {pool}"), &deadline.part(2), move |connect| {
        let pool = connect.lookup_storage_pool_by_name(&name)?;
        for volume in &volumes {
            match pool.lookup_storage_vol_by_name(volume) {
                Ok(_) => {}
                Err(error) if error.code().known() == Some(ErrorNumber::NoStorageVolume) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    });
    match looked {
        Err(error) if error.kind != Kind::Unresponsive => {
            log::warning(format_args!("storage pool {pool}: {error}"));
            Ok(false)
        }
        looked => looked,
    }
}

/// Refreshes a pool that is active.
///
/// # Errors
/// It is not refreshed in time, and so of no use for a guest either; or it is not active any more by that, and cannot be started again.
fn refresh(libvirt: &Connection, pool: &str, deadline: &Deadline) -> Result<()> {
    let name = pool.to_owned();
    let refreshed = libvirt.call(&format!("refreshing storage pool {pool}"), &deadline.part(2), move |connect| {
        connect.lookup_storage_pool_by_name(&name)?.refresh(0).map(drop)
    });
    match refreshed {
        Err(error) if error.kind != Kind::Unresponsive => {
            log::warning(error);
            // Others may use it, and it is this that has stopped it: what has kept it from being read may pass.
            Thing::Pool(pool.to_owned())
                .start_after(libvirt, |error| error.kind == Kind::State || error.kind == Kind::Refused, deadline)
                .map(drop)
        }
        refreshed => refreshed,
    }
}

/// Something of libvirt's that can be active.
#[derive(Clone)]
enum Thing {
    Pool(String),
    Network(String),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(name) => write!(f, "storage pool {name}"),
            Self::Network(name) => write!(f, "network {name}"),
        }
    }
}

impl Thing {
    fn is_active(&self, connect: &Connect) -> std::result::Result<bool, VirtError> {
        match self {
            Self::Pool(name) => connect.lookup_storage_pool_by_name(name)?.is_active(),
            Self::Network(name) => connect.lookup_network_by_name(name)?.is_active(),
        }
    }

    fn create(&self, connect: &Connect) -> std::result::Result<(), VirtError> {
        match self {
            Self::Pool(name) => connect.lookup_storage_pool_by_name(name)?.create(0),
            Self::Network(name) => connect.lookup_network_by_name(name)?.create(),
        }
    }

    /// Starts it if it is not active; says whether it was not.
    ///
    /// # Errors
    /// It is not there or cannot be started.
    fn start(&self, libvirt: &Connection, deadline: &Deadline) -> Result<bool> {
        // That it is active already, or just being started, for another guest that comes at the same time.
        self.start_after(libvirt, |error| error.kind == Kind::State, deadline)
    }

    /// Like [`Self::start`], but it is asked for again while an error `may_pass`.
    fn start_after(&self, libvirt: &Connection, may_pass: impl Fn(&Error) -> bool, deadline: &Deadline) -> Result<bool> {
        let ask = || {
            let thing = self.clone();
            libvirt.call(&format!("looking at {self}"), deadline, move |connect| thing.is_active(connect))
        };
        let create = || {
            let thing = self.clone();
            libvirt.call(&format!("starting {self}"), deadline, move |connect| thing.create(connect))
        };
        let started = started(ask, create, may_pass, &deadline.part(2))?;
        log::debug(|| format!("{self} is active"));
        Ok(started)
    }
}

/// Has something started that is not active; says whether it was not. The two steps are not one: what another has started in between is active too.
fn started(
    is_active: impl Fn() -> Result<bool>,
    create: impl Fn() -> Result<()>,
    may_pass: impl Fn(&Error) -> bool,
    patience: &Deadline,
) -> Result<bool> {
    if is_active()? {
        return Ok(false);
    }
    loop {
        let Err(error) = create() else { return Ok(true) };
        if is_active().unwrap_or(false) {
            return Ok(true);
        }
        if !may_pass(&error) || !patience.again(AGAIN) {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ffi;
    use crate::simulation::{explore, hosts::World};
    use std::cell::Cell;
    use virt::storage_vol::StorageVol;

    #[test]
    fn named_in_a_definition() {
        let xml = "<domain><devices><disk type='volume'><source pool='vms' volume='a'/></disk><disk><source file='/x'/></disk>\
            <disk type='volume'><source pool='vms' volume='b'/></disk>\
            <interface type='network'><source network='front'/></interface><interface><source network=\"b&amp;b\"/></interface>\
            </devices></domain>";
        let needs = Needs::of(xml);
        let volumes = ["a", "b"].map(str::to_owned).into();
        assert_eq!(needs.pools, [("vms".to_owned(), volumes)].into());
        assert_eq!(needs.networks.iter().collect::<Vec<_>>(), ["b&b", "front"]);
        assert_eq!(Needs::of("no xml"), Needs::default());
    }

    /// It is not active when it is asked for, another guest's action has it started meanwhile, and libvirt refuses the second request. By a clock
    /// that is made up: it is active after so many seconds.
    #[test]
    fn what_another_has_started_is_active() {
        let said = |active_after: u64, kind: Kind| {
            let act = move || {
                let begun = Cell::new(None);
                let is_active = || Ok(begun.get().is_some_and(|begin| crate::deadline::now() - begin >= Duration::from_secs(active_after)));
                let create = || {
                    if begun.get().is_none() {
                        begun.set(Some(crate::deadline::now()));
                    }
                    Err(Error::new(kind, "storage pool 'vms' is starting up"))
                };
                let answer = started(is_active, create, |error| error.kind == Kind::State, &Deadline::after(Duration::from_secs(10)));
                answer.map_or_else(|error| error.text, |started| started.to_string())
            };
            explore(0, || World::new(&["qemu:///system"], false), act, |_, _| Ok(())).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(said(0, Kind::State), ["true"], "it is active by now");
        assert_eq!(said(0, Kind::Refused), ["true"], "whatever is said of the request");
        assert_eq!(said(5, Kind::State), ["true"], "it is being started");
        assert_eq!(said(5, Kind::Refused), ["storage pool 'vms' is starting up"]);
        assert_eq!(said(60, Kind::State), ["storage pool 'vms' is starting up"]);
    }

    /// libvirt's test driver, which needs no daemon, but the library: an active pool that knows the volume is not refreshed.
    #[test]
    fn a_volume_that_is_known_is_not_looked_for() {
        let deadline = Deadline::after(Duration::from_secs(60));
        if ffi::load().is_err() {
            return;
        }
        let libvirt = Connection::open("test:///default", &deadline).unwrap();
        let volume = "<volume><name>a</name><capacity>1024</capacity></volume>";
        let made = libvirt.call("making a volume", &deadline, move |connect| {
            StorageVol::create_xml(&connect.lookup_storage_pool_by_name("default-pool")?, volume, 0).map(drop)
        });
        made.unwrap();
        let lacks =
            |names: &[&str]| lacks(&libvirt, "default-pool", &names.iter().map(|name| (*name).to_owned()).collect(), &deadline).unwrap();
        assert!(!lacks(&["a"]) && !lacks(&[]) && lacks(&["a", "b"]));
        let needs = Needs::of("<domain><source pool='default-pool' volume='b'/><source network='default'/></domain>");
        needs.start(&libvirt, &deadline).unwrap();
        let none = Needs::of("<domain><source pool='nowhere' volume='b'/></domain>");
        assert!(none.start(&libvirt, &deadline).unwrap_err().text.contains("storage pool nowhere"));
    }
}
