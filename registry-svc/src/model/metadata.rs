//! Free pairs of an instance, bounded in number and size.

use std::fmt;

use super::ValueError;
use crate::limits;

const KEY_RULE: &str = "1 to 63 of a-z, 0-9, '.', '_' and '-'";

/// What comes before the two texts of a pair.
const FRAME: usize = 3;

/// Pairs ordered by key; keys are unique. In one piece: the length of the key in a byte, that of the value in two, both texts.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Metadata(Box<[u8]>);

impl Metadata {
    /// At most 64 pairs, values of at most 1,024 bytes, 16 KiB in all. The caller's keys are unique, as a map's are.
    pub(crate) fn try_new(pairs: impl ExactSizeIterator<Item = (String, String)>) -> Result<Self, ValueError> {
        if pairs.len() > limits::METADATA_PAIRS {
            return Err(ValueError::TooManyEntries {
                limit: limits::METADATA_PAIRS,
                found: pairs.len(),
            });
        }
        let mut kept: Vec<(String, String)> = Vec::with_capacity(pairs.len());
        let mut bytes = 0;
        for (key, value) in pairs {
            if !is_key(&key) {
                return Err(ValueError::BadKey { rule: KEY_RULE });
            }
            if value.len() > limits::METADATA_VALUE_BYTES {
                let (limit, found) = (limits::METADATA_VALUE_BYTES, value.len());
                return Err(ValueError::TooManyBytes {
                    what: "each value",
                    limit,
                    found,
                });
            }
            bytes += key.len() + value.len();
            kept.push((key, value));
        }
        if bytes > limits::METADATA_BYTES {
            let limit = limits::METADATA_BYTES;
            return Err(ValueError::TooManyBytes {
                what: "keys and values together",
                limit,
                found: bytes,
            });
        }
        kept.sort_unstable();
        let mut packed = Vec::with_capacity(bytes + kept.len() * FRAME);
        for (key, value) in kept {
            // Bounded above, by 63 and 1,024.
            packed.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
            packed.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
            packed.extend(key.bytes());
            packed.extend(value.bytes());
        }
        Ok(Self(packed.into()))
    }

    /// The pairs, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        self.pairs().map(move |(key, value)| (text(key), text(value)))
    }

    /// Keys and values together, and what frames them on the wire.
    pub(crate) fn bytes(&self) -> usize {
        self.pairs().map(|(key, value)| key.len() + value.len() + 8).sum()
    }

    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (&[key, high, low], after) = rest.split_first_chunk()?;
            let (key, after) = after.split_at_checked(key.into())?;
            let (value, after) = after.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            rest = after;
            Some((key, value))
        })
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn is_key(key: &str) -> bool {
    (1..=limits::METADATA_KEY_CHARS).contains(&key.len())
        && key
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: Vec<(String, String)>) -> Result<Metadata, ValueError> {
        Metadata::try_new(pairs.into_iter())
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn is_bounded_in_every_direction() {
        assert!(check(vec![pair("git.sha", "a\u{1f980}"), pair("a_b-c", "")]).is_ok());
        assert!(check(vec![pair("", "x")]).is_err());
        assert!(check(vec![pair("A", "x")]).is_err());
        assert!(check(vec![pair(&"k".repeat(64), "x")]).is_err());
        assert!(check(vec![pair("k", &"v".repeat(1_024))]).is_ok());
        assert!(check(vec![pair("k", &"v".repeat(1_025))]).is_err());
        let many = |n: usize, size: usize| (0..n).map(|i| pair(&format!("k{i}"), &"v".repeat(size))).collect();
        assert!(check(many(64, 1)).is_ok());
        assert!(check(many(65, 1)).is_err());
        assert!(check(many(15, 1_024)).is_ok());
        assert!(check(many(16, 1_024)).is_err());
    }

    #[test]
    fn pairs_read_back() {
        let pairs = [("a", ""), ("k", "a\u{1f980}"), ("z", &"v".repeat(1_024))];
        let metadata = check(pairs.iter().map(|(k, v)| pair(k, v)).collect()).expect("fits");
        assert_eq!(metadata.iter().collect::<Vec<_>>(), pairs);
        assert_eq!(check(Vec::new()).expect("fits"), Metadata::default());
    }

    #[test]
    fn order_of_arrival_does_not_matter() {
        let one = check(vec![pair("a", "1"), pair("b", "2")]).expect("fits");
        assert_eq!(one, check(vec![pair("b", "2"), pair("a", "1")]).expect("fits"));
    }
}
