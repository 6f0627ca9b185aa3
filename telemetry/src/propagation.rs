//! How a trace travels: W3C `traceparent` / `tracestate` and `baggage` in the headers of a call, and B3 where it is asked for.
//!
//! Which of them are used follows `OTEL_PROPAGATORS` once [`crate::init`] has run; before that, or without it, the W3C's. Of several
//! that a caller sent, the W3C's counts.
//! Not here: making spans.

mod b3;

use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue, header::HeaderName};
use opentelemetry::{
    Context,
    baggage::BaggageExt as _,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::{
    propagation::{BaggagePropagator, TraceContextPropagator},
    trace::{IdGenerator as _, RandomIdGenerator},
};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Which formats are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagators {
    pub(crate) trace_context: bool,
    pub(crate) baggage: bool,
    /// In the one header `b3`.
    pub(crate) b3: bool,
    /// In the headers `x-b3-...`.
    pub(crate) b3_multi: bool,
}

impl Propagators {
    /// What `none` means.
    pub(crate) const NONE: Self = Self {
        trace_context: false,
        baggage: false,
        b3: false,
        b3_multi: false,
    };

    /// OpenTelemetry's default: the W3C's two.
    pub(crate) const DEFAULT: Self = Self {
        trace_context: true,
        baggage: true,
        ..Self::NONE
    };
}

static INSTALLED: OnceLock<Propagators> = OnceLock::new();

/// Fixes the formats for the life of the process; later calls are ignored.
pub(crate) fn install(propagators: Propagators) {
    let _ = INSTALLED.set(propagators);
}

fn installed() -> Propagators {
    INSTALLED.get().copied().unwrap_or(Propagators::DEFAULT)
}

/// What the caller sent: its span context as a remote parent, and its baggage. Malformed headers count as absent, as the
/// W3C recommendation demands.
pub fn extract(headers: &HeaderMap) -> Context {
    let mut cx = Context::new();
    let formats = installed();
    if formats.trace_context && headers.contains_key(&TRACEPARENT) {
        cx = TraceContextPropagator::new().extract_with_context(&cx, &HeaderExtractor(headers));
    }
    if (formats.b3 || formats.b3_multi)
        && !cx.span().span_context().is_valid()
        && let Some(parent) = b3::extract(headers)
    {
        cx = cx.with_remote_span_context(parent);
    }
    if formats.baggage && headers.contains_key(&BAGGAGE) {
        cx = BaggagePropagator::new().extract_with_context(&cx, &HeaderExtractor(headers));
    }
    cx
}

/// Writes the context into the headers of an outgoing call, replacing what is there.
pub fn inject(cx: &Context, headers: &mut HeaderMap) {
    let formats = installed();
    let span = cx.span();
    let span_context = span.span_context();
    if formats.trace_context && span_context.is_valid() {
        // Version 00; of the flags only the sampled bit is defined there.
        let value = format!(
            "00-{}-{}-{:02x}",
            span_context.trace_id(),
            span_context.span_id(),
            span_context.trace_flags() & TraceFlags::SAMPLED,
        );
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(TRACEPARENT.clone(), value);
        }
        // An empty tracestate header is allowed and worthless.
        headers.remove(&TRACESTATE);
        if *span_context.trace_state() != TraceState::NONE
            && let Ok(value) = HeaderValue::from_str(&span_context.trace_state().header())
        {
            headers.insert(TRACESTATE.clone(), value);
        }
    }
    if formats.b3 && span_context.is_valid() {
        b3::inject(span_context, headers);
    }
    if formats.b3_multi && span_context.is_valid() {
        b3::inject_several(span_context, headers);
    }
    if formats.baggage && !cx.baggage().is_empty() {
        BaggagePropagator::new().inject_context(cx, &mut HeaderInjector(headers));
    }
}

