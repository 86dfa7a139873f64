//! Meta attributes as Pacemaker takes them.

use super::read::sets;
use super::{Asker, Cib, Primitive};
use crate::cluster::boolean;

impl Cib {
    /// A meta attribute of a resource: its own or its template's, else that of the group or clone it is in, else that of all resources
    /// (`get_meta_attributes` in Pacemaker's `lib/pengine/complex.c`). Of rules only those of the defaults are looked at.
    #[must_use]
    pub fn meta(&self, resource: &str, name: &str) -> Option<String> {
        let Primitive { agent, mut meta, .. } = self.resource(resource)?;
        let defaults = || self.defaults("rsc_defaults", Asker { agent: &agent, operation: None, unknown: true }).remove(name);
        meta.remove(name).or_else(|| self.inherited(resource, name)).or_else(defaults)
    }

    fn inherited(&self, resource: &str, name: &str) -> Option<String> {
        self.with(|document| {
            let mut all = document.descendants().filter(|node| node.has_tag_name("primitive"));
            let found = all.find(|node| node.attribute("id") == Some(resource))?;
            found.ancestors().skip(1).find_map(|parent| sets(parent, "meta_attributes").remove(name))
        })
    }

    /// Whether Pacemaker may move a resource live.
    #[must_use]
    pub fn is_movable(&self, resource: &str) -> bool {
        self.meta(resource, "allow-migrate").is_some_and(|value| boolean(&value) == Some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_may_be_said_that_a_guest_may_move() {
        let pair = |value: &str| format!("<nvpair id='n' name='allow-migrate' value='{value}'/>");
        let set = |value: &str| {
            if value.is_empty() { String::new() } else { format!("<meta_attributes id='m'>{}</meta_attributes>", pair(value)) }
        };
        let movable = |defaults: &str, group: &str, own: &str| {
            let text = format!(
                "<cib><configuration><resources><group id='g'>{}<primitive id='web1'>{}</primitive></group></resources>\
                 <rsc_defaults>{}</rsc_defaults></configuration></cib>",
                set(group),
                set(own),
                set(defaults)
            );
            Cib::parse(text).unwrap().is_movable("web1")
        };
        assert!(movable("", "", "true") && movable("", "", "1") && movable("", "", "Yes"));
        assert!(movable("", "y", "") && movable("on", "", ""));
        assert!(!movable("", "", "") && !movable("true", "", "false") && !movable("true", "no", "") && !movable("false", "false", ""));
        assert!(!Cib::parse("<cib/>".to_owned()).unwrap().is_movable("web1"));
    }
}
