//! The byte stream to a server, with one thing added: it tells when the server has spoken. Knows nothing of HTTP/2.
//!
//! A TCP connect proves only that a kernel is alive: a stopped process still accepts, up to its backlog. In HTTP/2 the server
//! speaks first thing (its SETTINGS, RFC 9113 section 3.4), so the first byte it sends is the proof that a process is there,
//! and hyper has no way to tell us of it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

/// A TCP stream that reports the first byte it reads.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: TcpStream,
    spoke: Option<oneshot::Sender<()>>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> (Self, oneshot::Receiver<()>) {
        let (spoke, heard) = oneshot::channel();
        (
            Self {
                stream,
                spoke: Some(spoke),
            },
            heard,
        )
    }
}

impl AsyncRead for Peer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.spoke.is_some()
            && buf.filled().len() > before
            && let Some(spoke) = self.spoke.take()
        {
            // Nobody listens any more when the connect timed out; the connection is about to be dropped then.
            let _ = spoke.send(());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
