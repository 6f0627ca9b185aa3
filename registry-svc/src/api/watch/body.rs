//! The stream of a watch as a response body: pulls steps from its [`Watcher`] as fast as the client takes them.
//!
//! Nothing is queued here: the next step is looked up when we are asked for it. hyper asks as soon as HTTP/2 has taken the last
//! message, which is before a peer has read it: a client that does not read holds what its stream's send buffer may hold, the
//! message that went over that, and the next one, which waits in hyper. Large ones are bounded for all watches of a connection
//! together, by [`super::super::backlog`].
//!
//! A body by hand and not a stream of messages through tonic's encoder: that one keeps a buffer of 8 KiB for each open
//! stream, holds on to the memory of the last message for as long as the stream is idle, and copies what is shared.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use telemetry::{
    KeyValue, TraceParent,
    budget::Budget,
    semconv,
    work::{Kind, Work},
};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::{
    super::{
        backlog::{Held, Room, Share},
        error::ApiError,
    },
    message::{self, Names, Outgoing},
};
use crate::{
    driver::Clock,
    hub::{Scope, Step, Told, Watcher},
    metrics::Metrics,
    model::Moment,
};

pin_project! {
    /// See the module. `D` resolves when the server drains.
    #[derive(Debug)]
    pub(super) struct WatchBody<D> {
        // None once it has ended.
        open: Option<Open>,
        #[pin]
        alarm: Sleep,
        #[pin]
        drained: D,
    }
}

/// What is open of a watch.
#[derive(Debug)]
struct Open {
    instruments: Arc<Instruments>,
    watcher: Watcher,
    names: Names,
    share: Share,
    sending: Sending,
    /// There was nothing more to tell, and nobody has woken us since.
    is_dry: bool,
    /// How long it may be silent.
    idle: Duration,
    told_at: Moment,
}

/// What all watches need.
#[derive(Debug)]
pub(super) struct Instruments {
    /// For the age of what is told, and for silence.
    pub(super) clock: Clock,
    /// Counts watchers and what they are told.
    pub(super) metrics: Metrics,
    /// Of changes that are told.
    spans: Mutex<Budget>,
}

/// Spans of changes on their way to watchers that one process makes in a second: a change that is told to thousands shows by the
/// first of them, and those of the watchers are their own.
const SPANS_A_SECOND: f64 = 100.0;

/// Where the latest message is.
#[derive(Default)]
enum Sending {
    /// Handed over, or there was none.
    #[default]
    Done,
    /// Its head is handed over.
    Rest(Bytes),
    /// There is no room for it yet.
    Waits(Step, Room),
}

impl<D: Future<Output = ()>> WatchBody<D> {
    /// A watch that is told a bookmark when it was silent for `idle`.
    pub(super) fn new(
        instruments: Arc<Instruments>,
        watcher: Watcher,
        names: Names,
        share: Share,
        idle: Duration,
        drained: D,
    ) -> Self {
        instruments.metrics.watchers.add(1.0);
        Self {
            alarm: sleep(idle),
            drained,
            open: Some(Open {
                watcher,
                names,
                share,
                sending: Sending::Done,
                is_dry: false,
                idle,
                told_at: instruments.clock.now().moment,
                instruments,
            }),
        }
    }
}

