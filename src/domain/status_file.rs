//! libvirt's own note of a guest that runs: its status file, `/run/libvirt/qemu/NAME.xml`, which the driver for QEMU writes when it starts
//! or takes in a guest and at each change of it, and removes when it has seen its end (`qemuDomainObjSave`, `qemuProcessStop`). It is
//! there, and right, while the daemon is down, too.

use super::definition::Identity;
use super::process;
use super::scope;
use crate::uuid;
use std::fs;
use std::path::Path;

/// Where the driver for QEMU of the system's libvirt keeps them, that of libvirtd and that of virtqemud alike.
const FOLDER: &str = "/run/libvirt/qemu";

/// What such a file says.
pub(super) struct StatusFile {
    name: String,
    uuid: String,
    /// Whether a disk may have its requests in an io_uring.
    pub(super) may_use_rings: bool,
    /// Whether one may have them in Linux AIO.
    pub(super) may_use_aio: bool,
}

/// What speaks for such a disk wherever it stands: `io='io_uring'` of a disk, and `aio=io_uring` of what is given to QEMU past libvirt.
/// What a person has given to QEMU by its monitor stands nowhere, only that there was something (`virDomainTaint`).
const RINGS: [&str; 2] = ["io_uring", UNSEEN];
/// See [`RINGS`].
const UNSEEN: &str = "custom-monitor";

/// Whether it speaks for a disk with Linux AIO: `io='native'` of a disk, and `aio=native` or `"aio":"native"` of what is given to QEMU past
/// libvirt. The word alone does not: it is part of others, which a description may have.
fn has_aio(text: &str, document: &roxmltree::Document) -> bool {
    let mut attributes = document.descendants().flat_map(|node| node.attributes());
    let speaks = |name: &str, value: &str| value.contains("native") && (name == "io" || value.contains("aio"));
    text.contains(UNSEEN) || attributes.any(|attribute| speaks(attribute.name(), attribute.value()))
}

impl StatusFile {
    /// That of the guest whose emulator a process is, by its folder in `/proc`, also if it does not show its command line. `None` is also
    /// said where nothing is known.
    ///
    /// Two witnesses that do not need the process's memory have to agree: the pid file that it has open, as every emulator does that
    /// libvirt has started, names a guest; and the status file of that guest names this process. So neither a file that was left over
    /// counts, nor that of another libvirt, a user's or one in a container, which is in another folder, or of another process.
    pub(super) fn of(directory: &Path) -> Option<Self> {
        Self::of_in(directory, Path::new(FOLDER))
    }

    fn of_in(directory: &Path, folder: &Path) -> Option<Self> {
        let pid = directory.file_name()?.to_str()?.parse().ok()?;
        let mut guests = process::open_files(directory).filter_map(|file| scope::pid_files_guest(&file));
        let name = guests.next()?;
        if guests.any(|other| other != name) {
            return None;
        }
        let text = fs::read_to_string(folder.join(format!("{name}.xml"))).ok()?;
        Self::parse(&text, pid).filter(|found| found.name == name)
    }

    /// From the text of the file, if it is about this process: `<domstatus state='running' reason='booted' pid='4711'>`, and in it the
    /// definition (`virDomainObjFormat`).
    pub(super) fn parse(text: &str, pid: i32) -> Option<Self> {
        let document = roxmltree::Document::parse(text).ok()?;
        let root = Some(document.root_element()).filter(|root| root.has_tag_name("domstatus"))?;
        if root.attribute("pid")?.parse() != Ok(pid) {
            return None;
        }
        let domain = root.children().find(|node| node.has_tag_name("domain"))?;
        let child = |name: &str| domain.children().find(|node| node.has_tag_name(name)).and_then(|node| node.text());
        let name = child("name").filter(|name| !name.is_empty())?.to_owned();
        let uuid = uuid::canonical(child("uuid")?)?;
        let may_use_rings = RINGS.iter().any(|word| text.contains(word));
        Some(Self { name, uuid, may_use_rings, may_use_aio: has_aio(text, &document) })
    }

    /// Whether this is the guest, by the rule for a command line ([`process::Process::runs`]): the name or the UUID is enough, so that one
    /// whose definition was renamed while it ran is still the same.
    pub(super) fn is(&self, identity: &Identity) -> bool {
        self.name == identity.name || identity.uuid.as_ref() == Some(&self.uuid)
    }
}

/// Whether a process that does not show its command line, by its folder in `/proc`, is proven to be the emulator of another guest.
///
/// Why no living emulator of the guest is passed over:
///
/// - libvirt writes the command line, the pid file and the status file of an emulator from one definition, and neither name nor UUID of a
///   guest changes while it runs (`virDomainRename` is refused then). So this says what the command line would say if it came.
/// - The pid file alone would not do: it has no UUID, and an emulator under another name is this guest's if it has its UUID, which is what
///   a guest shows whose definition was renamed while it ran.
/// - The state file of another resource would not do: it may name what was only taken for that resource's guest.
/// - What libvirt has forgotten, never knew or did not start may be anybody's, and is waited for. So is what cannot be read.
/// - If the number goes to another process meanwhile, that one is judged, by its own files.
pub(super) fn is_anothers(directory: &Path, identity: &Identity) -> bool {
    StatusFile::of(directory).is_some_and(|file| !file.is(identity))
}

