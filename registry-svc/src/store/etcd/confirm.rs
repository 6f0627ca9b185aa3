//! Whether what this replica knows is still the present: a commit of nothing.
//!
//! Where another replica has committed and the news of it is still on its way, a replica would tell its callers of the past:
//! that a lease is unknown which was just granted elsewhere. So it asks before it refuses. It writes nothing, so it may be
//! repeated without a thought.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    cluster::Cluster,
    failure::Failure,
    shared::Fence,
    wire::{Compare, Operation, RangeRequest, TxnRequest},
};
use crate::{
    model::Revision,
    store::{StoreError, Verdict},
};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// A question on its way.
#[derive(Debug)]
pub(super) struct Confirm<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) fence: Fence,
    pub(super) stop: &'a CancellationToken,
}

impl Confirm<'_> {
    pub(super) async fn run(self, base: Revision) -> Result<Verdict, StoreError> {
        // The news are here already, and on their way to the driver.
        if self.fence.head.newest() != base {
            return Ok(Verdict::Overtaken);
        }
        let head = self.cluster.keys.head();
        // etcd answers a transaction without operations from what the member happens to know. This read is linearizable.
        let read = vec![Operation::range(RangeRequest::one(head.clone()))];
        let mut request = TxnRequest::of(read.clone()).only_if(Compare::changed_at(head, self.fence.etcd));
        request.failure = read;
        loop {
            match self.cluster.client.txn(request.clone()).await {
                Ok(answer) if answer.succeeded => return Ok(Verdict::Durable),
                Ok(_) => return Ok(Verdict::Overtaken),
                Err(failure @ Failure::Rejected(_)) => return Err(self.cluster.unusable(failure.to_string())),
                // Nobody waits any more for what a registry that stops would say.
                Err(_) if self.stop.is_cancelled() => return Ok(Verdict::Overtaken),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
