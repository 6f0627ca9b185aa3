//! The name of a watch. What it has been told and has acknowledged is the hub's to know.

use std::fmt;

/// Names an open watch: 128 random bits, 32 hexadecimal digits on the wire. Who knows it may acknowledge for it, so it is not to
/// be guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WatchId(u128);

impl WatchId {
    /// From its random bits.
    pub(crate) fn from_random(bits: u128) -> Self {
        Self(bits)
    }

    /// `None` for what we cannot have given.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let canonical = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !canonical {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_gave_is_read_and_nothing_else() {
        let id = WatchId::from_random(0xab);
        assert_eq!(WatchId::parse(&id.to_string()), Some(id));
        let long = format!("{id}0");
        for text in [
            "",
            "ab",
            "+00000000000000000000000000000ab",
            &long,
            &id.to_string().to_uppercase(),
        ] {
            assert_eq!(WatchId::parse(text), None, "{text}");
        }
    }
}
