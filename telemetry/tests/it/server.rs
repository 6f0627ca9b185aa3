//! The server layer: parents, names, statuses from headers and trailers, ends.

use std::{convert::Infallible, future::pending, sync::Mutex};

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use opentelemetry::trace::{SpanKind, Status};
use telemetry::{
    Context, propagation, semconv,
    server::{Endless, PeerAddr, ReceivedMessages, ServerTraceLayer},
    testing::{SpanData, Spans},
    work::{Kind, Work},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Frames, answer, new_trace, request, status};

fn only(spans: &Spans, id: &str) -> SpanData {
    let mut found = spans.of_trace(id);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn code_of(span: &SpanData) -> String {
    Spans::attribute(span, semconv::RPC_RESPONSE_STATUS_CODE).expect("every span has a status code")
}

async fn serve(parent: &Context, path: &str, headers: HeaderMap, body: Frames) -> Response<impl http_body::Body> {
    let body = Mutex::new(Some((headers, body)));
    let handler = service_fn(move |_: Request<()>| {
        let (headers, body) = body.lock().expect("not poisoned").take().expect("called once");
        answer(headers, body)
    });
    ServerTraceLayer::new()
        .layer(handler)
        .oneshot(request(parent, path))
        .await
        .expect("infallible")
}

#[tokio::test]
async fn a_unary_call_is_a_server_span_under_its_caller() {
    let (parent, id, spans) = new_trace();
    let handler = service_fn(|_: Request<()>| async {
        // The handler sees the server's span as the current context, and its children will hang below it.
        let current = Context::current();
        assert!(propagation::trace_id(&current).is_some());
        answer(HeaderMap::new(), Frames::messages(1).then(status(0))).await
    });
    let mut request = request(&parent, "/pkg.Svc/Do");
    request
        .extensions_mut()
        .insert(PeerAddr("10.1.2.3:456".parse().expect("an address")));
    let response = ServerTraceLayer::new()
        .layer(handler)
        .oneshot(request)
        .await
        .expect("infallible");
    assert!(spans.of_trace(&id).is_empty(), "not over before the trailers");
    response.into_body().collect().await.expect("infallible");

    let span = only(&spans, &id);
    use opentelemetry::trace::TraceContextExt as _;
    assert_eq!(span.parent_span_id, parent.span().span_context().span_id());
    assert!(span.parent_span_is_remote);
    assert_eq!(span.name, "pkg.Svc/Do");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.status, Status::Unset);
    for (key, value) in [
        (semconv::RPC_SYSTEM_NAME, "grpc"),
        (semconv::RPC_METHOD, "pkg.Svc/Do"),
        (semconv::RPC_RESPONSE_STATUS_CODE, "OK"),
        (semconv::NETWORK_PEER_ADDRESS, "10.1.2.3"),
        (semconv::NETWORK_PEER_PORT, "456"),
        (semconv::SENT_MESSAGES, "1"),
    ] {
        assert_eq!(Spans::attribute(&span, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(Spans::attribute(&span, semconv::ERROR_TYPE), None);
}

/// Published layers read only the headers, so that a stream which fails half-way is recorded as OK.
#[tokio::test]
async fn the_status_is_read_from_the_trailers() {
    for (code, name, is_error) in [(0, "OK", false), (5, "NOT_FOUND", false), (14, "UNAVAILABLE", true)] {
        let (parent, id, spans) = new_trace();
        let body = Frames::messages(3).then(status(code));
        serve(&parent, "/pkg.Svc/Do", HeaderMap::new(), body)
            .await
            .into_body()
            .collect()
            .await
            .ok()
            .expect("collected");
        let span = only(&spans, &id);
        assert_eq!(code_of(&span), name);
        assert_eq!(span.status, if is_error { Status::error(name) } else { Status::Unset });
        assert_eq!(Spans::attribute(&span, semconv::SENT_MESSAGES).as_deref(), Some("3"));
        let error_type = Spans::attribute(&span, semconv::ERROR_TYPE);
        assert_eq!(error_type.as_deref(), (code != 0).then_some(name));
    }
}

#[tokio::test]
async fn a_response_of_headers_only_ends_the_span_at_once() {
    let (parent, id, spans) = new_trace();
    let response = serve(&parent, "/pkg.Svc/Do", status(13), Frames::default()).await;
    assert_eq!(code_of(&only(&spans, &id)), "INTERNAL");
    drop(response);
    assert_eq!(spans.of_trace(&id).len(), 1, "ended once");
}

#[tokio::test]
async fn a_body_dropped_before_its_end_was_cancelled() {
    let (parent, id, spans) = new_trace();
    let mut body = serve(
        &parent,
        "/pkg.Svc/Do",
        HeaderMap::new(),
        Frames::messages(2).then_pending(),
    )
    .await
    .into_body();
    body.frame().await.expect("a frame").ok().expect("data");
    assert!(spans.of_trace(&id).is_empty());
    drop(body);
    let span = only(&spans, &id);
    assert_eq!(code_of(&span), "CANCELLED");
    assert_eq!(
        span.status,
        Status::Unset,
        "the caller's choice is not the server's error"
    );
    assert_eq!(Spans::attribute(&span, semconv::SENT_MESSAGES).as_deref(), Some("1"));
}

#[tokio::test]
async fn a_handler_dropped_before_its_answer_was_cancelled() {
    let (parent, id, spans) = new_trace();
    let never = service_fn(|_: Request<()>| pending::<Result<Response<Frames>, Infallible>>());
    let call = ServerTraceLayer::new()
        .layer(never)
        .oneshot(request(&parent, "/pkg.Svc/Do"));
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(5), call)
            .await
            .is_err()
    );
    assert_eq!(code_of(&only(&spans, &id)), "CANCELLED");
}

#[tokio::test]
async fn a_stream_without_a_status_is_unknown() {
    let (parent, id, spans) = new_trace();
    serve(&parent, "/pkg.Svc/Do", HeaderMap::new(), Frames::messages(1))
        .await
        .into_body()
        .collect()
        .await
        .ok()
        .expect("ok");
    assert_eq!(code_of(&only(&spans, &id)), "UNKNOWN");
}

#[tokio::test]
async fn health_and_reflection_are_not_traced() {
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let (parent, id, spans) = new_trace();
        serve(&parent, path, HeaderMap::new(), Frames::messages(1).then(status(0)))
            .await
            .into_body()
            .collect()
            .await
            .ok();
        assert!(spans.of_trace(&id).is_empty(), "{path}");
    }
}

