//! The manual page `ocf_kvmha_VirtualDomain(7)`, from the tables of parameters, actions, codes, answers and differences.

use super::actions::ACTIONS;
use super::answers::{self, Answer, Condition};
use super::differences::DIFFERENCES;
use super::exit::Code;
use super::metadata::{LONG, SHORT};
use super::table::rows;
use crate::parameter::{Change, Kind, Parameter};
use crate::storage::kind;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// The page, in roff.
///
/// # Errors
/// The table of answers is wrong.
pub fn page() -> Result<String, String> {
    let mut page = Roff::new();
    let version = concat!("kvmha ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["ocf_kvmha_VirtualDomain", "7", "", version, "OCF resource agents"]);
    page.control("SH", ["NAME"]).text([roman(format!("ocf_kvmha_VirtualDomain - {SHORT}"))]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("/usr/lib/ocf/resource.d/kvmha/VirtualDomain "), italic("ACTION")]);
    page.control("SH", ["DESCRIPTION"]).text([roman(LONG)]);
    page.control("SH", ["PARAMETERS"]);
    rows().for_each(|row| parameter(&mut page, row));
    page.control("SH", ["ACTIONS"]);
    for row in ACTIONS {
        let interval = row.interval.map(|interval| format!(", interval {interval} s")).unwrap_or_default();
        item(&mut page, row.word, &format!("{} Advised timeout {} s{interval}.", row.text, row.timeout));
    }
    page.control("SH", ["EXIT CODES"]);
    Code::ALL.iter().for_each(|code| item(&mut page, &(*code as u8).to_string(), &format!("{}.", code.meaning())));
    page.control("SH", ["WHAT IS ANSWERED WHEN"]);
    page.text([roman(
        "What each action answers in each condition. Every line is tried on real daemons by the project's test suite \"truth\". \
         Where several codes stand it depends on the moment. Monitor is the recurring one; validate-all is at level 10.",
    )]);
    let mut group = "";
    for condition in answers::conditions()? {
        if condition.group != group {
            group = condition.group;
            page.control("SS", [group]);
        }
        describe(&mut page, &condition);
    }
    page.control("SH", ["STORAGE"]);
    page.text([roman(
        "What proves, before a move, that a disk is the same on the target, by the kind of storage; and how that was tried.",
    )]);
    for row in kind::TABLE {
        let notes = if row.notes.is_empty() { String::new() } else { format!(" {}.", row.notes) };
        item(&mut page, row.name, &format!("{}.{notes} Tried: {}.", row.proof, row.tried));
    }
    page.control("SH", ["DIFFERENCES FROM ocf:heartbeat:VirtualDomain"]);
    page.text([roman(
        "Each has a test in the project's test suites. The suite \"dropin\" runs both agents side by side, and fails on any other difference in \
         the situations that it tries.",
    )]);
    for difference in DIFFERENCES {
        page.control("TP", []).text([bold(format!("{}.", difference.number))]);
        page.text(marked(difference.text));
    }
    page.control("SH", ["SEE ALSO"]).text([bold("kvmha"), roman("(8), "), bold("fence_kvmha"), roman("(8), pcs(8), crm(8)")]);
    Ok(page.to_roff())
}

fn parameter<T>(page: &mut Roff, row: &Parameter<T>) {
    let kind = match row.kind {
        Kind::Text => "text".to_owned(),
        Kind::Integer { .. } | Kind::Seconds { .. } => "whole number".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Select(words) => words.join(", "),
    };
    let default = match row.default {
        _ if row.required => "required".to_owned(),
        Some(default) => format!("default {default}"),
        None => "unset".to_owned(),
    };
    let change = if row.change == Change::Restarts { "; a change restarts the guest" } else { "" };
    page.control("TP", []).text([bold(row.name), roman(format!(" ({kind}; {default}{change})"))]);
    page.text([roman(row.long)]);
}

fn item(page: &mut Roff, head: &str, text: &str) {
    page.control("TP", []).text([bold(head)]);
    page.text([roman(text)]);
}

/// A text with the marks of Markdown, in which what stands between backticks is bold.
fn marked(text: &str) -> Vec<Inline> {
    text.split('`').enumerate().map(|(at, part)| if at % 2 == 0 { roman(part) } else { bold(part) }).collect()
}

/// A condition: actions that answer the same stand together.
fn describe(page: &mut Roff, condition: &Condition) {
    page.control("TP", []).text([roman(condition.text)]);
    let mut said: Vec<(&Answer, Vec<&str>)> = Vec::new();
    for (action, answer) in answers::ACTIONS.into_iter().zip(&condition.answers) {
        match said.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, actions)) => actions.push(action),
            None => said.push((answer, vec![action])),
        }
    }
    for (at, (answer, actions)) in said.iter().enumerate() {
        if at > 0 {
            page.control("br", []);
        }
        page.text([bold(actions.join(", ")), answer_text(answer)]);
    }
}

fn answer_text(answer: &Answer) -> Inline {
    match answer {
        Answer::Code(codes, words) => {
            let codes = codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            let words = words.replace("{guest}", "GUEST");
            roman(if words.is_empty() { format!(": {codes}") } else { format!(": {codes}, \"…{words}…\"") })
        }
        Answer::NotTried(why) => roman(format!(": not tried, {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_every_parameter_action_and_condition() {
        let page = page().unwrap().replace("\\-", "-");
        for name in rows().map(|row| row.name).chain(ACTIONS.iter().map(|row| row.word)) {
            assert!(page.contains(name), "{name}");
        }
        for row in kind::TABLE {
            assert!(page.contains(row.name) && page.contains(row.proof), "{}", row.name);
        }
        for condition in answers::conditions().unwrap() {
            assert!(page.contains(condition.text), "{}", condition.text);
        }
        assert!(!page.contains('`'), "a person would see Markdown");
    }
}
