//! What commands print: JSON for machines, aligned columns and plain lines for people.

use std::io::{self, IsTerminal, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::shapes::Refused;

/// Standard output, in one of two languages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Is a machine listening?
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints `shape` as one line of JSON, or what `people` makes of it.
    pub(crate) fn show<T: Serialize>(
        self,
        shape: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json { self.json_line(shape) } else { self.line(&people(shape)) }
    }

    /// Prints `shapes` as one JSON array, or as columns under `heads`.
    pub(crate) fn list<T: Serialize>(
        self,
        shapes: &[T],
        heads: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        if self.json {
            return self.json_line(&shapes);
        }
        let rows: Vec<_> = shapes.iter().map(row).collect();
        self.line(columns(heads, &rows).trim_end_matches('\n'))
    }

    /// Prints one JSON text as a line.
    pub(crate) fn json_line<T: Serialize + ?Sized>(self, shape: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(shape)
            .map_err(|error| Failure::internal(format!("cannot render JSON: {error}")))?;
        self.line(&text)
    }

    /// Prints a line.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            // A reader that has seen enough, such as `head`, is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::failed(format!("cannot write to stdout: {error}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Says something beside the answer, on stderr. Nothing depends on it.
    pub(crate) fn note(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Says on stderr why the command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        let text = if self.json {
            let refused = Refused { error: failure.error.clone(), hint: failure.hint.clone() };
            serde_json::to_string(&refused).unwrap_or_default()
        } else {
            let bug = match failure.kind {
                Kind::Internal => " (this should not happen: please report it)",
                Kind::Failed
                | Kind::Usage
                | Kind::NotFound
                | Kind::Conflict
                | Kind::Unavailable => "",
            };
            let hint =
                failure.hint.iter().map(|hint| format!("\n  hint: {hint}")).collect::<String>();
            format!("otter: {}{bug}{hint}", failure.error)
        };
        self.note(&text);
    }

    /// May a progress bar be drawn?
    pub(crate) fn draws(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }
}

/// A time in words, UTC; `never` for 0.
pub(crate) fn time(unix: u64) -> String {
    let Some(timestamp) = i64::try_from(unix).ok().filter(|unix| *unix > 0) else {
        return "never".to_owned();
    };
    Timestamp::from_second(timestamp)
        .map_or_else(|_| unix.to_string(), |t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A text, or `-` for none.
pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// `on` or `off`.
pub(crate) fn on_off(on: bool) -> String {
    if on { "on".to_owned() } else { "off".to_owned() }
}

/// Names and values, one pair a line, values aligned.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{name:width$}  {}", printable(value))).collect();
    lines.join("\n")
}

fn columns(heads: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|at| {
            let cells = std::iter::once(&heads).chain(&rows).filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(&rows) {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What devices sent may hold anything; a terminal must not act on it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let rows = [
            vec!["a".to_owned(), "longer".to_owned()],
            vec!["bbb".to_owned(), "\u{1b}[2J".to_owned()],
        ];
        assert_eq!(columns(&["X", "Y"], &rows), "X    Y\na    longer\nbbb  \u{fffd}[2J\n");
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(time(1_795_478_791), "2026-11-24 00:06:31 UTC");
        assert_eq!(time(0), "never");
        assert_eq!(time(u64::MAX), "never");
    }
}
