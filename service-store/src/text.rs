//! Bounded text from outside. Not about what the text means.

use std::fmt;

/// Why a value is not taken; its Display names the limit, for a `BadRequest` violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// Text of 1 to `MAX` characters, trimmed, without control characters (they forge log lines and terminals) and without marks that
/// turn the direction of what follows (they make a name read as another one). Hebrew and Arabic need no such marks in a name.
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
        if length == 0 || length > MAX || text.chars().any(is_deceptive) {
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

/// Control characters, and those of Unicode's Bidi_Control and its separators of lines and paragraphs, which `is_control` leaves out.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

/// The text is empty, too long, or has control characters or marks of direction.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {MAX} characters, none of them control characters or marks of direction")]
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

    /// With U+202E a title reads backwards in a list, and with U+2066 it hides what stands after it.
    #[test]
    fn marks_that_turn_the_direction_are_refused_and_letters_from_right_to_left_are_not() {
        for mark in "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}".chars() {
            assert_eq!(Text::<9>::try_new(&format!("a{mark}b")), Err(OutOfLimits), "{mark:?}");
        }
        for good in ["שלום", "سلام", "👩\u{200d}🚀"] {
            assert_eq!(Text::<9>::try_new(good).expect("a name").as_str(), good);
        }
    }
}
