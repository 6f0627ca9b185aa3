//! Request messages that begin and do not arrive.
//!
//! tonic buffers a message until it is whole, and waits for that as long as the peer likes: keepalive does not help, because
//! such a peer answers pings, and a deadline is the caller's to set. Here the wait has an end. A stream of requests that is
//! idle between two messages holds nothing and is left alone.
//!
//! The rate is part of it because a plain timeout is either too short for a large message on a thin line or renewed by a
//! single byte. Not here: how large a message may be (tonic's `max_decoding_message_size`).

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use telemetry::{messages::MessageCounter, server::ReceivedMessages};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};
use tower_service::Service;

use crate::{catalogue::Catalogue, status};

/// Bytes that buy a message another second: half a megabit a second, which the thinnest line between services has.
const BYTES_A_SECOND: u64 = 64 << 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service whose calls end when their requests do not arrive.
#[derive(Debug, Clone)]
pub(super) struct Uploads<S> {
    inner: S,
    catalogue: Arc<Catalogue>,
    timeout: Duration,
}

impl<S> Uploads<S> {
    pub(super) fn new(inner: S, catalogue: Arc<Catalogue>, timeout: Duration) -> Self {
        Self {
            inner,
            catalogue,
            timeout,
        }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Uploads<S>
where
    S: Service<Request<Upload<ReqBody>>, Response = Response<ResBody>, Error = Infallible>,
{
    type Response = Response<ResBody>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let expects = if self.catalogue.takes_one_message(request.uri().path()) {
            Expects::OneMessage
        } else {
            Expects::Messages
        };
        let was_read = WasRead::default();
        request.extensions_mut().insert(was_read.clone());
        let told = request.extensions().get::<ReceivedMessages>().cloned();
        let patience = Patience::new(expects, self.timeout);
        self.inner
            .call(request.map(|body| Upload::new(body, patience, was_read, told)))
    }
}

/// Request extension: whether the service has read its request to the end and every message of it was whole.
#[derive(Debug, Clone, Default)]
pub(super) struct WasRead(Arc<AtomicBool>);

impl WasRead {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a method takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// One message and then the end, both of them soon: nothing runs before they are there.
    OneMessage,
    /// Any number, each at its time; or it is not known.
    Messages,
}

/// How long a peer may still be waited for. Pure: it is told what arrives and how long that took.
#[derive(Debug)]
struct Patience {
    expects: Expects,
    timeout: Duration,
    counter: MessageCounter,
    /// The message that `received` and `waited` are about.
    message: Option<u64>,
    received: u64,
    waited: Duration,
}

impl Patience {
    fn new(expects: Expects, timeout: Duration) -> Self {
        Self {
            expects,
            timeout,
            counter: MessageCounter::default(),
            message: None,
            received: 0,
            waited: Duration::ZERO,
        }
    }

    fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    fn received(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        self.counter.feed(bytes);
        match self.expects {
            // What follows the first message is thrown away by tonic and buys no time.
            Expects::OneMessage if self.counter.messages() > 1 => {}
            Expects::OneMessage => self.received += length,
            Expects::Messages => {
                let message = self.counter.incomplete();
                if message == self.message {
                    self.received += length;
                } else {
                    self.message = message;
                    self.received = 0;
                    self.waited = Duration::ZERO;
                }
            }
        }
    }

    /// `None` while nothing is missing.
    fn left(&self) -> Option<Duration> {
        if self.expects == Expects::Messages && self.message.is_none() {
            return None;
        }
        let bought = Duration::from_secs(self.received / BYTES_A_SECOND);
        Some((self.timeout + bought).saturating_sub(self.waited))
    }

    /// Whether the request, which has ended, is whole.
    fn is_whole(&self) -> bool {
        self.counter.messages() > 0 && self.counter.incomplete().is_none()
    }

