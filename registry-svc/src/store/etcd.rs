//! The store of any number of replicas: a log in etcd that each of them appends to and follows.
//!
//! ```text
//! <prefix>meta                       the format and the history's name
//! <prefix>head                       the last revision; its etcd revision is the fence of every commit
//! <prefix>log/<first revision>       one commit: a group of batches
//! <prefix>part/<first>/<nonce>/<n>   what of a group is too large for one request
//! <prefix>checkpoint/…               the state as of a revision, written by the elected replica
//! <prefix>session/<replica>          a replica is alive, under a lease of etcd
//! ```
//!
//! A commit is one transaction: if the head is still the one that the commit was built on, append to the log and move the
//! head ([`commit`]). So revisions are consecutive and the same everywhere, and a commit can be repeated until its outcome is
//! certain. Every replica follows the log by a watch ([`follow`]). Heartbeats of instances never come here.
//!
//! Messages and calls are spoken directly ([`wire`], [`client`]): see docs/decisions/0012.

mod checkpoint;
mod client;
mod cluster;
mod commit;
mod confirm;
mod contact;
mod dial;
mod failure;
mod follow;
mod keys;
mod load;
mod pulse;
mod retry;
mod session;
mod shared;
mod upkeep;
mod url;
mod value;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use cluster::{Cluster, SharedCluster, Trouble};
use commit::Commit;
use confirm::Confirm;
use failure::Failure;
use follow::Follower;
use load::State;
use session::Session;
use shared::{Fence, Room, Shared};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::warn;
pub use url::{EtcdUrl, EtcdUrlError};

use super::{Loaded, News, Store, StoreError, Verdict, record};
use crate::{
    catalog::Batch,
    model::{ReplicaId, Replicas, Revision},
};

/// How long a registry waits at its start for an etcd that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for one that answers, but not to the end.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(120);
/// News that wait for the driver; beyond, the follower waits.
const NEWS: usize = 64;
/// How long closing may wait for the farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// What tests make small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    /// The largest value of a key: well below etcd's limit of 1.5 MiB for a request.
    pub(super) part_bytes: usize,
    /// What the log may cost to replay before a checkpoint is due: 16 MiB, or some 10,000 groups.
    pub(super) checkpoint_cost: u64,
    /// Between two tries to write a checkpoint.
    pub(super) checkpoint_pause: Duration,
    /// How long after a shortage of room nobody is elected: long enough for every replica that lives to have its session again,
    /// and for the others to have seen it.
    pub(super) election_pause: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            part_bytes: 512 * 1024,
            checkpoint_cost: 16 * 1024 * 1024,
            checkpoint_pause: Duration::from_secs(10),
            election_pause: session::TTL + Duration::from_secs(1),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Etcd {
    runtime: Handle,
    cluster: SharedCluster,
    shared: Arc<Shared>,
    tuning: Tuning,
    /// The registry stops: commits that etcd does not answer are given up.
    stop: CancellationToken,
    replicas: Replicas,
    /// What was loaded, until it is asked for.
    past: Option<Vec<Batch>>,
    /// Up to where was loaded, and as of which revision of etcd.
    loaded: (Fence, i64),
    missing: Arc<Notify>,
    /// Tells the session to take its leave.
    leave: CancellationToken,
    left: std_mpsc::Receiver<()>,
    _session: AbortOnDropHandle<()>,
    follower: Option<AbortOnDropHandle<()>>,
}

impl Etcd {
    /// Reaches the cluster and joins its replicas. Its tasks live on `runtime`; this and the methods of [`Store`] block, and are
    /// called from outside of its tasks. After `stop` a commit ends, with an error if it must, also while etcd is away.
    pub(crate) fn open(
        url: &EtcdUrl,
        tls: Option<&tls::Client>,
        runtime: &Handle,
        stop: CancellationToken,
    ) -> Result<Self, StoreError> {
        Self::tuned(url, tls, runtime, stop, Tuning::default())
    }

    pub(super) fn tuned(
        url: &EtcdUrl,
        tls: Option<&tls::Client>,
        runtime: &Handle,
        stop: CancellationToken,
        tuning: Tuning,
    ) -> Result<Self, StoreError> {
        let _within = runtime.enter();
        let cluster = Arc::new(Cluster::new(url, tls)?);
        let own = ReplicaId::from_bits(rand::random::<u64>() | 1);
        let shared = Arc::<Shared>::default();
        let (lease, mut replicas) = patiently(runtime, &cluster, async || {
            let lease = session::establish(&cluster, &shared, own).await?;
            let look = pulse::look(&cluster).await?;
            Ok((lease, look.replicas(&cluster.keys, own)))
        })?;
        // As the follower has it.
        replicas.elected &= shared.room() == Room::Enough;
        let missing = Arc::new(Notify::new());
        let leave = CancellationToken::new();
        let (ended, left) = std_mpsc::sync_channel(0);
        let session = Session {
            cluster: Arc::clone(&cluster),
            shared: Arc::clone(&shared),
            own,
            lease,
            stop: leave.clone(),
            missing: Arc::clone(&missing),
            ended,
        };
        Ok(Self {
            runtime: runtime.clone(),
            cluster,
            shared,
            tuning,
            stop,
            replicas,
            past: None,
            loaded: (Fence::default(), 0),
            missing,
            leave,
            left,
            _session: AbortOnDropHandle::new(runtime.spawn(session.keep())),
            follower: None,
        })
    }

