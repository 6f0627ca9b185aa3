//! Why a value is not acceptable, in words that name the limit. Not which field it was: that is the caller's to know.

use std::time::Duration;

use thiserror::Error;

/// A value breaks its rule. The text never repeats the value: it may be long or hostile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ValueError {
    /// Nothing where something is needed.
    #[error("required: {rule}")]
    Missing {
        /// What is needed.
        rule: &'static str,
    },
    /// More characters than allowed.
    #[error("at most {limit} characters, not {found}")]
    TooManyCharacters {
        /// The limit.
        limit: usize,
        /// How many there are.
        found: usize,
    },
    /// More bytes than allowed.
    #[error("{what}: at most {limit} bytes, not {found}")]
    TooManyBytes {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// How many there are.
        found: usize,
    },
    /// More entries than allowed.
    #[error("at most {limit} entries, not {found}")]
    TooManyEntries {
        /// The limit.
        limit: usize,
        /// How many there are.
        found: usize,
    },
    /// A number outside of its range.
    #[error("must be {min} to {max}, not {found}")]
    OutOfRange {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
        /// What it is.
        found: i64,
    },
    /// A duration outside of its range.
    #[error("must be {min:?} to {max:?}, not {found:?}")]
    DurationOutOfRange {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
        /// What it is.
        found: Duration,
    },
    /// Interval times misses is too short to tell a hiccup from a death.
    #[error("interval x misses must be at least {min:?}, not {found:?}")]
    TimeToLiveTooShort {
        /// The shortest.
        min: Duration,
        /// What it is.
        found: Duration,
    },
    /// Not of the right form.
    #[error("must be {rule}")]
    Malformed {
        /// The form.
        rule: &'static str,
    },
    /// One of a map's keys breaks its rule.
    #[error("each key must be {rule}")]
    BadKey {
        /// The rule.
        rule: &'static str,
    },
    /// The same thing twice.
    #[error("the same as {first}; each may occur once")]
    Repeated {
        /// Where it occurred first.
        first: String,
    },
}
