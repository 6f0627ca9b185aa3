//! OTLP's protobuf, written by hand: a finished span becomes its bytes at once, and no struct of strings in between. Generated types
//! would copy every key, text and id into a string of its own, and do that again for each try; that was half of what export cost.
//!
//! Only what is sent is written here: `opentelemetry.proto.trace.v1` of OTLP 1.x, fields in the order of their numbers, defaults left
//! out. Answers are read by the generated types, and the tests compare with what those make of the same spans. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, StringValue, Value,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::{Resource, trace::SpanData};

/// Protobuf's wire types, in the low three bits of a field's key.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// `SpanFlags.CONTEXT_HAS_IS_REMOTE_MASK` and `CONTEXT_IS_REMOTE_MASK`.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// What all requests of a process begin with: the resource, made once.
#[derive(Debug)]
pub(crate) struct Envelope {
    resource: Vec<u8>,
    schema_url: Vec<u8>,
}

impl Envelope {
    pub(crate) fn new(resource: &Resource) -> Self {
        let mut attributes = Vec::new();
        for (key, value) in resource.iter() {
            put_attribute(&mut attributes, 1, key.as_str(), value);
        }
        let mut of = Vec::new();
        put_bytes(&mut of, 1, &attributes);
        let mut schema_url = Vec::new();
        put_text(&mut schema_url, 3, resource.schema_url().unwrap_or_default());
        Self {
            resource: of,
            schema_url,
        }
    }

    /// What stands before and after `spans`, of so many bytes, to make an `ExportTraceServiceRequest` of them.
    pub(crate) fn around(&self, scope: &InstrumentationScope, spans: usize) -> (Vec<u8>, Vec<u8>) {
        let mut about = Vec::new();
        put_text(&mut about, 1, scope.name());
        put_text(&mut about, 2, scope.version().unwrap_or_default());
        put_attributes(&mut about, 3, scope.attributes());
        let mut before_spans = Vec::new();
        put_bytes(&mut before_spans, 1, &about);
        let mut after = Vec::new();
        put_text(&mut after, 3, scope.schema_url().unwrap_or_default());
        let scope_spans = before_spans.len() + spans + after.len();
        after.extend_from_slice(&self.schema_url);

        let mut before = self.resource.clone();
        put_key(&mut before, 2, LENGTH);
        put_varint(&mut before, scope_spans as u64);
        before.extend_from_slice(&before_spans);

        let resource_spans = before.len() + spans + after.len();
        let mut head = Vec::with_capacity(before.len() + 8);
        put_key(&mut head, 1, LENGTH);
        put_varint(&mut head, resource_spans as u64);
        head.extend_from_slice(&before);
        (head, after)
    }
}

/// Appends the span as a field of `ScopeSpans`; `scratch` is room to work in.
pub(crate) fn put_span(into: &mut Vec<u8>, scratch: &mut Vec<u8>, span: &SpanData) {
    scratch.clear();
    let context = &span.span_context;
    put_bytes(scratch, 1, &context.trace_id().to_bytes());
    put_bytes(scratch, 2, &context.span_id().to_bytes());
    put_state(scratch, context.trace_state());
    if span.parent_span_id != SpanId::INVALID {
        put_bytes(scratch, 4, &span.parent_span_id.to_bytes());
    }
    put_text(scratch, 5, &span.name);
    put_number(
        scratch,
        6,
        match span.span_kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
            SpanKind::Producer => 4,
            SpanKind::Consumer => 5,
        },
    );
    put_fixed64(scratch, 7, nanos(span.start_time));
    put_fixed64(scratch, 8, nanos(span.end_time));
    put_attributes(scratch, 9, &span.attributes);
    put_number(scratch, 10, span.dropped_attributes_count.into());
    // Most have none of these, and the ones that follow are messages in messages.
    if !span.events.events.is_empty() {
        let mut inner = Vec::new();
        for event in &span.events.events {
            inner.clear();
            put_event(&mut inner, event);
            put_bytes(scratch, 11, &inner);
        }
    }
    put_number(scratch, 12, span.events.dropped_count.into());
    if !span.links.links.is_empty() {
        let mut inner = Vec::new();
        for link in &span.links.links {
            inner.clear();
            put_link(&mut inner, link);
            put_bytes(scratch, 13, &inner);
        }
    }
    put_number(scratch, 14, span.links.dropped_count.into());
    put_status(scratch, &span.status);
    put_fixed32(scratch, 16, flags(context, span.parent_span_is_remote));

    put_bytes(into, 2, scratch);
}

fn put_event(into: &mut Vec<u8>, event: &Event) {
    put_fixed64(into, 1, nanos(event.timestamp));
    put_text(into, 2, &event.name);
    put_attributes(into, 3, &event.attributes);
    put_number(into, 4, event.dropped_attributes_count.into());
}

fn put_link(into: &mut Vec<u8>, link: &Link) {
    let context = &link.span_context;
    put_bytes(into, 1, &context.trace_id().to_bytes());
    put_bytes(into, 2, &context.span_id().to_bytes());
    put_state(into, context.trace_state());
    put_attributes(into, 4, &link.attributes);
    put_number(into, 5, link.dropped_attributes_count.into());
    put_fixed32(into, 6, flags(context, context.is_remote()));
}

