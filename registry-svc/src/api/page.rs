//! Pages: how large they are and where the next one begins.
//!
//! A token names the last entry that was told, so pages stay right while the list changes: what was there all the time is
//! told exactly once. It is opaque to clients and only good for the request that it came from.

use std::fmt::Write as _;
use std::hash::Hash;

use prost::Message;

use super::{fingerprint::fingerprint, validate::Violations};
use crate::{limits, model::ValueError};

/// Bytes of the request's fingerprint in a token: enough to notice a mix-up, which is all it is for.
const FILTER_BYTES: usize = 8;
const TOKEN_RULE: &str = "must be the next_page_token of an answer to the same request";

/// What a token says.
#[derive(Clone, PartialEq, Message)]
struct Token {
    #[prost(bytes = "vec", tag = "1")]
    filter: Vec<u8>,
    #[prost(string, repeated, tag = "2")]
    last: Vec<String>,
}

/// A page that is asked for.
#[derive(Debug)]
pub(super) struct Page {
    /// At most so many entries; at least 1.
    pub(super) size: usize,
    /// The last entry of the page before, as [`token`] was given it.
    pub(super) after: Option<Vec<String>>,
}

impl Page {
    /// `filter` is what the request selects, if that is well; `parts` how many names make an entry.
    pub(super) fn parse(
        violations: &mut Violations,
        size: i32,
        token: &str,
        filter: Option<&impl Hash>,
        parts: usize,
    ) -> Option<Self> {
        let size = match usize::try_from(size) {
            Ok(0) => Ok(limits::PAGE_DEFAULT),
            Ok(size) if size <= limits::PAGE_MAX => Ok(size),
            _ => Err(ValueError::OutOfRange {
                min: 1,
                max: limits::PAGE_MAX as u64,
                found: size.into(),
            }),
        };
        let size = violations.check("page_size", size);
        let after = match token {
            "" => Some(None),
            token => {
                let after = filter.and_then(|filter| read(token, &short(filter), parts));
                violations.check("page_token", after.ok_or(TOKEN_RULE)).map(Some)
            }
        };
        Some(Self {
            size: size?,
            after: after?,
        })
    }
}

/// The token of the page that begins after `last`, of a request that selects `filter`.
pub(super) fn token(filter: &impl Hash, last: Vec<String>) -> String {
    let bytes = Token {
        filter: short(filter),
        last,
    }
    .encode_to_vec();
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Only where there is a token: most lists have one page.
fn short(filter: &impl Hash) -> Vec<u8> {
    fingerprint(filter).into_iter().take(FILTER_BYTES).collect()
}

fn read(token: &str, filter: &[u8], parts: usize) -> Option<Vec<String>> {
    if token.len() > limits::PAGE_TOKEN_CHARS || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Option<Vec<u8>> = (0..token.len())
        .step_by(2)
        .map(|at| token.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    let token = Token::decode(bytes?.as_slice()).ok()?;
    (token.filter == filter && token.last.len() == parts).then_some(token.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(token: &str, filter: &str) -> Option<Page> {
        let mut violations = Violations::default();
        let page = Page::parse(&mut violations, 0, token, Some(&filter), 2);
        assert_eq!(page.is_some(), violations.is_empty(), "an error names its field");
        page
    }

    #[test]
    fn tokens_read_back_for_their_own_request_alone() {
        let last = vec!["ticket-svc".to_owned(), "t-1".to_owned()];
        let token = token(&"a", last.clone());
        assert_eq!(parse(&token, "a").expect("the next page").after, Some(last));
        assert!(parse(&token, "b").is_none(), "another request");
        assert!(
            Page::parse(&mut Violations::default(), 0, &token, Some(&"a"), 1).is_none(),
            "another kind of list"
        );
        for garbage in ["x", "zz", "0", "00", "é", &token[1..], &"0".repeat(2_000)] {
            assert!(parse(garbage, "a").is_none(), "{garbage:?}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        for (size, expected) in [
            (0, Some(100)),
            (1, Some(1)),
            (1_000, Some(1_000)),
            (1_001, None),
            (-1, None),
        ] {
            let page = Page::parse(&mut Violations::default(), size, "", Some(&()), 1);
            assert_eq!(page.map(|page| page.size), expected, "{size}");
        }
    }
}
