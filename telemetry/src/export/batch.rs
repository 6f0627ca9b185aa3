//! Spans on their way out: a bounded queue that calls put into without waiting, and a thread that sends batches.
//!
//! The SDK's own batch processor does not say what it drops and cannot drive an exporter that needs a runtime. The thread has a
//! runtime of its own: a collector that hangs or a service whose workers are busy have nothing to do with each other.
//!
//! A span is written as it will be sent when it ends, by the thread that ended it: what a span is made of is freed where it was
//! allocated, what waits is one run of bytes, and the thread that sends has nothing to do for single spans.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use opentelemetry::{Context, InstrumentationScope};
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

use super::{limits::Lengths, otlp::Exporter, wire};
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

/// The most that is kept for the next request: 512 spans are some 250 KiB.
const SPARE: usize = 1 << 20;
/// What a thread keeps to write spans in. Theirs are below 1 KiB.
const KEPT: usize = 4 << 10;

/// Where a thread writes a span, outside of the lock.
#[derive(Default)]
struct Written {
    span: Vec<u8>,
    scratch: Vec<u8>,
}

thread_local! {
    static WRITTEN: RefCell<Written> = RefCell::default();
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

/// Spans of one scope, written one after the other; what one request holds.
#[derive(Debug)]
struct Batch {
    scope: InstrumentationScope,
    spans: usize,
    bytes: BytesMut,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// In all of them.
    spans: usize,
    /// What the last request was written in: memory that is there already is cheaper than new one.
    spare: BytesMut,
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
        let shared = &*self.shared;
        WRITTEN.with_borrow_mut(|Written { span: bytes, scratch }| {
            bytes.clear();
            wire::put_span(bytes, scratch, &span);
            shared.put(&span.instrumentation_scope, bytes);
            // One with a long text in it must not stay here for ever.
            bytes.shrink_to(KEPT);
            scratch.shrink_to(KEPT);
        });
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
    /// Puts a written span into the queue, if there is room.
    fn put(&self, scope: &InstrumentationScope, span: &[u8]) {
        let mut queue = self.queue();
        if queue.is_ending {
            drop(queue);
            self.counts.after_shutdown.inc();
            return;
        }
        if queue.spans >= self.settings.queue {
            drop(queue);
            self.counts.queue_full.inc();
            return;
        }
        let is_whole = queue.put(scope, span, self.settings.batch);
        drop(queue);
        if is_whole {
            self.wake.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is locked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_for_ever(&self, mut exporter: Exporter) {
        loop {
            let due = Instant::now() + self.settings.delay;
            let (batches, flushes, is_ending) = loop {
                let is_late = tokio::select! {
                    () = self.wake.notified() => false,
                    () = tokio::time::sleep_until(due) => true,
                };
                let mut queue = self.queue();
                if is_late || queue.is_ending || !queue.flushes.is_empty() || queue.spans >= self.settings.batch {
                    queue.spans = 0;
                    let batches = std::mem::take(&mut queue.batches);
                    break (batches, std::mem::take(&mut queue.flushes), queue.is_ending);
                }
            };
            let result = self.send(&mut exporter, batches).await;
            for flush in flushes {
                // Who waits no more is not told.
                let _ = flush.send(result.clone());
            }
            if is_ending {
                return;
            }
        }
    }

    /// All of them, a request each.
    async fn send(&self, exporter: &mut Exporter, batches: VecDeque<Batch>) -> Result<(), String> {
        let mut result = Ok(());
        for batch in batches {
            let count = batch.spans;
            self.counts.processed.inc_by(count as u64);
            let bytes = batch.bytes.freeze();
            let exporting = exporter.export(&batch.scope, count, bytes.clone(), self.settings.timeout);
            let sent = timeout(self.settings.timeout, exporting).await;
            self.reuse(bytes);
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error),
                Err(_) => {
                    exporter.timed_out(count, self.settings.timeout);
                    result = Err(format!("no answer within {:?}", self.settings.timeout));
                }
            }
        }
        result
    }

    /// Keeps the memory of a request that is sent, if the connection has let go of it.
    fn reuse(&self, bytes: Bytes) {
        if let Ok(mut bytes) = bytes.try_into_mut()
            && bytes.capacity() <= SPARE
        {
            bytes.clear();
            self.queue().spare = bytes;
        }
    }
}

impl Queue {
    /// Whether a batch is whole by it.
    fn put(&mut self, scope: &InstrumentationScope, span: &[u8], most: usize) -> bool {
        let has_place = self
            .batches
            .back()
            .is_some_and(|last| last.spans < most && last.scope == *scope);
        if !has_place {
            self.batches.push_back(Batch {
                scope: scope.clone(),
                spans: 0,
                bytes: std::mem::take(&mut self.spare),
            });
        }
        self.spans += 1;
        let Some(last) = self.batches.back_mut() else {
            return false;
        };
        last.bytes.extend_from_slice(span);
        last.spans += 1;
        last.spans == most
    }
}
