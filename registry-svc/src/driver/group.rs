//! Batches that become durable together, and the answers that wait for it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::catalog::{Batch, CatalogError, Reply};

/// Answers or batches that may wait for the disk: a commit of this size takes far less than a time to live. Beyond,
/// mutations wait in their queue and then are refused.
const ENTRIES_MAX: usize = 4_096;
/// Bytes that may wait, roughly: a few times what so many typical registrations cost. One mutation may go beyond it.
const BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Group {
    batches: Vec<Arc<Batch>>,
    parked: Vec<Parked>,
    bytes: usize,
}

#[derive(Debug)]
struct Parked {
    to: oneshot::Sender<Result<Reply, CatalogError>>,
    reply: Result<Reply, CatalogError>,
}

impl Group {
    /// Consecutive.
    pub(super) fn batches(&self) -> &[Arc<Batch>] {
        &self.batches
    }

    /// Adds what is to be made durable.
    pub(super) fn add(&mut self, batches: impl IntoIterator<Item = Arc<Batch>>) {
        for batch in batches {
            self.bytes += batch.bytes() + batch.lease_bytes();
            self.batches.push(batch);
        }
    }

    /// Whether it takes no more mutations. Answers count too: a refusal, a repeat or an update without a change makes no batch.
    pub(super) fn is_full(&self) -> bool {
        self.batches.len().max(self.parked.len()) >= ENTRIES_MAX || self.bytes >= BYTES_MAX
    }

    /// Keeps an answer until the group is durable. A refusal waits too: it may tell of a change that is not durable yet.
    pub(super) fn park(
        &mut self,
        to: oneshot::Sender<Result<Reply, CatalogError>>,
        reply: Result<Reply, CatalogError>,
    ) {
        // 512: the channel, and a refusal's text.
        self.bytes += 512 + reply.as_ref().map_or(0, Reply::bytes);
        self.parked.push(Parked { to, reply });
    }

    /// All of it is durable.
    pub(super) fn answer(self) {
        for Parked { to, reply } in self.parked {
            // A caller that has gone is not told; the change is made and shows in lists and watches.
            let _ = to.send(reply);
        }
    }
}
