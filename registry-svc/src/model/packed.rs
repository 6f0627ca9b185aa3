//! Bytes of which there are millions, most of them few: up to 22 lie in the value itself, without an allocation.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// What fits beside the tag and the length in the 24 bytes that the pointer to more would take with its own.
const INLINE: usize = 22;

/// Bytes, compared and hashed by content. Cheap to clone.
#[derive(Clone)]
pub(super) struct Packed(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE]),
    Shared(Arc<[u8]>),
}

impl Packed {
    /// A copy of the bytes.
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(bytes);
                Self(Repr::Inline(len, inline))
            }
            _ => Self(Repr::Shared(bytes.into())),
        }
    }

    /// The bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The text that was packed; empty for what is not text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Packed {}

impl PartialOrd for Packed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// As text is ordered.
impl Ord for Packed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_ones_read_back_and_compare_as_their_bytes_do() {
        let texts: Vec<String> = [0, 1, 21, 22, 23, 255].iter().map(|len| "x".repeat(*len)).collect();
        for (place, text) in texts.iter().enumerate() {
            let packed = Packed::new(text.as_bytes());
            assert_eq!((packed.as_str(), packed.as_bytes()), (text.as_str(), text.as_bytes()));
            for (other_place, other) in texts.iter().enumerate() {
                let other = Packed::new(other.as_bytes());
                assert_eq!(packed.cmp(&other), place.cmp(&other_place));
                assert_eq!(packed == other, place == other_place);
            }
        }
        assert_eq!(std::mem::size_of::<Packed>(), 24);
    }
}
