//! The fence agent `fence_kvmha`. This version has none: every action fails, so that nothing is ever taken for fenced.

use crate::log;
use std::ffi::OsString;

/// Fails, whatever is asked: a fence agent that cannot prove that a guest is off must not say so.
#[must_use]
pub fn run(_words: &[OsString]) -> u8 {
    log::complain("fence_kvmha: fencing is not part of this version");
    1
}
