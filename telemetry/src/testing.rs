//! Finished spans in memory, for tests. One exporter a process, shared by all tests of a binary: filter by trace.

use std::sync::OnceLock;

use opentelemetry::trace::TraceId;
pub use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

use crate::{
    sampling::{
        Late, Sampling, Settings,
        sdk::{Decided, Ids},
    },
    span,
};

/// The finished spans of this process.
#[derive(Debug, Clone)]
pub struct Spans {
    exporter: InMemorySpanExporter,
}

/// Records in memory from now on, as a process does whose environment says nothing of sampling: every span of traces that begin
/// here or are recorded by their parents. Calling it again gives the same store.
///
/// It has no effect on spans if [`crate::init`] has already installed an exporter.
pub fn install_in_memory() -> Spans {
    static STORE: OnceLock<(InMemorySpanExporter, SdkTracerProvider)> = OnceLock::new();
    let (exporter, _) = STORE.get_or_init(|| {
        let exporter = InMemorySpanExporter::default();
        // Exported as they end, so that a test sees a span as soon as it is over.
        let settings = Settings::default();
        let sampling: &'static Sampling = Box::leak(Box::new(Sampling::new(&settings)));
        let provider = SdkTracerProvider::builder()
            .with_sampler(Decided::new(sampling))
            .with_id_generator(Ids::default())
            .with_simple_exporter(exporter.clone())
            .build();
        span::install(&provider, sampling, Late::new(&settings));
        opentelemetry::global::set_tracer_provider(provider.clone());
        (exporter, provider)
    });
    Spans {
        exporter: exporter.clone(),
    }
}

impl Spans {
    /// All spans that have ended, in the order of their ends.
    pub fn finished(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap_or_default()
    }

    /// The finished spans of one trace, given as 32 hex digits.
    pub fn of_trace(&self, trace_id: &str) -> Vec<SpanData> {
        let wanted = TraceId::from_hex(trace_id).unwrap_or(TraceId::INVALID);
        self.finished()
            .into_iter()
            .filter(|span| span.span_context.trace_id() == wanted)
            .collect()
    }

    /// The text of a span's attribute, if it has it.
    pub fn attribute(span: &SpanData, key: &str) -> Option<String> {
        span.attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == key)
            .map(|found| found.value.to_string())
    }
}
