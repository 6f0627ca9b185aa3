//! What becomes news: the groups of other replicas, who is there, and whether etcd can be reached.
//!
//! Every group of the log passes here once and in order, our own too: those are known already, and only tell the fence. What
//! the driver is told of a foreign group it can build on at once, so the fence moves first.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinError,
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::{
    Tuning, checkpoint,
    cluster::{Entry, SharedCluster, Trouble, decode},
    failure::Failure,
    keys::Keys,
    pulse::{Look, Pulse},
    shared::{Fence, Shared},
    value::{Checkpoint, Head},
    watch::{Seen, Watch},
    wire::{KeyValue, Operation, RangeRequest, TxnRequest},
};
use crate::{
    model::{ReplicaId, Replicas, Revision},
    store::{News, StoreError},
};

/// Silence of so long is told. An election takes a second or two, and changes nothing for readers.
const AWAY: Duration = Duration::from_secs(3);
/// One look that failed may be our own pause: a process that was stopped finds its timers run out before its answers.
const FAILURES: u32 = 2;
/// A watch that is so long behind the head is opened again: its connection is dead and does not know it.
const BEHIND: Duration = Duration::from_secs(2);
/// Batches told at once: a driver that was away for long finds them in digestible pieces.
const BATCHES_AT_ONCE: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(super) struct Follower {
    cluster: SharedCluster,
    shared: Arc<Shared>,
    tuning: Tuning,
    news: mpsc::Sender<News>,
    missing: Arc<Notify>,
    replicas: Replicas,
    /// The last revision that was told, or is ours.
    told: Revision,
    /// When that last moved on.
    told_at: Instant,
    /// etcd's revision that the watch goes on from.
    next: i64,
    contact: Instant,
    failures: u32,
    away: bool,
    behind: Option<Instant>,
    checkpoint: Option<AbortOnDropHandle<Result<(), Trouble>>>,
    last_checkpoint: Option<Instant>,
}

