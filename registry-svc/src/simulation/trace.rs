//! What happened, for people: one line an event, with the time, who and what. Off while thousands of histories run, on when one
//! of them is run again.

use std::{collections::VecDeque, fmt};

use super::Time;

/// The lines that a failure prints.
pub(super) const TAIL: usize = 40;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trace {
    on: bool,
    all: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// Keeps nothing, the last [`TAIL`] lines, or everything.
    pub(super) fn new(on: bool, all: bool) -> Self {
        Self {
            on: on || all,
            all,
            lines: VecDeque::new(),
        }
    }

    /// Whether a line is worth making.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Another line.
    pub(super) fn line(&mut self, now: Time, who: fmt::Arguments<'_>, what: fmt::Arguments<'_>) {
        if !self.all && self.lines.len() == TAIL {
            self.lines.pop_front();
        }
        let who = who.to_string();
        self.lines
            .push_back(format!("{:>10.4}  {who:<12}  {what}", now.as_secs_f64()));
    }

    /// All that is kept.
    pub(super) fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}
