//! What is written by hand is what the generated types write, byte for byte, and what they read back.

use std::{borrow::Cow, time::Duration};

use opentelemetry::trace::{TraceFlags, TraceId};
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

use super::*;

fn value() -> impl Strategy<Value = opentelemetry::Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![any::<i64>(), -3_i64..300].prop_map(Value::I64),
        prop_oneof![(-1e300..1e300), Just(0.0)].prop_map(Value::F64),
        ".{0,40}".prop_map(|text| Value::String(text.into())),
        // Longer than one byte of a length tells, and than two.
        (100_usize..20_000).prop_map(|length| Value::String("x".repeat(length).into())),
        vec(any::<bool>(), 0..4).prop_map(|all| Value::Array(Array::Bool(all))),
        vec(any::<i64>(), 0..4).prop_map(|all| Value::Array(Array::I64(all))),
        vec(-1e9..1e9, 0..4).prop_map(|all| Value::Array(Array::F64(all))),
        vec(".{0,9}", 0..4)
            .prop_map(|all| Value::Array(Array::String(all.into_iter().map(StringValue::from).collect()))),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec((".{0,30}", value()), 0..6)
        .prop_map(|all| all.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect())
}

fn context() -> impl Strategy<Value = SpanContext> {
    (any::<u128>(), any::<u64>(), any::<u8>(), any::<bool>(), any::<bool>()).prop_map(
        |(trace, span, flags, is_remote, has_state)| {
            let state = if has_state {
                TraceState::from_key_value([("a", "1"), ("b", "2")]).expect("valid")
            } else {
                TraceState::NONE
            };
            SpanContext::new(
                TraceId::from(trace),
                SpanId::from(span),
                TraceFlags::new(flags),
                is_remote,
                state,
            )
        },
    )
}

fn time() -> impl Strategy<Value = SystemTime> {
    prop_oneof![
        Just(UNIX_EPOCH),
        any::<u32>().prop_map(|nanos| {
            UNIX_EPOCH + Duration::from_secs(1_790_000_000) + Duration::from_nanos(u64::from(nanos))
        })
    ]
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Unset), Just(Status::Ok), ".{0,20}".prop_map(Status::error),]
}

prop_compose! {
    fn event()(name in ".{0,20}", timestamp in time(), attributes in attributes(), dropped in 0_u32..3) -> Event {
        Event::new(name, timestamp, attributes, dropped)
    }
}

prop_compose! {
    fn link()(context in context(), attributes in attributes(), dropped in 0_u32..3) -> Link {
        Link::new(context, attributes, dropped)
    }
}

prop_compose! {
    fn span()(
        span_context in context(),
        parent in prop_oneof![Just(0_u64), any::<u64>()],
        parent_span_is_remote in any::<bool>(),
        kind in 0_usize..5,
        name in ".{0,60}",
        times in (time(), time()),
        attributes in attributes(),
        dropped in (0_u32..200, 0_u32..2, 0_u32..2),
        all_events in vec(event(), 0..3),
        all_links in vec(link(), 0..3),
        status in status(),
    ) -> SpanData {
        let kinds = [SpanKind::Client, SpanKind::Server, SpanKind::Producer, SpanKind::Consumer, SpanKind::Internal];
        let mut events = SpanEvents::default();
        events.events = all_events;
        events.dropped_count = dropped.1;
        let mut links = SpanLinks::default();
        links.links = all_links;
        links.dropped_count = dropped.2;
        SpanData {
            span_context,
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote,
            span_kind: kinds[kind].clone(),
            name: Cow::Owned(name),
            start_time: times.0,
            end_time: times.1,
            attributes,
            dropped_attributes_count: dropped.0,
            events,
            links,
            status,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }
}

fn scopes() -> [InstrumentationScope; 2] {
    [
        InstrumentationScope::builder("tessera").build(),
        InstrumentationScope::builder("other")
            .with_version("1.2")
            .with_schema_url("https://example.com/2")
            .with_attributes([KeyValue::new("a", 1)])
            .build(),
    ]
}

fn resources() -> [Resource; 2] {
    let named = [
        KeyValue::new("service.name", "ticket-svc"),
        KeyValue::new("process.pid", 7),
    ];
    [
        Resource::builder_empty().build(),
        Resource::builder_empty()
            .with_schema_url(named, "https://example.com/1")
            .build(),
    ]
}

/// The whole request, as it is sent.
fn written(resource: &Resource, scope: &InstrumentationScope, spans: &[SpanData]) -> Vec<u8> {
    let (mut body, mut scratch) = (Vec::new(), Vec::new());
    for span in spans {
        put_span(&mut body, &mut scratch, span);
    }
    let (mut all, after) = Envelope::new(resource).around(scope, body.len());
    all.extend_from_slice(&body);
    all.extend_from_slice(&after);
    all
}

proptest! {
    #[test]
    fn it_is_what_the_generated_types_write(
        mut spans in vec(span(), 1..5),
        scope in 0_usize..2,
        resource in 0_usize..2,
    ) {
        let (scope, resource) = (scopes()[scope].clone(), resources()[resource].clone());
        for span in &mut spans {
            span.instrumentation_scope = scope.clone();
        }
        let ours = written(&resource, &scope, &spans);
        let theirs = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(spans, &ResourceAttributesWithSchema::from(&resource)),
        };
        let read = ExportTraceServiceRequest::decode(ours.as_slice()).expect("it is a message");
        prop_assert_eq!(&read, &theirs);
        prop_assert_eq!(ours, theirs.encode_to_vec());
    }

    #[test]
    fn lengths_are_those_of_what_is_written(number in prop_oneof![any::<u64>(), 0_u64..20_000]) {
        let mut written = Vec::new();
        put_varint(&mut written, number);
        prop_assert_eq!(varint_len(number), written.len());
    }
}
