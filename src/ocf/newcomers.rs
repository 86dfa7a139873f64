//! Guests that have come to this node by a move, and that nobody is known to have: one of them may be this resource's, if its definition is
//! not there to say which guest that is.

use super::Call;
use crate::cluster::cib::{Cib, Part};
use crate::domain::definition::{Definition, Identity};
use crate::domain::emulator::Emulator;
use crate::domain::evidence::{self, Newcomer};
use crate::domain::record::Slot;
use crate::domain::{Error, status};
use crate::log;
use std::path::Path;
use std::time::Duration;

/// How long the definition of another resource may take to be read.
const READING: Duration = Duration::from_secs(2);

/// The guest agents of which it is known what their `config` means.
const AGENT: &str = ":VirtualDomain";

impl Call {
    /// A guest that has come here and may be this resource's: the state file of no other resource names it, nor does any other resource of
    /// Pacemaker's configuration mean it.
    ///
    /// libvirt takes the definition along in a move, so that a guest can run where its `config` is not. It is then neither named by the definition
    /// nor, if it is called otherwise than the file and the resource, by a guess.
    ///
    /// `others`: what the other resources mean, as it was found before.
    ///
    /// # Errors
    /// The process table cannot be read in a part of the time, so nothing is known.
    pub(super) fn newcomer(&self, others: &mut Option<Vec<Identity>>) -> Result<Option<Newcomer>, Error> {
        let mut claimed = self.shelf().others();
        match evidence::newcomers(&claimed, &self.part()) {
            Ok(found) if found.is_empty() => return Ok(None),
            Ok(_) => {}
            // One that does not show itself may turn out to be another resource's.
            Err(error) => log::debug(|| error.text),
        }
        *others = others.take().or_else(|| self.of_other_resources());
        claimed.extend(others.iter().flatten().cloned());
        let mut found = evidence::newcomers(&claimed, &self.part())?;
        found.retain(|newcomer| !self.was_restored(newcomer));
        let before: Vec<Emulator> = self.shelf().get(Slot::Strangers).unwrap_or_default();
        if found.iter().any(|newcomer| before.contains(&newcomer.emulator)) && self.never_ran() {
            found.retain(|newcomer| !before.contains(&newcomer.emulator));
        }
        Ok(found.into_iter().next())
    }

    /// Notes who is here and nobody's, as Pacemaker is told for the first time that the guest of this resource is not. What has brought them was no
    /// move of a resource that has never run: an operator who mistypes `config` creates such a one, whose stops must not have node after node fenced.
    ///
    /// Pacemaker's status alone would not do for that: it forgets what a node has run as soon as that is fenced, the source of a move too.
    /// Nor would the note of a later probe, as a refresh or the restart of the executor brings: the guest may have come since the first. So
    /// there is a note of nobody too.
    pub(super) fn note_strangers(&self) {
        if self.environment.instance.is_none() || self.has_noted_strangers() {
            return;
        }
        let Ok(found) = evidence::newcomers(&self.shelf().others(), &self.part()) else { return };
        let found: Vec<Emulator> = found.into_iter().map(|newcomer| newcomer.emulator).collect();
        self.shelf().put(Slot::Strangers, &found);
    }

    /// A guest of this resource is to have come, which nothing here tells from others: whoever is here may be it, also for a later probe.
    pub(super) fn suspect_strangers(&self) {
        if !self.has_noted_strangers() {
            self.shelf().put(Slot::Strangers, &Vec::<Emulator>::new());
        }
    }

    fn has_noted_strangers(&self) -> bool {
        self.shelf().get::<Vec<Emulator>>(Slot::Strangers).is_some()
    }

    /// Whether Pacemaker's status says that this resource has never run anywhere.
    fn never_ran(&self) -> bool {
        let Some(own) = self.resource() else { return false };
        Cib::query_part(Part::Status, &self.part()).is_ok_and(|status| status.never_ran(own))
    }

    /// Whether libvirt says that no move has let it run.
    fn was_restored(&self, newcomer: &Newcomer) -> bool {
        let identity = Identity { name: newcomer.name.clone(), uuid: None };
        let seen = status::ask(&identity, &self.parameters.hypervisor, &self.deadline.share(READING, 4));
        matches!(seen, Ok(Some((condition, _))) if condition.was_restored())
    }

    /// The guests that the other resources of Pacemaker's configuration mean; `None` if that cannot be told now.
    fn of_other_resources(&self) -> Option<Vec<Identity>> {
        let own = self.resource()?;
        let cib = match Cib::query_part(Part::Resources, &self.part()) {
            Ok(cib) => cib,
            Err(trouble) => {
                log::debug(|| format!("which guests other resources have cannot be told: {trouble}"));
                return None;
            }
        };
        let deadline = self.part();
        let read = |config: &Path| Definition::read(config, &deadline.share(READING, 4)).ok().map(|definition| definition.identity.name);
        // By names alone: the UUID may be that of the guest whose definition was copied.
        Some(names(&cib, own, read).into_iter().map(|name| Identity { name, uuid: None }).collect())
    }
}

/// The names of the guests that the resources but `own` mean: what `read` finds in their definitions, or, where one cannot be had, what
/// their files and they themselves are called.
fn names(cib: &Cib, own: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut names = Vec::new();
    for other in cib.resources().into_iter().filter(|other| other.id != own && other.agent.ends_with(AGENT)) {
        let Some(config) = other.parameters.get("config").map(Path::new) else { continue };
        match read(config) {
            Some(name) => names.push(name),
            None => {
                names.extend(config.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
                names.push(other.id);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_resources_mean() {
        let primitive = |id: &str, kind: &str| {
            format!(
                "<primitive id='{id}' class='ocf' provider='kvmha' type='{kind}'><instance_attributes id='{id}-a'>\
                 <nvpair id='{id}-c' name='config' value='/cluster/{id}/domain.xml'/></instance_attributes></primitive>"
            )
        };
        let all = primitive("vm-web1", "VirtualDomain") + &primitive("vm-web2", "VirtualDomain") + &primitive("db", "VirtualDomain");
        let text = format!("<cib><configuration><resources>{all}{}</resources></configuration></cib>", primitive("disk", "Filesystem"));
        let read = |config: &Path| config.starts_with("/cluster/vm-web2").then(|| "web2".to_owned());
        assert_eq!(names(&Cib::parse(text).unwrap(), "vm-web1", read), ["web2", "domain", "db"]);
    }
}
