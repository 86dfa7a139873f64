//! The table of the resource agent's parameters: one row describes one parameter, and nothing else describes it.

mod inherited;
mod own;

use super::parameters::Parameters;
use crate::parameter::{Change, Concerns, Kind, Parameter, Sharing, integer};

/// The parameters, in the order of the metadata.
pub fn rows() -> impl Iterator<Item = &'static Parameter<Parameters>> {
    inherited::ROWS.iter().chain(own::ROWS)
}

/// A row with the most frequent properties; the others are changed at the row.
const fn row(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    texts: [&'static str; 2],
    set: Setter,
) -> Parameter<Parameters> {
    let [short, long] = texts;
    let (sharing, change, concerns) = (Sharing::Shared, Change::Reloads, Concerns::Other);
    Parameter { name, kind, required: false, sharing, change, concerns, default, short, long, set }
}

/// Like [`row`], but of a parameter that a move needs: without its right value the guest would be moved elsewhere, or in another way, than was asked
/// for.
const fn of_move(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    texts: [&'static str; 2],
    set: Setter,
) -> Parameter<Parameters> {
    Parameter { concerns: Concerns::Move, ..row(name, kind, default, texts, set) }
}

/// Puts a value into its field.
type Setter = fn(&mut Parameters, &str) -> Result<(), String>;

/// The greatest number, and the longest time, of those that have no limit of their own.
const MOST: u64 = u32::MAX as u64;
const NUMBER: Kind = Kind::Integer { min: 0, max: MOST };
const SECONDS: Kind = Kind::Seconds { min: 0, max: MOST };

fn number(value: &str) -> Result<u64, String> {
    integer(value, 0, MOST)
}
