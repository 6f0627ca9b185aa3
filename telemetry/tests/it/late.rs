//! Traces that nobody records: what goes wrong in them, or takes long, is told all the same.

use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _};
use telemetry::{
    Context,
    client::{AttemptKind, CallSpan, Peer},
    propagation, semconv,
    testing::{SpanData, Spans, install_in_memory},
};

/// A caller whose trace is not recorded.
fn unrecorded() -> (Context, String, Spans) {
    let spans = install_in_memory();
    let trace = propagation::trace_id(&propagation::ensure_trace(&Context::new())).expect("valid");
    let mut headers = http::HeaderMap::new();
    let parent = format!("00-{trace}-00f067aa0ba902b7-00");
    headers.insert("traceparent", parent.parse().expect("a header"));
    (propagation::extract(&headers), trace, spans)
}

fn peer() -> Peer<'static> {
    Peer {
        address: "10.0.0.1:7101",
        instance_id: "t-1",
        ..Peer::default()
    }
}

fn text(span: &SpanData, key: &str) -> Option<String> {
    Spans::attribute(span, key)
}

/// One test, since the budget for such spans is one for the process.
#[test]
fn what_goes_wrong_is_told_within_a_budget_and_nothing_else_is() {
    let (parent, trace, spans) = unrecorded();
    let call = CallSpan::start_in(&parent, "/pkg.Svc/Well", "ticket-svc");
    let attempt = call.attempt(1, AttemptKind::First, peer());
    assert!(!attempt.context().span().is_recording());
    let mut headers = http::HeaderMap::new();
    attempt.inject(&mut headers);
    assert!(
        headers["traceparent"].to_str().expect("text").ends_with("-00"),
        "and nobody behind it records it"
    );
    attempt.finish(0);
    call.finish(0);
    assert_eq!(spans.of_trace(&trace).len(), 0);

    let call = CallSpan::start_in(&parent, "/pkg.Svc/Retried", "ticket-svc");
    call.attempt(1, AttemptKind::First, peer()).finish(14);
    call.attempt(2, AttemptKind::Retry, peer()).finish(0);
    call.finish(0);
    let told = spans.of_trace(&trace);
    let names: Vec<&str> = told.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["Attempt.pkg.Svc/Retried", "pkg.Svc/Retried"]);
    for span in &told {
        assert_eq!(text(span, semconv::LATE).as_deref(), Some("true"));
        assert_eq!(span.parent_span_id, parent.span().span_context().span_id());
        assert_eq!(span.span_kind, SpanKind::Client);
        assert!(span.start_time <= span.end_time);
    }
    assert_eq!(text(&told[0], semconv::PEER_INSTANCE_ID).as_deref(), Some("t-1"));
    assert_eq!(
        text(&told[0], semconv::RPC_RESPONSE_STATUS_CODE).as_deref(),
        Some("UNAVAILABLE")
    );
    assert_eq!(told[0].status, Status::error("UNAVAILABLE"));
    assert_eq!(told[1].status, Status::Unset);

    for _ in 0..1_000 {
        CallSpan::start_in(&parent, "/pkg.Svc/Do", "ticket-svc").finish(14);
    }
    let told = spans.of_trace(&trace).len() - told.len();
    assert!((1..500).contains(&told), "{told} of 1,000 at once, at ten a second");
}