/// Method names come from the wire: whoever invents them must not be able to invent time series.
#[tokio::test]
async fn methods_that_are_not_served_are_other() {
    let (parent, id, spans) = new_trace();
    let handler = service_fn(|_: Request<()>| answer(status(12), Frames::default()));
    let layer = ServerTraceLayer::new().with_methods(["pkg.Svc/Do"]);
    layer
        .layer(handler)
        .oneshot(request(&parent, "/pkg.Svc/Invented"))
        .await
        .expect("infallible");
    let span = only(&spans, &id);
    assert_eq!(span.name, semconv::OTHER);
    assert_eq!(
        Spans::attribute(&span, semconv::RPC_METHOD).as_deref(),
        Some(semconv::OTHER)
    );
    assert_eq!(
        Spans::attribute(&span, semconv::RPC_METHOD_ORIGINAL).as_deref(),
        Some("pkg.Svc/Invented")
    );
    assert!(!telemetry::metrics::encode().contains("Invented"));
}

#[tokio::test]
async fn durations_are_measured_with_the_trace_as_exemplar() {
    let (parent, id, _spans) = new_trace();
    let body = Frames::messages(1).then(status(9));
    serve(&parent, "/pkg.Svc/Measured", HeaderMap::new(), body)
        .await
        .into_body()
        .collect()
        .await
        .ok()
        .expect("ok");
    let text = telemetry::metrics::encode();
    let series = "rpc_server_call_duration_seconds_count{rpc_method=\"pkg.Svc/Measured\",\
                  rpc_response_status_code=\"FAILED_PRECONDITION\"} 1";
    assert!(text.contains(series), "{text}");
    assert!(text.contains(&format!("trace_id=\"{id}\"")), "{text}");
}

#[tokio::test]
async fn a_stream_without_an_end_has_a_span_that_ends_when_it_is_open() {
    let (parent, id, spans) = new_trace();
    let handler = service_fn(|_: Request<()>| async {
        let mut response = answer(HeaderMap::new(), Frames::messages(2).then_pending()).await?;
        response.extensions_mut().insert(Endless);
        Ok::<_, Infallible>(response)
    });
    let served = ServerTraceLayer::new().layer(handler);
    let response = served
        .oneshot(request(&parent, "/pkg.Svc/Watch"))
        .await
        .expect("infallible");
    let span = only(&spans, &id);
    assert_eq!(code_of(&span), "OK");
    assert_eq!(Spans::attribute(&span, semconv::ENDLESS).as_deref(), Some("true"));
    drop(response);
    only(&spans, &id);
}

#[tokio::test]
async fn a_quiet_method_makes_no_span_and_what_it_does_neither() {
    let (parent, id, spans) = new_trace();
    let handler = service_fn(|_: Request<()>| async {
        let below = Work::begin_here(Kind::Store, "COMMIT", Vec::new);
        assert!(!below.is_recorded());
        answer(HeaderMap::new(), Frames::messages(1).then(status(0))).await
    });
    let served = ServerTraceLayer::new().with_quiet(&["pkg.Svc/Renew"]).layer(handler);
    let response = served
        .oneshot(request(&parent, "/pkg.Svc/Renew"))
        .await
        .expect("infallible");
    response.into_body().collect().await.expect("infallible");
    assert!(spans.of_trace(&id).is_empty());
    let text = telemetry::metrics::encode();
    assert!(
        text.contains("rpc_method=\"pkg.Svc/Renew\",rpc_response_status_code=\"OK\"} 1"),
        "it is measured: {text}"
    );
}

#[tokio::test]
async fn a_server_tells_how_much_it_read_and_how_much_time_was_left() {
    let (parent, id, spans) = new_trace();
    let handler = service_fn(|request: Request<()>| async move {
        let received = request.extensions().get::<ReceivedMessages>().expect("it is recorded");
        received.set(7);
        answer(HeaderMap::new(), Frames::messages(1).then(status(0))).await
    });
    let mut request = request(&parent, "/pkg.Svc/Up");
    let headers = request.headers_mut();
    headers.insert("grpc-timeout", http::HeaderValue::from_static("30S"));
    let response = ServerTraceLayer::new()
        .layer(handler)
        .oneshot(request)
        .await
        .expect("infallible");
    response.into_body().collect().await.expect("infallible");
    let span = only(&spans, &id);
    let text = |key: &str| Spans::attribute(&span, key).expect(key);
    assert_eq!(text(semconv::RECEIVED_MESSAGES), "7");
    assert_eq!(text(semconv::DEADLINE_BUDGET_MS), "30000");
    let left: i64 = text(semconv::DEADLINE_LEFT_MS).parse().expect("a number");
    assert!((1..=30_000).contains(&left), "{left}");
}