impl<D: Future<Output = ()>> Body for WatchBody<D> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(open) = this.open else {
            return Poll::Ready(None);
        };
        if let Sending::Rest(rest) = &mut open.sending {
            let rest = mem::take(rest);
            open.sending = Sending::Done;
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        // First, so that a watcher with a long history to catch up on ends too.
        if this.drained.poll(cx).is_ready() {
            *this.open = None;
            return Poll::Ready(Some(Ok(trailers(&ApiError::Draining.into()))));
        }
        loop {
            if let Sending::Waits(_, room) = &mut open.sending {
                let held = ready!(room.as_mut().poll(cx));
                if let Sending::Waits(step, _) = mem::take(&mut open.sending) {
                    return Poll::Ready(Some(Ok(Frame::data(open.send(&step, held)))));
                }
            }
            let step = ready!(open.poll_step(this.alarm.as_mut(), cx));
            match open.share.hold(open.watcher.large_bytes(&step)) {
                Ok(held) => return Poll::Ready(Some(Ok(Frame::data(open.send(&step, held))))),
                Err(room) => open.sending = Sending::Waits(step, room),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }
}

impl Open {
    /// Waits for something to tell, or until it is time to say that there is nothing.
    fn poll_step(&mut self, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Step> {
        // Before looking, so that what comes in between is not missed.
        while self.watcher.poll_woken(cx).is_ready() {
            self.is_dry = false;
        }
        let now = self.instruments.clock.now().moment;
        if !self.is_dry {
            if let Some(step) = self.watcher.try_next(now) {
                self.is_dry = step.is_last;
                self.told_at = now;
                return Poll::Ready(step);
            }
            self.is_dry = true;
        }
        // It is set anew only when it rings: setting it at each step would cost more than all the rest.
        loop {
            ready!(alarm.as_mut().poll(cx));
            let left = self.idle.saturating_sub(now.since(self.told_at));
            if left.is_zero() {
                alarm.as_mut().reset(Instant::now() + self.idle);
                self.told_at = now;
                // Looked again by then: the revision has moved on by what others did.
                if let Some(step) = self.watcher.bookmark(now) {
                    self.is_dry = step.is_last;
                    return Poll::Ready(step);
                }
                continue;
            }
            alarm.as_mut().reset(Instant::now() + left);
        }
    }

    /// Encodes a step, or finds it encoded, and gives the first bytes of it.
    fn send(&mut self, step: &Step, held: Held) -> Bytes {
        let metrics = &self.instruments.metrics;
        match &step.told {
            Told::Part(part) if part.is_first() => metrics.snapshots(part.cause).inc(),
            Told::Delta(_) => metrics.watch_lag.observe(lag(step.lag)),
            Told::Part(_) | Told::Bookmark => {}
        }
        // Before it is out: its acknowledgement may be here before this returns.
        self.watcher.sent(step, Clock::wall);
        let began = std::time::Instant::now();
        let shared = self.watcher.encoded(step, message::shared);
        let Outgoing { head, rest } = message::message(step, &self.names, shared);
        if let Told::Delta(batch) = &step.told
            && let Some(trace) = batch.trace
        {
            self.instruments
                .trace(trace, step, self.watcher.scope(), began.elapsed());
        }
        self.sending = match rest {
            Some(rest) => Sending::Rest(held.within(rest)),
            None => Sending::Done,
        };
        head
    }
}

impl Instruments {
    pub(super) fn new(clock: Clock, metrics: Metrics) -> Self {
        Self {
            clock,
            metrics,
            spans: Mutex::new(Budget::new(SPANS_A_SECOND)),
        }
    }

    /// One short span for a change that is on its way, in its own trace: a watch itself has none that ends.
    fn trace(&self, trace: TraceParent, step: &Step, scope: &Scope, took: Duration) {
        let now = self.clock.now().moment.since_start();
        if !self.spans.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            return;
        }
        let destination = match &scope.service {
            Some(service) => format!("{}/{service}", scope.namespace),
            None => scope.namespace.to_string(),
        };
        Work::record(
            Kind::Producer,
            format!("deliver {destination}"),
            &trace.context(),
            took,
            || {
                vec![
                    KeyValue::new(semconv::MESSAGING_SYSTEM, semconv::MESSAGING_SYSTEM_REGISTRY),
                    KeyValue::new(semconv::MESSAGING_OPERATION_TYPE, "send"),
                    KeyValue::new(semconv::MESSAGING_DESTINATION_NAME, destination.clone()),
                    KeyValue::new(semconv::REVISION, signed(step.revision.get())),
                    KeyValue::new(semconv::WATCH_LAG, signed(step.lag)),
                ]
            },
        );
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "Done",
            Self::Rest(..) => "Rest",
            Self::Waits(..) => "Waits",
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.instruments.metrics.watchers.add(-1.0);
    }
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    // Ours are encoded to valid header bytes; without one the client reads UNKNOWN and comes back as well.
    let _ = status.add_header(&mut trailers);
    Frame::trailers(trailers)
}

#[allow(clippy::cast_precision_loss, reason = "a histogram's buckets are coarser")]
fn lag(revisions: u64) -> f64 {
    revisions as f64
}

#[cfg(test)]
mod over_http2;
#[cfg(test)]
mod tests;
