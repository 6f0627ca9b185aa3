//! The server's span, seen through the whole stack: it shows what the caller got.

use std::time::Duration;

use telemetry::{propagation, semconv, testing::Spans};

use crate::support::{client::ask, config, eventually, server_and_client};

#[tokio::test]
async fn a_span_shows_what_the_caller_got() {
    let spans = telemetry::testing::install_in_memory();
    let (_running, client) = server_and_client(config()).await;
    for (text, timeout, code) in [
        ("hello", None, "OK"),
        ("not found", None, "NOT_FOUND"),
        ("panic", None, "INTERNAL"),
        // The layer outside of the deadline sees the answer, not a handler that was dropped.
        ("hang", Some(Duration::from_millis(50)), "DEADLINE_EXCEEDED"),
    ] {
        let parent = propagation::ensure_trace(&telemetry::Context::new());
        let id = propagation::trace_id(&parent).expect("valid");
        let mut request = ask(text, timeout);
        let mut headers = http::HeaderMap::new();
        propagation::inject(&parent, &mut headers);
        let traceparent = headers["traceparent"].to_str().expect("ASCII").parse().expect("ASCII");
        request.metadata_mut().insert("traceparent", traceparent);
        let _ = client.say(request).await;
        // The span ends with the response body, which the client may have seen the end of a moment earlier.
        eventually("the span has ended", || spans.of_trace(&id).len() == 1).await;
        let span = spans.of_trace(&id).remove(0);
        assert_eq!(span.name, "tessera.test.v1.Test/Say");
        assert_eq!(
            Spans::attribute(&span, semconv::RPC_RESPONSE_STATUS_CODE).as_deref(),
            Some(code),
            "{text}"
        );
        assert_eq!(
            Spans::attribute(&span, semconv::NETWORK_PEER_ADDRESS).as_deref(),
            Some("127.0.0.1")
        );
    }
}

#[tokio::test]
async fn handlers_work_within_the_callers_trace() {
    let (_running, client) = server_and_client(config()).await;
    let mut request = ask("trace", None);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request
        .metadata_mut()
        .insert("traceparent", traceparent.parse().expect("ASCII"));
    let id = client.say(request).await.expect("answered").into_inner().text;
    assert_eq!(id, "4bf92f3577b34da6a3ce929d0e0e4736");
    let made = client
        .say(ask("trace", None))
        .await
        .expect("answered")
        .into_inner()
        .text;
    assert_eq!(made.len(), 32, "a call without a trace gets one");
}
