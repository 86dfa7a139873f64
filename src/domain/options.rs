//! `migrate_options`: the words of `virsh migrate`, understood here instead of being passed on. A word is taken, or refused by
//! name with the reason; none is dropped.

use virt::sys;

/// What the options ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `virDomainMigrateFlags` beside those that are always set.
    pub flags: u32,
    /// `--migrateuri`, with `%n` as written.
    pub migrateuri: Option<String>,
    /// `--graphicsuri`.
    pub graphicsuri: Option<String>,
    /// `--listen-address`.
    pub listen_address: Option<String>,
    /// `--comp-methods`.
    pub compression: Option<String>,
    /// `--comp-mt-level`.
    pub compression_level: Option<i32>,
    /// `--comp-mt-threads`.
    pub compression_threads: Option<i32>,
    /// `--comp-mt-dthreads`.
    pub decompression_threads: Option<i32>,
    /// `--comp-xbzrle-cache`, in bytes.
    pub xbzrle_cache: Option<u64>,
    /// `--auto-converge-initial`, in percent.
    pub throttle_initial: Option<i32>,
    /// `--auto-converge-increment`, in percent.
    pub throttle_increment: Option<i32>,
    /// `--parallel-connections`.
    pub parallel_connections: Option<i32>,
    /// `--bandwidth`, in MiB/s.
    pub bandwidth: Option<u64>,
    /// `--tls-destination`.
    pub tls_destination: Option<String>,
}

impl Options {
    /// Whether libvirt is told that the move is safe (`--unsafe`).
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        self.flags & sys::VIR_MIGRATE_UNSAFE != 0
    }

    /// Whether the memory is sent encrypted (`--tls`).
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.flags & sys::VIR_MIGRATE_TLS != 0
    }
}

