//! JSON that remembers where each value stands. A tree of values and their offsets; what they mean is for `reader`.
//!
//! serde_json reads the text. Its errors know line and column, its values do not; but a raw value is a slice of the text, and
//! where a slice begins is where it stands.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How deep settings nest at most. Far more than any schema here needs; each level reads its text once more.
const MAX_DEPTH: usize = 32;

/// A value, and the offset of its first byte.
#[derive(Debug)]
pub(super) struct Node<'t> {
    pub(super) at: usize,
    pub(super) value: Value<'t>,
}

#[derive(Debug)]
pub(super) enum Value<'t> {
    Null,
    Bool(bool),
    /// As it was written.
    Number(&'t str),
    String(String),
    Array(Vec<Node<'t>>),
    Object(Vec<Member<'t>>, &'t str),
}

/// A member of an object.
#[derive(Debug)]
pub(super) struct Member<'t> {
    pub(super) key: String,
    /// Where the key stands.
    pub(super) key_at: usize,
    pub(super) node: Node<'t>,
}

/// The text is no JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) at: usize,
    pub(super) reason: String,
}

impl Value<'_> {
    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(..) => "an object",
        }
    }
}

/// Reads a text that is one JSON value.
pub(super) fn read(text: &str) -> Result<Node<'_>, Malformed> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| malformed(text, text, &error))?;
    node(text, raw.get(), 0)
}

/// The line and the column, both from 1, of the byte at `offset`; columns count characters.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// Where `part`, a slice of `text`, begins in it.
fn offset_of(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

fn node<'t>(text: &'t str, raw: &'t str, depth: usize) -> Result<Node<'t>, Malformed> {
    let at = offset_of(text, raw);
    let wrong = |error: serde_json::Error| malformed(text, raw, &error);
    if depth > MAX_DEPTH {
        let reason = format!("nested more than {MAX_DEPTH} levels deep");
        return Err(Malformed { at, reason });
    }
    let value = match raw.as_bytes().first() {
        Some(b'{') => {
            let members: Vec<(&RawValue, &RawValue)> = serde_json::Deserializer::from_str(raw)
                .deserialize_map(Members)
                .map_err(wrong)?;
            let members = members.into_iter().map(|(key, value)| {
                Ok(Member {
                    key: serde_json::from_str(key.get()).map_err(|error| malformed(text, key.get(), &error))?,
                    key_at: offset_of(text, key.get()),
                    node: node(text, value.get(), depth + 1)?,
                })
            });
            Value::Object(members.collect::<Result<_, _>>()?, raw)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::Deserializer::from_str(raw)
                .deserialize_seq(Items)
                .map_err(wrong)?;
            let items = items.into_iter().map(|item| node(text, item.get(), depth + 1));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Some(b'"') => Value::String(serde_json::from_str(raw).map_err(wrong)?),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ => Value::Number(raw),
    };
    Ok(Node { at, value })
}

/// An error of serde_json about `part`, with its place in the whole `text`.
fn malformed(text: &str, part: &str, error: &serde_json::Error) -> Malformed {
    // Columns of serde_json count bytes from 1; 0 stands for the newline before.
    let line_start = match error.line() {
        0 | 1 => 0,
        line => part
            .match_indices('\n')
            .nth(line - 2)
            .map_or(0, |(newline, _)| newline + 1),
    };
    let within = (line_start + error.column().saturating_sub(1)).min(part.len());
    let whole = error.to_string();
    // It names the place within the part, which is not the place that helps.
    let reason = whole.split(" at line ").next().unwrap_or(&whole).to_owned();
    Malformed {
        at: offset_of(text, part) + within,
        reason,
    }
}

struct Members;

impl<'t> Visitor<'t> for Members {
    type Value = Vec<(&'t RawValue, &'t RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

struct Items;

impl<'t> Visitor<'t> for Items {
    type Value = Vec<&'t RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place_of(text: &str) -> (usize, usize, String) {
        let malformed = read(text).expect_err("no JSON");
        let (line, column) = position(text, malformed.at);
        (line, column, malformed.reason)
    }

    #[test]
    fn every_value_and_key_knows_where_it_stands() {
        let text = "{\n  \"a\\u0062\": [1,\n    {\"ü\": true}]\n}";
        let Value::Object(members, _) = read(text).expect("good").value else {
            panic!("an object")
        };
        assert_eq!(members[0].key, "ab");
        assert_eq!(position(text, members[0].key_at), (2, 3));
        let Value::Array(items) = &members[0].node.value else {
            panic!("a list")
        };
        assert_eq!(position(text, items[0].at), (2, 15));
        let Value::Object(inner, _) = &items[1].value else {
            panic!("an object")
        };
        assert_eq!(position(text, inner[0].key_at), (3, 6));
        assert_eq!(position(text, inner[0].node.at), (3, 11), "columns count characters");
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let (line, _, reason) = place_of("{\n\"a\": 1,\n\"b\" 2}");
        assert_eq!((line, reason.as_str()), (3, "expected `:`"));
        assert_eq!(place_of("").2, "EOF while parsing a value");
        assert_eq!(place_of("{} {}").2, "trailing characters");
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        assert!(place_of(&deep).2.contains("32 levels"));
        assert_eq!(place_of("[\"\n\"]").0, 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\",:a1n \n\\\\u]{0,40}") {
            if let Err(malformed) = read(&text) {
                position(&text, malformed.at);
            }
        }
    }
}
