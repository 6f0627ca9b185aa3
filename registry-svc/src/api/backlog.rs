//! What watches that are not read may hold, for each connection.
//!
//! tonic encodes a message as a whole and hyper hands all of it to HTTP/2, whose send buffer bounds only when the next one is
//! asked for: a watch that is not read holds its latest message, and a snapshot may be of any size. A hundred watches on each
//! of ten connections, opened and left alone, held gigabytes. So the large messages of one connection share a budget, and a
//! watch for which there is no room waits with its step, which is made of pointers, not yet encoded.
//!
//! For each connection and not for the process: with a common budget whoever does not read would hold up everybody else.
//! Within a connection this costs nothing that HTTP/2 did not cost before, whose window all of its streams share.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes, roughly, of the large messages of one connection; one that is larger by itself is sent alone. As much as the send
/// buffers of a hundred streams may hold anyway, and many times a snapshot of usual size.
const CONNECTION_BYTES: usize = 8 * 1_024 * 1_024;
/// Smaller ones are not counted: a stream's send buffer of 64 KiB has room for them.
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

/// Room for a message until HTTP/2 has taken it up. Nothing for a small one.
#[derive(Debug, Default)]
pub(super) struct Held(Option<OwnedSemaphorePermit>);

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
            return Ok(Held::default());
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
    /// Whether it is room for a large message.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
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
        drop(held);
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
