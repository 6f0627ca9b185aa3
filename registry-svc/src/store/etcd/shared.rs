//! What the writer's thread, the follower's task and the session's both know: the fence, which groups are our own, whether commits get
//! through, and whether etcd has room.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::value::Head;

/// The last commit that this replica knows of. A commit of ours goes through only if it still is the last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fence {
    pub(super) head: Head,
    /// etcd's revision that wrote the head and its group.
    pub(super) etcd: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    fence: Fence,
    /// When this replica's session was made, by etcd's revision; 0: there is none.
    session: i64,
    /// Commits of this replica, by their nonce, until both their verdict and their echo are here.
    own: HashMap<u64, Own>,
    /// When the last commit that etcd took began.
    contact: Option<Instant>,
    /// When the first try of a commit failed that is still repeated.
    stuck: Option<Instant>,
    room: Room,
}

/// What is known of etcd's quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Room {
    /// There is some.
    #[default]
    Enough,
    /// It is used up: no session can be made and no lease claimed.
    None,
    /// There has been some again since then.
    Again(Instant),
}

/// How much of an own commit is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// No verdict yet.
    Pending,
    /// No verdict yet, but the log has it.
    Seen,
    /// Durable; the echo is still to come.
    Durable,
}

impl Shared {
    pub(super) fn fence(&self) -> Fence {
        self.lock().fence
    }

    /// When this replica's session was made, as far as is known.
    pub(super) fn session(&self) -> Option<i64> {
        Some(self.lock().session).filter(|made| *made > 0)
    }

    /// A look has found this replica's session, or not.
    pub(super) fn found_session(&self, made: Option<i64>) {
        self.lock().session = made.unwrap_or_default();
    }

    /// After a load.
    pub(super) fn begin(&self, fence: Fence) {
        let mut inner = self.lock();
        inner.fence = fence;
        inner.own.clear();
    }

    /// A commit begins.
    pub(super) fn pending(&self, nonce: u64) {
        self.lock().own.insert(nonce, Own::Pending);
    }

    /// A commit of ours went through.
    pub(super) fn durable(&self, nonce: u64, fence: Fence) {
        let mut inner = self.lock();
        inner.advance(fence);
        match inner.own.get_mut(&nonce) {
            Some(own @ Own::Pending) => *own = Own::Durable,
            _ => {
                inner.own.remove(&nonce);
            }
        }
    }

    /// Whether the log has a commit of ours whose verdict is open.
    pub(super) fn is_seen(&self, nonce: u64) -> bool {
        self.lock().own.get(&nonce) == Some(&Own::Seen)
    }

    /// A commit of ours did not go through. From here on its group, should it turn up, is told as another's. `false`: it has
    /// turned up already, so it did go through.
    pub(super) fn forget(&self, nonce: u64) -> bool {
        let mut inner = self.lock();
        if inner.own.get(&nonce) == Some(&Own::Seen) {
            return false;
        }
        inner.own.remove(&nonce);
        true
    }

    /// The log has a group. Returns whether it is ours, so that the driver knows it already.
    pub(super) fn seen(&self, nonce: u64, fence: Fence) -> bool {
        let mut inner = self.lock();
        inner.advance(fence);
        match inner.own.get_mut(&nonce) {
            None => false,
            Some(Own::Durable) => {
                inner.own.remove(&nonce);
                true
            }
            Some(own) => {
                *own = Own::Seen;
                true
            }
        }
    }

    /// etcd has answered a commit that began then.
    pub(super) fn answered(&self, begun: Instant) {
        let mut inner = self.lock();
        inner.contact = inner.contact.max(Some(begun));
        inner.stuck = None;
    }

    /// A try of a commit that began then has failed, and is repeated.
    pub(super) fn unanswered(&self, begun: Instant) {
        self.lock().stuck.get_or_insert(begun);
    }

    /// When the last commit that etcd has answered began.
    pub(super) fn contact(&self) -> Option<Instant> {
        self.lock().contact
    }

    /// Since when a commit is repeated, if one is.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.lock().stuck
    }

    /// etcd's quota is used up.
    pub(super) fn lacks_room(&self) {
        self.lock().room = Room::None;
    }

    /// etcd took something. Returns whether that ends a shortage.
    pub(super) fn has_room(&self) -> bool {
        let mut inner = self.lock();
        let ends = inner.room == Room::None;
        if ends {
            inner.room = Room::Again(Instant::now());
        }
        ends
    }

    pub(super) fn room(&self) -> Room {
        self.lock().room
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The thread and the task learn of commits in different orders.
    fn advance(&mut self, fence: Fence) {
        if fence.etcd > self.fence.etcd {
            self.fence = fence;
        }
    }
}
