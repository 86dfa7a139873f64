//! What each action answers in each condition: the expectation, written down once. The suite `truth` makes every row true on real
//! daemons, and the manual shows it.

use super::exit::Code;

/// The text; its own head says how it is written.
const TEXT: &str = include_str!("answers.txt");

/// The actions of the table, in its order. `probe` is a monitor without an interval, `validate-all` is at level 10.
pub const ACTIONS: [&str; 8] = ["start", "stop", "monitor", "probe", "status", "migrate_to", "migrate_from", "validate-all"];

/// A condition and what the actions answer in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it is about: the heading.
    pub group: &'static str,
    /// Its short name.
    pub name: &'static str,
    /// What is so, in one sentence.
    pub text: &'static str,
    /// The answers, in the order of [`ACTIONS`].
    pub answers: Vec<Answer>,
}

/// What an action answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One of these codes; a failure with these words in its reason, where `{guest}` is the guest's name.
    Code(Vec<u8>, &'static str),
    /// The suite cannot reach it, and why.
    NotTried(&'static str),
}

/// The table.
///
/// # Errors
/// The first line that is not understood, or the condition that does not say what each action answers.
pub fn conditions() -> Result<Vec<Condition>, String> {
    parse(TEXT)
}

fn parse(text: &'static str) -> Result<Vec<Condition>, String> {
    let mut group = "";
    let mut conditions = Vec::new();
    let mut open: Option<(&'static str, &'static str, [Option<Answer>; ACTIONS.len()])> = None;
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    for line in lines.chain([""]) {
        let wrong = |what: &str| Err(format!("{what}: {line:?}"));
        if line.is_empty() || line.starts_with("== ") {
            if let Some((name, text, answers)) = open.take() {
                let missing = ACTIONS.iter().zip(&answers).find(|(_, answer)| answer.is_none());
                if let Some((action, _)) = missing {
                    return Err(format!("{name} does not say what {action} answers"));
                }
                conditions.push(Condition { group, name, text, answers: answers.into_iter().flatten().collect() });
            }
            group = line.strip_prefix("== ").unwrap_or(group);
            continue;
        }
        let Some((head, rest)) = line.split_once(':') else { return wrong("no colon") };
        let rest = rest.trim();
        let Some((_, _, answers)) = &mut open else {
            open = Some((head, rest, Default::default()));
            continue;
        };
        let Some(answer) = answer(rest) else { return wrong("no answer") };
        for action in head.split_whitespace() {
            match ACTIONS.iter().position(|known| *known == action).and_then(|at| answers.get_mut(at)) {
                Some(cell @ None) => *cell = Some(answer.clone()),
                Some(_) => return wrong("said twice"),
                None => return wrong("no action"),
            }
        }
    }
    Ok(conditions)
}

fn answer(text: &'static str) -> Option<Answer> {
    if let Some(why) = text.strip_prefix("not tried, ") {
        return Some(Answer::NotTried(why));
    }
    let (codes, words) = text.split_once(' ').unwrap_or((text, ""));
    let codes = codes.split('|').map(str::parse).collect::<Result<Vec<u8>, _>>().ok()?;
    codes.iter().all(|code| Code::ALL.iter().any(|known| *known as u8 == *code)).then_some(Answer::Code(codes, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let conditions = conditions().unwrap();
        assert!(conditions.len() > 40);
        for (at, condition) in conditions.iter().enumerate() {
            assert_eq!(condition.answers.len(), ACTIONS.len(), "{}", condition.name);
            assert!(conditions.iter().skip(at + 1).all(|other| other.name != condition.name), "{} stands twice", condition.name);
            assert!(!condition.group.is_empty() && !condition.text.is_empty(), "{}", condition.name);
        }
    }

    /// What Pacemaker makes of some codes is worse than any failure: see `exit.rs`.
    #[test]
    fn no_answer_bans_or_lies() {
        for condition in conditions().unwrap() {
            // A guest lives in the last two, and nobody can say whose it is.
            let nothing = ["defined_off", "emulator_killed", "missing_came", "missing_restored"];
            let lives = !condition.name.ends_with("absent") && !nothing.contains(&condition.name);
            for (action, answer) in ACTIONS.iter().zip(&condition.answers) {
                let Answer::Code(codes, words) = answer else { continue };
                for code in codes {
                    let place = format!("{} {action} {code}", condition.name);
                    assert!(*code != 7 || !lives, "{place}: never 7 of a guest that lives");
                    assert!(*code != 190 || *action == "monitor", "{place}: only a recurring monitor says 190");
                    assert!(*code != 5 || matches!(*action, "start" | "validate-all"), "{place}: 5 bans");
                    assert!(matches!(*code, 0 | 7) || !words.is_empty(), "{place}: a failure has a reason");
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a: b\nstart: 0", "a: b\nstart: 0\nstart: 1 x", "a: b\nfly: 0", "a: b\nstart: 99", "a"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
