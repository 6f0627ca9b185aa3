//! One HTTP/2 connection as calls see it: is there room for a stream, and open one. It does not dial, and does not reconnect.
//!
//! Calls talk to h2 directly, from their own task. hyper's client would put a dispatch queue, a response channel and a task
//! per call between them, which is most of what a small call costs (measured on two cores: 12 us of client CPU a call with
//! it); and it notices a GOAWAY only when the next call is made.
//!
//! The peer's limit on concurrent streams is kept here, in front of h2. A call that waits for room has certainly not been
//! sent, so it can go elsewhere when the connection dies; one that waits in h2's own queue could be anywhere.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::Request;
use tokio::sync::{Semaphore, TryAcquireError};

use super::stream::{Exchange, Pump};
use crate::call::RequestBody;

/// A handle, cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    /// Behind a lock because opening a stream needs it mutably; h2 has a lock of its own around the same work, and a clone per
    /// call would take that one twice more.
    sender: Mutex<SendRequest<Bytes>>,
    /// A permit per stream that may be opened now. Closed when the connection takes no more calls.
    room: Semaphore,
    /// Streams that are open beyond what the peer allows by now. As many of the next ones to end make no room.
    debt: AtomicUsize,
    /// How many streams the peer allows.
    limit: AtomicUsize,
}

/// Room for one stream; given back when dropped, with the stream.
#[derive(Debug)]
pub(crate) struct Slot {
    connection: Connection,
}

/// The connection takes no more calls: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// Why a stream was not opened. In either case nothing was sent.
#[derive(Debug)]
pub(crate) enum NotOpened {
    Closed,
    /// The request itself cannot be sent: a header that HTTP/2 forbids.
    Malformed(h2::Error),
}

impl Connection {
    pub(super) fn new(id: u64, sender: SendRequest<Bytes>) -> Self {
        // No permits before the link has told the peer's limit.
        Self {
            inner: Arc::new(Inner {
                id,
                sender: Mutex::new(sender),
                room: Semaphore::new(0),
                debt: AtomicUsize::new(0),
                limit: AtomicUsize::new(0),
            }),
        }
    }

    /// One to nobody, with room for `limit` streams.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) async fn idle(limit: usize) -> Self {
        let nobody = tokio::io::join(tokio::io::empty(), tokio::io::sink());
        let (sender, _) = h2::client::handshake(nobody).await.expect("it only writes");
        let connection = Self::new(0, sender);
        connection.widen(limit);
        connection
    }

    /// Tells this connection from the earlier and later ones of the same endpoint.
    pub(crate) fn id(&self) -> u64 {
        self.inner.id
    }

    /// Room for a stream, without waiting: `Ok(None)` when the peer allows no more of them now.
    pub(crate) fn try_room(&self) -> Result<Option<Slot>, Closed> {
        match self.inner.room.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Ok(Some(Slot {
                    connection: self.clone(),
                }))
            }
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => Err(Closed),
        }
    }

    /// As [`Connection::try_room`], waiting for it in the order of arrival. To stop waiting at any moment loses no room.
    pub(crate) async fn room(self) -> Result<Slot, Closed> {
        self.inner.room.acquire().await.map_err(|_| Closed)?.forget();
        Ok(Slot { connection: self })
    }

    /// Whether [`Connection::try_room`] would find room now.
    pub(crate) fn has_room(&self) -> bool {
        self.inner.room.available_permits() > 0 && !self.is_closed()
    }

    /// Whether any of the streams that the peer allows is in use.
    pub(super) fn has_calls(&self) -> bool {
        let Inner { room, debt, limit, .. } = &*self.inner;
        room.available_permits() < limit.load(Ordering::Relaxed) + debt.load(Ordering::Relaxed)
    }

    fn is_closed(&self) -> bool {
        self.inner.room.is_closed()
    }

    /// Opens a stream and sends `body` on it. It stays in place, and can be sent again as long as it is all there.
    ///
    /// `head` makes the request's head; twice at most.
    pub(crate) fn send(slot: Slot, head: impl Fn() -> Request<()>, body: &RequestBody) -> Result<Exchange, NotOpened> {
        let (response, mut sending) = slot.connection.open(head, body.is_empty())?;
        let pump = match body {
            RequestBody::Whole(None) => None,
            RequestBody::Whole(Some(data)) => {
                // It fails only if the stream was reset in this very moment, and then the response says so.
                let _ = sending.send_data(data.clone(), true);
                None
            }
            RequestBody::Streaming(_) => body.streamed().map(|streaming| Pump::start(streaming, sending)),
        };
        Ok(Exchange::new(response, pump, slot))
    }

    fn open(
        &self,
        head: impl Fn() -> Request<()>,
        end_of_stream: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), NotOpened> {
        let mut sender = self.inner.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(opened) = sender.send_request(head(), end_of_stream) {
            // A handle keeps hold of the stream that has reached the peer's limit until it opens another one, and a stream that
            // is held is not cancelled at the peer when its call is dropped. A fresh clone holds nothing. (With streams that
            // were given up a moment ago h2 may count more than we do, and hold one of which we do not know; that one is
            // cancelled with the next stream.)
            if self.inner.room.available_permits() == 0 {
                *sender = sender.clone();
            }
            return Ok(opened);
        }
        // A handle whose last stream still waits inside h2 opens no other one, while a fresh clone does; that happens when the
        // peer has lowered its limit a moment ago. Asking the handle beforehand would cost every call a lock, and would take
        // the wake-up away from the stream that waits; the clone knows no such stream.
        *sender = sender.clone();
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(_)) => Err(NotOpened::Closed),
            _ => sender.send_request(head(), end_of_stream).map_err(NotOpened::Malformed),
        }
    }

    /// The peer allows `more` streams than before.
    pub(super) fn widen(&self, more: usize) {
        self.inner.limit.fetch_add(more, Ordering::Relaxed);
        self.inner.give_back(more);
    }

    /// The peer allows `fewer` streams than before. Those that are open stay; what cannot be taken away is owed.
    pub(super) fn narrow(&self, fewer: usize) {
        let Inner { room, debt, limit, .. } = &*self.inner;
        limit.fetch_sub(fewer, Ordering::Relaxed);
        let owed = fewer - room.forget_permits(fewer);
        debt.fetch_add(owed, Ordering::SeqCst);
        // A stream that ended between the two has made room, though it should have paid.
        self.inner.give_back(room.forget_permits(owed));
    }

    /// No more calls: who waits for room goes elsewhere, who has it stays.
    ///
    /// Whoever counts a call and *then* asks for room either finds it closed, or is seen by whoever closes it and *then*
    /// looks at the count (`occupancy`): none slips through between the two.
    pub(crate) fn close(&self) {
        self.inner.room.close();
    }

    /// For who had room before its call was counted: whether the connection still takes it.
    pub(crate) fn still_takes(&self) -> bool {
        !self.is_closed()
    }
}

