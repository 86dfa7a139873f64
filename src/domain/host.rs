//! What a libvirt says of itself and its host.

use super::connection::Connection;
use super::definition::{Definition, Identity};
use super::holding::{self, Holding};
use super::{Kind, Result, ffi};
use crate::deadline::{Deadline, Task};
use roxmltree::Document;
use std::fmt;

/// A version as libvirt counts: 11.3.0 is 11003000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// A version of this major and minor number.
    #[must_use]
    pub const fn of(major: u32, minor: u32) -> Self {
        Self(major * 1_000_000 + minor * 1_000)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0 / 1_000_000, self.0 / 1_000 % 1_000, self.0 % 1_000)
    }
}

impl Connection {
    /// libvirt's version there.
    ///
    /// # Errors
    /// libvirt's, or `Unresponsive` at the deadline.
    pub fn libvirt_version(&self, deadline: &Deadline) -> Result<Version> {
        self.call("asking the version", deadline, |connect| Ok(Version(connect.lib_version()?)))
    }
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its own version.
    pub libvirt: Version,
    /// The version of its QEMU.
    pub qemu: Version,
    /// As whom it runs emulators, numbers of user and group (`+107:+107`), if it says so.
    pub owner: Option<String>,
    /// What it holds of the guests that were asked for.
    pub guests: Vec<Option<Holding>>,
    /// The definitions under which those of them run that run there, as far as it says so in time.
    pub running: Vec<Option<String>>,
}

/// The version of libvirt's library on this host.
///
/// # Errors
/// There is none that can be used.
pub fn library() -> Result<Version> {
    ffi::load()?;
    Ok(Version(virt::connect::Connect::version()?))
}

/// Asks several libvirts side by side, each for the same guests.
#[must_use]
pub fn about(uris: &[String], guests: &[Identity], deadline: &Deadline) -> Vec<Result<About>> {
    let start = |uri: &String| {
        let (uri, guests, deadline) = (uri.clone(), guests.to_vec(), *deadline);
        Task::start(move || ask(&uri, &guests, &deadline))
    };
    let tasks: Vec<_> = uris.iter().map(|uri| (uri, start(uri))).collect();
    let silent = |uri: &str| super::Error::new(Kind::Unresponsive, format!("{uri}: no answer in time"));
    tasks.into_iter().map(|(uri, task)| task.wait(deadline).unwrap_or_else(|| Err(silent(uri)))).collect()
}

fn ask(uri: &str, guests: &[Identity], deadline: &Deadline) -> Result<About> {
    let connection = Connection::open(uri, deadline)?;
    let (libvirt, qemu, capabilities) = connection.call("asking for its version", deadline, |connect| {
        // Version before the first guest: libvirt asks its QEMU when it is asked.
        Ok((connect.lib_version()?, connect.hyp_version()?, connect.capabilities()?))
    })?;
    let all = holding::all_at(&connection, guests, deadline).into_iter().collect::<Result<Vec<_>>>()?;
    let running = |(identity, held): (&Identity, &Option<Holding>)| {
        held.as_ref().filter(|held| held.condition.is_active())?;
        Definition::running(&connection, &identity.name, deadline).ok().flatten().map(|definition| definition.xml)
    };
    let running = guests.iter().zip(&all).map(running).collect();
    Ok(About { libvirt: Version(libvirt), qemu: Version(qemu), owner: owner(&capabilities), guests: all, running })
}

/// From the capabilities: `secmodel` called `dac`, its label for the type of guest that runs fastest there.
pub(super) fn owner(capabilities: &str) -> Option<String> {
    let document = Document::parse(capabilities).ok()?;
    let models = document.descendants().filter(|node| node.has_tag_name("secmodel"));
    let text = |node: roxmltree::Node, tag: &str| {
        node.children().find(|child| child.has_tag_name(tag)).and_then(|child| child.text()).map(str::to_owned)
    };
    models.filter(|model| text(*model, "model").as_deref() == Some("dac")).find_map(|model| text(model, "baselabel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_owners() {
        assert_eq!(Version(9_000_000).to_string(), "9.0.0");
        assert_eq!((Version(11_003_002).to_string(), Version::of(11, 3) < Version(11_003_002)), ("11.3.2".to_owned(), true));
        let text = "<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model><doi>0</doi>\
            <baselabel type='kvm'>+64055:+109</baselabel><baselabel type='qemu'>+64055:+109</baselabel></secmodel></host></capabilities>";
        assert_eq!(owner(text).as_deref(), Some("+64055:+109"));
        assert_eq!(owner("<capabilities/>"), None);
    }
}
