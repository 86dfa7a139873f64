//! What depends on a guest, at the moment when Pacemaker does not know where the guest is.

use super::Provider;
use crate::cluster::cib::Cib;
use crate::cluster::forgotten;
use crate::deadline::Deadline;
use anyhow::bail;
use std::time::Duration;

/// How long the scheduler may take for it, of one resource.
pub(super) const FORESIGHT: Duration = Duration::from_secs(20);

/// Nothing happens to other resources when this one is in maintenance, has that agent, and the nodes are asked anew where it is.
///
/// # Errors
/// What would happen to them, and what to do about it.
pub(super) fn spare(cib: &Cib, id: &str, goal: Provider, deadline: &Deadline) -> anyhow::Result<()> {
    let then = cib.with_provider(&[id.to_owned()], goal.word()).with_meta(id, "maintenance", "true");
    match forgotten::harm(&then, id, &deadline.within(FORESIGHT))? {
        Some(harm) => bail!("{harm}"),
        None => Ok(()),
    }
}
