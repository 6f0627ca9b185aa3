//! The one refusal of a number that makes no sense as a setting. Which numbers do is said where the setting is.

use std::{fmt, time::Duration};

/// For ever, as far as a process goes: no instant overflows by it, as it would by [`Duration::MAX`].
pub(crate) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A setting outside of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {allowed}, not {given}")]
#[non_exhaustive]
pub struct OutOfRange {
    /// Which setting, in words.
    pub setting: &'static str,
    /// What it may be.
    pub allowed: &'static str,
    /// What it was to be.
    pub given: String,
}

/// `value` if that is `allowed`.
pub(crate) fn check<T: fmt::Debug>(
    setting: &'static str,
    allowed: &'static str,
    value: T,
    is_allowed: impl FnOnce(&T) -> bool,
) -> Result<T, OutOfRange> {
    if is_allowed(&value) {
        Ok(value)
    } else {
        Err(OutOfRange {
            setting,
            allowed,
            given: format!("{value:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_would_do() {
        let refused = check("the interval", "above zero", 0, |is| *is > 0).expect_err("refused");
        assert_eq!(refused.to_string(), "the interval must be above zero, not 0");
        assert_eq!(check("the interval", "above zero", 1, |is| *is > 0), Ok(1));
    }
}
