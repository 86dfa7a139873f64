//! The certificates of a move with `--tls`: QEMU reads them when the move begins, and says no then; to a target that has one of another
//! host too.

use super::Check;
use super::certificate::{self, Certificate};
use super::reader;
use super::target::Target;
use super::way;
use crate::deadline::{Deadline, unix_time};
use crate::domain::connection::Connection;
use std::path::Path;
use virt::sys;

const NAME: &str = "tls";

/// Before its end this long, a certificate is worth a word.
const SOON: i64 = 14 * 86400;

/// The target's own certificate.
const SERVER: &str = "server-cert.pem";

const RENEW: &str = "renew it; a move without --tls sends the memory in clear text";

/// Which host, as it is called, and the files that it has to have, and may have to have.
struct Host<'a> {
    place: &'a str,
    connection: &'a Connection,
    musts: &'static [&'static str],
    mays: &'static [&'static str],
    /// The name by which QEMU at the source will ask for it, and whether that is sure.
    asked: Option<(String, bool)>,
}

/// The question of the preflight: missing or outdated certificates at either host.
pub(super) fn question(target: &Target, deadline: &Deadline) -> Vec<Check> {
    if !target.plan.options.is_encrypted() {
        return Vec::new();
    }
    let hosts = [
        // A target that verifies its clients, libvirt's default, wants the second one.
        Host { place: "here", connection: &target.here, musts: &["ca-cert.pem"], mays: &["client-cert.pem"], asked: None },
        Host { place: "there", connection: &target.there, musts: &["ca-cert.pem", SERVER], mays: &[], asked: asked(target, deadline) },
    ];
    let now = i64::try_from(unix_time()).unwrap_or(i64::MAX);
    let mut checks: Vec<Check> = hosts.iter().flat_map(|host| host.look(now, deadline)).collect();
    if checks.is_empty() {
        checks.push(Check::ok(NAME, "the certificates are there on both hosts and valid"));
    }
    checks
}

/// The name that the target's certificate has to have: that of `--tls-destination`, else where the memory goes. It is sure if it was
/// chosen here. Not known for memory that goes by libvirt's connection.
fn asked(target: &Target, deadline: &Deadline) -> Option<(String, bool)> {
    if let Some(host) = &target.plan.options.tls_destination {
        return Some((host.clone(), true));
    }
    let tunnelled = target.plan.options.flags & sys::VIR_MIGRATE_TUNNELLED != 0;
    let (host, _) = way::place(target, deadline).filter(|_| !tunnelled)?;
    Some((host, target.plan.migrate_uri.is_some()))
}

impl Host<'_> {
    /// What is wrong with them.
    fn look(&self, now: i64, deadline: &Deadline) -> Vec<Check> {
        let unknown = |text| vec![Check::warning(NAME, format!("the certificates {} cannot be looked at: {text}", self.place), "")];
        let configuration = match reader::texts(self.connection, Path::new("/etc/libvirt"), &["qemu.conf"], deadline) {
            Ok(texts) => texts.and_then(|mut texts| texts.pop().flatten()).unwrap_or_default(),
            Err(text) => return unknown(text),
        };
        let names = [self.musts, self.mays].concat();
        let mut places = folders(&configuration);
        let last = places.pop();
        for folder in places.iter().chain(&last) {
            match reader::texts(self.connection, Path::new(folder), &names, deadline) {
                Ok(Some(texts)) => {
                    let files = names.iter().zip(texts);
                    return files.filter_map(|(name, text)| self.judge(folder, name, text.as_deref(), now)).collect();
                }
                Ok(None) => {}
                Err(text) => return unknown(text),
            }
        }
        vec![self.missing(&last.unwrap_or_default())]
    }

    fn missing(&self, path: &str) -> Check {
        Check::refuse(NAME, format!("{path} is not {}", self.place), "see libvirt's tlscerts page; qemu.conf has the folder")
    }

    fn judge(&self, folder: &str, name: &str, text: Option<&str>, now: i64) -> Option<Check> {
        let path = format!("{folder}/{name}");
        let Some(text) = text else {
            let verified = format!("{path} is not {}", self.place);
            let may = Check::warning(NAME, verified, "the target takes none without, unless it has migrate_tls_x509_verify = 0");
            return Some(if self.musts.contains(&name) { self.missing(&path) } else { may });
        };
        let Some(all) = certificate::read(text) else {
            return Some(Check::warning(NAME, format!("{path} {} is no certificate", self.place), "see libvirt's tlscerts page"));
        };
        let until = all.iter().map(|one| one.until).min()?;
        let from = all.iter().map(|one| one.from).max()?;
        if until < now {
            return Some(Check::refuse(NAME, format!("{path} {} has expired {} ago", self.place, days(now - until)), RENEW));
        }
        if from > now {
            let text = format!("{path} {} is valid in {} only", self.place, days(from - now));
            return Some(Check::refuse(NAME, text, "see that the clocks of the nodes are right"));
        }
        if let Some(check) = all.first().filter(|_| name == SERVER).and_then(|first| self.wrong_host(&path, first)) {
            return Some(check);
        }
        let soon = until - now < SOON;
        soon.then(|| Check::warning(NAME, format!("{path} {} expires in {}", self.place, days(until - now)), RENEW))
    }

    /// A certificate of another host.
    fn wrong_host(&self, path: &str, certificate: &Certificate) -> Option<Check> {
        let (host, sure) = self.asked.as_ref().filter(|(host, _)| !certificate.is_of(host))?;
        let text = format!("{path} {} is for {}, and the memory is sent to {host}", self.place, certificate.hosts());
        let advice = "issue it for that name too, or say another one: --tls-destination of migrate_options, migration_network_suffix";
        Some(if *sure { Check::refuse(NAME, text, advice) } else { Check::warning(NAME, text, advice) })
    }
}

/// Where libvirt looks for the certificates of a move, in its order: the first that is there (`virQEMUDriverConfigSetDefaults`).
fn folders(configuration: &str) -> Vec<String> {
    let value = |name: &str| {
        let mut lines = configuration.lines().filter_map(|line| line.trim_start().strip_prefix(name)?.trim_start().strip_prefix('='));
        lines.next_back().map(|value| value.trim().trim_matches('"').trim_end_matches('/').to_owned())
    };
    if let Some(folder) = value("migrate_tls_x509_cert_dir") {
        return vec![folder];
    }
    let default = value("default_tls_x509_cert_dir").unwrap_or_else(|| "/etc/pki/qemu".to_owned());
    vec!["/etc/pki/libvirt-migrate".to_owned(), default]
}

/// Whole days, for people.
fn days(seconds: i64) -> String {
    match seconds / 86400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_certificates_are() {
        assert_eq!(folders(""), ["/etc/pki/libvirt-migrate", "/etc/pki/qemu"]);
        assert_eq!(folders("#migrate_tls_x509_cert_dir = \"/a\"\n"), ["/etc/pki/libvirt-migrate", "/etc/pki/qemu"]);
        assert_eq!(folders("default_tls_x509_cert_dir = \"/b\"\n"), ["/etc/pki/libvirt-migrate", "/b"]);
        assert_eq!(folders("default_tls_x509_cert_dir = \"/b\"\n  migrate_tls_x509_cert_dir=\"/c/\"\n"), ["/c"]);
    }
}
