//! Where constraints keep a resource from.

use super::Cib;
use crate::cluster::boolean;
use roxmltree::Node;

impl Cib {
    /// Whether the constraints on its place keep a resource from a node for good. Of rules those are understood that go by the nodes' names;
    /// what goes by anything else may let it be there.
    #[must_use]
    pub fn is_kept_from(&self, resource: &str, node: &str) -> bool {
        let only_where_said = self.option("symmetric-cluster").is_some_and(|value| boolean(&value) == Some(false));
        self.with(|document| {
            let own = document.descendants().find(|found| found.has_tag_name("primitive") && found.attribute("id") == Some(resource));
            // What holds for a group holds for all in it.
            let names: Vec<&str> = own.iter().flat_map(Node::ancestors).filter_map(|parent| parent.attribute("id")).collect();
            let all = document.descendants().filter(|found| found.has_tag_name("rsc_location") && is_of(*found, &names));
            let scores: Vec<&str> = all.flat_map(|constraint| scores(constraint, node)).collect();
            scores.contains(&"-INFINITY") || only_where_said && !scores.iter().any(|score| !score.starts_with('-'))
        })
    }
}

fn is_of(constraint: Node, names: &[&str]) -> bool {
    let sets = constraint.descendants().filter(|found| found.has_tag_name("resource_ref"));
    // Of patterns those are understood that are one name.
    let pattern = constraint.attribute("rsc-pattern").map(|pattern| pattern.trim_matches(['^', '$']));
    let named = constraint.attribute("rsc").into_iter().chain(pattern).chain(sets.filter_map(|found| found.attribute("id")));
    named.into_iter().any(|name| names.contains(&name))
}

/// The scores that a constraint gives a node.
fn scores<'a>(constraint: Node<'a, '_>, node: &str) -> Vec<&'a str> {
    let named = constraint.attribute("node").filter(|name| name.eq_ignore_ascii_case(node)).and_then(|_| constraint.attribute("score"));
    let rules = constraint.children().filter(|child| child.has_tag_name("rule") && holds(*child, node));
    named.into_iter().chain(rules.filter_map(|rule| rule.attribute("score"))).collect()
}

/// Whether all parts of a rule, or one, say this node by its name.
fn holds(rule: Node, node: &str) -> bool {
    let says = |part: Node| {
        let is_it = part.attribute("value").is_some_and(|name| name.eq_ignore_ascii_case(node));
        match (part.attribute("attribute"), part.attribute("operation")) {
            (Some("#uname"), Some("eq")) => is_it,
            (Some("#uname"), Some("ne")) => !is_it,
            _ => false,
        }
    };
    let mut parts = rule.children().filter(Node::is_element);
    if rule.attribute("boolean-op").is_some_and(|word| word.eq_ignore_ascii_case("or")) { parts.any(says) } else { parts.all(says) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_a_constraint_keeps_it_from() {
        let of = |options: &str, constraints: &str| {
            let text = format!(
                "<cib><crm_config><cluster_property_set id='o'>{options}</cluster_property_set></crm_config>\
                 <resources><group id='g'><primitive id='web1'/></group></resources><constraints>{constraints}</constraints></cib>"
            );
            let cib = Cib::parse(text).unwrap();
            ["n1", "n2", "n3"].map(|node| cib.is_kept_from("web1", node))
        };
        let rule = |score: &str, parts: &str| {
            format!("<rsc_location id='l' rsc='web1'><rule id='r' score='{score}'>{parts}</rule></rsc_location>")
        };
        let name = |operation: &str| format!("<expression id='e' attribute='#uname' operation='{operation}' value='n1'/>");
        assert_eq!(of("", ""), [false; 3]);
        assert_eq!(of("", "<rsc_location id='l' rsc='web1' node='N2' score='-INFINITY'/>"), [false, true, false]);
        assert_eq!(of("", "<rsc_location id='l' rsc='g' node='n2' score='-INFINITY'/>"), [false, true, false], "its group");
        assert_eq!(of("", "<rsc_location id='l' rsc='web10' node='n2' score='-INFINITY'/>"), [false; 3], "another");
        assert_eq!(of("", "<rsc_location id='l' rsc-pattern='^web1$' node='n2' score='-INFINITY'/>"), [false, true, false]);
        assert_eq!(of("", "<rsc_location id='l' rsc='web1' node='n2' score='-1000'/>"), [false; 3], "it only would rather not");
        assert_eq!(
            of("", "<rsc_location id='l' rsc='web1' node='n1' score='INFINITY'/>"),
            [false; 3],
            "another node does when that is lost"
        );
        assert_eq!(of("", &rule("-INFINITY", &name("ne"))), [false, true, true]);
        assert_eq!(of("", &rule("-INFINITY", &name("eq"))), [true, false, false]);
        assert_eq!(of("", &rule("-INFINITY", "<expression id='e' attribute='rack' operation='eq' value='n1'/>")), [false; 3]);
        let opt_in = "<nvpair id='s' name='symmetric-cluster' value='No'/>";
        assert_eq!(of(opt_in, "<rsc_location id='l' rsc='web1' node='n1' score='100'/>"), [false, true, true]);
        assert_eq!(of(opt_in, &rule("0", &name("ne"))), [true, false, false]);
        let set =
            "<rsc_location id='l' node='n3' score='-INFINITY'><resource_set id='s'><resource_ref id='web1'/></resource_set></rsc_location>";
        assert_eq!(of("", set), [false, false, true]);
    }
}
