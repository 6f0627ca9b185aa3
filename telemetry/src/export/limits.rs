//! How long a text of a span may be (`OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`), which the Rust SDK does not look at. Pure.

use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

/// In characters; `None`: as long as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lengths(pub(crate) Option<usize>);

impl Lengths {
    /// Cuts what is longer.
    pub(crate) fn cut(self, span: &mut SpanData) {
        let Some(most) = self.0 else { return };
        cut_all(&mut span.attributes, most);
        for event in &mut span.events.events {
            cut_all(&mut event.attributes, most);
        }
        for link in &mut span.links.links {
            cut_all(&mut link.attributes, most);
        }
    }
}

fn cut_all(attributes: &mut [KeyValue], most: usize) {
    for attribute in attributes {
        match &mut attribute.value {
            Value::String(text) => cut(text, most),
            Value::Array(Array::String(texts)) => texts.iter_mut().for_each(|text| cut(text, most)),
            _ => {}
        }
    }
}

fn cut(text: &mut StringValue, most: usize) {
    if let Some((end, _)) = text.as_str().char_indices().nth(most) {
        *text = text.as_str()[..end].to_owned().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_characters() {
        let mut attributes = vec![
            KeyValue::new("a", "äöüß"),
            KeyValue::new("b", "äö"),
            KeyValue::new("c", 12_345),
            KeyValue::new("d", Value::Array(vec![StringValue::from("abc")].into())),
        ];
        cut_all(&mut attributes, 2);
        let texts: Vec<String> = attributes.iter().map(|attribute| attribute.value.to_string()).collect();
        assert_eq!(texts, ["äö", "äö", "12345", "[\"ab\"]"]);
    }
}