/// The value of an entry of the baggage that the current task works under: what a caller far up the chain has said. `None`
/// without such an entry, which costs a look at the task's context and allocates nothing.
pub fn current_baggage(name: &str) -> Option<String> {
    Context::map_current(|cx| {
        let baggage = cx.baggage();
        // Most calls carry none.
        if baggage.is_empty() {
            return None;
        }
        baggage.get(name).map(|value| value.as_str().to_owned())
    })
}

/// The trace id as 32 lower-case hex digits, or `None` if the context belongs to no trace.
pub fn trace_id(cx: &Context) -> Option<String> {
    let span = cx.span();
    let span_context = span.span_context();
    span_context.is_valid().then(|| span_context.trace_id().to_string())
}

/// The context itself if it belongs to a trace; otherwise one that does, with random ids.
///
/// Where nothing is exported a call still needs an id that logs, orders and errors can name. The new ids carry the
/// sampled flag: it leaves the choice to record to the next process that has an exporter (the SDK's default sampler
/// follows its parent), instead of switching the whole trace off because its first process exports nothing.
pub fn ensure_trace(cx: &Context) -> Context {
    if cx.span().span_context().is_valid() {
        return cx.clone();
    }
    let ids = RandomIdGenerator::default();
    cx.with_remote_span_context(SpanContext::new(
        ids.new_trace_id(),
        ids.new_span_id(),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    ))
}

/// The context itself, or one with ids made up here; in either case one of which nobody records anything.
pub fn ensure_unsampled(cx: &Context) -> Context {
    let ids = RandomIdGenerator::default();
    let span = cx.span();
    let (trace_id, span_id) = if span.span_context().is_valid() {
        (span.span_context().trace_id(), span.span_context().span_id())
    } else {
        (ids.new_trace_id(), ids.new_span_id())
    };
    let state = span.span_context().trace_state().clone();
    cx.with_remote_span_context(SpanContext::new(trace_id, span_id, TraceFlags::default(), false, state))
}

#[cfg(test)]
mod tests {
    use opentelemetry::{KeyValue, baggage::BaggageExt as _};

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_is_extracted_is_injected_unchanged() {
        let given = headers(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1,b=2"),
            ("baggage", "tenant=acme"),
        ]);
        let cx = extract(&given);
        assert_eq!(trace_id(&cx).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(cx.span().span_context().is_remote());
        let mut sent = HeaderMap::new();
        inject(&cx, &mut sent);
        assert_eq!(sent, given);
    }

    #[test]
    fn malformed_parents_count_as_absent() {
        for bad in [
            "",
            "00-0-0-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let cx = extract(&headers(&[("traceparent", bad)]));
            assert_eq!(trace_id(&cx), None, "{bad:?}");
            let mut sent = HeaderMap::new();
            inject(&cx, &mut sent);
            assert!(sent.is_empty());
        }
    }

    #[test]
    fn stale_state_does_not_ride_along() {
        let mut sent = headers(&[("traceparent", "old"), ("tracestate", "old=1")]);
        inject(&extract(&headers(&[("traceparent", PARENT)])), &mut sent);
        assert_eq!(sent, headers(&[("traceparent", PARENT)]));
    }

    #[test]
    fn a_trace_is_made_only_where_there_is_none() {
        let cx = extract(&headers(&[("traceparent", PARENT)]));
        assert_eq!(trace_id(&ensure_trace(&cx)), trace_id(&cx));
        let made = ensure_trace(&Context::new().with_baggage([KeyValue::new("tenant", "acme")]));
        let id = trace_id(&made).expect("valid");
        assert_eq!(id.len(), 32);
        assert_ne!(id, trace_id(&ensure_trace(&Context::new())).expect("valid"));
        assert!(made.baggage().get("tenant").is_some(), "baggage survives");
    }

    #[test]
    fn an_entry_of_the_baggage_is_read_where_the_call_is_worked_on() {
        assert_eq!(current_baggage("tenant"), None);
        let cx = extract(&headers(&[("baggage", "tenant=acme,empty=")]));
        let _attached = cx.attach();
        assert_eq!(current_baggage("tenant").as_deref(), Some("acme"));
        assert_eq!(current_baggage("other"), None);
    }
}
