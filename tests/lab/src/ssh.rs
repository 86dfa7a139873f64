//! ssh between nodes, with keys and nothing else, for what goes through it. It is the nodes' own: nothing of it is there before.

use crate::cluster::Lab;
use anyhow::{Context, Result};
use std::time::Duration;

/// For sshd to answer on a busy machine, and for keys to be made.
const LIMIT: Duration = Duration::from_secs(30);

impl Lab {
    /// Has sshd run in `hosts` and let root of `from` in with the key in the file `key`, which is made if it is not there. What stands before
    /// the key in the hosts' list is `limits`. The hosts' own keys are not known yet: [`Lab::know_hosts`].
    ///
    /// # Errors
    /// The shell's, with its words.
    pub fn serve_ssh(&self, from: &str, key: &str, hosts: &[&str], limits: &str) -> Result<()> {
        let make = format!("mkdir -p -m 700 /root/.ssh; [ -e {key} ] || ssh-keygen -q -t ed25519 -N '' -f {key}; cat {key}.pub");
        let public = self.shell(from, &make)?;
        for host in hosts {
            let admit = format!("mkdir -p -m 700 /root/.ssh; printf '%s' '{limits} {public}' >/root/.ssh/authorized_keys");
            self.shell(host, &admit)?;
            self.start_sshd(host)?;
        }
        Ok(())
    }

    /// Has sshd run in a node, as its boot would. With the keys that the node has, and whoever its root lets in.
    ///
    /// # Errors
    /// The shell's, with its words.
    pub fn start_sshd(&self, node: &str) -> Result<()> {
        // OpenSSH 9.8 and newer turns away for a while whoever was refused, with the next scenario too; older ones do not know the word.
        let serve = "[ -e /run/sshd.pid ] && kill -0 $(cat /run/sshd.pid) && exit 0\n\
                     mkdir -p -m 755 /run/sshd; usermod -p '*' -s /bin/bash root; ssh-keygen -q -A\n\
                     calm='-o PerSourcePenalties=no'; /usr/sbin/sshd -t $calm 2>/dev/null || calm=\n\
                     exec /usr/sbin/sshd $calm -o UsePAM=no -o PermitRootLogin=prohibit-password";
        self.shell(node, serve).map(drop)
    }

    /// Has root of `from` know the keys of all `hosts`.
    ///
    /// # Errors
    /// One of them does not answer.
    pub fn know_hosts(&self, from: &str, hosts: &[&str]) -> Result<()> {
        let (all, count) = (hosts.join(" "), hosts.len());
        // OpenSSH 10 writes its remarks to the same place.
        let know = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10; do ssh-keyscan -T 2 -t ed25519 {all} >/root/.ssh/known_hosts 2>/dev/null || :; \
             [ $(grep -c '^[^#]' /root/.ssh/known_hosts) = {count} ] && exit 0; sleep 0.5; done; exit 1"
        );
        self.shell(from, &know).map(drop)
    }

    /// Lines for a shell in a node, of which each must succeed; their standard output.
    fn shell(&self, node: &str, script: &str) -> Result<String> {
        self.check(node, &["sh", "-ec", script], LIMIT).with_context(|| script.to_owned())
    }
}
