//! Spans on their way out: a bounded queue that calls put into without waiting, and a thread that sends batches.
//!
//! The SDK's own batch processor does not say what it drops and cannot drive an exporter that needs a runtime. The thread has a
//! runtime of its own: a collector that hangs or a service whose workers are busy have nothing to do with each other.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanProcessor},
};
use tokio::{
    runtime::Runtime,
    sync::Notify,
    time::{Instant, timeout},
};

use super::{limits::Lengths, otlp::Exporter};
use crate::metrics::{Counter, counter};

/// `OTEL_BSP_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSettings {
    /// The longest that a span waits.
    pub(crate) delay: Duration,
    /// How long one batch may take.
    pub(crate) timeout: Duration,
    /// Spans that may wait; beyond, they are dropped.
    pub(crate) queue: usize,
    /// Spans in one request; at this many they wait no longer.
    pub(crate) batch: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Batches {
    shared: Arc<Shared>,
    lengths: Lengths,
}

#[derive(Debug)]
struct Shared {
    settings: BatchSettings,
    queue: Mutex<Queue>,
    /// There is a whole batch, or somebody waits for what there is.
    wake: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Queue {
    spans: Vec<SpanData>,
    /// Those who wait until all that is queued is sent.
    flushes: Vec<mpsc::Sender<Result<(), String>>>,
    is_ending: bool,
}

/// By the semantic conventions for SDKs: `otel.sdk.processor.span.processed`.
#[derive(Debug)]
struct Counts {
    processed: Counter,
    queue_full: Counter,
    after_shutdown: Counter,
}

impl Counts {
    fn new() -> Self {
        let processed = counter(
            "otel_sdk_processor_span_processed",
            "Spans whose processing is over, by why they were dropped; empty: they were handed to the exporter",
            &["error_type"],
        );
        Self {
            processed: processed.with(&[""]),
            queue_full: processed.with(&["queue_full"]),
            after_shutdown: processed.with(&["already_shutdown"]),
        }
    }
}

impl Batches {
    /// Starts the thread. `runtime` is the one that the exporter was made in.
    pub(crate) fn start(
        exporter: Exporter,
        runtime: Runtime,
        settings: BatchSettings,
        lengths: Lengths,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            settings,
            queue: Mutex::default(),
            wake: Notify::new(),
            counts: Counts::new(),
        });
        let work = Arc::clone(&shared);
        // Ends when the processor is shut down or dropped; `shutdown_with_timeout` waits for that.
        thread::Builder::new()
            .name("span-export".into())
            .spawn(move || runtime.block_on(work.send_for_ever(exporter)))?;
        Ok(Self { shared, lengths })
    }

    fn put(&self, mut span: SpanData) {
        self.lengths.cut(&mut span);
        let Shared {
            settings, wake, counts, ..
        } = &*self.shared;
        let mut queue = self.shared.queue();
        if queue.is_ending {
            drop(queue);
            counts.after_shutdown.inc();
            return;
        }
        if queue.spans.len() >= settings.queue {
            // Outside of the lock: freeing one takes as long as making it did.
            drop(queue);
            counts.queue_full.inc();
            return;
        }
        queue.spans.push(span);
        let is_whole = queue.spans.len() == settings.batch;
        drop(queue);
        if is_whole {
            wake.notify_one();
        }
    }

    fn flush(&self, ending: bool, within: Duration) -> OTelSdkResult {
        let (done, answer) = mpsc::channel();
        {
            let mut queue = self.shared.queue();
            if queue.is_ending {
                return Err(OTelSdkError::AlreadyShutdown);
            }
            queue.is_ending = ending;
            queue.flushes.push(done);
        }
        self.shared.wake.notify_one();
        match answer.recv_timeout(within) {
            Ok(result) => result.map_err(OTelSdkError::InternalFailure),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(OTelSdkError::Timeout(within)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(OTelSdkError::InternalFailure(
                "the thread that exports has ended".into(),
            )),
        }
    }
}

impl SpanProcessor for Batches {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.put(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.flush(false, self.shared.settings.timeout)
    }

    fn shutdown_with_timeout(&self, within: Duration) -> OTelSdkResult {
        self.flush(true, within)
    }

    fn set_resource(&mut self, _: &Resource) {
        // The exporter was made with it.
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.shared.queue().is_ending = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is locked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_for_ever(&self, mut exporter: Exporter) {
        loop {
            let due = Instant::now() + self.settings.delay;
            let (spans, flushes, is_ending) = loop {
                let is_late = tokio::select! {
                    () = self.wake.notified() => false,
                    () = tokio::time::sleep_until(due) => true,
                };
                let mut queue = self.queue();
                if is_late || queue.is_ending || !queue.flushes.is_empty() || queue.spans.len() >= self.settings.batch {
                    let spans = std::mem::take(&mut queue.spans);
                    break (spans, std::mem::take(&mut queue.flushes), queue.is_ending);
                }
            };
            let result = self.send(&mut exporter, spans).await;
            for flush in flushes {
                // Who waits no more is not told.
                let _ = flush.send(result.clone());
            }
            if is_ending {
                return;
            }
        }
    }

    /// All of them, in requests of a batch.
    async fn send(&self, exporter: &mut Exporter, spans: Vec<SpanData>) -> Result<(), String> {
        let mut result = Ok(());
        let mut spans = spans.into_iter();
        loop {
            let batch: Vec<SpanData> = spans.by_ref().take(self.settings.batch).collect();
            if batch.is_empty() {
                return result;
            }
            let count = batch.len();
            self.counts.processed.inc_by(count as u64);
            let sent = timeout(self.settings.timeout, exporter.export(batch, self.settings.timeout)).await;
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error),
                Err(_) => {
                    exporter.timed_out(count, self.settings.timeout);
                    result = Err(format!("no answer within {:?}", self.settings.timeout));
                }
            }
        }
    }
}
