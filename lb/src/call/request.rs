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
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Status, body::Body};

/// What is sent.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// All of it. `None` once sent.
    Whole(Option<Bytes>),
    /// What was read ahead (`None` once sent), and the rest.
    Streaming {
        ahead: [Option<Frame<Bytes>>; 2],
        rest: Body,
    },
}

impl RequestBody {
    /// Looks at the first frames of `body` that are there already.
    ///
    /// # Errors
    /// The message could not be encoded: nothing was sent.
    pub(crate) fn read_ahead(mut body: Body, cx: &mut Context<'_>) -> Result<Self, Status> {
        if body.is_end_stream() {
            return Ok(Self::Whole(None));
        }
        let first = match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending => {
                return Ok(Self::Streaming {
                    ahead: [None, None],
                    rest: body,
                });
            }
            Poll::Ready(None) => return Ok(Self::Whole(None)),
            Poll::Ready(Some(frame)) => frame?,
        };
        let second = if body.is_end_stream() {
            None
        } else {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Pending => {
                    return Ok(Self::Streaming {
                        ahead: [Some(first), None],
                        rest: body,
                    });
                }
                Poll::Ready(None) => None,
                Poll::Ready(Some(frame)) => Some(frame?),
            }
        };
        match (first.into_data(), second) {
            (Ok(data), None) => Ok(Self::Whole(Some(data))),
            (Ok(data), second) => Ok(Self::Streaming {
                ahead: [Some(Frame::data(data)), second],
                rest: body,
            }),
            (Err(first), second) => Ok(Self::Streaming {
                ahead: [Some(first), second],
                rest: body,
            }),
        }
    }

    /// The same body once more, if it can be had: cheap, the bytes are shared.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(data) => Some(Self::Whole(data.clone())),
            Self::Streaming { .. } => None,
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Self::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Streaming {
                ahead: [first, second],
                rest,
            } => match first.take().or_else(|| second.take()) {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Pin::new(rest).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(data) => data.is_none(),
            Self::Streaming { ahead, rest } => ahead.iter().all(Option::is_none) && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        // An exact size would make hyper add a content-length, which gRPC has no use for.
        SizeHint::default()
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
        assert_eq!(read.again().is_some(), whole, "{script:?}");
        let sent = read.collect().await.expect("no error in it").to_bytes();
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
