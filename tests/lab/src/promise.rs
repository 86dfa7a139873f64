//! The words by which a test says that a promise was broken: a guest that ran twice, one said to be stopped, moved or off that lives, a write or
//! a memory that is lost, a guest ended or a node fenced without need, a late answer.
//!
//! Once is enough for that: `tests/unsteady` looks for these words, and `tests/run` does not try such a scenario again.

/// What a broken promise begins with.
pub const BROKEN: &str = "promise broken";

/// As `anyhow::ensure!`, for what the software has promised.
#[macro_export]
macro_rules! promised {
    ($kept:expr, $($words:tt)+) => {
        ::anyhow::ensure!($kept, "{}: {}", $crate::promise::BROKEN, ::std::format_args!($($words)+))
    };
}
