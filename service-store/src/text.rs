//! Bounded text from outside. Not about what the text means.

use std::fmt;

/// Why a value is not taken; its Display names the limit, for a `BadRequest` violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// Text of 1 to `MAX` characters without control characters (they forge log lines and terminals), trimmed.
#[derive(Clone, PartialEq, Eq)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// Takes `text`, trimmed, if it keeps the limits.
    ///
    /// # Errors
    /// [`OutOfLimits`], which names them.
    pub fn try_new(text: &str) -> Result<Self, OutOfLimits<MAX>> {
        let text = text.trim();
        let length = text.chars().count();
        if length == 0 || length > MAX || text.chars().any(char::is_control) {
            return Err(OutOfLimits);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

/// The text is empty, too long, or has control characters.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {MAX} characters, none of them control characters")]
pub struct OutOfLimits<const MAX: usize>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_trimmed_and_bounded_in_characters_not_bytes() {
        assert_eq!(Text::<3>::try_new("  äöü ").expect("three characters").as_str(), "äöü");
        for bad in ["", "   ", "abcd", "a\nb", "a\u{7}"] {
            assert_eq!(Text::<3>::try_new(bad), Err(OutOfLimits), "{bad:?}");
        }
    }
}
