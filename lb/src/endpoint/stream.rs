//! One call on a connection: the request's body going out, the response coming in. Knows HTTP/2, and neither pools nor policies.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame};
use tokio::task::JoinHandle;

use super::connection::Slot;
use crate::call::Streaming;

/// Received bytes are acknowledged to the peer when so many have come together, and whenever more is waited for; what is left
/// at the end, h2 acknowledges with the stream. So a small response costs no acknowledgement of its own, while a thousand
/// idle subscriptions cannot hold the connection's window between them.
const ACKNOWLEDGE: usize = 4 * 1024;

/// A call that was sent; resolves when the response's head arrives. Dropping it cancels the call at the peer.
pub(crate) struct Exchange {
    response: ResponseFuture,
    rest: Option<(Option<Pump>, Slot)>,
}

/// The response's body. Dropping it before its end cancels the call at the peer.
pub(crate) struct Incoming {
    stream: RecvStream,
    /// What [`Incoming::peek`] has seen.
    ahead: Option<Box<Frame<Bytes>>>,
    data_ended: bool,
    unacknowledged: usize,
    _pump: Option<Pump>,
    _slot: Slot,
}

/// The task that sends a streaming request's body; it ends with the exchange that owns it.
pub(crate) struct Pump {
    task: JoinHandle<()>,
}

impl Exchange {
    pub(super) fn new(response: ResponseFuture, pump: Option<Pump>, slot: Slot) -> Self {
        Self {
            response,
            rest: Some((pump, slot)),
        }
    }
}

impl Future for Exchange {
    type Output = Result<Response<Incoming>, h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.response).poll(cx))?;
        let (pump, slot) = self.rest.take().expect("a future is not polled after it was ready");
        Poll::Ready(Ok(response.map(|stream| Incoming {
            stream,
            ahead: None,
            data_ended: false,
            unacknowledged: 0,
            _pump: pump,
            _slot: slot,
        })))
    }
}

impl Incoming {
    pub(crate) fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.stream.is_end_stream()
    }

    /// Waits for the first frame, and leaves it where it is; nothing if the stream has ended without.
    pub(crate) async fn peek(&mut self) -> Result<(), h2::Error> {
        if self.ahead.is_none() && !self.stream.is_end_stream() {
            let frame = std::future::poll_fn(|cx| self.poll_frame(cx)).await.transpose()?;
            self.ahead = frame.map(Box::new);
        }
        Ok(())
    }

    /// The trailers, if they are what [`Incoming::peek`] has seen.
    pub(crate) fn trailers_ahead(&self) -> Option<&HeaderMap> {
        self.ahead.as_ref()?.trailers_ref()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(frame) = self.ahead.take() {
            return Poll::Ready(Some(Ok(*frame)));
        }
        let polled = self.poll_unacknowledged(cx);
        match &polled {
            Poll::Pending => self.acknowledge(),
            Poll::Ready(Some(Ok(frame))) => {
                self.unacknowledged += frame.data_ref().map_or(0, Bytes::len);
                if self.unacknowledged >= ACKNOWLEDGE {
                    self.acknowledge();
                }
            }
            Poll::Ready(_) => {}
        }
        polled
    }

    fn poll_unacknowledged(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(data) => return Poll::Ready(Some(data.map(Frame::data))),
                None => self.data_ended = true,
            }
        }
        self.stream
            .poll_trailers(cx)
            .map(|trailers| trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn acknowledge(&mut self) {
        if self.unacknowledged > 0 {
            // Fails only when the stream has just broken, which the next frame reports.
            let _ = self
                .stream
                .flow_control()
                .release_capacity(std::mem::take(&mut self.unacknowledged));
        }
    }
}

impl Pump {
    pub(super) fn start(body: Streaming, stream: SendStream<Bytes>) -> Self {
        Self {
            task: tokio::spawn(pump(body, stream)),
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // The response is over, so nobody reads the rest; or the caller is gone, and dropping both halves tells the peer.
        self.task.abort();
    }
}

/// Sends frame by frame, never more than the peer has room for. Ends early when the peer resets the stream: what it has to say
/// about that is in the response.
async fn pump(mut body: Streaming, mut stream: SendStream<Bytes>) {
    loop {
        let frame = std::future::poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut body).poll_frame(cx).map(Some)
        });
        let sent = match frame.await {
            None => return,
            Some(None) => return drop(stream.send_data(Bytes::new(), true)),
            Some(Some(Err(status))) => {
                tracing::debug!(%status, "a request's stream failed");
                return stream.send_reset(Reason::CANCEL);
            }
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => send_all(&mut stream, data).await,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return drop(stream.send_trailers(trailers));
                }
            },
        };
        if sent.is_none() {
            return;
        }
    }
}

/// `None` when the stream is over.
async fn send_all(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Option<()> {
    if data.is_empty() {
        return Some(());
    }
    loop {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?,
            room => room,
        };
        let portion = data.split_to(room.min(data.len()));
        if !portion.is_empty() {
            stream.send_data(portion, false).ok()?;
        }
        if data.is_empty() {
            return Some(());
        }
    }
}
