//! Defects of libvirt and QEMU that a move may meet, by version, and what is done about each.
//!
//! Those that concern a guest are said by `kvmha doctor` and `kvmha check`, and before each move. From libvirt's release notes (`NEWS.rst`).

use super::policy::{Policy, RESUME_TRAP};
use crate::domain::host::Version;
use roxmltree::Document;

/// What one host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// libvirt's.
    pub libvirt: Version,
    /// QEMU's.
    pub qemu: Version,
}

/// What of a guest and its way of moving a defect may depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Its policy.
    pub policy: Policy,
    /// Whether its memory is sent encrypted.
    pub tls: bool,
    /// Whether it has a TPM that is emulated, whose state lies in a file.
    pub tpm: bool,
}

impl Way {
    /// Of a guest with this definition.
    #[must_use]
    pub fn of(xml: &str, policy: Policy, tls: bool) -> Self {
        let is_emulated = |document: Document| {
            let mut devices = document.descendants().filter(|node| node.has_tag_name("tpm"));
            devices.any(|tpm| tpm.children().any(|child| child.has_tag_name("backend") && child.attribute("type") == Some("emulator")))
        };
        Self { policy, tls, tpm: Document::parse(xml).is_ok_and(is_emulated) }
    }
}

/// What is done about a defect.
enum Answer {
    /// It is said where it concerns a guest: libvirt's version at this end is one of those, and the guest and the versions from where and
    /// to where are such.
    Said { end: End, remedy: &'static str, concerns: fn(&Way, &Versions, &Versions) -> bool },
    /// It cannot be met, or does no harm; why.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader, and for the test that the reason holds"))]
    Needless(&'static str),
}

/// An end of a move.
#[derive(Clone, Copy)]
enum End {
    Source,
    Target,
}

/// A defect of some versions of libvirt.
pub struct Defect {
    since: Version,
    /// The first version without it.
    fixed: Version,
    /// What happens.
    pub text: &'static str,
    answer: Answer,
}

impl Defect {
    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self.answer {
            Answer::Said { remedy, .. } => remedy,
            Answer::Needless(_) => "",
        }
    }

    fn concerns(&self, way: &Way, from: &Versions, to: &Versions) -> bool {
        let Answer::Said { end, concerns, .. } = &self.answer else { return false };
        let libvirt = match end {
            End::Source => from.libvirt,
            End::Target => to.libvirt,
        };
        (self.since..self.fixed).contains(&libvirt) && concerns(way, from, to)
    }
}

/// Those that a move in this way, between hosts with these versions, may meet.
pub fn met<'a>(way: &'a Way, from: &'a Versions, to: &'a Versions) -> impl Iterator<Item = &'static Defect> + use<'a> {
    DEFECTS.iter().filter(|defect| defect.concerns(way, from, to))
}

/// Always had, as far as it matters here.
const EVER: Version = Version(0);

