//! Defaults that are bound to an agent or an operation by a rule.

use super::{Cib, pair};
use roxmltree::Node;
use std::collections::BTreeMap;

/// What defaults are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Class, provider and type of the resource: `ocf:kvmha:VirtualDomain`.
    pub agent: &'a str,
    /// The operation; none for what concerns the resource as a whole.
    pub operation: Option<&'a str>,
    /// Whether what cannot be told here (a date, the attribute of a node) is taken for true.
    pub unknown: bool,
}

impl Cib {
    /// The defaults in `element` (`op_defaults`, `rsc_defaults`) that count for `asker`; the first of a name wins.
    #[must_use]
    pub fn defaults(&self, element: &str, asker: Asker) -> BTreeMap<String, String> {
        self.pairs_if(element, |set| rules(set).all(|rule| holds(rule, asker).unwrap_or(asker.unknown)))
    }

    /// All name-value pairs of the sets below an element that `counts`; the first of a name wins.
    pub(super) fn pairs_if(&self, element: &str, counts: impl Fn(Node) -> bool) -> BTreeMap<String, String> {
        self.with(|document| {
            let found = document.descendants().filter(|node| node.has_tag_name(element)).flat_map(|node| node.descendants());
            let pairs = found.filter(|node| node.has_tag_name("nvpair") && node.parent().is_some_and(&counts));
            let mut values = BTreeMap::new();
            for (name, value) in pairs.filter_map(pair) {
                values.entry(name).or_insert(value);
            }
            values
        })
    }
}

pub(super) fn rules<'a, 'input>(set: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    set.children().filter(|child| child.has_tag_name("rule"))
}

/// Whether a rule, or a part of one, is true (`pe_eval_expr` in Pacemaker's `lib/pengine/rules.c`); nothing if that cannot be told here.
fn holds(expression: Node, asker: Asker) -> Option<bool> {
    match expression.tag_name().name() {
        "rule" if expression.has_attribute("id-ref") => None,
        "rule" => {
            let any = expression.attribute("boolean-op").is_some_and(|word| word.eq_ignore_ascii_case("or"));
            let parts: Vec<Option<bool>> = expression.children().filter(Node::is_element).map(|part| holds(part, asker)).collect();
            // One part decides, true for "or" and false for "and"; else what is not known keeps the whole unknown.
            if parts.contains(&Some(any)) {
                Some(any)
            } else if parts.contains(&None) {
                None
            } else {
                Some(!any)
            }
        }
        "rsc_expression" => {
            let [class, provider, kind] = words(asker.agent);
            let fits = |name: &str, word: &str| expression.attribute(name).is_none_or(|wanted| wanted == word);
            if !fits("class", class) || !fits("type", kind) || !fits("provider", provider) {
                return Some(false);
            }
            // Without it Pacemaker 3.0 takes any, 2.1.5 none (`pe__eval_rsc_expr`).
            expression.has_attribute("provider").then_some(true)
        }
        "op_expression" if expression.attribute("name") != asker.operation => Some(false),
        "op_expression" => (!expression.has_attribute("interval")).then_some(true),
        _ => None,
    }
}

fn words(agent: &str) -> [&str; 3] {
    let mut parts = agent.splitn(3, ':');
    [(); 3].map(|()| parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_that_are_bound_to_an_agent() {
        let set = |id: &str, rule: &str, timeout: &str| {
            format!("<meta_attributes id='{id}'>{rule}<nvpair id='{id}-t' name='timeout' value='{timeout}'/></meta_attributes>")
        };
        let agent = |provider: &str| format!("<rsc_expression id='e' class='ocf' {provider} type='VirtualDomain'/>");
        let rule = |how: &str, parts: &str| format!("<rule id='r' boolean-op='{how}' score='INFINITY'>{parts}</rule>");
        let (old, new, no) = (agent("provider='heartbeat'"), agent("provider='kvmha'"), agent(""));
        let stop = "<op_expression id='o' name='stop'/>";
        let timeout = |sets: &str, agent: &str, operation: &str, unknown: bool| {
            let cib = Cib::parse(format!("<cib><configuration><op_defaults>{sets}</op_defaults></configuration></cib>")).unwrap();
            cib.defaults("op_defaults", Asker { agent, operation: Some(operation), unknown }).remove("timeout").unwrap_or_default()
        };
        let (theirs, ours) = ("ocf:heartbeat:VirtualDomain", "ocf:kvmha:VirtualDomain");
        let bound = [set("a", &rule("and", &format!("{old}{stop}")), "300s"), set("b", "", "60s")].concat();
        assert_eq!(timeout(&bound, theirs, "stop", false), "300s");
        assert_eq!(timeout(&bound, theirs, "start", false), "60s");
        assert_eq!(timeout(&bound, ours, "stop", true), "60s");
        let either = set("a", &rule("and", &format!("<rule id='s' boolean-op='or'>{old}{new}</rule>{stop}")), "300s");
        assert_eq!([theirs, ours].map(|agent| timeout(&either, agent, "stop", false)), ["300s", "300s"]);
        assert_eq!(timeout(&either, "ocf:heartbeat:IPaddr2", "stop", true), "");
        // Which provider it means depends on Pacemaker's version.
        let any = set("a", &rule("and", &no), "300s");
        assert_eq!([false, true].map(|unknown| timeout(&any, ours, "stop", unknown)), ["", "300s"]);
        let dated = set("a", &rule("and", &format!("{old}<date_expression id='d' operation='gt' start='2020-01-01'/>")), "300s");
        assert_eq!([theirs, ours].map(|agent| timeout(&dated, agent, "stop", true)), ["300s", ""]);
        assert_eq!(timeout(&dated, theirs, "stop", false), "");
        // Who asks for no agent gets what is bound to none.
        let cib = Cib::parse(format!("<cib><op_defaults>{bound}</op_defaults></cib>")).unwrap();
        assert_eq!(cib.pairs("op_defaults").remove("timeout").as_deref(), Some("60s"));
    }
}