/// Whether it is proven to be the emulator of one of these guests, in the same way.
pub(super) fn is_one_of(directory: &Path, claimed: &[Identity]) -> bool {
    StatusFile::of(directory).is_some_and(|file| claimed.iter().any(|identity| file.is(identity)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const UUID: &str = "c7a5fdbd-cdaf-9455-926a-d65c16db1809";
    const OTHER: &str = "00000000-0000-0000-0000-000000000001";

    fn text(pid: &str, name: &str, uuid: &str) -> String {
        format!(
            "<!--\nWARNING\n-->\n<domstatus state='running' reason='booted' pid='{pid}'>\n  <taint flag='x'/>\n  \
            <monitor path='/var/lib/libvirt/qemu/domain-3-{name}/monitor.sock' type='unix'/>\n  <domain type='kvm' id='3'>\n    \
            <name>{name}</name>\n    <uuid>{uuid}</uuid>\n  </domain>\n</domstatus>\n"
        )
    }

    fn identity(name: &str, uuid: Option<&str>) -> Identity {
        Identity { name: name.into(), uuid: uuid.map(Into::into) }
    }

    /// Process 12 with these files open, and the status file of `db`.
    fn found(files: &[&str], status: &str) -> Option<StatusFile> {
        let place = tempfile::tempdir().unwrap();
        let process = place.path().join("12");
        fs::create_dir_all(process.join("task/12/fd")).unwrap();
        for (number, file) in files.iter().enumerate() {
            symlink(file, process.join(format!("task/12/fd/{number}"))).unwrap();
        }
        fs::write(place.path().join("db.xml"), status).unwrap();
        StatusFile::of_in(&process, place.path())
    }

    #[test]
    fn whose_a_process_is() {
        let own = "/run/libvirt/qemu/db.pid";
        let db = found(&["/dev/null", own, own], &text("12", "db", &UUID.to_uppercase())).unwrap();
        for same in [identity("db", None), identity("db", Some(UUID)), identity("db", Some(OTHER)), identity("renamed", Some(UUID))] {
            assert!(db.is(&same), "{same:?}");
        }
        for another in [identity("web1", None), identity("web1", Some(OTHER)), identity("d", None), identity("db1", Some(OTHER))] {
            assert!(!db.is(&another), "{another:?}");
        }
    }

    #[test]
    fn what_is_not_proven() {
        let (own, good) = ("/run/libvirt/qemu/db.pid", text("12", "db", UUID));
        for (why, files, status) in [
            ("no pid file", &["/dev/null"][..], good.as_str()),
            ("the pid file of a guest without a status file", &["/run/libvirt/qemu/web1.pid"], &good),
            ("two pid files", &[own, "/run/libvirt/qemu/web1.pid"], &good),
            ("another process's, as a user's libvirt leaves it", &["/run/user/1000/libvirt/qemu/run/db.pid"], &text("13", "db", UUID)),
            ("of a guest that has ended", &[own], &text("0", "db", UUID)),
            ("another guest's name", &[own], &text("12", "web1", UUID)),
            ("no UUID", &[own], &text("12", "db", "")),
            ("no process", &[own], &good.replace(" pid='12'", "")),
            ("a definition", &[own], "<domain pid='12'><name>db</name><uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid></domain>"),
            ("half of it", &[own], good.split_at(200).0),
            ("nothing", &[own], ""),
        ] {
            assert!(found(files, status).is_none(), "{why}");
        }
    }

    #[test]
    fn what_a_disk_may_have_its_requests_in() {
        let file = |more: &str| {
            let text = text("12", "db", UUID).replace("  </domain>", more);
            StatusFile::parse(&text.replace("</domstatus>", "</domain></domstatus>"), 12).unwrap()
        };
        let (may, aio) = (|more: &str| file(more).may_use_rings, |more: &str| file(more).may_use_aio);
        let disk = |how: &str| format!("<devices><disk type='file'><driver name='qemu' cache='none'{how}/></disk></devices>");
        assert!(!may("") && !may(&disk("")) && !may(&disk(" io='native'")) && !may(&disk(" io='threads'")));
        assert!(may(&disk(" io='io_uring'")));
        assert!(may("<commandline xmlns='u'><arg value='file,aio=io_uring,filename=/srv/db.img'/></commandline>"));
        assert!(may("<taint flag='custom-monitor'/>"));
        assert!(!aio("") && !aio(&disk("")) && !aio(&disk(" io='io_uring'")) && !aio(&disk(" io='threads'")));
        assert!(!aio("<description>native, or an alternative to aio=native</description>"));
        assert!(aio(&disk(" io='native'")) && aio("<taint flag='custom-monitor'/>"));
        assert!(aio("<commandline xmlns='u'><arg value='file,aio=native,filename=/srv/db.img'/></commandline>"));
        assert!(aio(
            "<commandline xmlns='u'><arg value='{&quot;driver&quot;:&quot;file&quot;,&quot;aio&quot;: &quot;native&quot;}'/></commandline>"
        ));
    }

    #[test]
    fn mangled_status_files() {
        let samples = [text("12", "db", UUID)];
        let samples: Vec<&str> = samples.iter().map(String::as_str).collect();
        crate::mangled::texts(&samples, 4000, |text| StatusFile::parse(text, 12).is_some());
    }

    #[test]
    fn a_process_of_this_host_is_nobodys() {
        let own = Path::new("/proc/self");
        assert!(!is_anothers(own, &identity("db", None)) && !is_one_of(own, &[identity("db", None)]));
    }
}
