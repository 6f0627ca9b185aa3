//! Sending spans to a collector, without ever being in the way: batches on the SDK's own thread, a bounded queue that
//! drops when full, and one log line when export starts to fail and one when it works again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry_otlp::{ExporterBuildError, SpanExporter as OtlpExporter};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};

use crate::sampling::{
    Sampling,
    sdk::{Decided, Ids},
};

/// A provider that exports in batches to the endpoint that the `OTEL_EXPORTER_OTLP_*` variables name.
///
/// Must be called within a tokio runtime: the exporter's connection lives on it.
pub(crate) fn otlp_provider(
    resource: Resource,
    endpoint: String,
    sampling: &'static Sampling,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = OtlpExporter::builder().with_tonic().build()?;
    Ok(SdkTracerProvider::builder()
        .with_sampler(Decided::new(sampling))
        .with_id_generator(Ids::default())
        .with_batch_exporter(Quiet {
            inner: exporter,
            endpoint,
            failing: AtomicBool::new(false),
        })
        .with_resource(resource)
        .build())
}

/// An exporter that says once that it fails.
#[derive(Debug)]
struct Quiet<E> {
    inner: E,
    endpoint: String,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Quiet<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(endpoint = self.endpoint, "traces are exported again");
                }
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        %error,
                        spans,
                        "traces cannot be exported and are dropped; this is said once until it works again"
                    );
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry_sdk::error::OTelSdkError;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;

    /// Fails as often as the list says.
    #[derive(Debug)]
    struct Scripted(Mutex<Vec<bool>>);

    impl SpanExporter for Scripted {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            if self.0.lock().expect("not poisoned").remove(0) {
                Ok(())
            } else {
                Err(OTelSdkError::InternalFailure("refused".into()))
            }
        }
    }

    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<tracing::Level>>>);

    impl<S: tracing::Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().expect("not poisoned").push(*event.metadata().level());
        }
    }

    #[tokio::test]
    async fn each_streak_of_failures_is_said_once() {
        let levels = Levels::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(levels.clone()));
        let script = vec![true, false, false, false, true, true, false, false];
        let exporter = Quiet {
            inner: Scripted(Mutex::new(script.clone())),
            endpoint: "x".into(),
            failing: AtomicBool::new(false),
        };
        for expected in script {
            assert_eq!(exporter.export(vec![]).await.is_ok(), expected);
        }
        let said = levels.0.lock().expect("not poisoned").clone();
        assert_eq!(said, [tracing::Level::WARN, tracing::Level::INFO, tracing::Level::WARN]);
    }
}
