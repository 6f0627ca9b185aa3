//! What the process prints. Results go to stdout, as a table or text for people or as JSON for machines; everything
//! about the way there goes to stderr. Colour reaches terminals only, and not where NO_COLOR is set. A reader that
//! leaves ends the command quietly instead of in a panic, which is why nothing here uses `println!`.

mod table;
mod text;

pub(crate) use self::{
    table::Table,
    text::{count, duration, instant, money, one_of, plain, timestamp},
};

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::{args::Format, failure::Failure};

/// Where results go, in the format that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    /// Prints results in `format`.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether people read it.
    pub(crate) fn is_for_people(self) -> bool {
        self.format == Format::Table
    }

    /// Prints a result: the whole of it, or one of a stream. The JSON is always one line.
    pub(crate) fn print<T: Serialize>(&self, value: &T, human: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => write_stdout(&human()),
            Format::Json => self.json(value, Layout::Line),
        }
    }

    /// Prints what is JSON for people too.
    pub(crate) fn json<T: Serialize>(&self, value: &T, layout: Layout) -> Result<(), Failure> {
        let rendered = match (layout, self.format) {
            (Layout::Readable, Format::Table) => serde_json::to_string_pretty(value),
            _ => serde_json::to_string(value),
        };
        let text = rendered.map_err(|error| Failure::new("the result cannot be written as JSON").because(&error))?;
        write_stdout(&escaped(text))
    }
}

/// JSON must escape the control characters of ASCII only, and there are more. Outside of its texts JSON has none of these,
/// so wherever one is, its escape means the same.
fn escaped(json: String) -> String {
    let steers = |letter: char| letter.is_control() && letter != '\n';
    if !json.contains(steers) {
        return json;
    }
    json.chars().fold(String::new(), |mut text, letter| {
        if steers(letter) {
            text.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            text.push(letter);
        }
        text
    })
}

/// How JSON is laid out for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One document on one line.
    Line,
    /// Indented, unless a machine asked.
    Readable,
}

/// Writes one line, or several, to stdout.
pub(crate) fn write_stdout(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    out.flush()?;
    Ok(())
}

/// Writes a remark to stderr. There is nobody to tell when that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Whether a person looks at stderr, so that a line may be redrawn.
pub(crate) fn is_interactive() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    /// U+009B begins a control sequence on many terminals, and serde_json writes it as it is.
    #[test]
    fn json_does_not_steer_the_terminal_and_means_the_same() {
        let value = serde_json::json!({ "title": "a\u{9b}31m\u{7f}\u{1b}é" });
        let text = escaped(serde_json::to_string_pretty(&value).expect("JSON"));
        assert!(
            text.chars().all(|letter| letter == '\n' || !letter.is_control()),
            "{text:?}"
        );
        let again: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(again, value);
    }
}
