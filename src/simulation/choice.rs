//! Choices, and the next way to make them: depth first, all of them.

use std::cell::RefCell;

/// One choice that was made.
struct Choice {
    taken: usize,
    of: usize,
}

#[derive(Default)]
struct Choices {
    made: Vec<Choice>,
    at: usize,
    left: usize,
    budget: usize,
}

thread_local! {
    static CHOICES: RefCell<Choices> = RefCell::default();
}

impl Choices {
    fn take(&mut self, of: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push(Choice { taken: 0, of });
        }
        let choice = &self.made[self.at];
        assert_eq!(choice.of, of, "the same choices lead to the same course");
        self.at += 1;
        choice.taken
    }
}

/// Begins with the first way, with so many deviations allowed in each.
pub(super) fn begin(budget: usize) {
    CHOICES.set(Choices { budget, left: budget, ..Choices::default() });
}

/// One of so many possibilities: each is tried.
pub(crate) fn pick(of: usize) -> usize {
    CHOICES.with_borrow_mut(|choices| choices.take(of))
}

/// What is usual (0), or one of the possibilities beside it, as long as the budget lasts.
pub(crate) fn deviate(possibilities: usize) -> usize {
    CHOICES.with_borrow_mut(|choices| {
        if choices.left == 0 || possibilities == 0 {
            return 0;
        }
        let taken = choices.take(possibilities + 1);
        choices.left -= usize::from(taken > 0);
        taken
    })
}

/// Goes the same way once more.
pub(super) fn again() {
    CHOICES.with_borrow_mut(|choices| {
        choices.at = 0;
        choices.left = choices.budget;
    });
}

/// The next way; `false`: that was the last.
pub(super) fn next() -> bool {
    again();
    CHOICES.with_borrow_mut(|choices| {
        while let Some(mut last) = choices.made.pop() {
            if last.taken + 1 < last.of {
                last.taken += 1;
                choices.made.push(last);
                return true;
            }
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_within_the_budget_once() {
        begin(2);
        let mut ways = Vec::new();
        loop {
            ways.push((pick(2), [deviate(2), deviate(1), deviate(1)]));
            if !next() {
                break;
            }
        }
        let count = ways.len();
        ways.sort_unstable();
        ways.dedup();
        // 3 * 2 * 2 ways less the two with three deviations, for both that were picked.
        assert_eq!((ways.len(), count), (20, 20));
        assert!(ways.iter().all(|(_, way)| way.iter().filter(|taken| **taken > 0).count() <= 2));
    }
}