    fn read(&self) -> Result<State, StoreError> {
        let cluster = &self.cluster;
        patiently(&self.runtime, cluster, async || load::load(cluster).await)
    }

    fn append(
        &mut self,
        batches: &[Arc<Batch>],
        compacted: Revision,
        dead: &[ReplicaId],
    ) -> Result<Verdict, StoreError> {
        let (Some(oldest), Some(newest)) = (batches.first(), batches.last()) else {
            return Ok(Verdict::Durable);
        };
        let dead = match (dead, self.shared.session()) {
            ([], _) => None,
            (dead, Some(session)) => Some((dead, session)),
            // Others hold this replica for dead, and it cannot say so of anybody.
            (_, None) => return Ok(Verdict::Overtaken),
        };
        self.past = None;
        let fence = self.shared.fence();
        // What another replica has committed since is among the news; this was built without it.
        if oldest.revision != fence.head.newest().next() {
            return Ok(Verdict::Overtaken);
        }
        let commit = Commit {
            cluster: &self.cluster,
            shared: &self.shared,
            own: self.replicas.own,
            stop: &self.stop,
            fence,
            first: oldest.revision,
            last: newest.revision,
            compacted,
            nonce: rand::random(),
            dead,
            part_bytes: self.tuning.part_bytes,
        };
        let written = record::encode_group(batches);
        self.runtime.block_on(commit.run(written, value::traces(batches)))
    }
}

/// Tries for a while after etcd's last answer: the cluster may just be starting, or electing. One that answers and still does not
/// get it done is tried for longer, but not for ever.
fn patiently<T>(
    runtime: &Handle,
    cluster: &Cluster,
    attempt: impl AsyncFn() -> Result<T, Trouble>,
) -> Result<T, StoreError> {
    let begun = Instant::now();
    let silence = || cluster.client.answered().map_or(begun, |answered| answered.max(begun));
    let mut is_told = false;
    runtime.block_on(async {
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(Trouble::Store(error)) => return Err(error),
                Err(Trouble::Etcd(Failure::Away(why)))
                    if silence().elapsed() < PATIENCE && begun.elapsed() < PATIENCE_IN_ALL =>
                {
                    if !std::mem::replace(&mut is_told, true) {
                        warn!(%why, "etcd does not do what is asked of it yet, trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(Trouble::Etcd(failure)) => return Err(cluster.unreachable(&failure)),
            }
        }
    })
}

impl Store for Etcd {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let state = self.read()?;
        self.shared.begin(state.fence);
        self.loaded = (state.fence, state.at);
        self.past = Some(state.past);
        Ok(state.loaded)
    }

    fn history(&mut self) -> Result<Vec<Batch>, StoreError> {
        match self.past.take() {
            Some(past) => Ok(past),
            None => Ok(self.read()?.past),
        }
    }

    fn commit(&mut self, batches: &[Arc<Batch>], compacted: Revision) -> Result<Verdict, StoreError> {
        self.append(batches, compacted, &[])
    }

    fn commit_if_dead(
        &mut self,
        batches: &[Arc<Batch>],
        compacted: Revision,
        dead: &[ReplicaId],
    ) -> Result<Verdict, StoreError> {
        self.append(batches, compacted, dead)
    }

    fn confirm(&mut self, base: Revision) -> Result<Verdict, StoreError> {
        let confirm = Confirm {
            cluster: &self.cluster,
            fence: self.shared.fence(),
            stop: &self.stop,
        };
        self.runtime.block_on(confirm.run(base))
    }

    fn replica(&self) -> ReplicaId {
        self.replicas.own
    }

    fn news(&mut self) -> Option<mpsc::Receiver<News>> {
        let (tell, news) = mpsc::channel(NEWS);
        // Into an empty channel.
        let _ = tell.try_send(News::Replicas(self.replicas.clone()));
        let follower = Follower::new(
            Arc::clone(&self.cluster),
            Arc::clone(&self.shared),
            self.tuning,
            tell,
            Arc::clone(&self.missing),
            self.replicas.clone(),
            self.loaded,
        );
        self.follower = Some(AbortOnDropHandle::new(self.runtime.spawn(follower.run())));
        Some(news)
    }
}

impl Drop for Etcd {
    /// Takes leave of the other replicas, so that they need not wait for the session's time to live.
    fn drop(&mut self) {
        self.follower = None;
        self.leave.cancel();
        // Ends when the task does, also when that is because its runtime has.
        let _ = self.left.recv_timeout(FAREWELL);
    }
}
