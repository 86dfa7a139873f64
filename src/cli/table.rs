//! Tables for people, and what stands in them.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use std::io::{self, IsTerminal};
use time::OffsetDateTime;
use time::macros::format_description;

/// A table without lines, as the cluster's own tools print them.
pub(super) fn table<S: AsRef<str>>(head: &[S], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
    table.add_rows(rows);
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A moment in seconds since 1970, in UTC: the nodes of a cluster may be set to different zones.
pub(super) fn moment(seconds: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let moment = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    moment.and_then(|moment| moment.format(format).ok()).unwrap_or_default()
}

/// How a line stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// As it is.
    Plain,
    /// To be looked at.
    Yellow,
    /// Wrong.
    Red,
}

/// Whether there are colours at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// On a terminal that has them, if nobody objects (`NO_COLOR`, <https://no-color.org>).
    #[expect(clippy::disallowed_methods, reason = "the edge at which the environment is read")]
    pub(super) fn of_stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self(io::stdout().is_terminal() && !set("NO_COLOR") && !dumb)
    }

    /// A table whose rows are coloured as a whole.
    pub(super) fn table(self, head: &[&str], rows: Vec<(Colour, Vec<String>)>) -> String {
        let colours: Vec<Colour> = rows.iter().map(|(colour, _)| *colour).collect();
        let text = table(head, rows.into_iter().map(|(_, row)| row).collect());
        let colours = std::iter::once(Colour::Plain).chain(colours);
        text.lines().zip(colours).map(|(line, colour)| format!("{}\n", self.line(colour, line))).collect()
    }

    fn line(self, colour: Colour, text: &str) -> String {
        match colour {
            Colour::Yellow if self.0 => format!("\x1b[33m{text}\x1b[0m"),
            Colour::Red if self.0 => format!("\x1b[31m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_where_they_are_wanted() {
        let rows = || vec![(Colour::Plain, vec!["a".into(), "b".into()]), (Colour::Red, vec!["cc".into(), "d".into()])];
        let plain = Paint(false).table(&["X", "Y"], rows());
        assert!(!plain.contains('\x1b') && plain.lines().count() == 3, "{plain}");
        let lines: Vec<String> = Paint(true).table(&["X", "Y"], rows()).lines().map(Into::into).collect();
        assert!(!lines[1].contains('\x1b') && lines[2].starts_with("\x1b[31m") && lines[2].ends_with("\x1b[0m"), "{lines:?}");
    }

    #[test]
    fn moments_are_utc() {
        assert_eq!(moment(1_700_000_000), "2023-11-14 22:13:20");
        assert_eq!(moment(u64::MAX), "");
    }
}
