//! libvirt that wants a name and a password (SASL).

use crate::ssh::shell;
use crate::stage::{FROM, Guest, SOON, Says, Way, bare};
use anyhow::{Result, ensure};
use lab::tls::Pki;
use lab::{Lab, Output};

const HOST: &str = "node1";
const URI: (&str, &str) = ("uri", "qemu+tcp://node1/system");
const NAME: (&str, &str) = ("username", "ha");
/// As a pattern it does not find itself in a list of processes.
const PASSWORD: &str = "Geheim-7";
const PATTERN: &str = "[G]eheim-7";

/// A mechanism, and a user with a password for it, at the host; until this is dropped.
struct Passwords<'a>(&'a Lab);

impl<'a> Passwords<'a> {
    fn new(lab: &'a Lab, mechanism: &str) -> Result<Self> {
        let script = format!(
            "mkdir -p /etc/sasl2; cp -a /etc/sasl2 /root/sasl2
             printf 'mech_list: {mechanism}\\nsasldb_path: /etc/libvirt/passwd.db\\n' >/etc/sasl2/libvirt.conf
             printf %s '{PASSWORD}' | saslpasswd2 -p -c -f /etc/libvirt/passwd.db -u node1 ha"
        );
        let passwords = Self(lab);
        shell(lab, HOST, &script)?;
        Ok(passwords)
    }
}

impl Drop for Passwords<'_> {
    fn drop(&mut self) {
        let _ = shell(self.0, HOST, "rm -f /etc/libvirt/passwd.db; test -e /root/sasl2; rm -rf /etc/sasl2; mv /root/sasl2 /etc/sasl2");
        let _ = shell(self.0, FROM, "rm -f /etc/libvirt/auth.conf /root/password /root/debug");
    }
}

/// With the right password it does its work; with a wrong one, or none, it says so and the guest lives.
/// Over tcp libvirt takes only a mechanism that encrypts what comes after, and of those with passwords Debian has this one.
pub fn by_password(lab: &Lab) -> Result<()> {
    let _passwords = Passwords::new(lab, "digest-md5")?;
    let _asks = lab.reconfigure(HOST, &[("auth_tcp", "\"sasl\"")])?;
    asked(lab)
}

/// Over TLS, which encrypts by itself, it is to be a better one. A certificate is wanted besides.
pub fn by_password_over_tls(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "asked")?;
    guest.run(HOST)?;
    let pki = Pki::new(lab)?;
    pki.for_libvirt(HOST)?;
    pki.for_libvirt(FROM)?;
    let _passwords = Passwords::new(lab, "scram-sha-256")?;
    let _asks = lab.reconfigure(HOST, &[("listen_tls", "1"), ("auth_tls", "\"sasl\"")])?;
    let uri = ("uri", "qemu+tls://node1/system");
    let call = |password| bare(lab, Way::Lines, &[("action", "off"), ("plug", "asked"), uri, NAME, ("password", password)]);
    call("wrong")?.fails(&["node1", "authentication failed"])?;
    guest.lives(HOST)?;
    call(PASSWORD)?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

fn call(lab: &Lab, action: &str, more: &[(&str, &str)]) -> Result<Output> {
    let output = bare(lab, Way::Lines, &[&[("action", action), ("plug", "asked"), URI][..], more].concat())?;
    ensure!(!output.stdout.contains(PASSWORD) && !output.stderr.contains(PASSWORD), "a password was told: {output:?}");
    Ok(output)
}

fn asked(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "asked")?;
    guest.run(HOST)?;
    for action in ["off", "monitor", "status", "list"] {
        call(lab, action, &[])?.fails(&["node1", "wants a name (SASL), and none is given"])?;
        call(lab, action, &[NAME])?.fails(&["node1", "wants a password (SASL), and none is given"])?;
        call(lab, action, &[NAME, ("password", "wrong")])?.fails(&["node1", "authentication failed"])?;
        call(lab, action, &[("username", "nobody"), ("password", PASSWORD)])?.fails(&["node1", "authentication failed"])?;
    }
    guest.lives(HOST)?;
    let right = [NAME, ("password", PASSWORD), ("debug_file", "/root/debug"), ("verbose", "1")];
    call(lab, "monitor", &right)?.says(0, "")?;
    call(lab, "status", &right)?.says(0, "Status: ON\n")?;
    call(lab, "reboot", &right)?.says(0, "Success: Rebooted\n")?;
    guest.lives(HOST)?;
    told_nobody(lab)?;
    // From a program, and from libvirt's own file.
    shell(lab, FROM, &format!("printf '#!/bin/sh\\necho {PASSWORD}\\n' >/root/password; chmod 700 /root/password"))?;
    call(lab, "status", &[NAME, ("password_script", "/root/password")])?.says(0, "Status: ON\n")?;
    shell(lab, FROM, "printf '#!/bin/sh\\nexit 3\\n' >/root/password")?;
    call(lab, "status", &[NAME, ("password_script", "/root/password")])?.fails(&["password_script", "exit code 3"])?;
    shell(
        lab,
        FROM,
        &format!(
            "printf '[credentials-x]\\nauthname=ha\\npassword={PASSWORD}\\n[auth-libvirt-node1]\\ncredentials=x\\n' >/etc/libvirt/auth.conf"
        ),
    )?;
    call(lab, "status", &[])?.says(0, "Status: ON\n")?;
    call(lab, "off", &right)?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// Neither a log, a note, a debug file nor the list of processes has the password, also while the agent is at work.
fn told_nobody(lab: &Lab) -> Result<()> {
    let lines =
        format!("action=off\nplug=nobody\nuri={}\nusername=ha\npassword={PASSWORD}\ndelay=2\nverbose=1\ndebug_file=/root/debug\n", URI.1);
    let file = lab.guest_definition("x").with_file_name("lines");
    std::fs::write(&file, lines)?;
    let script = format!(
        "fence_kvmha </srv/vms/lines 2>/root/said & sleep 1
         ps -ewwo args= | grep -q 'fence_kvmh[a]' || echo not there
         cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -e '{PATTERN}' && echo in the list of processes
         wait
         grep -q -e '{PATTERN}' /srv/vms/lines || echo the search finds nothing
         for place in /root/debug /root/said /var/log /run/kvmha /run/log; do
             test -e $place || continue
             grep -rl -e '{PATTERN}' $place; test $? -lt 2 || echo $place was not searched
         done
         test -s /root/debug || echo no debug file"
    );
    let found = lab.check(FROM, &["sh", "-c", &script], SOON)?;
    std::fs::remove_file(file)?;
    ensure!(found.is_empty(), "the password was told: {found}");
    Ok(())
}
