//! A connection that must not keep us busy with nothing.
//!
//! HTTP/2 has frames that cost their sender nothing and must be read, and some of them answered: PING, SETTINGS, PRIORITY, frames
//! of unknown types, DATA without data. h2 bounds what can be done with headers and resets (RUSTSEC-2024-0003, -0332), and answers
//! any number of these: 20,000 pings of one connection were all answered, as fast as they came (measured on h2 0.4.20).
//!
//! So they have a budget. It grows with time, and with what we send: a client that measures its bandwidth pings once for each
//! flight of data that it is sent, thousands of times a second to a neighbour, and rightly so. An answer to a ping is sent too,
//! but is worth less than a ping costs.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use telemetry::metrics::Counter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Idle frames that a connection may send at once. Ten times what any client sends to open one.
const BURST: f64 = 1_000.0;
/// And so many a second: a client that keeps alive sends one in ten seconds.
const EACH_SECOND: f64 = 100.0;
/// For so many bytes that we write comes one more. An answer to a ping has 17.
const BYTES_SENT: f64 = 32.0;

/// RFC 9113, 3.4.
const PREFACE: usize = 24;
/// RFC 9113, 4.1.
const FRAME_HEADER: usize = 9;

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// The last type that RFC 9113 knows.
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// Finds the frames in what is read, however it comes in pieces.
#[derive(Debug)]
struct Frames {
    /// Bytes that are to be passed over: the preface, then the payload of a frame.
    skip: usize,
    header: [u8; FRAME_HEADER],
    /// How much of the header has come.
    filled: usize,
}

impl Frames {
    fn new() -> Self {
        Self {
            skip: PREFACE,
            header: [0; FRAME_HEADER],
            filled: 0,
        }
    }

    /// How many idle frames begin in these bytes.
    fn idle(&mut self, mut bytes: &[u8]) -> u32 {
        let mut idle = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
            let taken = (FRAME_HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            (self.filled, bytes) = (self.filled + taken, &bytes[taken..]);
            if self.filled == FRAME_HEADER {
                let [a, b, c, kind, flags, ..] = self.header;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                idle += u32::from(is_idle(kind, flags, length));
                (self.skip, self.filled) = (length, 0);
            }
        }
        idle
    }
}

fn is_idle(kind: u8, flags: u8, length: usize) -> bool {
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        // Also those that answer ours, of which there is one in ten seconds: h2 logs each that answers nothing.
        SETTINGS | PING | PRIORITY => true,
        kind => kind > CONTINUATION,
    }
}

/// What a connection may still send of them.
#[derive(Debug)]
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// So many bytes went to the peer.
    fn sent(&mut self, bytes: usize) {
        // Exact for any write there is.
        #[allow(clippy::cast_precision_loss)]
        let earned = bytes as f64 / BYTES_SENT;
        self.left = (self.left + earned).min(BURST);
    }

    /// So many idle frames came. Whether that was within the budget.
    fn takes(&mut self, idle: u32, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() * EACH_SECOND;
        self.at = now;
        self.left = (self.left + earned).min(BURST) - f64::from(idle);
        self.left >= 0.0
    }
}

/// A connection whose reads fail when its peer has sent too many idle frames.
#[derive(Debug)]
pub(crate) struct CalmIo<T> {
    inner: T,
    frames: Frames,
    budget: Budget,
    cut: Counter,
}

impl<T> CalmIo<T> {
    /// `cut` counts the connections that are ended for it.
    pub(crate) fn new(inner: T, cut: Counter) -> Self {
        Self {
            inner,
            frames: Frames::new(),
            budget: Budget::new(Instant::now()),
            cut,
        }
    }

    fn earn(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.budget.sent(*bytes);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CalmIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let idle = this.frames.idle(&buf.filled()[before..]);
        // Nearly every read has none, and asks no clock.
        if idle > 0 && !this.budget.takes(idle, Instant::now()) {
            this.cut.inc();
            let message = "the peer sends too many frames that ask for nothing";
            return Poll::Ready(Err(io::Error::other(message)));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CalmIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.earn(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.earn(&written);
        written
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HEADERS: u8 = 1;
    const ACK: u8 = 1;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
        [&[length[1], length[2], length[3], kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn opened() -> Frames {
        let mut frames = Frames::new();
        assert_eq!(frames.idle(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 0);
        frames
    }

    #[test]
    fn frames_are_found_however_they_come() {
        let all = [
            frame(SETTINGS, 0, &[0; 6]),
            frame(SETTINGS, ACK, &[]),
            // What looks like a frame within another is none.
            frame(HEADERS, 4, &frame(PING, 0, &[0; 8])),
            frame(DATA, 0, b"hello"),
            frame(DATA, END_STREAM, &[]),
            frame(DATA, 0, &[]),
            frame(PING, 0, &[0; 8]),
            frame(PING, ACK, &[0; 8]),
            frame(PRIORITY, 0, &[0; 5]),
            frame(0x42, 0, b"?"),
        ]
        .concat();
        for piece in [1, 2, 8, 9, 10, 23, all.len()] {
            let mut frames = opened();
            let idle: u32 = all.chunks(piece).map(|bytes| frames.idle(bytes)).sum();
            assert_eq!(
                idle, 7,
                "SETTINGS and PING, each with its answer, DATA without data, PRIORITY, an unknown one; in pieces of {piece}"
            );
        }
    }

    #[test]
    fn a_flood_is_over_the_budget_and_its_answers_do_not_pay_for_it() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let pings = (0..20_000).take_while(|_| {
            budget.sent(17);
            budget.takes(1, now)
        });
        assert!(pings.count() < 2_500);
    }

    #[test]
    fn who_pings_once_for_each_flight_of_data_is_within_it() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        // A small answer: headers, a message, trailers; and the answer to the ping.
        assert!((0..1_000_000).all(|_| {
            budget.sent(60 + 17);
            budget.takes(1, now)
        }));
    }

    #[test]
    fn time_brings_it_back_but_no_more_than_a_burst() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        assert!(budget.takes(1_000, now));
        assert!(!budget.takes(1, now));
        let later = now + Duration::from_secs(3_600);
        assert!(budget.takes(1_000, later));
        assert!(!budget.takes(1, later));
    }
}
