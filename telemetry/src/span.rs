//! Starting spans, or not: the one place that knows whether this process records any.

use std::{
    borrow::Cow,
    sync::OnceLock,
    time::{Duration, Instant},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::{propagation, rpc, semconv};

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Spans are recorded from now on, for the life of the process; later calls are ignored.
pub(crate) fn install(provider: &SdkTracerProvider) {
    let _ = TRACER.set(provider.tracer("tessera"));
}

/// Whether this process records spans. Without it a sampled trace may be one that nobody has recorded: see
/// [`propagation::ensure_trace`].
pub(crate) fn is_recorded() -> bool {
    TRACER.get().is_some()
}

/// A context with a new span under `parent`, or, where nothing is recorded, the parent's own span context (with random
/// ids if it has none). `describe` is only called when it is needed, so that being off costs no attributes.
pub(crate) fn start<D>(parent: &Context, kind: SpanKind, describe: D) -> Context
where
    D: FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
{
    let Some(tracer) = TRACER.get() else {
        return propagation::ensure_trace(parent);
    };
    let (name, attributes) = describe();
    let span = tracer.build_with_context(
        SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes),
        parent,
    );
    let cx = parent.with_span(span);
    // After its shutdown the SDK makes spans without ids; the caller's must still travel.
    if cx.span().span_context().is_valid() {
        cx
    } else {
        propagation::ensure_trace(parent)
    }
}

/// Whether a span under `parent` would be recorded: what is no call makes no trace of its own.
pub(crate) fn follows(parent: &Context) -> bool {
    if !is_recorded() {
        return false;
    }
    let span = parent.span();
    let span_context = span.span_context();
    span_context.is_valid() && (span_context.is_sampled() || span.is_recording())
}

/// A context with that span under `parent`; `None` where it is not recorded.
pub(crate) fn build(builder: SpanBuilder, parent: &Context) -> Option<Context> {
    let cx = parent.with_span(TRACER.get()?.build_with_context(builder, parent));
    cx.span().is_recording().then_some(cx)
}

/// Whose rules decide that a status is an error.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Writes the outcome of an RPC on the context's span and ends it. A context that has only its caller's (remote) span
/// context is left alone.
pub(crate) fn end_rpc(cx: &Context, side: Side, code: i32, more: impl FnOnce(&mut Vec<KeyValue>)) {
    let span = cx.span();
    if !span.is_recording() {
        return;
    }
    let name = rpc::code_name(code);
    let mut attributes = vec![KeyValue::new(semconv::RPC_RESPONSE_STATUS_CODE, name)];
    let is_error = match side {
        Side::Client => rpc::is_client_error(code),
        Side::Server => rpc::is_server_error(code),
    };
    if code != rpc::OK {
        attributes.push(KeyValue::new(semconv::ERROR_TYPE, name));
    }
    more(&mut attributes);
    span.set_attributes(attributes);
    if is_error {
        span.set_status(Status::error(name));
    }
    span.end();
}

/// Milliseconds as an attribute.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds until then, or since then and negative.
pub(crate) fn left(deadline: Instant) -> i64 {
    let now = Instant::now();
    millis(deadline.saturating_duration_since(now)) - millis(now.saturating_duration_since(deadline))
}

/// A count as an attribute.
pub(crate) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// `network.peer.address` and `network.peer.port` of a `host:port` text; a text without a port is an address.
pub(crate) fn peer_attributes(peer: &str) -> impl Iterator<Item = KeyValue> {
    let (host, port) = match peer.rsplit_once(':') {
        Some((host, port)) => (host.trim_matches(['[', ']']), port.parse::<u16>().ok()),
        None => (peer, None),
    };
    [
        Some(KeyValue::new(semconv::NETWORK_PEER_ADDRESS, host.to_owned())),
        port.map(|port| KeyValue::new(semconv::NETWORK_PEER_PORT, i64::from(port))),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    /// This binary never installs an exporter, so it shows what a process does that exports nothing.
    #[test]
    fn with_nothing_to_export_the_parent_passes_through_untouched() {
        let mut incoming = HeaderMap::new();
        incoming.insert(
            "traceparent",
            HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        );
        let parent = propagation::extract(&incoming);
        let cx = start(&parent, SpanKind::Server, || {
            unreachable!("attributes are not even computed")
        });
        assert_eq!(cx.span().span_context(), parent.span().span_context());
        let mut outgoing = HeaderMap::new();
        propagation::inject(&cx, &mut outgoing);
        assert_eq!(outgoing, incoming);
        end_rpc(&cx, Side::Server, 13, |_| unreachable!("nothing is recorded"));
    }

    #[test]
    fn with_nothing_to_export_and_no_parent_there_is_still_a_trace_id() {
        let cx = start(&Context::new(), SpanKind::Client, || unreachable!("not computed"));
        assert!(propagation::trace_id(&cx).is_some());
    }

    /// The design counted on this of opentelemetry 0.33; it is why anything else that uses the global tracer is safe too.
    #[test]
    fn the_noop_tracer_of_the_api_passes_the_parent_through() {
        let mut incoming = HeaderMap::new();
        incoming.insert(
            "traceparent",
            HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        );
        let parent = propagation::extract(&incoming);
        let tracer = opentelemetry::global::tracer("anyone");
        let cx = parent.with_span(tracer.build_with_context(SpanBuilder::from_name("x"), &parent));
        assert_eq!(cx.span().span_context(), parent.span().span_context());
    }

    #[test]
    fn peers_are_split_into_address_and_port() {
        for (peer, host, port) in [
            ("10.0.0.1:7101", "10.0.0.1", Some(7101)),
            ("[::1]:7101", "::1", Some(7101)),
            ("tickets.local", "tickets.local", None),
        ] {
            let attributes: Vec<KeyValue> = peer_attributes(peer).collect();
            assert_eq!(attributes[0], KeyValue::new(semconv::NETWORK_PEER_ADDRESS, host));
            let found = attributes.get(1).map(|kv| kv.value.clone());
            assert_eq!(found, port.map(opentelemetry::Value::I64), "{peer}");
        }
    }
}