fn put_state(into: &mut Vec<u8>, state: &TraceState) {
    // Making its text allocates, and mostly there is none.
    if *state != TraceState::NONE {
        put_text(into, 3, &state.header());
    }
}

fn put_status(into: &mut Vec<u8>, status: &Status) {
    let (code, message) = match status {
        Status::Unset => (0, ""),
        Status::Ok => (1, ""),
        Status::Error { description } => (2, description.as_ref()),
    };
    put_key(into, 15, LENGTH);
    put_varint(into, (text_len(message) + number_len(code)) as u64);
    put_text(into, 2, message);
    put_number(into, 3, code);
}

fn flags(context: &SpanContext, is_remote: bool) -> u32 {
    let remote = if is_remote { IS_REMOTE } else { 0 };
    u32::from(context.trace_flags().to_u8()) | KNOWS_REMOTE | remote
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn put_attributes<'a>(into: &mut Vec<u8>, field: u8, attributes: impl IntoIterator<Item = &'a KeyValue>) {
    for attribute in attributes {
        put_attribute(into, field, attribute.key.as_str(), &attribute.value);
    }
}

/// A `KeyValue`. Lengths come before what they are of, so they are counted first: that is cheaper than moving it.
fn put_attribute(into: &mut Vec<u8>, field: u8, key: &str, value: &Value) {
    let of_value = value_len(value);
    let length = text_len(key) + 1 + varint_len(of_value as u64) + of_value;
    if let Value::String(text) = value
        && length < 0x80
        && !key.is_empty()
        && field < 16
    {
        // Nearly all of them: every key and length is one byte, so they go in by fours.
        let text = text.as_str();
        into.reserve(2 + length);
        into.extend_from_slice(&[field << 3 | LENGTH, length as u8, 1 << 3 | LENGTH, key.len() as u8]);
        into.extend_from_slice(key.as_bytes());
        into.extend_from_slice(&[2 << 3 | LENGTH, of_value as u8, 1 << 3 | LENGTH, text.len() as u8]);
        into.extend_from_slice(text.as_bytes());
        return;
    }
    put_key(into, field, LENGTH);
    put_varint(into, length as u64);
    put_text(into, 1, key);
    put_key(into, 2, LENGTH);
    put_varint(into, of_value as u64);
    put_value(into, value);
}

/// Of an `AnyValue`, which is a `oneof`: its fields are written even where they are a default.
fn value_len(value: &Value) -> usize {
    match value {
        Value::Bool(_) => 2,
        Value::I64(number) => 1 + varint_len(number.cast_unsigned()),
        Value::F64(_) => 9,
        Value::String(text) => length_len(text.as_str().len()),
        Value::Array(array) => length_len(array_len(array)),
        _ => 0,
    }
}

fn put_value(into: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => put_bytes(into, 1, text.as_str().as_bytes()),
        Value::Bool(truth) => into.extend_from_slice(&[2 << 3 | VARINT, u8::from(*truth)]),
        Value::I64(number) => {
            put_key(into, 3, VARINT);
            put_varint(into, number.cast_unsigned());
        }
        Value::F64(number) => {
            put_key(into, 4, FIXED64);
            into.extend_from_slice(&number.to_le_bytes());
        }
        Value::Array(array) => {
            put_key(into, 5, LENGTH);
            put_varint(into, array_len(array) as u64);
            each(array, |value| {
                put_key(into, 1, LENGTH);
                put_varint(into, value_len(value) as u64);
                put_value(into, value);
            });
        }
        // The API calls its enum open and has no others.
        _ => {}
    }
}

fn array_len(array: &Array) -> usize {
    let mut length = 0;
    each(array, |value| length += length_len(value_len(value)));
    length
}

/// Arrays are rare: their values are made for it.
fn each(array: &Array, mut take: impl FnMut(&Value)) {
    match array {
        Array::Bool(all) => all.iter().for_each(|one| take(&Value::Bool(*one))),
        Array::I64(all) => all.iter().for_each(|one| take(&Value::I64(*one))),
        Array::F64(all) => all.iter().for_each(|one| take(&Value::F64(*one))),
        Array::String(all) => all
            .iter()
            .for_each(|one: &StringValue| take(&Value::String(one.clone()))),
        _ => {}
    }
}

/// Of a field below 16 that has a length: its key, that, and itself.
fn length_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { length_len(text.len()) }
}

fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + varint_len(number) }
}

fn varint_len(number: u64) -> usize {
    // Seven bits a byte, and one byte for 0.
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_key(into: &mut Vec<u8>, field: u8, kind: u8) {
    put_varint(into, u64::from(field) << 3 | u64::from(kind));
}

fn put_varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn put_bytes(into: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if field < 16 && bytes.len() < 0x80 {
        into.extend_from_slice(&[field << 3 | LENGTH, bytes.len() as u8]);
    } else {
        put_key(into, field, LENGTH);
        put_varint(into, bytes.len() as u64);
    }
    into.extend_from_slice(bytes);
}

fn put_text(into: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        put_bytes(into, field, text.as_bytes());
    }
}

fn put_number(into: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        put_key(into, field, VARINT);
        put_varint(into, number);
    }
}

fn put_fixed64(into: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        put_key(into, field, FIXED64);
        into.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_fixed32(into: &mut Vec<u8>, field: u8, number: u32) {
    if number != 0 {
        put_key(into, field, FIXED32);
        into.extend_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
