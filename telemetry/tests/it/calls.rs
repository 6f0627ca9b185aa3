//! The client helpers: one span a call, one a try, the server's span below the try.

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _};
use telemetry::{
    client::{AttemptKind, CallSpan, Peer},
    deadline::Deadline,
    propagation, semconv,
    testing::{SpanData, Spans},
};

use crate::support::{new_trace, status};

fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    spans
        .iter()
        .find(|span| span.name == name)
        .unwrap_or_else(|| panic!("no span {name} in {spans:?}"))
}

#[test]
fn attempts_are_children_of_the_call_and_parents_of_the_server() {
    let (parent, id, spans) = new_trace();
    let call = CallSpan::start_in(&parent, "/pkg.Svc/Do", "ticket-svc");
    let first = call.attempt(
        1,
        AttemptKind::First,
        Peer {
            address: "10.0.0.1:7101",
            instance_id: "t-1",
            zone: "z-1",
            version: "1.0.1",
        },
    );
    first.finish(14);
    let second = call.attempt(
        2,
        AttemptKind::Retry,
        Peer {
            address: "10.0.0.2:7102",
            instance_id: "t-2",
            zone: "z-2",
            version: "1.0.2",
        },
    );
    let mut headers = HeaderMap::new();
    second.inject(&mut headers);
    let below = propagation::extract(&headers);
    second.finish_with(&status(0));
    call.finish(0);

    let spans = spans.of_trace(&id);
    assert_eq!(spans.len(), 3);
    let call = named(&spans, "pkg.Svc/Do");
    assert_eq!(call.parent_span_id, parent.span().span_context().span_id());
    assert_eq!(call.span_kind, SpanKind::Client);
    assert_eq!(call.status, Status::Unset);
    for (key, value) in [
        (semconv::SERVER_ADDRESS, "ticket-svc"),
        (semconv::RPC_RESPONSE_STATUS_CODE, "OK"),
    ] {
        assert_eq!(Spans::attribute(call, key).as_deref(), Some(value), "{key}");
    }
    let attempts: Vec<&SpanData> = spans.iter().filter(|span| span.name == "Attempt.pkg.Svc/Do").collect();
    assert_eq!(attempts.len(), 2);
    for (attempt, n, code, port, instance) in [
        (attempts[0], "1", "UNAVAILABLE", "7101", "t-1"),
        (attempts[1], "2", "OK", "7102", "t-2"),
    ] {
        assert_eq!(attempt.parent_span_id, call.span_context.span_id());
        for (key, value) in [
            (semconv::ATTEMPT, n),
            (semconv::RPC_RESPONSE_STATUS_CODE, code),
            (semconv::NETWORK_PEER_PORT, port),
            (semconv::PEER_INSTANCE_ID, instance),
            (semconv::PEER_ZONE, &format!("z-{n}")),
            (semconv::PEER_VERSION, &format!("1.0.{n}")),
        ] {
            assert_eq!(Spans::attribute(attempt, key).as_deref(), Some(value), "{key}");
        }
    }
    assert_eq!(Spans::attribute(attempts[0], semconv::ATTEMPT_KIND), None);
    assert_eq!(
        Spans::attribute(attempts[1], semconv::ATTEMPT_KIND).as_deref(),
        Some("retry")
    );
    assert_eq!(Spans::attribute(call, semconv::ATTEMPTS).as_deref(), Some("2"));
    assert_eq!(attempts[0].status, Status::error("UNAVAILABLE"));
    assert_eq!(
        below.span().span_context().span_id(),
        attempts[1].span_context.span_id()
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_call_was_given_and_what_it_left_are_on_it() {
    let (parent, id, spans) = new_trace();
    let mut call = CallSpan::start_in(&parent, "/pkg.Svc/Bounded", "ticket-svc");
    call.has_deadline(Some(Deadline::after(Duration::from_secs(2))));
    let mut attempt = call.attempt(1, AttemptKind::First, Peer::default());
    for _ in 0..3 {
        attempt.received(b"\0\0\0\0\x03abc");
    }
    attempt.finish(0);
    call.finish(0);
    let spans = spans.of_trace(&id);
    let (call, attempt) = (
        named(&spans, "pkg.Svc/Bounded"),
        named(&spans, "Attempt.pkg.Svc/Bounded"),
    );
    let number = |span: &SpanData, key: &str| {
        Spans::attribute(span, key)
            .expect(key)
            .parse::<i64>()
            .expect("a number")
    };
    assert_eq!(number(call, semconv::DEADLINE_BUDGET_MS), 2_000);
    let left = number(call, semconv::DEADLINE_LEFT_MS);
    assert!((0..=2_000).contains(&left), "{left}");
    assert_eq!(number(attempt, semconv::RECEIVED_MESSAGES), 3);
}

#[test]
fn a_call_that_is_dropped_was_cancelled() {
    let (parent, id, spans) = new_trace();
    let call = CallSpan::start_in(&parent, "/pkg.Svc/Dropped", "ticket-svc");
    let attempt = call.attempt(
        1,
        AttemptKind::First,
        Peer {
            address: "10.0.0.1:7101",
            ..Peer::default()
        },
    );
    drop(attempt);
    drop(call);
    let spans = spans.of_trace(&id);
    assert_eq!(spans.len(), 2);
    for span in &spans {
        assert_eq!(
            Spans::attribute(span, semconv::RPC_RESPONSE_STATUS_CODE).as_deref(),
            Some("CANCELLED")
        );
        assert_eq!(
            span.status,
            Status::error("CANCELLED"),
            "on a client everything but OK is an error"
        );
    }
}

#[test]
fn a_call_without_a_parent_starts_a_trace() {
    let spans = telemetry::testing::install_in_memory();
    let call = CallSpan::start("/pkg.Svc/Root", "ticket-svc");
    let id = propagation::trace_id(call.context()).expect("valid");
    call.finish(0);
    let found = spans.of_trace(&id);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].parent_span_id, opentelemetry::trace::SpanId::INVALID);
}

#[test]
fn durations_are_measured_by_target() {
    let (parent, _, _) = new_trace();
    CallSpan::start_in(&parent, "/pkg.Svc/ClientMeasured", "user-svc").finish(4);
    let text = telemetry::metrics::encode();
    let series = "rpc_client_call_duration_seconds_count{server_address=\"user-svc\",rpc_method=\"pkg.Svc/ClientMeasured\",\
                  rpc_response_status_code=\"DEADLINE_EXCEEDED\"} 1";
    assert!(text.contains(series), "{text}");
}
