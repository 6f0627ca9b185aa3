//! A connection that must say something soon.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// The HTTP/2 connection preface (24 bytes) and the header of the SETTINGS frame that must follow it (RFC 9113, 3.4).
const OPENING: usize = 24 + 9;

/// A connection whose reads fail when its opening has not arrived in time. After that it is the connection and nothing more.
///
/// Keepalive cannot do this: it starts after the handshake, and without one it never starts.
#[derive(Debug)]
pub(crate) struct PrefaceIo<T> {
    inner: T,
    /// None once the opening has arrived.
    opening: Option<Opening>,
    opened: Opened,
    heard: Heard,
}

/// How often the peers of a server have said anything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    pub(crate) fn times(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a connection's opening has arrived; readable while the connection itself is being served.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened(Arc<AtomicBool>);

impl Opened {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Opening {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<T> PrefaceIo<T> {
    pub(crate) fn new(inner: T, deadline: Instant, heard: Heard) -> Self {
        let deadline = Box::pin(sleep_until(deadline));
        let opening = Opening {
            missing: OPENING,
            deadline,
        };
        Self {
            inner,
            opening: Some(opening),
            opened: Opened::default(),
            heard,
        }
    }

    pub(crate) fn opened(&self) -> Opened {
        self.opened.clone()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PrefaceIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.heard.0.fetch_add(1, Ordering::Relaxed);
        }
        let Some(opening) = &mut this.opening else {
            return read;
        };
        match read {
            Poll::Ready(result) => {
                opening.missing = opening.missing.saturating_sub(buf.filled().len() - before);
                if opening.missing == 0 {
                    this.opening = None;
                    this.opened.0.store(true, Ordering::Relaxed);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(opening.deadline.as_mut().poll(cx));
                let message = "the connection's opening did not arrive in time";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PrefaceIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
