//! One look at etcd a second: who is there, how far the log is, and whether a majority answers at all.
//!
//! It is a linearizable read, so that its success means that commits are possible: a member alone, cut off from the others,
//! would go on answering a watch with silence.

use std::{collections::BTreeSet, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    cluster::SharedCluster,
    failure::Failure,
    keys::Keys,
    wire::{KeyValue, Operation, RangeRequest, TxnRequest},
};
use crate::model::{ReplicaId, Replicas};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// After one that failed: the next member may answer.
const RETRY: Duration = Duration::from_millis(200);
/// How long a look may take.
const LIMIT: Duration = Duration::from_secs(1);

/// What a look has found.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) head: Option<KeyValue>,
    pub(super) checkpoint: Option<KeyValue>,
    pub(super) sessions: Vec<KeyValue>,
}

impl Look {
    /// Who is there, by their sessions. Whose session is oldest is elected.
    pub(super) fn replicas(&self, keys: &Keys, own: ReplicaId) -> Replicas {
        let known = |kv: &KeyValue| keys.replica_of(&kv.key);
        let sessions = self.sessions.iter().filter(|kv| known(kv).is_some());
        let oldest = sessions.min_by_key(|kv| (kv.create_revision, kv.key.clone()));
        let mut alive: BTreeSet<ReplicaId> = self.sessions.iter().filter_map(known).collect();
        // Whatever its session says: it is alive enough to ask.
        alive.insert(own);
        Replicas {
            own,
            alive,
            elected: oldest.and_then(known) == Some(own),
        }
    }
}

/// The looks, by a task of their own so that they go on while news are taken slowly.
#[derive(Debug)]
pub(super) struct Pulse {
    pub(super) looks: mpsc::Receiver<(Instant, Result<Look, Failure>)>,
    _task: AbortOnDropHandle<()>,
}

impl Pulse {
    pub(super) fn begin(cluster: &SharedCluster) -> Self {
        // One waits at most: an older one would tell nothing that the next does not.
        let (tell, looks) = mpsc::channel(1);
        let task = tokio::spawn(run(SharedCluster::clone(cluster), tell));
        Self {
            looks,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

async fn run(cluster: SharedCluster, tell: mpsc::Sender<(Instant, Result<Look, Failure>)>) {
    loop {
        let begun = Instant::now();
        let look = look(&cluster).await;
        let pause = if look.is_ok() { INTERVAL } else { RETRY };
        if tell.send((begun, look)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Reads it all as of one revision.
pub(super) async fn look(cluster: &SharedCluster) -> Result<Look, Failure> {
    let keys = &cluster.keys;
    let request = TxnRequest::of(vec![
        Operation::range(RangeRequest::one(keys.head())),
        Operation::range(RangeRequest::one(keys.current())),
        Operation::range(RangeRequest::prefix(&keys.sessions())),
    ]);
    let answer = cluster.client.txn_within(request, LIMIT).await?;
    Ok(Look {
        head: answer.found(0).first().cloned(),
        checkpoint: answer.found(1).first().cloned(),
        sessions: answer.found(2).to_vec(),
    })
}
