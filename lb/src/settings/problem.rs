//! What is wrong with a service config, and where. Values only.

use std::fmt;

/// A service config that was refused, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidServiceConfig {
    problems: Vec<Problem>,
}

/// One thing that is wrong with a service config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    spot: Spot,
    message: String,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) path: String,
}

impl Spot {
    /// The place at a line and a column, from 1, of the text that begins here.
    pub(crate) fn within(mut self, line: usize, column: usize) -> Self {
        if line > 1 {
            self.line += line - 1;
            self.column = column.max(1);
        } else {
            self.column += column.saturating_sub(1);
        }
        self
    }
}

impl InvalidServiceConfig {
    /// `problems` is not empty.
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// In the order in which they were found; twenty at most, never none.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl Problem {
    pub(crate) fn new(spot: Spot, message: impl Into<String>) -> Self {
        Self {
            spot,
            message: message.into(),
        }
    }

    /// The line of the value or the name that is wrong, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.spot.line
    }

    /// Its column, from 1, in characters.
    #[must_use]
    pub fn column(&self) -> usize {
        self.spot.column
    }

    /// The names that lead there, as `methodConfig[2].retryPolicy.maxAttempts`; empty for the whole text.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.spot.path
    }

    /// What is wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line(), self.column())?;
        if !self.path().is_empty() {
            write!(f, "{} ", self.path())?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for InvalidServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}
