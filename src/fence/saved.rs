//! What is saved of a guest on one libvirt, and goes with the guest.

use super::host::Host;
use super::sight::{Found, Target, lookup};
use crate::deadline::Deadline;
use crate::domain::ffi;
use crate::domain::{Kind, Result};
use crate::log;
use std::time::Duration;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

/// How long a host gets to say by the ordinary question whether a guest was saved.
const SAVED: Duration = Duration::from_secs(2);

/// A way to find out whether a guest was saved.
type Saved = fn(&Connect, &Domain) -> Result<bool>;

/// By libvirt's question for that.
fn is_saved(_: &Connect, domain: &Domain) -> Result<bool> {
    domain.has_managed_save(0).map_err(|error| ffi::error(&error))
}

/// By its list of such guests.
fn is_listed_as_saved(connect: &Connect, domain: &Domain) -> Result<bool> {
    let virt = |error: virt::error::Error| ffi::error(&error);
    let uuid = domain.uuid_string().map_err(virt)?;
    let saved = connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE).map_err(virt)?;
    Ok(saved.iter().any(|domain| domain.uuid_string().is_ok_and(|other| other == uuid)))
}

impl Host {
    /// Removes the memory of a guest that was saved here (`virsh managedsave`), from which libvirt would go on at its next start.
    pub(super) fn drop_memory(&self, target: &Target, deadline: &Deadline) -> Result<()> {
        let removed = self.is_saved(target, deadline).and_then(|is_saved| {
            let Some(is_saved) = is_saved else { return Ok(false) };
            let wanted = target.clone();
            self.question(&format!("removing the saved memory of {}", target.word), deadline, move |connect| {
                let Some(Found::Guest(domain)) = lookup(connect, &wanted)? else { return Ok(false) };
                match domain.managed_save_remove(0).map_err(|error| ffi::error(&error)) {
                    // Unless somebody was faster: a start uses it up.
                    Err(error) if is_saved(connect, &domain)? => Err(error),
                    _ => Ok(true),
                }
            })
        });
        match removed {
            Ok(true) => log::warning(format_args!("{} was saved at {}; that memory is removed", target.word, self.label)),
            Err(error) if error.kind != Kind::NotFound => return Err(error),
            _ => {}
        }
        Ok(())
    }

    /// Whether a guest was saved here: if so, how that was found out.
    ///
    /// The question itself (`virDomainHasManagedSaveImage`) waits in vain where libvirt has no worker left but those that it keeps for what is urgent
    /// (`@priority: high` in its `src/remote/remote_protocol.x`). The list, which has one, waits for every other guest that libvirt has in its hands, as
    /// one that it cannot kill (`virDomainObjListFilter` in its `src/conf/virdomainobjlist.c`). So each is asked, and one answer is enough.
    fn is_saved(&self, target: &Target, deadline: &Deadline) -> Result<Option<Saved>> {
        self.connect(deadline)?;
        let ask = |how: Saved, limit: &Deadline| {
            let wanted = target.clone();
            let answer = self.question(&format!("looking for a saved memory of {}", target.word), limit, move |connect| {
                let Some(Found::Guest(domain)) = lookup(connect, &wanted)? else { return Ok(false) };
                how(connect, &domain)
            });
            answer.map(|is_saved| is_saved.then_some(how))
        };
        match ask(is_saved, &deadline.within(SAVED)) {
            Err(error) if error.kind == Kind::Unresponsive => ask(is_listed_as_saved, deadline),
            answer => answer,
        }
    }
}