/// Why there will be no more news.
enum End {
    /// Nobody listens.
    Closed,
    /// The store must not be used again.
    Failed(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Who is there, by their sessions. Whose session is oldest is elected.
pub(super) fn replicas(keys: &Keys, own: ReplicaId, sessions: &[KeyValue]) -> Replicas {
    let known = |kv: &KeyValue| keys.replica_of(&kv.key);
    let oldest = sessions
        .iter()
        .filter(|kv| known(kv).is_some())
        .min_by_key(|kv| (kv.create_revision, kv.key.clone()));
    let mut alive: BTreeSet<ReplicaId> = sessions.iter().filter_map(known).collect();
    // Whatever its session says: it is alive enough to ask.
    alive.insert(own);
    Replicas {
        own,
        alive,
        elected: oldest.and_then(known) == Some(own),
    }
}

impl Follower {
    /// From what was loaded at etcd's revision `at`, when these replicas were there.
    pub(super) fn new(
        cluster: SharedCluster,
        shared: Arc<Shared>,
        tuning: Tuning,
        news: mpsc::Sender<News>,
        missing: Arc<Notify>,
        replicas: Replicas,
        (told, at): (Revision, i64),
    ) -> Self {
        Self {
            cluster,
            shared,
            tuning,
            news,
            missing,
            replicas,
            told,
            told_at: Instant::now(),
            next: at + 1,
            contact: Instant::now(),
            failures: 0,
            away: false,
            behind: None,
            checkpoint: None,
            last_checkpoint: None,
        }
    }

    /// Until nobody listens or the store is lost.
    pub(super) async fn run(mut self) {
        match self.work().await {
            Ok(never) => match never {},
            Err(End::Closed) => {}
            Err(End::Failed(error)) => {
                // Whoever has stopped listening is ending anyway.
                let _ = self.news.send(News::Failed(error)).await;
            }
        }
    }

    async fn work(&mut self) -> Result<Infallible, End> {
        let mut pulse = Pulse::begin(&self.cluster);
        let mut watch = Watch::open(&self.cluster, self.next);
        loop {
            let goes_on = tokio::select! {
                seen = watch.seen.recv() => match seen {
                    Some(Seen::Puts(puts)) => self.puts(&puts).await?,
                    Some(Seen::Compacted) => {
                        self.catch_up().await?;
                        false
                    }
                    None => false,
                },
                look = pulse.looks.recv() => match look {
                    Some((begun, Ok(look))) => self.reached(begun, &look).await?,
                    Some((_, Err(failure))) => {
                        self.missed(&failure).await?;
                        true
                    }
                    None => return Err(End::Closed),
                },
                ended = async { self.checkpoint.as_mut().expect("there is one").await }, if self.checkpoint.is_some() => {
                    self.checkpoint = None;
                    checkpoint_ended(ended);
                    true
                }
            };
            if !goes_on {
                watch = Watch::open(&self.cluster, self.next);
            }
        }
    }

    /// Takes groups in. `false`: the watch is to begin again after those that were.
    async fn puts(&mut self, puts: &[KeyValue]) -> Result<bool, End> {
        let mut foreign = Vec::new();
        let mut complete = true;
        for kv in puts {
            // A watch that was opened again may repeat what a look at the log has brought.
            if kv.mod_revision < self.next {
                continue;
            }
            let entry = match self.cluster.entry(kv, 0).await {
                Ok(entry) => entry,
                Err(Trouble::Store(error)) => return Err(error.into()),
                Err(Trouble::Etcd(failure)) => {
                    debug!(%failure, "the parts of a group cannot be read");
                    complete = false;
                    break;
                }
            };
            self.take(entry, kv.mod_revision, &mut foreign)?;
            self.next = kv.mod_revision + 1;
        }
        self.tell(foreign).await?;
        Ok(complete)
    }

    /// Reads in the log what the watch can no longer tell.
    async fn catch_up(&mut self) -> Result<(), End> {
        let read = TxnRequest {
            success: vec![Operation::range(RangeRequest::one(self.cluster.keys.head()))],
            ..TxnRequest::default()
        };
        let cluster = SharedCluster::clone(&self.cluster);
        let begun = Instant::now();
        let read = async {
            let answer = cluster.client.txn(read).await?;
            let at = answer.revision();
            let mut entries = Vec::new();
            let mut log = cluster.log(self.told.next(), at);
            while let Some(entry) = log.next().await? {
                entries.push(entry);
            }
            let head = answer.found(0).first().cloned();
            Ok::<_, Trouble>((at, head, entries))
        };
        let (at, head, entries) = match read.await {
            Ok(read) => read,
            Err(Trouble::Store(error)) => return Err(error.into()),
            // The watch will say so again.
            Err(Trouble::Etcd(failure)) => {
                debug!(%failure, "the log cannot be read");
                return Ok(());
            }
        };
        let (head, etcd) = self.head(begun, head.as_ref())?;
        let mut foreign = Vec::new();
        for entry in entries {
            // Below the last one: nobody compares with it any more.
            let fence = if entry.head == head { etcd } else { 0 };
            self.take(entry, fence, &mut foreign)?;
        }
        if self.told != head.newest() {
            return Err(self.cluster.left_behind(self.told).into());
        }
        self.next = at + 1;
        info!(
            revision = self.told.get(),
            "etcd had compacted what the watch asked for; the log had it"
        );
        self.tell(foreign).await
    }

    fn take(&mut self, entry: Entry, etcd: i64, foreign: &mut Vec<Arc<crate::catalog::Batch>>) -> Result<(), End> {
        if entry.head.newest() <= self.told {
            return Ok(());
        }
        if entry.first != self.told.next() {
            return Err(self.cluster.left_behind(self.told).into());
        }
        self.told = entry.head.newest();
        self.told_at = Instant::now();
        let fence = Fence { head: entry.head, etcd };
        if !self.shared.seen(entry.nonce, fence) {
            foreign.extend(entry.batches.into_iter().map(Arc::new));
        }
        Ok(())
    }

    async fn tell(&mut self, mut foreign: Vec<Arc<crate::catalog::Batch>>) -> Result<(), End> {
        while !foreign.is_empty() {
            let rest = foreign.split_off(foreign.len().min(BATCHES_AT_ONCE));
            self.send(News::Batches(foreign)).await?;
            foreign = rest;
        }
        Ok(())
    }

    async fn send(&mut self, news: News) -> Result<(), End> {
        self.news.send(news).await.map_err(|_| End::Closed)
    }

    /// What a look that began then says of the head. One that began before the last group was taken in may lag behind it; any
    /// other one must not.
    fn head(&self, begun: Instant, kv: Option<&KeyValue>) -> Result<(Head, i64), StoreError> {
        let replaced = "it was emptied or replaced by an older one; restart this replica to load what is there";
        let kv = kv.ok_or_else(|| self.cluster.unusable(replaced))?;
        let head: Head = decode(&self.cluster, "head", &kv.value)?;
        if head.newest() < self.told && begun > self.told_at {
            return Err(self.cluster.unusable(replaced));
        }
        Ok((head, kv.mod_revision))
    }

    /// A majority has answered. `false`: the watch is to be opened again.
    async fn reached(&mut self, begun: Instant, look: &Look) -> Result<bool, End> {
        self.contact = begun;
        self.failures = 0;
        let (head, etcd) = self.head(begun, look.head.as_ref())?;

        let replicas = replicas(&self.cluster.keys, self.replicas.own, &look.sessions);
        let session = self.cluster.keys.session(self.replicas.own);
        if !look.sessions.iter().any(|kv| kv.key == session) {
            self.missing.notify_one();
        }
        if replicas != self.replicas {
            info!(own = %replicas.own, alive = replicas.alive.len(), elected = replicas.elected, "replicas have changed");
            self.replicas = replicas.clone();
            self.send(News::Replicas(replicas)).await?;
        }

        let caught_up = etcd < self.next;
        if self.away && caught_up {
            self.away = false;
            self.send(News::Back).await?;
        }
        self.behind = if caught_up {
            None
        } else {
            self.behind.or(Some(Instant::now()))
        };
        self.consider_checkpoint(&head, look.checkpoint.as_ref())?;
        if self.behind.is_some_and(|since| since.elapsed() >= BEHIND) {
            debug!("the watch of the log is behind and is opened again");
            self.behind = None;
            return Ok(false);
        }
        Ok(true)
    }

    /// Nobody, or no majority, has answered.
    async fn missed(&mut self, failure: &Failure) -> Result<(), End> {
        self.failures += 1;
        let since = self.contact.elapsed();
        if since < AWAY || self.failures < FAILURES {
            return Ok(());
        }
        if !self.away {
            warn!(%failure, ?since, "etcd cannot be reached");
            self.away = true;
            return self.send(News::Away { since }).await;
        }
        // Only how long it lasts is new: not worth waiting for a driver that is busy.
        match self.news.try_send(News::Away { since }) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(End::Closed),
            _ => Ok(()),
        }
    }

    fn consider_checkpoint(&mut self, head: &Head, current: Option<&KeyValue>) -> Result<(), End> {
        let pausing = self
            .last_checkpoint
            .is_some_and(|last| last.elapsed() < self.tuning.checkpoint_pause);
        if !self.replicas.elected || self.checkpoint.is_some() || pausing {
            return Ok(());
        }
        let current: Checkpoint = match current {
            Some(kv) => decode(&self.cluster, "checkpoint/current", &kv.value)?,
            None => Checkpoint::default(),
        };
        // A checkpoint costs what the whole state does: a large state is worth a longer log.
        let enough = self.tuning.checkpoint_cost.max(current.bytes / 2);
        if head.written.saturating_sub(current.written) >= enough {
            self.last_checkpoint = Some(Instant::now());
            let write = checkpoint::write(SharedCluster::clone(&self.cluster), self.tuning.part_bytes);
            self.checkpoint = Some(AbortOnDropHandle::new(tokio::spawn(write)));
        }
        Ok(())
    }
}

fn checkpoint_ended(ended: Result<Result<(), Trouble>, JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        // The log is longer than it should be until the next try.
        Ok(Err(trouble)) => warn!(?trouble, "no checkpoint was written"),
        Err(error) => warn!(%error, "no checkpoint was written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        etcd::{cluster::Cluster, value},
        tests::model::batch,
    };

    /// A look at the head waits until the follower gets to it, and groups that were committed meanwhile may be taken in before
    /// it. It was held for the sign of an older etcd, and under load two replicas ended each other within seconds.
    #[tokio::test(start_paused = true)]
    async fn a_look_from_before_the_last_group_is_not_an_older_etcd() {
        // Nobody is there: nothing is asked.
        let url = "etcd://127.0.0.1:1".parse().expect("an address");
        let cluster = Arc::new(Cluster::new(&url).expect("dials nothing"));
        let own = ReplicaId::from_bits(1);
        let replicas = Replicas {
            own,
            alive: [own].into(),
            elected: false,
        };
        let (tell, _news) = mpsc::channel(8);
        let mut follower = Follower::new(
            Arc::clone(&cluster),
            Arc::default(),
            Tuning::default(),
            tell,
            Arc::default(),
            replicas,
            (Revision::ZERO, 1),
        );
        let before = Instant::now();
        let head = KeyValue {
            mod_revision: 1,
            value: value::encode(&Head::default()),
            ..KeyValue::default()
        };
        let look = Look {
            head: Some(head),
            checkpoint: None,
            sessions: Vec::new(),
        };
        let entry = Entry {
            first: Revision::new(1),
            nonce: 1,
            head: Head {
                revision: 1,
                ..Head::default()
            },
            batches: vec![(*batch(1, 1, false)).clone()],
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(follower.take(entry, 2, &mut Vec::new()).is_ok());
        assert!(matches!(follower.reached(before, &look).await, Ok(true)));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(matches!(
            follower.reached(Instant::now(), &look).await,
            Err(End::Failed(StoreError::Unusable { .. }))
        ));
    }
}
