//! Whether the agent at the target would know the guest: by the definition that is in `config` there, or by a name.
//!
//! libvirt takes the definition along in a move, so that the guest arrives whatever that file says. But the agent there has nothing else that tells
//! which guest it waits for, watches and ends.

use super::Check;
use super::folders::{Folder, ask_all, take_away};
use super::reader::{self, Answer, Question, TRIES};
use super::target::Target;
use crate::deadline::Deadline;
use crate::domain::connection::Connection;
use crate::domain::definition::{Definition, Identity, hint};
use crate::domain::migration::plan::Plan;
use crate::storage::finding::LOOK;
use crate::storage::look::{self, Sight};
use crate::storage::nonce::Nonce;
use std::path::Path;

const NAME: &str = "config";

/// What `config` is at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
enum There {
    /// A file, with this in it.
    Text(String),
    /// Not there, or out of libvirt's reach: it leaves what it may not open out of a folder (`virStorageBackendVolOpen`).
    Missing,
    /// Cannot be told.
    Unknown(String),
}

impl There {
    /// `asked`: the folders of the guest's that were asked for at the target; none if this is not the guest's host.
    fn find(asked: &[Folder], target: &Target, deadline: &Deadline) -> Self {
        let config = &target.plan.config;
        let own = (!asked.is_empty()).then(|| Self::own_folder(asked, target, deadline)).flatten();
        if let Some(known) = own.and_then(|answer| Self::of_folder(&answer, || Self::here(config, deadline))) {
            return known;
        }
        match asked.iter().find(|folder| folder.answer == Answer::Same) {
            Some(carrier) => Self::linked(carrier, &target.there, config, deadline),
            None => Self::ask(&target.there, config, deadline),
        }
    }

    /// What the target says of the folder that the file is in, asked only now if it is none of the disks'.
    fn own_folder(asked: &[Folder], target: &Target, deadline: &Deadline) -> Option<Answer> {
        let folder = target.plan.config.parent()?;
        if let Some(own) = asked.iter().find(|own| own.here == folder && own.there == folder) {
            return Some(own.answer.clone());
        }
        let wanted = [((folder.to_owned(), folder.to_owned()), TRIES)].into();
        let own = ask_all(wanted, &[], &target.there, &deadline.before_part(4)).pop()?;
        take_away(&own.nonce, deadline);
        Some(own.answer)
    }

    /// By what the target has said of its folder: where that is the same, what is `here` is there too, whether libvirt there may read it or not. `None`
    /// if the file itself is to be asked for. Of a folder that has given no answer nothing more is asked.
    fn of_folder(answer: &Answer, here: impl FnOnce() -> Option<Self>) -> Option<Self> {
        match answer {
            Answer::Same => here(),
            Answer::Silent(text) => Some(Self::Unknown(text.clone())),
            Answer::Other | Answer::Unknown(_) => None,
        }
    }

    /// What it is here; `None` if it is not, or a link, which may lead to something else there.
    fn here(config: &Path, deadline: &Deadline) -> Option<Self> {
        let Sight::Facts(facts) = look::look(config, &deadline.within(LOOK)) else { return None };
        if facts.folders.len() != 1 {
            return None;
        }
        let text = Definition::text(config, &deadline.within(LOOK));
        Some(text.map_or_else(|error| Self::Unknown(error.text), |text| Self::Text(String::from_utf8_lossy(&text).into_owned())))
    }

