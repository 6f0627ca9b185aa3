//! Batches that become durable together, and the answers that wait for it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::catalog::{Batch, CatalogError, Reply};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Consecutive.
    pub(super) batches: Vec<Arc<Batch>>,
    parked: Vec<Parked>,
}

#[derive(Debug)]
struct Parked {
    to: oneshot::Sender<Result<Reply, CatalogError>>,
    reply: Result<Reply, CatalogError>,
}

impl Group {
    /// Keeps an answer until the group is durable. A refusal waits too: it may tell of a change that is not durable yet.
    pub(super) fn park(
        &mut self,
        to: oneshot::Sender<Result<Reply, CatalogError>>,
        reply: Result<Reply, CatalogError>,
    ) {
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
