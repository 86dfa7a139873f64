//! Work that another thread does beside the one whose time is made up.

use super::{now, set, world};
use std::cell::{Cell, RefCell};
use std::time::Instant;

thread_local! {
    static LONG: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The task after so many others is one whose end what happens meanwhile decides: libvirt's request to move the guest.
pub(crate) fn expect_move(after: usize) {
    LONG.set(Some(after));
}

/// Work that was begun.
pub(crate) enum Task<T> {
    /// It was done, by this time.
    Done(Instant, Cell<Option<T>>),
    /// It waits for the end of the move.
    Move(RefCell<Option<Box<dyn FnOnce() -> T>>>),
}

impl<T: 'static> Task<T> {
    /// Begins it.
    pub(crate) fn start(begin: Instant, work: impl FnOnce() -> T + 'static) -> Self {
        let left = LONG.take();
        LONG.set(left.and_then(|left| left.checked_sub(1)));
        if left == Some(0) {
            return Self::Move(RefCell::new(Some(Box::new(work))));
        }
        let answer = work();
        let end = now().unwrap_or(begin);
        set(begin);
        Self::Done(end, Cell::new(Some(answer)))
    }

    /// Lets time pass until it has ended, or to `limit`.
    pub(crate) fn wait(&self, limit: Instant) -> Option<T> {
        let time = || now().unwrap_or(limit);
        match self {
            Self::Done(end, answer) => {
                let begin = time();
                set((*end).min(limit).max(begin));
                if *end <= limit.max(begin) { answer.take() } else { None }
            }
            Self::Move(work) => {
                world(|world| world.pass_by());
                loop {
                    if world(|world| world.has_moved()) {
                        return work.take().map(|work| work());
                    }
                    if time() >= limit {
                        return None;
                    }
                    set(world(|world| world.next_event()).map_or(limit, |next| next.clamp(time(), limit)));
                    world(|world| world.catch_up());
                }
            }
        }
    }
}
