//! The body of a request on its way out, in a form that can be sent again while that is safe.
//!
//! tonic hands over a stream even for a unary call. Reading ahead, without ever waiting, tells the two apart: a body that
//! is complete at once (every unary call) becomes plain bytes. Those can be repeated on another endpoint, and their end
//! travels with them instead of in an empty frame of its own.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};

use super::replay::Streaming;

/// What is sent.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// All of it, if there is anything: can be sent again.
    Whole(Option<Bytes>),
    /// A stream. Not read itself as soon as it was sent: its later readers are.
    Streaming(Option<Streaming>),
}

impl RequestBody {
    /// Looks at the first frames of `body` that are there already.
    ///
    /// # Errors
    /// The message could not be encoded: nothing was sent.
    pub(crate) fn read_ahead(mut body: Body, cx: &mut Context<'_>) -> Result<Self, Status> {
        let mut next = |body: &mut Body| {
            if body.is_end_stream() {
                Poll::Ready(None)
            } else {
                Pin::new(body).poll_frame(cx)
            }
        };
        let first = match next(&mut body) {
            Poll::Ready(None) => return Ok(Self::Whole(None)),
            Poll::Ready(Some(frame)) => frame?,
            Poll::Pending => return Ok(Self::streaming([None, None], body)),
        };
        let second = match next(&mut body) {
            Poll::Ready(None) => None,
            Poll::Ready(Some(frame)) => Some(frame?),
            Poll::Pending => return Ok(Self::streaming([Some(first), None], body)),
        };
        match (first.into_data(), second) {
            (Ok(data), None) => Ok(Self::Whole(Some(data))),
            (Ok(data), second) => Ok(Self::streaming([Some(Frame::data(data)), second], body)),
            (Err(first), second) => Ok(Self::streaming([Some(first), second], body)),
        }
    }

    /// Whether it is known to have no byte.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    /// All of it, as gRPC frames it; `None` of a stream, and if there is nothing.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(data) => data.as_deref(),
            Self::Streaming(_) => None,
        }
    }

    /// Whether it can be sent (again).
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Streaming(streaming) => streaming.as_ref().is_some_and(Streaming::is_there),
        }
    }

    /// A stream from its beginning, as long as all of it is there.
    pub(crate) fn streamed(&self) -> Option<Streaming> {
        match self {
            Self::Whole(_) | Self::Streaming(None) => None,
            Self::Streaming(Some(streaming)) => streaming.again(),
        }
    }

    /// The same once more, for another attempt at the same time. A stream has one reader.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Whole(data) => Some(Self::Whole(data.clone())),
            Self::Streaming(_) => None,
        }
    }

    /// The response has begun: it is not sent again.
    pub(crate) fn commit(&self) {
        if let Self::Streaming(Some(streaming)) = self {
            streaming.commit();
        }
    }

    fn streaming(ahead: [Option<Frame<Bytes>>; 2], rest: Body) -> Self {
        Self::Streaming(Some(Streaming::new(ahead.into_iter().flatten(), rest)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::{BodyExt as _, StreamBody};
    use tokio_stream::{Stream, StreamExt as _};

    use super::*;

    /// Yields what it is given; `None` is a moment of silence.
    struct Script(VecDeque<Option<&'static str>>);

    impl Stream for Script {
        type Item = Result<Frame<Bytes>, Status>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            match self.0.pop_front() {
                None => Poll::Ready(None),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data.as_bytes()))))),
            }
        }
    }

    async fn check(script: &[Option<&'static str>], whole: bool) {
        let body = Body::new(StreamBody::new(Script(script.iter().copied().collect())));
        let mut body = Some(body);
        let read =
            std::future::poll_fn(|cx| Poll::Ready(RequestBody::read_ahead(body.take().expect("polled once"), cx)))
                .await
                .expect("no error in it");
        let sent = match read {
            RequestBody::Whole(data) => {
                assert!(whole, "{script:?} is no complete body");
                data.unwrap_or_default()
            }
            RequestBody::Streaming(streaming) => {
                assert!(!whole, "{script:?} is a complete body");
                streaming
                    .expect("not sent yet")
                    .collect()
                    .await
                    .expect("no error in it")
                    .to_bytes()
            }
        };
        let expected: String = script.iter().flatten().copied().collect();
        assert_eq!(sent, expected, "{script:?}");
    }

    #[tokio::test]
    async fn nothing_is_lost_or_reordered_and_only_complete_bodies_repeat() {
        check(&[], true).await;
        check(&[Some("a")], true).await;
        check(&[Some("a"), Some("b")], false).await;
        check(&[Some("a"), Some("b"), Some("c")], false).await;
        check(&[None, Some("a")], false).await;
        check(&[Some("a"), None], false).await;
        check(&[Some("a"), None, Some("b")], false).await;
        check(&[Some("a"), Some("b"), None, Some("c")], false).await;
    }

    #[test]
    fn a_message_that_does_not_encode_is_the_callers_error() {
        let failing = tokio_stream::once(Err::<Frame<Bytes>, _>(Status::out_of_range("too large"))).map(|frame| frame);
        let body = Body::new(StreamBody::new(failing));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let status = RequestBody::read_ahead(body, &mut cx).expect_err("must fail");
        assert_eq!(status.message(), "too large");
    }
}
