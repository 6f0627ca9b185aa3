//! The shape of a trace: what is under what, without ids and times, so that a test can write down all of it.

use std::collections::BTreeMap;

use super::Span;

/// A span of what is no call.
pub const INTERNAL: i32 = 1;
/// A span of whoever answers.
pub const SERVER: i32 = 2;
/// A span of whoever asks.
pub const CLIENT: i32 = 3;
/// A span of what sends on and does not wait.
pub const PRODUCER: i32 = 4;
/// A span of whoever takes what was sent on.
pub const CONSUMER: i32 = 5;

/// What a span is, in one line: service, kind and name.
pub type Line = (String, i32, String);
/// The lines of a trace in order, each with its parent's; a root has none.
pub type Tree = Vec<(Line, Option<Line>)>;

/// A line.
pub fn of(service: &str, kind: i32, name: &str) -> Line {
    (service.to_owned(), kind, name.to_owned())
}

/// The tree of these spans. A parent that is not among them counts as none.
pub fn tree<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Tree {
    let by_id: BTreeMap<&str, &Span> = spans.into_iter().map(|span| (span.span_id.as_str(), span)).collect();
    let line = |span: &Span| of(&span.resource["service.name"], span.kind, &span.name);
    let mut tree: Vec<_> = by_id
        .values()
        .map(|span| {
            let parent = by_id.get(span.parent_id.as_str());
            (line(span), parent.map(|parent| line(parent)))
        })
        .collect();
    tree.sort();
    tree
}