    /// By a link in a folder that both nodes have. It has a question of its own: it may lead to storage that hangs there, where the disks are well.
    fn linked(carrier: &Folder, there: &Connection, config: &Path, deadline: &Deadline) -> Self {
        // What is left of the time is for taking it away again.
        let limit = deadline.before_part(4);
        let nonce = match Nonce::new(&carrier.here) {
            Ok(nonce) => nonce,
            Err(error) => return Self::Unknown(error.to_string()),
        };
        let look = || match reader::ask(there, &carrier.there, &nonce, TRIES, &limit) {
            Answer::Same => {
                let question = Question { count: 1, texts: &[0], through: &[] };
                reader::see(there, &carrier.there, &nonce, &question, &limit).map_err(|error| error.text)
            }
            Answer::Other => Ok(None),
            Answer::Unknown(text) | Answer::Silent(text) => Err(text),
        };
        let seen = nonce.put(&[config.to_owned()], &limit.within(LOOK)).and_then(|()| look());
        take_away([&nonce], deadline);
        match seen {
            Ok(Some(seen)) => Self::seen(seen.links.iter().any(Option::is_some), seen.texts.into_iter().flatten().next()),
            Ok(None) => Self::Unknown("the folder for it has gone".to_owned()),
            Err(text) => Self::Unknown(text),
        }
    }

    /// By a link that was looked at there: whether it leads to something, and what can be read of that.
    fn seen(exists: bool, text: Option<String>) -> Self {
        match (exists, text) {
            (false, _) => Self::Missing,
            (true, Some(text)) => Self::Text(text),
            (true, None) => Self::Unknown("it is no file that can be read".to_owned()),
        }
    }

    /// By what libvirt there reads in the folder. This is the last resort: libvirt opens every file of that folder for it, and does not do
    /// so where it has a pool of its own.
    fn ask(there: &Connection, config: &Path, deadline: &Deadline) -> Self {
        let Some((folder, name)) = config.parent().zip(config.file_name().and_then(|name| name.to_str())) else {
            return Self::Unknown("it has no name that libvirt can be asked for".to_owned());
        };
        match reader::texts(there, folder, &[name], deadline) {
            Ok(texts) => texts.into_iter().flatten().next().flatten().map_or(Self::Missing, Self::Text),
            Err(text) => Self::Unknown(text),
        }
    }
}

/// What follows for a move; `asked`: as for [`There::find`].
pub(super) fn check(asked: &[Folder], target: &Target, deadline: &Deadline) -> Check {
    judge(&There::find(asked, target, deadline), &target.identity, &target.plan)
}

fn judge(there: &There, identity: &Identity, plan: &Plan) -> Check {
    let (name, config, node) = (&identity.name, plan.config.display(), &plan.target);
    let text = match there {
        There::Unknown(text) => {
            return Check::warning(NAME, format!("{config} on {node} cannot be looked at: {text}"), "see that it is there");
        }
        There::Missing => format!("{config} is not there on {node}, or libvirt there may not read it"),
        There::Text(text) => match Definition::parse(&plan.config, text.clone().into_bytes()) {
            Ok(definition) if definition.identity.name != *name => {
                let text = format!("{config} on {node} names {}, so that {name} would not be known there", definition.identity.name);
                return Check::refuse(NAME, text, "put the definition of this guest there");
            }
            Ok(definition) if definition.identity.uuid.as_ref().is_some_and(|uuid| identity.is_another(uuid)) => {
                let text = format!("{config} on {node} gives {name} another UUID");
                return Check::warning(NAME, text, "the guest would have that one after a start there");
            }
            Ok(_) => return Check::ok(NAME, format!("{config} on {node} names {name} too")),
            Err(_) if hint::name(text.as_bytes()).as_ref() == Some(name) => {
                return lacking(format!("{config} on {node} is not understood as a whole"));
            }
            Err(_) => format!("{config} on {node} is no definition of a guest"),
        },
    };
    let stem = plan.config.file_stem().and_then(|stem| stem.to_str());
    if stem == Some(name) || plan.instance.as_ref() == Some(name) {
        return lacking(format!("{text}, {name} would be known there by its name alone"));
    }
    let text = format!("{text}, and {name} is called neither like it nor like the resource, so that it would not be known there");
    Check::refuse(NAME, text, "put the definition there")
}

