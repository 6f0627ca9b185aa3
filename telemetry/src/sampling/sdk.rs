//! What the SDK asks when a span is made: whether it is recorded, and what its ids are. Mostly that is known before, and then it is
//! told here; other users of the global tracer are answered as everybody is.

use std::{cell::Cell, time::Instant};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, TraceContextExt, TraceId},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SamplingDecision, SamplingResult, ShouldSample};

use super::Sampling;

/// What is known of the span that is made next on this thread: it is recorded, and has these ids if they are given.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Next {
    pub(crate) trace: Option<TraceId>,
    pub(crate) span: Option<SpanId>,
}

thread_local! {
    static NEXT: Cell<Option<Next>> = const { Cell::new(None) };
}

/// Makes a span of which that is known.
pub(crate) fn making<T>(next: Next, make: impl FnOnce() -> T) -> T {
    NEXT.set(Some(next));
    let made = make();
    NEXT.set(None);
    made
}

/// Ids as they are told, or random ones.
#[derive(Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let told = NEXT.get().and_then(|next| next.trace);
        told.unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        let told = NEXT.get().and_then(|next| next.span);
        told.unwrap_or_else(|| self.0.new_span_id())
    }
}

/// The decision as it is told, or made here.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    sampling: &'static Sampling,
    began: Instant,
}

impl Decided {
    pub(crate) fn new(sampling: &'static Sampling) -> Self {
        Self {
            sampling,
            began: Instant::now(),
        }
    }
}

impl ShouldSample for Decided {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let span = parent.map(TraceContextExt::span);
        let parent = span.as_ref().map_or(&SpanContext::NONE, |span| span.span_context());
        let is_recorded =
            NEXT.get().is_some() || self.sampling.decides(parent, trace, || self.began.elapsed()).is_some();
        SamplingResult {
            decision: if is_recorded {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: parent.trace_state().clone(),
        }
    }
}