/// All that are known.
static DEFECTS: &[Defect] = &[
    Defect {
        // Such a post-copy is not resumed either, see `may_resume`.
        since: RESUME_TRAP.0,
        fixed: RESUME_TRAP.1,
        text: "resuming a post-copy that broke crashes the target's daemon",
        answer: Answer::Said {
            end: End::Target,
            remedy: "libvirt 11.4, or migration_policy=converge",
            concerns: |way, _, _| way.policy == Policy::Postcopy,
        },
    },
    Defect {
        since: EVER,
        fixed: Version::of(11, 0),
        text: "a post-copy that recovers is shown as failed",
        answer: Answer::Needless("what became of a move is asked of both hosts, and not believed of the call that moved"),
    },
    Defect {
        since: EVER,
        fixed: Version::of(11, 6),
        text: "a long move with --tls can crash the emulator at the source",
        answer: Answer::Said {
            end: End::Source,
            remedy: "libvirt 11.6, or migration_network in a network of its own instead of --tls",
            concerns: |way, _, _| way.tls,
        },
    },
    Defect {
        since: Version::of(9, 10),
        fixed: Version::of(10, 2),
        text: "guests with vmx features that come from an older libvirt are refused",
        answer: Answer::Said {
            end: End::Target,
            remedy: "libvirt 10.2 at the target, or update the source first",
            concerns: |_, from, _| from.libvirt < Version::of(9, 10),
        },
    },
    Defect {
        since: EVER,
        fixed: Version::of(11, 10),
        text: "the CPU feature ht may not be the same in QEMU 10.0 as before, and a guest be refused that comes from an older one",
        answer: Answer::Said {
            end: End::Target,
            remedy: "libvirt 11.10 at the target; else stop the guest and start it there",
            concerns: |_, from, to| to.qemu >= Version::of(10, 0) && from.qemu < Version::of(10, 0),
        },
    },
    Defect {
        since: EVER,
        fixed: Version::of(12, 0),
        text: "the state of an emulated TPM on NFS is not seen to be shared",
        answer: Answer::Said {
            end: End::Source,
            remedy: "libvirt 12.0; else move such a guest by stopping it, or try it with one that can be spared",
            concerns: |way, _, _| way.tpm,
        },
    },
    Defect {
        since: Version::of(7, 3),
        fixed: Version::of(7, 6),
        text: "a move that copies what is above a shared base image fails",
        answer: Answer::Needless("disks are not copied: --copy-storage-inc is refused"),
    },
    Defect {
        since: Version::of(8, 7),
        fixed: Version::of(8, 8),
        text: "a move that copies disks is set up wrongly",
        answer: Answer::Needless("disks are not copied: --copy-storage-all is refused"),
    },
    Defect {
        since: EVER,
        fixed: Version::of(10, 3),
        text: "the host name is not checked where disks are copied with TLS",
        answer: Answer::Needless("disks are not copied: --copy-storage-all is refused"),
    },
    Defect {
        since: EVER,
        fixed: Version::of(10, 5),
        text: "a guest that shuts down while it is moved can crash the daemon",
        answer: Answer::Needless(
            "a daemon that is gone is no guest that is gone: the process table is looked at, and both hosts are asked",
        ),
    },
    Defect {
        since: EVER,
        fixed: Version::of(10, 4),
        text: "a move fails where NFS takes root's rights away (root_squash)",
        answer: Answer::Needless("it fails at its start, with a reason, and the guest goes on where it is; a client cannot see it before"),
    },
    Defect {
        since: EVER,
        fixed: Version::of(12, 0),
        text: "whether a path is on a shared file system can be told wrongly while it does not exist",
        answer: Answer::Needless("what the target has is looked at before the move (migration_storage_check)"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::options::Options;

    fn host(libvirt: (u32, u32), qemu: (u32, u32)) -> Versions {
        Versions { libvirt: Version::of(libvirt.0, libvirt.1), qemu: Version::of(qemu.0, qemu.1) }
    }

    fn texts(way: Way, from: Versions, to: Versions) -> Vec<&'static str> {
        met(&way, &from, &to).map(|defect| defect.text.split(' ').next().unwrap()).collect()
    }

    #[test]
    fn each_is_said_or_has_a_reason() {
        for defect in DEFECTS {
            assert!(defect.since < defect.fixed && !defect.text.is_empty(), "{}", defect.text);
            match &defect.answer {
                Answer::Said { remedy, .. } => assert!(!remedy.is_empty(), "{}", defect.text),
                Answer::Needless(why) => {
                    assert!(!why.is_empty() && defect.remedy().is_empty(), "{}", defect.text);
                    // An option that is said to be refused is.
                    for word in why.split_whitespace().filter(|word| word.starts_with("--")) {
                        assert!(Options::parse(word).is_err(), "{word}");
                    }
                }
            }
        }
    }

    #[test]
    fn each_that_is_said_can_be_met_and_is_not_met_when_it_is_mended() {
        let ways = [Way { policy: Policy::Postcopy, tls: true, tpm: true }, Way::default()];
        for defect in DEFECTS.iter().filter(|defect| matches!(defect.answer, Answer::Said { .. })) {
            let at = |libvirt: Version| {
                let old = Versions { libvirt: libvirt.min(Version::of(9, 0)), qemu: Version::of(7, 2) };
                let new = Versions { libvirt, qemu: Version::of(10, 0) };
                let pairs = [(old, new), (new, new), (old, old)];
                ways.iter().any(|way| pairs.iter().any(|(from, to)| met(way, from, to).any(|found| found.text == defect.text)))
            };
            assert!(at(Version(defect.since.0.max(9_000_000))), "never met: {}", defect.text);
            let mended = Versions { libvirt: Version(defect.fixed.0.max(9_010_000)), qemu: Version::of(10, 0) };
            assert!(!met(&ways[0], &mended, &mended).any(|found| found.text == defect.text), "still met: {}", defect.text);
        }
    }

    #[test]
    fn what_the_releases_have() {
        let (bookworm, trixie) = (host((9, 0), (7, 2)), host((11, 3), (10, 0)));
        let (plain, postcopy) = (Way::default(), Way { policy: Policy::Postcopy, ..Way::default() });
        assert_eq!(texts(plain, bookworm, bookworm), Vec::<&str>::new());
        assert_eq!(texts(plain, trixie, trixie), Vec::<&str>::new());
        assert_eq!(texts(plain, bookworm, trixie), ["the"]);
        assert_eq!(texts(postcopy, bookworm, bookworm), Vec::<&str>::new());
        assert_eq!(texts(postcopy, trixie, trixie), ["resuming"]);
        assert_eq!(texts(Way { tls: true, ..plain }, trixie, trixie), ["a"]);
        assert_eq!(texts(Way { tpm: true, ..plain }, bookworm, bookworm), ["the"]);
        assert_eq!(texts(plain, bookworm, host((10, 1), (8, 2))), ["guests"]);
        assert_eq!(texts(plain, host((10, 0), (8, 2)), host((10, 1), (8, 2))), Vec::<&str>::new());
    }

    #[test]
    fn a_tpm_is_seen_in_the_definition() {
        let tpm = |backend| format!("<domain><devices><tpm model='tpm-crb'><backend type='{backend}'/></tpm></devices></domain>");
        let of = |xml: &str| Way::of(xml, Policy::Converge, false).tpm;
        assert!(of(&tpm("emulator")) && !of(&tpm("passthrough")) && !of("<domain/>") && !of("no definition"));
    }
}