/// What a word does.
enum Effect {
    /// It is so anyway.
    Always,
    /// It sets flags.
    Flag(u32),
    /// It takes a value.
    Value(fn(&mut Options, &str) -> Result<(), String>),
    /// It makes no sense here, and why.
    Refused(&'static str),
}

use Effect::{Always, Flag, Refused, Value};

const STORAGE: &str = "the cluster moves guests on shared storage only";
const DEADLINE: &str = "the agent keeps its own deadline, the timeout of migrate_to, and never suspends the guest to keep it";
const POSTCOPY: &str = "post-copy is chosen by migration_policy=postcopy";
const SAME: &str = "the guest must be the same on all nodes";

const WORDS: &[(&str, Effect)] = &[
    ("live", Always),
    ("p2p", Always),
    ("abort-on-error", Always),
    ("verbose", Always),
    ("tunnelled", Flag(sys::VIR_MIGRATE_TUNNELLED)),
    ("persistent", Flag(sys::VIR_MIGRATE_PERSIST_DEST)),
    ("undefinesource", Flag(sys::VIR_MIGRATE_UNDEFINE_SOURCE)),
    ("change-protection", Flag(sys::VIR_MIGRATE_CHANGE_PROTECTION)),
    ("unsafe", Flag(sys::VIR_MIGRATE_UNSAFE)),
    ("compressed", Flag(sys::VIR_MIGRATE_COMPRESSED)),
    ("auto-converge", Flag(sys::VIR_MIGRATE_AUTO_CONVERGE)),
    ("rdma-pin-all", Flag(sys::VIR_MIGRATE_RDMA_PIN_ALL)),
    ("tls", Flag(sys::VIR_MIGRATE_TLS)),
    ("parallel", Flag(sys::VIR_MIGRATE_PARALLEL)),
    ("zerocopy", Flag(sys::VIR_MIGRATE_ZEROCOPY)),
    ("migrateuri", Value(|options, value| text(&mut options.migrateuri, value))),
    ("graphicsuri", Value(|options, value| text(&mut options.graphicsuri, value))),
    ("listen-address", Value(|options, value| text(&mut options.listen_address, value))),
    ("comp-methods", Value(|options, value| text(&mut options.compression, value))),
    ("comp-mt-level", Value(|options, value| number(&mut options.compression_level, value))),
    ("comp-mt-threads", Value(|options, value| number(&mut options.compression_threads, value))),
    ("comp-mt-dthreads", Value(|options, value| number(&mut options.decompression_threads, value))),
    ("comp-xbzrle-cache", Value(|options, value| number(&mut options.xbzrle_cache, value))),
    ("auto-converge-initial", Value(|options, value| number(&mut options.throttle_initial, value))),
    ("auto-converge-increment", Value(|options, value| number(&mut options.throttle_increment, value))),
    ("parallel-connections", Value(|options, value| number(&mut options.parallel_connections, value))),
    ("bandwidth", Value(|options, value| number(&mut options.bandwidth, value))),
    ("tls-destination", Value(|options, value| text(&mut options.tls_destination, value))),
    ("offline", Refused("only running guests are moved")),
    ("direct", Refused("migration is peer-to-peer")),
    ("suspend", Refused("the guest has to run at the target")),
    ("copy-storage-all", Refused(STORAGE)),
    ("copy-storage-inc", Refused(STORAGE)),
    ("copy-storage-synchronous-writes", Refused(STORAGE)),
    ("migrate-disks", Refused(STORAGE)),
    ("disks-port", Refused(STORAGE)),
    ("disks-uri", Refused(STORAGE)),
    ("timeout", Refused(DEADLINE)),
    ("timeout-suspend", Refused(DEADLINE)),
    ("timeout-postcopy", Refused(DEADLINE)),
    ("postcopy", Refused(POSTCOPY)),
    ("postcopy-after-precopy", Refused(POSTCOPY)),
    ("postcopy-resume", Refused(POSTCOPY)),
    ("postcopy-bandwidth", Refused(POSTCOPY)),
    ("dname", Refused(SAME)),
    ("xml", Refused(SAME)),
    ("persistent-xml", Refused(SAME)),
];

impl Options {
    /// Reads the words, each `--option`, `--option VALUE` or `--option=VALUE`, separated by blanks.
    ///
    /// # Errors
    /// The first word that is not understood or makes no sense here.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            let option = word.strip_prefix("--").ok_or_else(|| format!("{word:?} is no option"))?;
            let (name, attached) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            let Some((_, effect)) = WORDS.iter().find(|(known, _)| *known == name) else {
                return Err(format!("--{name} is unknown"));
            };
            match effect {
                Refused(reason) => return Err(format!("--{name} is refused: {reason}")),
                Always | Flag(_) if attached.is_some() => return Err(format!("--{name} takes no value")),
                Always => {}
                Flag(flag) => options.flags |= flag,
                Value(set) => {
                    let value = attached.or_else(|| words.next()).filter(|value| !value.is_empty());
                    let value = value.ok_or_else(|| format!("--{name} needs a value"))?;
                    set(&mut options, value).map_err(|error| format!("--{name}: {error}"))?;
                }
            }
        }
        Ok(options)
    }

    /// The parameters of `virDomainMigrateToURI3`.
    #[must_use]
    pub fn parameters(&self) -> virt::domain::MigrateParameters {
        virt::domain::MigrateParameters {
            graphics_uri: self.graphicsuri.clone(),
            listen_address: self.listen_address.clone(),
            compression: self.compression.clone(),
            compression_mt_level: self.compression_level,
            compression_mt_threads: self.compression_threads,
            compression_mt_dthreads: self.decompression_threads,
            compression_xbzrle_cache: self.xbzrle_cache,
            auto_converge_initial: self.throttle_initial,
            auto_converge_increment: self.throttle_increment,
            parallel_connections: self.parallel_connections,
            bandwidth: self.bandwidth,
            tls_destination: self.tls_destination.clone(),
            ..Default::default()
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a setter of the table above, like number")]
fn text(field: &mut Option<String>, value: &str) -> Result<(), String> {
    *field = Some(value.to_owned());
    Ok(())
}

fn number<T: std::str::FromStr>(field: &mut Option<T>, value: &str) -> Result<(), String> {
    let wrong = || format!("{value:?} is no whole number");
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    *field = Some(value.parse().map_err(|_| wrong())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        let options =
            Options::parse("--p2p --tunnelled --unsafe  --verbose --auto-converge --migrateuri=tcp://%n-mig:49160 --bandwidth 100")
                .unwrap();
        assert_eq!(options.flags, sys::VIR_MIGRATE_TUNNELLED | sys::VIR_MIGRATE_UNSAFE | sys::VIR_MIGRATE_AUTO_CONVERGE);
        assert_eq!(options.migrateuri.as_deref(), Some("tcp://%n-mig:49160"));
        assert_eq!(options.bandwidth, Some(100));
        assert_eq!(Options::parse(""), Ok(Options::default()));
    }

    #[test]
    fn mangled_options() {
        let samples = [
            "--p2p --unsafe --migrateuri=tcp://%n-mig:49160 --bandwidth 100",
            "--parallel --parallel-connections 4 --comp-methods xbzrle,mt",
        ];
        crate::mangled::texts(&samples, 4000, |text| Options::parse(text).is_ok());
    }

    #[test]
    fn every_word_of_virsh_is_known() {
        // The options of `virsh migrate` of libvirt 9.0.
        let all = "live offline p2p direct tunnelled persistent undefinesource suspend copy-storage-all copy-storage-inc \
            copy-storage-synchronous-writes change-protection unsafe verbose compressed auto-converge rdma-pin-all abort-on-error postcopy \
            postcopy-after-precopy postcopy-resume zerocopy migrateuri graphicsuri listen-address dname timeout timeout-suspend \
            timeout-postcopy xml migrate-disks disks-port disks-uri comp-methods comp-mt-level comp-mt-threads comp-mt-dthreads \
            comp-xbzrle-cache auto-converge-initial auto-converge-increment persistent-xml tls postcopy-bandwidth parallel \
            parallel-connections bandwidth tls-destination";
        for word in all.split_whitespace() {
            assert!(WORDS.iter().any(|(known, _)| *known == word), "{word}");
        }
    }

    #[test]
    fn what_is_refused_is_named() {
        for (line, text) in [
            ("--unheard-of", "--unheard-of is unknown"),
            ("unsafe", "\"unsafe\" is no option"),
            ("--unsafe=1", "--unsafe takes no value"),
            ("--bandwidth", "--bandwidth needs a value"),
            ("--bandwidth=", "--bandwidth needs a value"),
            ("--bandwidth fast", "--bandwidth: \"fast\" is no whole number"),
            ("--bandwidth -1", "--bandwidth: \"-1\" is no whole number"),
            ("--parallel-connections 99999999999", "--parallel-connections: \"99999999999\" is no whole number"),
            ("--copy-storage-all", "--copy-storage-all is refused"),
            ("--timeout 30", "--timeout is refused"),
        ] {
            assert!(Options::parse(line).unwrap_err().contains(text), "{line}");
        }
    }
}
