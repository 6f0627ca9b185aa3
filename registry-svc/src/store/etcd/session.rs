//! This replica's sign of life: one key under an etcd lease, prolonged every few seconds. It is all that etcd sees between two
//! commits of a replica, besides the follower's look at the head; neither depends on how many instances there are.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    cluster::SharedCluster,
    failure::Failure,
    wire::{Operation, TxnRequest},
};
use crate::model::ReplicaId;

/// How long the others wait for a replica that died without a word.
const TTL: Duration = Duration::from_secs(10);
/// Three tries within the time to live.
const INTERVAL: Duration = Duration::from_secs(3);
/// After a try that failed.
const RETRY: Duration = Duration::from_millis(500);
/// How long the farewell may take; the time to live does the rest.
const FAREWELL: Duration = Duration::from_secs(1);

/// The task that keeps the session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) cluster: SharedCluster,
    pub(super) own: ReplicaId,
    /// The etcd lease.
    pub(super) lease: i64,
    /// The farewell is due.
    pub(super) stop: CancellationToken,
    /// The key was seen to be gone.
    pub(super) missing: Arc<Notify>,
    /// Dropped after the farewell.
    pub(super) ended: std_mpsc::SyncSender<()>,
}

/// Makes the key and its lease.
pub(super) async fn establish(cluster: &SharedCluster, own: ReplicaId) -> Result<i64, Failure> {
    let lease = cluster.client.grant(TTL).await?;
    let key = cluster.keys.session(own);
    let put = TxnRequest {
        success: vec![Operation::put_leased(key, "", lease)],
        ..TxnRequest::default()
    };
    cluster.client.txn(put).await?;
    Ok(lease)
}

impl Session {
    /// Until it is stopped.
    pub(super) async fn keep(mut self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.prolong()).await;
        match timeout(FAREWELL, self.cluster.client.revoke(self.lease)).await {
            Ok(Ok(())) => {}
            failed => debug!(?failed, "the session ends by its time to live"),
        }
        drop(self.ended);
    }

    async fn prolong(&mut self) {
        let mut pause = INTERVAL;
        loop {
            let kept = tokio::select! {
                () = tokio::time::sleep(pause) => self.cluster.client.keep_alive(self.lease).await,
                () = self.missing.notified() => Ok(false),
            };
            let kept = match kept {
                // It lapsed while we were paused, or cut off: others hold us for dead until it is back.
                Ok(false) => {
                    warn!(replica = %self.own, "the replica's session was lost and is made again");
                    establish(&self.cluster, self.own).await.map(|lease| self.lease = lease)
                }
                kept => kept.map(|_| ()),
            };
            pause = if kept.is_ok() { INTERVAL } else { RETRY };
        }
    }
}
