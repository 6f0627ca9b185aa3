//! What the writer's thread and the follower's task both know: the fence, and which groups are our own.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

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
    /// Commits of this replica, by their nonce, until both their verdict and their echo are here.
    own: HashMap<u64, Own>,
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