/// The guest would be known there, and nothing more.
fn lacking(text: String) -> Check {
    Check::warning(NAME, text, "put the definition there: without it the guest cannot be started there")
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const UUID: &str = "c7a5fdbd-cdaf-9455-926a-d65c16db1809";

    fn domain(name: &str, more: &str) -> There {
        There::Text(format!("<domain type='kvm'><name>{name}</name>{more}</domain>"))
    }

    fn verdict(there: &There, config: &str, instance: Option<&str>) -> Verdict {
        let identity = Identity { name: "web1".into(), uuid: Some(UUID.into()) };
        let plan = Plan { config: config.into(), instance: instance.map(Into::into), ..Plan::to("qemu+tcp://node2/system") };
        judge(there, &identity, &plan).verdict
    }

    #[test]
    fn a_guest_that_would_not_be_known_at_the_target_stays() {
        let missing = |config, instance| verdict(&There::Missing, config, instance);
        assert_eq!(missing("/cluster/web1/domain.xml", Some("vm-web1")), Verdict::Refuse);
        assert_eq!(missing("/cluster/web1/domain.xml", None), Verdict::Refuse);
        assert_eq!(missing("/cluster/web1.xml", Some("vm-web1")), Verdict::Warning, "called like the file");
        assert_eq!(missing("/cluster/web1/domain.xml", Some("web1")), Verdict::Warning, "called like the resource");
    }

    #[test]
    fn what_the_definition_there_says() {
        let of = |there: &There| verdict(there, "/cluster/web1/domain.xml", Some("vm-web1"));
        assert_eq!(of(&domain("web1", "")), Verdict::Ok);
        assert_eq!(of(&domain("web1", &format!("<uuid>{}</uuid>", UUID.to_uppercase()))), Verdict::Ok);
        assert_eq!(of(&domain("web1", "<uuid>00000000-0000-0000-0000-000000000001</uuid>")), Verdict::Warning);
        assert_eq!(of(&domain("web2", &format!("<uuid>{UUID}</uuid>"))), Verdict::Refuse);
        assert_eq!(
            verdict(&domain("web2", ""), "/srv/web1.xml", Some("web1")),
            Verdict::Refuse,
            "the definition is believed, not the names"
        );
        assert_eq!(of(&There::Text("<domain><name>web1</name><devices>".into())), Verdict::Warning, "half written, behind the name");
        for nothing in ["<domain><na", "", "nonsense"] {
            assert_eq!(of(&There::Text(nothing.into())), Verdict::Refuse, "{nothing}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_no_refusal() {
        let of = |there: Option<There>| there.map(|there| verdict(&there, "/cluster/web1/domain.xml", Some("vm-web1")));
        assert_eq!(of(Some(There::Unknown("no answer".into()))), Some(Verdict::Warning));
        assert_eq!(of(Some(There::seen(true, None))), Some(Verdict::Warning));
        let silent = There::of_folder(&Answer::Silent("no answer".into()), || panic!("is not asked for"));
        assert_eq!(of(silent), Some(Verdict::Warning));
        assert_eq!(of(Some(There::seen(false, None))), Some(Verdict::Refuse));
    }

    /// libvirt there says "not there" of a file that it may not open, as by SELinux or on an NFS with `root_squash`.
    #[test]
    fn a_file_that_both_have_is_there_whatever_libvirt_there_may_open() {
        let of = |there: Option<There>| there.map(|there| verdict(&there, "/cluster/web1/domain.xml", Some("vm-web1")));
        assert_eq!(of(There::of_folder(&Answer::Same, || Some(domain("web1", "")))), Some(Verdict::Ok));
        assert_eq!(of(There::of_folder(&Answer::Same, || Some(domain("web2", "")))), Some(Verdict::Refuse));
        assert_eq!(of(There::of_folder(&Answer::Same, || None)), None, "a link: the file itself is asked for");
        assert_eq!(of(There::of_folder(&Answer::Other, || panic!("is another"))), None);
        let (identity, plan) = (Identity { name: "web1".into(), uuid: None }, Plan::to("qemu+tcp://node2/system"));
        assert!(judge(&There::Missing, &identity, &plan).text.contains("or libvirt there may not read it"));
    }
}
