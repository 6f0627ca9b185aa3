//! A connection that writes once a turn.
//!
//! HTTP/2 hands every frame of more than a few hundred bytes to the socket by itself: a change that fifty watchers of a
//! connection are told is fifty system calls, and they cost more than all the rest of telling it. Here what is written during
//! one turn of the connection's task is gathered, and [`Uncork`] writes it at the end of the turn.
//!
//! Not a delay: nothing waits for a timer. Not a queue either: as long as the socket does not take what a turn has left, the
//! next one may not add to it, so that a peer who reads slowly slows HTTP/2 down as before.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that a turn gathers; beyond, it writes in between. Four times HTTP/2's own buffer: larger ones save no system calls
/// that could still be measured.
const GATHERED_BYTES: usize = 64 * 1_024;
/// A write of so many bytes pays for its system call and is not copied.
const LARGE_BYTES: usize = 16 * 1_024;

/// See the module. Flushing it does nothing: that is [`Uncork`]'s part.
#[derive(Debug)]
pub(crate) struct Cork<T>(Shared<T>);

/// Writes what a turn has gathered.
#[derive(Debug)]
pub(crate) struct Uncork<T>(Shared<T>);

/// Both are with the same task, so nobody waits for the lock.
type Shared<T> = Arc<Mutex<Corked<T>>>;

#[derive(Debug)]
struct Corked<T> {
    io: T,
    gathered: BytesMut,
    /// The socket has not taken all of what an earlier turn left.
    is_behind: bool,
}

/// A connection that writes once a turn, and what has to be polled at the end of each.
pub(crate) fn cork<T>(io: T) -> (Cork<T>, Uncork<T>) {
    let shared = Arc::new(Mutex::new(Corked {
        io,
        gathered: BytesMut::new(),
        is_behind: false,
    }));
    (Cork(Arc::clone(&shared)), Uncork(shared))
}

impl<T: AsyncWrite + Unpin> Uncork<T> {
    /// Ready when the socket has taken everything. While it is not, the task is woken when the socket takes more.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_write_out(cx)
    }
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            self.is_behind = true;
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        self.is_behind = false;
        // A connection may be idle for hours.
        self.gathered = BytesMut::new();
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

fn lock<T>(shared: &Mutex<Corked<T>>) -> MutexGuard<'_, Corked<T>> {
    // A panic ends the connection with its task.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cork<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut corked = lock(&self.0);
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        if corked.is_behind || bytes >= LARGE_BYTES || corked.gathered.len() + bytes > GATHERED_BYTES {
            ready!(corked.poll_write_out(cx))?;
        }
        if bytes >= LARGE_BYTES {
            return Pin::new(&mut corked.io).poll_write_vectored(cx, bufs);
        }
        for buf in bufs {
            corked.gathered.extend_from_slice(buf);
        }
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = lock(&self.0);
        ready!(corked.poll_write_out(cx))?;
        Pin::new(&mut corked.io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Cork<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// A socket that counts its system calls.
    #[derive(Debug)]
    struct Counted {
        io: DuplexStream,
        writes: usize,
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
            self.writes += 1;
            Poll::Ready(written)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(cx)
        }
    }

    fn corked(room: usize) -> (Cork<Counted>, Uncork<Counted>, DuplexStream) {
        let (io, far) = duplex(room);
        let (cork, uncork) = cork(Counted { io, writes: 0 });
        (cork, uncork, far)
    }

    fn poll(uncork: &Uncork<Counted>) -> bool {
        let polled = uncork.poll(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(Ok(())))
    }

    #[tokio::test]
    async fn a_turn_is_one_write() {
        let (mut cork, uncork, mut far) = corked(1 << 20);
        for n in 0..50_u8 {
            cork.write_all(&[n; 300]).await.expect("gathers");
            cork.flush().await.expect("does nothing");
        }
        assert_eq!(lock(&uncork.0).writes(), 0);
        assert!(poll(&uncork));
        assert_eq!(lock(&uncork.0).writes(), 1);
        let mut read = vec![0; 50 * 300];
        far.read_exact(&mut read).await.expect("arrives");
        assert!(read.is_sorted(), "in order");
        assert!(poll(&uncork), "there is nothing left");
        assert_eq!(lock(&uncork.0).writes(), 1);
        assert_eq!(lock(&uncork.0).gathered.capacity(), 0, "and no memory is kept");
    }

    #[tokio::test]
    async fn what_is_large_is_not_copied_and_stays_in_order() {
        let (mut cork, uncork, mut far) = corked(1 << 20);
        cork.write_all(&[1; 10]).await.expect("gathers");
        cork.write_all(&[2; LARGE_BYTES]).await.expect("writes");
        assert_eq!(lock(&uncork.0).writes(), 2, "what was before it, and then it");
        cork.write_all(&[3; 10]).await.expect("gathers");
        assert!(poll(&uncork));
        let mut read = vec![0; LARGE_BYTES + 20];
        far.read_exact(&mut read).await.expect("arrives");
        assert!(read.is_sorted());
    }

    /// Gathering on while the peer reads nothing would hide from HTTP/2 that it does not, and hold what it sends.
    #[tokio::test]
    async fn a_peer_that_does_not_read_holds_one_turn_and_no_more() {
        let (mut cork, uncork, mut far) = corked(100);
        cork.write_all(&[1; 150]).await.expect("gathers");
        assert!(!poll(&uncork), "the socket took 100 of them");
        let mut next = std::pin::pin!(cork.write_all(&[2; 10]));
        assert!(futures_util::poll!(&mut next).is_pending());
        assert_eq!(lock(&uncork.0).gathered.len(), 50);
        let mut read = [0; 100];
        far.read_exact(&mut read).await.expect("arrives");
        next.await.expect("gathers again");
        poll_fn(|cx| uncork.poll(cx)).await.expect("writes");
        let mut read = [0; 60];
        far.read_exact(&mut read).await.expect("arrives");
        assert_eq!((read[49], read[50]), (1, 2));
    }

    #[tokio::test]
    async fn the_last_words_are_written_before_the_end() {
        let (mut cork, _uncork, mut far) = corked(1 << 20);
        cork.write_all(b"goodbye").await.expect("gathers");
        cork.shutdown().await.expect("ends");
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.expect("ends");
        assert_eq!(read, b"goodbye");
    }

    impl Corked<Counted> {
        fn writes(&self) -> usize {
            self.io.writes
        }
    }
}
