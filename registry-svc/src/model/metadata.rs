//! Free pairs of an instance, bounded in number and size.

use super::ValueError;
use crate::limits;

const KEY_RULE: &str = "1 to 63 of a-z, 0-9, '.', '_' and '-'";

/// Pairs ordered by key; keys are unique.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Metadata(Box<[(Box<str>, Box<str>)]>);

impl Metadata {
    /// At most 64 pairs, values of at most 1,024 bytes, 16 KiB in all. The caller's keys are unique, as a map's are.
    pub(crate) fn try_new(pairs: impl ExactSizeIterator<Item = (String, String)>) -> Result<Self, ValueError> {
        if pairs.len() > limits::METADATA_PAIRS {
            return Err(ValueError::TooManyEntries {
                limit: limits::METADATA_PAIRS,
                found: pairs.len(),
            });
        }
        let mut kept: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(pairs.len());
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
            kept.push((key.into(), value.into()));
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
        Ok(Self(kept.into()))
    }

    /// The pairs, by key.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Keys and values together.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(|(key, value)| key.len() + value.len()).sum()
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
    fn order_of_arrival_does_not_matter() {
        let one = check(vec![pair("a", "1"), pair("b", "2")]).expect("fits");
        assert_eq!(one, check(vec![pair("b", "2"), pair("a", "1")]).expect("fits"));
    }
}
