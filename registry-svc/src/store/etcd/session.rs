//! This replica's sign of life: one key under an etcd lease, prolonged every few seconds. It is all that etcd sees between two
//! commits of a replica, besides the follower's look at the head; neither depends on how many instances there are.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    cluster::SharedCluster,
    failure::Failure,
    shared::{Room, Shared},
    wire::{Operation, TxnRequest},
};
use crate::model::ReplicaId;

/// How long the others wait for a replica that died without a word.
pub(super) const TTL: Duration = Duration::from_secs(10);
/// Three tries within the time to live.
const INTERVAL: Duration = Duration::from_secs(3);
/// After a try that failed.
const RETRY: Duration = Duration::from_millis(500);
/// Between two looks for room while there is none.
const PROBE: Duration = Duration::from_secs(1);
/// How long the farewell may take; the time to live does the rest.
const FAREWELL: Duration = Duration::from_secs(1);

/// The task that keeps the session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) cluster: SharedCluster,
    pub(super) shared: Arc<Shared>,
    pub(super) own: ReplicaId,
    /// The etcd lease; none where there was no room for one.
    pub(super) lease: Option<i64>,
    /// The farewell is due.
    pub(super) stop: CancellationToken,
    /// The key was seen to be gone.
    pub(super) missing: Arc<Notify>,
    /// Dropped after the farewell.
    pub(super) ended: std_mpsc::SyncSender<()>,
}

/// Makes the key and its lease. `None`: etcd's quota is used up, and a replica does without until there is room.
pub(super) async fn establish(
    cluster: &SharedCluster,
    shared: &Shared,
    own: ReplicaId,
) -> Result<Option<i64>, Failure> {
    let made = async {
        let lease = cluster.client.grant(TTL).await?;
        put(cluster, own, lease).await?;
        Ok(lease)
    };
    match made.await {
        Ok(lease) => Ok(Some(lease)),
        Err(Failure::NoSpace) => {
            shared.lacks_room();
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

async fn put(cluster: &SharedCluster, own: ReplicaId, lease: i64) -> Result<(), Failure> {
    let key = cluster.keys.session(own);
    let put = TxnRequest::of(vec![Operation::put_leased(key, "", lease)]);
    cluster.client.txn(put).await.map(drop)
}

impl Session {
    /// Until it is stopped.
    pub(super) async fn keep(mut self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.prolong()).await;
        if let Some(lease) = self.lease {
            match timeout(FAREWELL, self.cluster.client.revoke(lease)).await {
                Ok(Ok(())) => {}
                failed => debug!(?failed, "the session ends by its time to live"),
            }
        }
        drop(self.ended);
    }

    async fn prolong(&mut self) {
        let mut pause = INTERVAL;
        loop {
            let short = self.shared.room() == Room::None;
            let gone = tokio::select! {
                () = tokio::time::sleep(if short { PROBE } else { pause }) => false,
                () = self.missing.notified() => true,
            };
            pause = match self.once(gone).await {
                Ok(()) => INTERVAL,
                Err(failure) => {
                    debug!(%failure, "the session was not prolonged");
                    RETRY
                }
            };
        }
    }

    /// Prolongs it, or makes it again.
    async fn once(&mut self, gone: bool) -> Result<(), Failure> {
        if let Some(lease) = self.lease
            && !gone
            && self.cluster.client.keep_alive(lease).await?
        {
            return self.probe(lease).await;
        }
        if self.lease.take().is_some() {
            // It lapsed while we were paused, or cut off: others hold us for dead until it is back.
            warn!(replica = %self.own, "the replica's session was lost and is made again");
        }
        self.lease = establish(&self.cluster, &self.shared, self.own).await?;
        if self.lease.is_some() {
            self.room();
        }
        Ok(())
    }

    /// While etcd has no room: whether it has some again. Nobody else may have anything to write.
    async fn probe(&self, lease: i64) -> Result<(), Failure> {
        if self.shared.room() == Room::None {
            match put(&self.cluster, self.own, lease).await {
                Ok(()) => self.room(),
                Err(Failure::NoSpace) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn room(&self) {
        if self.shared.has_room() {
            info!("etcd has room again");
        }
    }
}
