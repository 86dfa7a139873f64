//! What this agent does differently from `ocf:heartbeat:VirtualDomain`, on purpose, and why. The manual and docs/from-virtualdomain.md have this
//! list. Each entry has a test (`tests/dropin/pairs.rs` says which), and the suite `dropin` fails on any other in the situations that it tries.

/// One difference.
pub struct Difference {
    /// Its number, by which tests and people refer to it.
    pub number: u8,
    /// What is different, and why.
    pub text: &'static str,
}

const fn row(number: u8, text: &'static str) -> Difference {
    Difference { number, text }
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    row(
        1,
        "stop and monitor say that a guest does not run only when its emulator is proven gone, also if `config` cannot be read or a parameter \
        is wrong: VirtualDomain takes the guest for stopped then, and it may run twice.",
    ),
    row(2, "`shutdown_mode` has an effect; VirtualDomain reads it under another name. A CIB that sets it changes its behaviour."),
    row(3, "Every action ends by itself before its timeout, also if libvirt hangs: Pacemaker would kill it, and the reason would be lost."),
    row(
        4,
        "stop keeps a quarter of its time for ending the guest by force (at least 17 s, at most 120 s, and never more than half). VirtualDomain \
        keeps 5 s: libvirt alone needs 10 s to kill an emulator that does not react, and more for a big one.",
    ),
    row(
        5,
        "Migration is peer-to-peer: the source's libvirtd must reach the target's by the URI that the agent uses. It is called off in time and \
        verified on both hosts. `migrate_options` is understood by the agent, and what makes no sense for a guest of a cluster is refused.",
    ),
    row(6, "The exit reason names the cause. VirtualDomain's last message is a generic one, and Pacemaker shows only the last."),
    row(
        7,
        "A persistent definition of the guest in libvirt stays, NVRAM and saved state with it, only its autostart is turned off: VirtualDomain \
        undefines it at start. Guests run transient in any case, with `backingfile` too.",
    ),
    row(
        8,
        "The order of a host's shutdown, modular libvirt daemons included, is a drop-in that `make install` installs. VirtualDomain writes one at each start.",
    ),
    row(9, "A guest that a fault has paused is shown as degraded; `pause_policy=ignore` is what VirtualDomain does."),
    row(
        10,
        "`save_config_on_stop` replaces the file whole, keeps what others wrote to it, and does so only for a guest that is active, not on probes: a full \
        disk or a probe must not cost the only definition.",
    ),
    row(
        11,
        "An empty `hypervisor` is the default, `qemu:///system`: with VirtualDomain no migration works then. Other drivers, and a libvirt \
        on another host, are refused.",
    ),
    row(12, "`migration_user` does not get into `migrateuri`, where it makes no sense."),
    row(
        13,
        "Without csync2 `sync_config_on_stop` keeps a guest from being started, but not from being stopped: a missing program is no reason to fence.",
    ),
    row(14, "One process does an action, and a healthy monitor starts no other; utilization attributes are looked at every ten minutes."),
    row(15, "migrate_to and migrate_from fail with 1 for a wrong parameter: 6 would leave the guest stopped everywhere."),
    row(16, "Wrong booleans (`Yes`, `y`) are refused at start; VirtualDomain takes them for false. `No` and `n` are false with both."),
    row(17, "Guests are created paused and then let run: if a hanging libvirtd carries out a request late, no guest begins to run by it."),
    row(
        18,
        "A saved state (`snapshot`) that is older than the guest's disks is refused. If the guest has run since without it, the state is set aside: \
        memory and disks would not belong together. A guest that has failed is shut down instead of saved.",
    ),
    row(
        19,
        "validate-all looks at the words of the parameters, and at files, programs and libvirt only at OCF_CHECK_LEVEL 10: a resource can be \
        created on any node.",
    ),
    row(
        20,
        "A guest that changes its memory faster than it can be sent is slowed down, and arrives (`migration_policy`); `plain` is what \
        VirtualDomain does: the move fails then, and Pacemaker starts the guest anew.",
    ),
    row(
        21,
        "A move to a node where a disk is proven to be another one, or not to be there, is refused (`migration_storage_check`), also with \
        `--unsafe`: VirtualDomain lets the guest go on with other data.",
    ),
    row(
        22,
        "start asks the other nodes first, if the parameters say how to reach their libvirt. It is refused where one of them runs the guest, or \
        another guest with its UUID (a copied or renamed definition); such a guest on the same node is a reason too. VirtualDomain asks \
        nobody, and the guest may run twice.",
    ),
    row(
        23,
        "A changed parameter does not restart the guest, unless it is `config` or `hypervisor`: the next action uses the new value \
        (reload-agent). With VirtualDomain Pacemaker restarts the guest for any parameter.",
    ),
    row(
        24,
        "A recurring monitor answers 190 (degraded) for a wrong parameter, and shows the reason: VirtualDomain answers 1, and Pacemaker stops the guest.",
    ),
    row(
        25,
        "A move that something is in the way of is refused before the guest is touched: a port that is not reached, a certificate that is missing, \
        expired or for another name, a network that is not active on the target, a TPM folder that both nodes have and libvirt does not know to \
        be shared. VirtualDomain begins the move.",
    ),
    row(
        26,
        "Each move makes, for a moment, a folder `.kvmha-proof-…` beside each image and beside `config`, and a transient storage pool in the \
        target's libvirt, which looks for that folder. `migration_storage_check=off` makes neither.",
    ),
    row(
        27,
        "`monitor_scripts` are not run for a guest that is paused: what runs in it cannot answer, and VirtualDomain has Pacemaker restart it then.",
    ),
    row(
        28,
        "A guest that sleeps by its own power management (S3) is shown as degraded (`pause_policy`), and goes on when it is woken; a stop and a move wake it \
        first. With VirtualDomain its monitor fails, and Pacemaker has it destroyed and booted.",
    ),
    row(
        29,
        "A start of a clone with more than one instance (`clone-max`) is refused: VirtualDomain starts the guest once for each, and it runs \
        on several nodes.",
    ),
];