    fn exceeded(&self) -> Status {
        status::error_with(
            Code::DeadlineExceeded,
            "REQUEST_TOO_SLOW",
            format!(
                "the request did not arrive within {:?} and a second for each {} KiB of it",
                self.timeout,
                BYTES_A_SECOND >> 10
            ),
            [("timeout_ms", self.timeout.as_millis().to_string())],
        )
    }
}

pin_project! {
    /// Request body of [`Uploads`].
    pub(super) struct Upload<B> {
        // None after a timeout: what is buffered for the stream is given back at once.
        #[pin]
        inner: Option<B>,
        patience: Patience,
        // Since when nothing has come.
        waiting: Option<Instant>,
        // Made when something is waited for, which for most requests never happens.
        timer: Option<Pin<Box<Sleep>>>,
        was_read: WasRead,
        // Where to tell how many messages came, if anybody wants to know.
        told: Option<ReceivedMessages>,
    }
}

impl<B> Upload<B> {
    fn new(inner: B, patience: Patience, was_read: WasRead, told: Option<ReceivedMessages>) -> Self {
        Self {
            inner: Some(inner),
            patience,
            waiting: None,
            timer: None,
            was_read,
            told,
        }
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = inner.poll_frame(cx) {
            if let Some(since) = this.waiting.take() {
                this.patience.waited(since.elapsed());
            }
            match &frame {
                Some(Ok(frame)) => match frame.data_ref() {
                    Some(data) => {
                        this.patience.received(data);
                        if let Some(told) = this.told {
                            told.set(this.patience.counter.messages());
                        }
                    }
                    None => this.was_read.0.store(this.patience.is_whole(), Ordering::Relaxed),
                },
                None => this.was_read.0.store(this.patience.is_whole(), Ordering::Relaxed),
                Some(Err(_)) => {}
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let now = Instant::now();
        let since = *this.waiting.get_or_insert(now);
        let Some(left) = this.patience.left() else {
            return Poll::Pending;
        };
        let deadline = since + left;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        std::task::ready!(timer.as_mut().poll(cx));
        this.inner.set(None);
        Poll::Ready(Some(Err(this.patience.exceeded().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn prefix(length: u32) -> Vec<u8> {
        [&[0][..], &length.to_be_bytes()].concat()
    }

    #[test]
    fn a_stream_may_be_idle_between_messages_and_not_within_one() {
        let mut patience = Patience::new(Expects::Messages, TIMEOUT);
        assert_eq!(patience.left(), None, "before the first");
        patience.waited(TIMEOUT * 100);
        patience.received(&prefix(2)[..3]);
        assert_eq!(patience.left(), Some(TIMEOUT), "idle time is not the message's");
        patience.waited(TIMEOUT / 2);
        patience.received(&[0, 2, 7]);
        assert_eq!(patience.left(), Some(TIMEOUT / 2), "a byte does not renew it");
        patience.received(&[7]);
        assert_eq!(patience.left(), None, "after the first");
        assert!(patience.is_whole());
        // One message ends and the next begins in the same frame.
        patience.received(&prefix(5));
        patience.waited(TIMEOUT);
        assert_eq!(patience.left(), Some(Duration::ZERO));
        patience.received(&[&[7; 5][..], &[0]].concat());
        assert_eq!(patience.left(), Some(TIMEOUT));
        assert!(!patience.is_whole());
    }

    #[test]
    fn a_single_request_has_to_come_and_to_end() {
        let mut patience = Patience::new(Expects::OneMessage, TIMEOUT);
        patience.waited(TIMEOUT / 2);
        assert_eq!(patience.left(), Some(TIMEOUT / 2), "before the first byte");
        patience.received(&prefix(0));
        assert_eq!(patience.left(), Some(TIMEOUT / 2), "before the end");
        patience.waited(TIMEOUT);
        assert_eq!(patience.left(), Some(Duration::ZERO));
    }

    #[test]
    fn bytes_of_the_message_buy_time() {
        for expects in [Expects::OneMessage, Expects::Messages] {
            let mut patience = Patience::new(expects, TIMEOUT);
            patience.received(&prefix(4 << 20));
            patience.received(&vec![7; 1 << 20]);
            assert_eq!(patience.left(), Some(TIMEOUT + Duration::from_secs(16)), "{expects:?}");
        }
        let mut patience = Patience::new(Expects::OneMessage, TIMEOUT);
        for _ in 0..100 {
            patience.received(&[&prefix(65_536)[..], &[7; 65_536]].concat());
        }
        assert!(
            patience.left() <= Some(TIMEOUT + Duration::from_secs(1)),
            "superfluous messages buy none"
        );
    }
}
