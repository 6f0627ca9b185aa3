//! A streaming request on its way out, and as much of it as is kept so that it can be sent again.
//!
//! What was sent is kept until the response has begun, or until it is more than [`KEPT`]: then the call is committed to the
//! attempt it is on. One attempt reads at a time; an earlier one that still tries to gets nothing.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};

/// The most that is kept of one request, in bytes of messages. As linkerd's proxy does; gRPC in Go keeps four times that.
const KEPT: usize = 64 * 1024;

/// A reader of a request that is not complete yet.
#[derive(Debug)]
pub(crate) struct Streaming {
    source: Arc<Mutex<Source>>,
    /// Which of its readers this is. Only the last one reads.
    number: u64,
}

#[derive(Debug)]
struct Source {
    frames: VecDeque<Kept>,
    /// Which of `frames` the reader gets next.
    next: usize,
    bytes: usize,
    /// Whether `frames` goes back to the beginning, so that it can all be sent again.
    keeps: bool,
    last_reader: u64,
    /// `None` once it has ended.
    rest: Option<Body>,
}

#[derive(Clone, Debug)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Kept {
    fn of(frame: Frame<Bytes>) -> Self {
        match frame.into_data() {
            Ok(data) => Self::Data(data),
            Err(frame) => Self::Trailers(frame.into_trailers().unwrap_or_default()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

impl Streaming {
    /// `ahead`, and then `rest`.
    pub(super) fn new(ahead: impl IntoIterator<Item = Frame<Bytes>>, rest: Body) -> Self {
        let frames: VecDeque<Kept> = ahead.into_iter().map(Kept::of).collect();
        let source = Source {
            bytes: frames.iter().map(Kept::len).sum(),
            frames,
            next: 0,
            keeps: true,
            last_reader: 0,
            rest: Some(rest),
        };
        Self {
            source: Arc::new(Mutex::new(source)),
            number: 0,
        }
    }

    /// From the beginning, if all of it is still there. From then on nobody else reads.
    pub(super) fn again(&self) -> Option<Self> {
        let mut source = self.source();
        if !source.keeps {
            return None;
        }
        source.last_reader += 1;
        source.next = 0;
        Some(Self {
            source: Arc::clone(&self.source),
            number: source.last_reader,
        })
    }

    /// Whether [`Streaming::again`] would succeed.
    pub(super) fn is_there(&self) -> bool {
        self.source().keeps
    }

    /// The response has begun: nothing is kept any more.
    pub(super) fn commit(&self) {
        self.source().commit();
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn commit(&mut self) {
        if self.keeps {
            self.keeps = false;
            self.frames.drain(..self.next);
            self.next = 0;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.keeps {
            if let Some(kept) = self.frames.pop_front() {
                return Poll::Ready(Some(Ok(kept.into_frame())));
            }
        } else if let Some(kept) = self.frames.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(kept.clone().into_frame())));
        }
        let polled = match &mut self.rest {
            None => return Poll::Ready(None),
            Some(rest) if rest.is_end_stream() => Poll::Ready(None),
            Some(rest) => Pin::new(rest).poll_frame(cx),
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.rest = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(status))) => {
                self.commit();
                self.rest = None;
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let kept = Kept::of(frame);
                self.bytes += kept.len();
                if self.bytes > KEPT {
                    self.commit();
                }
                if self.keeps {
                    self.next += 1;
                    self.frames.push_back(kept.clone());
                }
                Poll::Ready(Some(Ok(kept.into_frame())))
            }
        }
    }
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut source = self.source();
        if source.last_reader != self.number {
            // Whoever polls this is being aborted, or has sent what nobody will ever answer.
            return Poll::Pending;
        }
        source.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    type Sender = mpsc::Sender<Result<Frame<Bytes>, Status>>;

    fn streaming() -> (Sender, Streaming) {
        let (sender, frames) = mpsc::channel(8);
        (
            sender,
            Streaming::new([], Body::new(StreamBody::new(ReceiverStream::new(frames)))),
        )
    }

    async fn send(sender: &Sender, bytes: usize) {
        sender
            .send(Ok(Frame::data(Bytes::from(vec![7; bytes]))))
            .await
            .expect("taken");
    }

    async fn read(reader: &mut Streaming) -> usize {
        let frame = reader.frame().await.expect("a frame").expect("no error");
        frame.into_data().expect("data").len()
    }

    #[tokio::test]
    async fn a_later_reader_gets_all_of_it_and_the_earlier_one_nothing_more() {
        let (sender, handle) = streaming();
        let mut first = handle.again().expect("all there");
        for bytes in [1, 2] {
            send(&sender, bytes).await;
            assert_eq!(read(&mut first).await, bytes);
        }
        let mut second = handle.again().expect("all there");
        send(&sender, 3).await;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut first).poll_frame(&mut cx).is_pending());
        assert_eq!(read(&mut second).await, 1);
        assert_eq!(read(&mut second).await, 2);
        assert_eq!(read(&mut second).await, 3);
        drop(sender);
        assert!(second.frame().await.is_none());
        let collected = handle.again().expect("all there").collect().await.expect("no error");
        assert_eq!(collected.to_bytes().len(), 6);
    }

    #[tokio::test]
    async fn what_is_too_large_is_sent_once_and_not_kept() {
        let (sender, handle) = streaming();
        let mut reader = handle.again().expect("all there");
        send(&sender, KEPT).await;
        assert_eq!(read(&mut reader).await, KEPT);
        assert!(handle.is_there(), "exactly as much as is kept");
        send(&sender, 1).await;
        assert_eq!(read(&mut reader).await, 1);
        assert!(!handle.is_there() && handle.again().is_none());
        assert!(handle.source().frames.is_empty(), "nothing is held any more");
        send(&sender, 5).await;
        assert_eq!(read(&mut reader).await, 5);
    }

    #[tokio::test]
    async fn a_response_that_has_begun_lets_go_of_what_was_sent_and_keeps_what_was_not() {
        let (sender, handle) = streaming();
        let mut first = handle.again().expect("all there");
        for bytes in [1, 2, 3] {
            send(&sender, bytes).await;
            assert_eq!(read(&mut first).await, bytes);
        }
        let mut second = handle.again().expect("all there");
        assert_eq!(read(&mut second).await, 1);
        handle.commit();
        assert!(!handle.is_there());
        assert_eq!(read(&mut second).await, 2);
        assert_eq!(read(&mut second).await, 3);
        assert!(handle.source().frames.is_empty());
    }
}
