//! The root of a trace: where a command becomes one that can be looked up. With an exporter it is a real span; without
//! one a trace id travels all the same, so that the services' logs and spans belong together.

use opentelemetry::{
    Context,
    trace::{FutureExt as _, TraceContextExt as _, Tracer as _},
};

/// Where the Jaeger of `docker-compose.yml`, or one that was started as its own pages say, shows a trace.
const JAEGER: &str = "http://localhost:16686/trace/";

/// A trace that this process began.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    context: Context,
    trace_id: String,
}

impl Root {
    /// Begins a trace with a span of this name.
    pub(crate) fn begin(name: &'static str) -> Self {
        let tracer = opentelemetry::global::tracer("tessera");
        let span = tracer.start_with_context(name, &Context::new());
        // Leaves a real span as it is; where there is none, makes up the ids that travel.
        let context = telemetry::propagation::ensure_trace(&Context::new().with_span(span));
        let trace_id = telemetry::propagation::trace_id(&context).unwrap_or_default();
        Self { context, trace_id }
    }

    /// 32 hexadecimal digits.
    pub(crate) fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// Where it can be looked at, if it is recorded.
    pub(crate) fn url(&self) -> Option<String> {
        let is_recorded = self.context.span().is_recording();
        is_recorded.then(|| format!("{JAEGER}{}", self.trace_id))
    }

    /// Runs a call as part of the trace.
    pub(crate) fn around<F: Future>(&self, call: F) -> impl Future<Output = F::Output> {
        call.with_context(self.context.clone())
    }

    /// Ends the span.
    pub(crate) fn end(self) {
        self.context.span().end();
    }
}
