//! What the large messages of unread watches may hold, for each connection.
//!
//! A message goes to HTTP/2 as a whole: once a stream may send a byte, hyper hands over all of it and asks for the next one, while
//! HTTP/2 keeps the first until the peer has read it. A change of a megabyte, told to a hundred watches of different selections
//! that nobody reads, would be held a hundred times. So the large messages of one connection share a budget, of which each has
//! its part until its last byte is written or its stream is gone ([`Held::within`]); a watch for which there is no room waits with
//! its step, which is made of pointers and not yet encoded.
//!
//! Nearly everything passes by this: snapshots come in parts that are not large, and most changes are of a few instances. For
//! each connection and not for the process: whoever does not read would hold up everybody else. What it costs is that a
//! connection with eight unread megabytes is told no other large change until it reads, or gives up, one of those.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes, roughly, of the large messages of one connection; one that is larger by itself is sent alone. As much as a hundred
/// streams may hold anyway of what is not large, twice over.
pub(super) const CONNECTION_BYTES: usize = 8 * 1_024 * 1_024;
/// Smaller ones are not counted: a stream may hold two of them, one with HTTP/2 and one on its way there.
const LARGE_BYTES: usize = 32 * 1_024;

/// The budgets of all connections that watch. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Mutex<HashMap<Peer, Budget>>>);

/// A connection by its other end. Connections that do not say share a budget.
type Peer = Option<SocketAddr>;

#[derive(Debug)]
struct Budget {
    room: Arc<Semaphore>,
    watches: usize,
}

/// A watch's part in the budget of its connection.
#[derive(Debug)]
pub(super) struct Share {
    backlog: Backlog,
    peer: Peer,
    room: Arc<Semaphore>,
}

/// Room for a message. Nothing for a small one.
#[derive(Debug)]
pub(super) struct Held(Option<OwnedSemaphorePermit>);

/// A message and its room.
struct Holding {
    message: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Resolves when there is room.
pub(super) type Room = Pin<Box<dyn Future<Output = Held> + Send>>;

impl Backlog {
    /// A watch begins on a connection.
    pub(super) fn join(&self, peer: Peer) -> Share {
        let mut budgets = self.lock();
        let budget = budgets.entry(peer).or_insert_with(|| Budget {
            room: Arc::new(Semaphore::new(CONNECTION_BYTES)),
            watches: 0,
        });
        budget.watches += 1;
        Share {
            backlog: self.clone(),
            peer,
            room: Arc::clone(&budget.room),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Peer, Budget>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Room for a message of so many bytes, or what resolves when there is some.
    pub(super) fn hold(&self, bytes: usize) -> Result<Held, Room> {
        if bytes < LARGE_BYTES {
            return Ok(Held(None));
        }
        let bytes = u32::try_from(bytes.min(CONNECTION_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        match Arc::clone(&room).try_acquire_many_owned(bytes) {
            Ok(permit) => Ok(Held(Some(permit))),
            // It is never closed, so this does not fail.
            Err(_) => Err(Box::pin(async move { Held(room.acquire_many_owned(bytes).await.ok()) })),
        }
    }
}

impl Held {
    /// The message, which gives its room back when the last of it is dropped.
    pub(super) fn within(self, message: Bytes) -> Bytes {
        match self.0 {
            Some(room) => Bytes::from_owner(Holding { message, _room: room }),
            None => message,
        }
    }
}

impl AsRef<[u8]> for Holding {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut budget) = self.backlog.lock().entry(self.peer) {
            budget.get_mut().watches -= 1;
            if budget.get().watches == 0 {
                budget.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn connections_do_not_wait_for_each_other() {
        let backlog = Backlog::default();
        let peer = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let (one, two, other) = (backlog.join(peer(1)), backlog.join(peer(1)), backlog.join(peer(2)));
        // Larger than the budget: alone.
        let Ok(held) = one.hold(usize::MAX) else {
            panic!("there is room")
        };
        let mut waiting = two.hold(LARGE_BYTES).expect_err("there is none left");
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(two.hold(LARGE_BYTES - 1).is_ok(), "small ones pass");
        assert!(other.hold(usize::MAX).is_ok(), "another connection");
        // With the last of its bytes, wherever they are.
        let mut message = held.within(Bytes::from_static(b"large"));
        let rest = message.split_off(1);
        drop(message);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(rest);
        assert!(waiting.now_or_never().is_some());
        assert!(two.hold(LARGE_BYTES).is_ok() && one.hold(LARGE_BYTES).is_ok());
    }

    #[test]
    fn budgets_live_as_long_as_their_watches() {
        let backlog = Backlog::default();
        let watches = (backlog.join(None), backlog.join(None));
        assert_eq!(backlog.lock().len(), 1);
        drop(watches.0);
        assert_eq!(backlog.lock().len(), 1);
        drop(watches.1);
        assert!(backlog.lock().is_empty());
    }
}
