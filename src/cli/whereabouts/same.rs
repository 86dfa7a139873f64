//! Which of the names that were asked for mean one host: a guest that is there is one copy, and whoever was not asked itself has not answered.
//!
//! A `remoteuri` without `%n` leads to one host whatever node is meant, a node's name or address may lead to this host, and one that is named
//! with `--node` may be a node by another name.

use super::Place;
use crate::domain::Uri;

/// Why some of these nodes are not asked, each with its URI, from the host `here`: its URI leads to this host or is another's.
pub(super) fn not_asked(nodes: &[(String, String)], here: &str) -> Vec<Option<String>> {
    let parsed: Vec<Option<Uri>> = nodes.iter().map(|(_, uri)| Uri::parse(uri).ok()).collect();
    let why = |at: usize| {
        let (node, uri) = &nodes[at];
        if parsed[at].as_ref().is_some_and(|uri| uri.is_own(here)) {
            return Some(format!("{uri} leads to this host: {node} itself was not asked"));
        }
        // The answer is that of the node whose name it has.
        let sharing = || nodes.iter().filter(|(_, other)| other == uri).map(|(name, _)| name);
        let asked = sharing().find(|name| parsed[at].as_ref().is_some_and(|uri| uri.is_on(name))).or_else(|| sharing().next());
        asked.filter(|asked| *asked != node).map(|asked| format!("{uri} is the URI of {asked} too: {node} itself was not asked"))
    };
    (0..nodes.len()).map(why).collect()
}

/// Counts a copy once: `signs` says which places have shown the very same one, `members` are the cluster's nodes.
pub(super) fn merge<T: PartialEq>(places: Vec<Place>, signs: &[Option<T>], members: &[String]) -> Vec<Place> {
    let mut merged: Vec<(Place, Option<&T>)> = Vec::new();
    for (place, sign) in places.into_iter().zip(signs.iter().map(Option::as_ref)) {
        let first = merged.iter().find(|(_, known)| sign.is_some() && *known == sign).map(|(first, _)| first.node.clone());
        match first {
            None => merged.push((place, sign)),
            Some(first) if !members.contains(&place.node) && is_called(&place, &first) => {}
            Some(first) => {
                let (uri, node) = (place.uri.unwrap_or_default(), place.node);
                let trouble = Some(format!("{uri} leads to the host of {first}: {node} itself was not asked"));
                merged.push((Place { node, uri: Some(uri), misled: true, trouble, ..Place::default() }, None));
            }
        }
    }
    merged.into_iter().map(|(place, _)| place).collect()
}

/// Whether a place that is proven to be on the host of `node` was asked for by a longer or shorter name of that node.
fn is_called(place: &Place, node: &str) -> bool {
    let uri = place.uri.as_deref().and_then(|uri| Uri::parse(uri).ok());
    uri.is_some_and(|uri| uri.host().eq_ignore_ascii_case(&place.node) && uri.is_on(node))
}

#[cfg(test)]
mod tests {
    use super::super::tests::absent;
    use super::*;

    #[test]
    fn who_has_no_uri_of_its_own_is_not_asked() {
        let asked = |pairs: &[(&str, &str)]| {
            let nodes: Vec<(String, String)> = pairs.iter().map(|(node, uri)| ((*node).to_owned(), (*uri).to_owned())).collect();
            not_asked(&nodes, "n1").into_iter().map(|why| why.is_none()).collect::<Vec<_>>()
        };
        assert_eq!(asked(&[("n2", "qemu+ssh://n2/system"), ("n3", "qemu+ssh://n3/system")]), [true, true]);
        assert_eq!(asked(&[("n2", "qemu+ssh://n1/system"), ("n3", "qemu:///system")]), [false, false]);
        assert_eq!(asked(&[("n2", "qemu+ssh://10.0.0.9/system"), ("n3", "qemu+ssh://10.0.0.9/system")]), [true, false]);
        assert_eq!(asked(&[("n2", "qemu+ssh://n3/system"), ("n3", "qemu+ssh://n3/system")]), [false, true]);
        // A tunnel's.
        assert_eq!(asked(&[("n2", "qemu+tcp://localhost:16510/system"), ("n3", "qemu+tcp://localhost:16511/system")]), [true, true]);
    }

    /// A copy that this URI leads to.
    fn copy(node: &str, host: &str) -> Place {
        Place { copy: Some(true), runs: true, uri: Some(format!("qemu+ssh://{host}/system")), ..absent(node) }
    }

    #[test]
    fn one_copy_under_several_names_is_one() {
        let members = ["n1", "n2", "n3"].map(str::to_owned);
        let seen = |places: &[Place], signs: &[Option<u8>]| {
            let merged = merge(places.to_vec(), signs, &members);
            merged.into_iter().map(|place| (place.node, place.copy, place.runs)).collect::<Vec<_>>()
        };
        let line = |node: &str, copy: Option<bool>| (node.to_owned(), copy, copy == Some(true));
        let address = [copy("n1", "n1"), copy("n2", "10.0.0.1"), absent("n3")];
        assert_eq!(seen(&address, &[Some(1), Some(1), None]), [line("n1", Some(true)), line("n2", None), line("n3", Some(false))]);
        assert_eq!(seen(&address, &[Some(1), Some(2), None])[1], line("n2", Some(true)), "another host");
        assert_eq!(seen(&address, &[None, None, None])[1], line("n2", Some(true)), "not proven to be one");
        // This host by its whole name; the same of a node of the cluster, to which its name does not lead.
        let named = [copy("n1", "n1"), copy("n1.example.com", "n1.example.com")];
        assert_eq!(seen(&named, &[Some(1), Some(1)]), [line("n1", Some(true))]);
        assert_eq!(seen(&named, &[Some(1), Some(2)]).len(), 2);
        let fixed = [copy("n1", "n1"), copy("n9", "n1.example.com")];
        assert_eq!(seen(&fixed, &[Some(1), Some(1)])[1], line("n9", None), "it was not asked");
        let led_astray = [copy("n1", "n1"), copy("n2", "n2")];
        assert_eq!(seen(&led_astray, &[Some(1), Some(1)])[1], line("n2", None));
    }
}
