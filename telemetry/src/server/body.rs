//! The response body: counts its messages, reads the status from its trailers, ends the span with it.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Buf as _;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use opentelemetry::{Context, KeyValue, trace::SpanKind};
use pin_project_lite::pin_project;

use super::layer::ReceivedMessages;
use crate::{
    messages::MessageCounter,
    metrics::{self, rpc::MethodDurations},
    rpc, semconv,
    span::{self, Ended, Side, Started},
    stats,
};

/// Where a call's duration goes.
#[derive(Debug)]
pub(super) enum Durations {
    /// The served methods are known.
    Known(Arc<MethodDurations>),
    /// They are not: the method counts as one unless the service says UNIMPLEMENTED.
    ByStatus(Box<str>),
}

/// A call that is being answered. Dropped without an end, it was cancelled.
#[derive(Debug)]
pub(super) struct Call {
    started: Started,
    durations: Durations,
    counted: stats::Handle,
    sent: MessageCounter,
    begun: Instant,
    /// Who calls, kept for a span that may be made late.
    caller: Option<Box<SocketAddr>>,
    received: Option<ReceivedMessages>,
    /// When its caller will have gone.
    until: Option<Instant>,
    ended: bool,
}

impl Call {
    pub(super) fn new(started: Started, durations: Durations, counted: stats::Handle) -> Self {
        Self {
            started,
            durations,
            counted,
            sent: MessageCounter::default(),
            begun: Instant::now(),
            caller: None,
            received: None,
            until: None,
            ended: false,
        }
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.started.is_recorded
    }

    /// Comes from there.
    pub(super) fn comes_from(&mut self, caller: Option<SocketAddr>) {
        if self.started.may_be_late {
            self.caller = caller.map(Box::new);
        }
    }

    /// Who reads its request tells there; and when its caller will have gone.
    pub(super) fn reads(&mut self, received: ReceivedMessages, until: Option<Instant>) {
        (self.received, self.until) = (Some(received), until);
    }

    /// Its stream is open and has no end of its own: the span ends here, well as far as anybody can say.
    pub(super) fn is_endless(&mut self) {
        self.end_span(rpc::OK, true);
        // Neither is it told later how long the stream was open.
        self.started.may_be_late = false;
    }

    pub(super) fn context(&self) -> &Context {
        &self.started.cx
    }

    pub(super) fn end(mut self, code: i32) {
        self.end_once(code);
    }

    fn end_once(&mut self, code: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let durations = match &self.durations {
            Durations::Known(durations) => Arc::clone(durations),
            Durations::ByStatus(_) if code == rpc::UNIMPLEMENTED => metrics::rpc::SERVER.of("", semconv::OTHER),
            Durations::ByStatus(method) => metrics::rpc::SERVER.of("", method),
        };
        let took = self.begun.elapsed();
        durations.observe(code, took, &self.started.cx);
        match &self.durations {
            Durations::Known(_) => self.counted.record(code, took),
            Durations::ByStatus(_) => stats::Handle::provider(durations.method(), &HeaderMap::new()).record(code, took),
        }
        self.tell_late(durations.method(), code, took);
        self.end_span(code, false);
    }

    fn tell_late(&self, method: &'static str, code: i32, took: Duration) {
        let ended = Ended {
            side: Side::Server,
            code,
            took,
            had_trouble: false,
            is_unary: self.sent.messages() <= 1,
        };
        span::late(&self.started, SpanKind::Server, ended, || {
            let attributes = super::layer::described(method.into(), self.caller.as_deref().copied());
            (method.into(), attributes)
        });
    }

    fn end_span(&mut self, code: i32, endless: bool) {
        if !std::mem::replace(&mut self.started.is_recorded, false) {
            return;
        }
        span::end_rpc(&self.started.cx, Side::Server, code, |attributes| {
            if endless {
                attributes.push(KeyValue::new(semconv::ENDLESS, true));
                return;
            }
            attributes.push(KeyValue::new(semconv::SENT_MESSAGES, span::count(self.sent.messages())));
            if let Some(received) = self
                .received
                .as_ref()
                .map(ReceivedMessages::get)
                .filter(|messages| *messages > 0)
            {
                attributes.push(KeyValue::new(semconv::RECEIVED_MESSAGES, span::count(received)));
            }
            if let Some(until) = self.until {
                attributes.push(KeyValue::new(semconv::DEADLINE_LEFT_MS, span::left(until)));
            }
        });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end_once(rpc::CANCELLED);
    }
}

pin_project! {
    /// Response body of [`super::ServerTrace`].
    #[derive(Debug)]
    pub struct TraceBody<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
    }
}

impl<B> TraceBody<B> {
    pub(super) fn new(inner: B, call: Option<Call>) -> Self {
        Self { inner, call }
    }
}

impl<B: Body> Body for TraceBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let entered = this.call.as_ref().map(|call| call.context().clone().attach());
        let frame = ready!(this.inner.poll_frame(cx));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref()
                    && let Some(call) = this.call
                {
                    // `Body::Data` of every body here is one chunk; of others the first is counted and the rest skipped.
                    call.sent.feed(data.chunk());
                }
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(call) = this.call.take()
                {
                    call.end(rpc::code_in(trailers).unwrap_or(rpc::UNKNOWN));
                }
            }
            Some(Err(_)) | None => {
                // A response that ends without a status breaks the protocol; callers will read it as UNKNOWN.
                if let Some(call) = this.call.take() {
                    call.end(rpc::UNKNOWN);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