impl Slot {
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Inner {
    /// Room for `streams`, less what is owed.
    fn give_back(&self, mut streams: usize) {
        // Nearly always nothing, and then this look is all it costs.
        if self.debt.load(Ordering::SeqCst) > 0 {
            let pay = |debt: usize| Some(debt.saturating_sub(streams));
            let (Ok(owed) | Err(owed)) = self.debt.fetch_update(Ordering::SeqCst, Ordering::SeqCst, pay);
            streams = streams.saturating_sub(owed);
        }
        self.room.add_permits(streams);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.inner.give_back(1);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.inner.id)
            .field("closed", &self.is_closed())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many as there is room for.
    fn fill(connection: &Connection) -> Vec<Slot> {
        std::iter::from_fn(|| connection.try_room().expect("open")).collect()
    }

    /// What was in use when the peer lowered its limit used to make room again when it ended: the limit was exceeded by as
    /// many for the rest of the connection's life, and h2 held those calls back in a queue that nobody sees.
    #[tokio::test]
    async fn a_lowered_limit_is_kept_once_enough_streams_have_ended() {
        let connection = Connection::idle(5).await;
        let mut open = fill(&connection);
        connection.narrow(3);
        for still_open in (2..5).rev() {
            open.pop();
            assert_eq!(open.len(), still_open);
            assert!(!connection.has_room(), "{still_open} are open, 2 allowed");
        }
        open.pop();
        assert_eq!(fill(&connection).len(), 1);
        drop(open);
        assert_eq!(fill(&connection).len(), 2);
    }

    #[tokio::test]
    async fn a_limit_that_is_raised_again_first_pays_what_is_owed() {
        let connection = Connection::idle(4).await;
        let mut open = fill(&connection);
        connection.narrow(4);
        assert!(connection.has_calls());
        open.pop();
        connection.widen(4);
        assert_eq!(fill(&connection).len(), 1, "3 are open, 4 allowed");
        drop(open);
        assert_eq!(fill(&connection).len(), 4);
        assert!(!connection.has_calls());
    }

    #[tokio::test]
    async fn room_that_is_free_is_taken_away_at_once() {
        let connection = Connection::idle(4).await;
        let open = connection.try_room().expect("open").expect("room");
        connection.narrow(4);
        assert!(!connection.has_room());
        drop(open);
        assert!(!connection.has_room(), "none is allowed");
        connection.widen(1);
        assert_eq!(fill(&connection).len(), 1);
    }
}
