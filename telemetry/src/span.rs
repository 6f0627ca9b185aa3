//! Starting spans, or not: the one place that knows whether this process records any.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SdkTracer, SdkTracerProvider};

use crate::{
    propagation, rpc,
    sampling::{
        Late, Sampling,
        sdk::{self, Next},
    },
    semconv,
};

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// What records the spans of this process.
#[derive(Debug)]
struct Recorder {
    tracer: SdkTracer,
    sampling: &'static Sampling,
    late: Late,
    began: Instant,
}

/// Spans are recorded from now on, for the life of the process; later calls are ignored.
pub(crate) fn install(provider: &SdkTracerProvider, sampling: &'static Sampling, late: Late) {
    let _ = RECORDER.set(Recorder {
        tracer: provider.tracer("tessera"),
        sampling,
        late,
        began: Instant::now(),
    });
}

/// Whether this process records spans. Without it a sampled trace may be one that nobody has recorded: see
/// [`propagation::ensure_trace`].
pub(crate) fn is_recorded() -> bool {
    RECORDER.get().is_some()
}

/// A call that begins, with its span or without.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) cx: Context,
    /// Asked once: a span answers under a lock.
    pub(crate) is_recorded: bool,
    /// Whether it is the first of a trace that is not recorded: the ids of the context are its own.
    is_root: bool,
    /// Whether it may be told [`late`].
    pub(crate) may_be_late: bool,
}

impl Started {
    /// Without a span.
    pub(crate) fn passing(cx: Context) -> Self {
        Self {
            cx,
            is_recorded: false,
            is_root: false,
            may_be_late: false,
        }
    }
}

/// A context with a new span under `parent`. Where nothing is recorded, or this trace is not, it is the parent's own span context
/// (with random ids if it has none). `describe` is only called when it is needed, so that being off costs no attributes.
pub(crate) fn start<D>(parent: &Context, kind: SpanKind, describe: D) -> Started
where
    D: FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
{
    let Some(recorder) = RECORDER.get() else {
        return Started::passing(propagation::ensure_trace(parent));
    };
    let span = parent.span();
    let caller = span.span_context();
    let trace = if caller.is_valid() {
        caller.trace_id()
    } else {
        RandomIdGenerator::default().new_trace_id()
    };
    let Some(recorded) = recorder.sampling.decides(caller, trace, || recorder.began.elapsed()) else {
        return recorder.passes(parent, caller, trace);
    };
    let (name, mut attributes) = describe();
    if let Some(probability) = recorded.probability {
        attributes.push(KeyValue::new(semconv::SAMPLING_PROBABILITY, f64::from(probability)));
    }
    let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
    let next = Next {
        trace: Some(trace),
        span: None,
    };
    let made = sdk::making(next, || recorder.tracer.build_with_context(builder, parent));
    let cx = parent.with_span(made);
    // After its shutdown the SDK makes spans without ids; the caller's must still travel.
    if cx.span().span_context().is_valid() {
        Started {
            is_recorded: cx.span().is_recording(),
            cx,
            is_root: false,
            may_be_late: false,
        }
    } else {
        Started::passing(propagation::ensure_trace(parent))
    }
}

impl Recorder {
    /// A call of a trace that is not recorded.
    fn passes(&self, parent: &Context, caller: &SpanContext, trace: TraceId) -> Started {
        let is_root = !caller.is_valid();
        let cx = if is_root {
            let span = RandomIdGenerator::default().new_span_id();
            let own = SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE);
            parent.with_remote_span_context(own)
        } else if caller.is_sampled() {
            propagation::ensure_unsampled(parent)
        } else {
            parent.clone()
        };
        Started {
            cx,
            is_recorded: false,
            is_root,
            may_be_late: self.late.is_on(),
        }
    }
}

/// How a call has ended whose trace is not recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) side: Side,
    pub(crate) code: i32,
    pub(crate) took: Duration,
    /// Whether something went wrong on the way, however it ended.
    pub(crate) had_trouble: bool,
    /// Whether it had one answer: what streams may take for ever.
    pub(crate) is_unary: bool,
}

/// Tells of a call that went wrong or took long though its trace is not recorded: its span is made now, with the ids that the
/// trace goes by, within the budget for that.
pub(crate) fn late<D>(started: &Started, kind: SpanKind, ended: Ended, describe: D)
where
    D: FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
{
    let Some(recorder) = RECORDER.get().filter(|_| started.may_be_late) else {
        return;
    };
    let is_slow = ended.is_unary && recorder.late.is_slow(ended.took);
    let is_wanted = ended.had_trouble || is_slow || ended.side.is_error(ended.code);
    if !is_wanted || !recorder.late.takes(recorder.began.elapsed()) {
        return;
    }
    let (name, mut attributes) = describe();
    attributes.push(KeyValue::new(semconv::LATE, true));
    let mut builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
    builder.start_time = SystemTime::now().checked_sub(ended.took);
    let span = started.cx.span();
    let context = span.span_context();
    let next = Next {
        trace: Some(context.trace_id()),
        // What was called under it names it as its parent.
        span: started.is_root.then(|| context.span_id()),
    };
    let made = sdk::making(next, || {
        let nobody = Context::new();
        let parent = if started.is_root { &nobody } else { &started.cx };
        recorder.tracer.build_with_context(builder, parent)
    });
    end_rpc(&Context::new().with_span(made), ended.side, ended.code, |_| {});
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
    let cx = parent.with_span(RECORDER.get()?.tracer.build_with_context(builder, parent));
    cx.span().is_recording().then_some(cx)
}

/// Whose rules decide that a status is an error.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    fn is_error(self, code: i32) -> bool {
        match self {
            Self::Client => rpc::is_client_error(code),
            Self::Server => rpc::is_server_error(code),
        }
    }
}

/// Writes the outcome of an RPC on the context's span and ends it. A context that has only its caller's (remote) span
/// context is left alone.
pub(crate) fn end_rpc(cx: &Context, side: Side, code: i32, more: impl FnOnce(&mut Vec<KeyValue>)) {
    let span = cx.span();
    if !span.is_recording() {
        return;
    }
    let name = rpc::code_name(code);
    let mut attributes = Vec::with_capacity(5);
    attributes.push(KeyValue::new(semconv::RPC_RESPONSE_STATUS_CODE, name));
    if code != rpc::OK {
        attributes.push(KeyValue::new(semconv::ERROR_TYPE, name));
    }
    more(&mut attributes);
    span.set_attributes(attributes);
    if side.is_error(code) {
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
        Some(KeyValue::new(semconv::NETWORK_PEER_ADDRESS, Arc::<str>::from(host))),
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
        })
        .cx;
        assert_eq!(cx.span().span_context(), parent.span().span_context());
        let mut outgoing = HeaderMap::new();
        propagation::inject(&cx, &mut outgoing);
        assert_eq!(outgoing, incoming);
        end_rpc(&cx, Side::Server, 13, |_| unreachable!("nothing is recorded"));
    }

    #[test]
    fn with_nothing_to_export_and_no_parent_there_is_still_a_trace_id() {
        let cx = start(&Context::new(), SpanKind::Client, || unreachable!("not computed")).cx;
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
