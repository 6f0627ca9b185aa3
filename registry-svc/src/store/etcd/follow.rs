//! What becomes news: the groups of other replicas, who is there, and whether etcd can be reached.
//!
//! Every group of the log passes here once and in order, our own too: those are known already, and only tell the fence. What
//! the driver is told of a foreign group it can build on at once, so the fence moves first.

use std::{cmp::Ordering, convert::Infallible, fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::{
    Tuning,
    cluster::{Entry, Reading, SharedCluster, Trouble, decode},
    contact::{Absence, Contact},
    failure::Failure,
    pulse::{Look, Pulse},
    shared::{Fence, Room, Shared},
    upkeep::Upkeep,
    value::{Checkpoint, Head},
    watch::{Seen, Watch},
    wire::{KeyValue, Operation, RangeRequest, TxnRequest},
};
use crate::{
    catalog::Batch,
    model::Replicas,
    store::{News, StoreError},
};

/// A watch that brings nothing for so long while there is something is opened again: its connection is dead and does not know
/// it.
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
    /// The last group that was told, or is ours.
    told: Head,
    /// When that last moved on.
    told_at: Instant,
    /// etcd's revision that the watch goes on from.
    next: i64,
    contact: Contact,
    /// Since when the head is ahead of the watch.
    behind: Option<Instant>,
    upkeep: Upkeep,
}

/// Why there will be no more news.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody listens.
    Closed,
    /// The store must not be used again.
    Failed(StoreError),
}

/// What the watch does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// It goes on.
    On,
    /// It begins again after what was told.
    Again,
    /// The same a moment later: etcd has just failed to answer.
    Later,
    /// It lacks something. The log may have it.
    Lacks,
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
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
        (loaded, at): (Fence, i64),
    ) -> Self {
        Self {
            contact: Contact::new(Arc::clone(&shared)),
            cluster,
            shared,
            tuning,
            news,
            missing,
            replicas,
            told: loaded.head,
            told_at: Instant::now(),
            next: at + 1,
            behind: None,
            upkeep: Upkeep::new(tuning),
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
            let mut course = tokio::select! {
                seen = watch.seen.recv() => match seen {
                    Some(Seen::Puts(puts)) => self.puts(&puts).await?,
                    Some(Seen::Compacted) => Course::Lacks,
                    None => Course::Again,
                },
                look = pulse.looks.recv() => match look {
                    Some((begun, Ok(look))) => self.reached(begun, &look).await?,
                    Some((_, Err(failure))) => self.missed(&failure).await?,
                    None => return Err(End::Closed),
                },
                () = self.upkeep.ended() => Course::On,
            };
            if course == Course::Lacks {
                course = self.catch_up().await?;
            }
            match course {
                Course::On => {}
                Course::Again => watch = Watch::open(&self.cluster, self.next),
                Course::Later | Course::Lacks => watch = Watch::open_later(&self.cluster, self.next),
            }
        }
    }

    /// Takes groups in.
    pub(super) async fn puts(&mut self, puts: &[KeyValue]) -> Result<Course, End> {
        let mut foreign = Vec::new();
        let mut course = Course::On;
        for kv in puts {
            // A watch that was opened again may repeat what a look at the log has brought.
            if kv.mod_revision < self.next {
                continue;
            }
            // As of then: by now a checkpoint may have taken the group and its parts away.
            let entry = match self.cluster.entry(kv, Reading::in_passing(kv.mod_revision)).await {
                Ok(entry) => entry,
                Err(Trouble::Store(error)) => return Err(error.into()),
                Err(Trouble::Etcd(failure)) => {
                    debug!(%failure, "the parts of a group cannot be read");
                    course = match failure {
                        Failure::Compacted => Course::Lacks,
                        _ => Course::Later,
                    };
                    break;
                }
            };
            // Up to 3.4.30 etcd may lose events of a watch when it compacts.
            if entry.first > self.told.newest().next() {
                course = Course::Lacks;
                break;
            }
            self.take(entry, kv.mod_revision, &mut foreign)?;
            self.next = kv.mod_revision + 1;
        }
        self.tell(foreign).await?;
        Ok(course)
    }

    /// Reads in the log what the watch does not tell.
    pub(super) async fn catch_up(&mut self) -> Result<Course, End> {
        let read = TxnRequest::of(vec![Operation::range(RangeRequest::one(self.cluster.keys.head()))]);
        let cluster = SharedCluster::clone(&self.cluster);
        let begun = Instant::now();
        let read = async {
            let answer = cluster.client.txn(read).await?;
            let at = answer.revision();
            let mut entries = Vec::new();
            let mut log = cluster.log(self.told.newest().next(), Reading::in_passing(at));
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
                return Ok(Course::Later);
            }
        };
        let (head, etcd) = self.head(begun, head.as_ref())?;
        let mut foreign = Vec::new();
        for entry in entries {
            // Below the last one: nobody compares with it any more.
            let fence = if entry.head == head { etcd } else { 0 };
            self.take(entry, fence, &mut foreign)?;
        }
        if self.told.newest() != head.newest() {
            return Err(self.cluster.left_behind(self.told.newest()).into());
        }
        self.next = at + 1;
        info!(
            revision = self.told.revision,
            "the watch of the log lacked something; the log had it"
        );
        self.tell(foreign).await?;
        Ok(Course::Again)
    }

    /// A group that was told neither before nor, unless etcd holds another log than it did, ever will be again.
    pub(super) fn take(&mut self, entry: Entry, etcd: i64, foreign: &mut Vec<Arc<Batch>>) -> Result<(), End> {
        let follows = match entry.first.cmp(&self.told.newest().next()) {
            Ordering::Less => false,
            Ordering::Equal => self.told.may_be(entry.after),
            Ordering::Greater => return Err(self.cluster.left_behind(self.told.newest()).into()),
        };
        if !follows {
            return Err(self.cluster.replaced().into());
        }
        self.told = entry.head;
        self.told_at = Instant::now();
        let fence = Fence { head: entry.head, etcd };
        if !self.shared.seen(entry.nonce, fence) {
            foreign.extend(entry.batches.into_iter().map(Arc::new));
        }
        Ok(())
    }

    async fn tell(&mut self, mut foreign: Vec<Arc<Batch>>) -> Result<(), End> {
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

    /// What a look that began then says of the head, if that is the head of the log that was followed so far.
    fn head(&self, begun: Instant, kv: Option<&KeyValue>) -> Result<(Head, i64), StoreError> {
        let kv = kv.ok_or_else(|| self.cluster.replaced())?;
        let head: Head = decode(&self.cluster, "head", &kv.value)?;
        let another = match head.newest().cmp(&self.told.newest()) {
            // A look that began before the last group was taken in may lag behind it.
            Ordering::Less => begun > self.told_at,
            Ordering::Equal => !head.may_be(self.told.nonce),
            // What comes after all that was told cannot be older to etcd; a watch would wait for it in vain.
            Ordering::Greater => kv.mod_revision < self.next,
        };
        if another {
            return Err(self.cluster.replaced());
        }
        Ok((head, kv.mod_revision))
    }

    /// A majority has answered a look that began then.
    pub(super) async fn reached(&mut self, begun: Instant, look: &Look) -> Result<Course, End> {
        let absence = self.contact.reached(begun);
        let (head, etcd) = self.head(begun, look.head.as_ref())?;
        self.meet(look).await?;

        let caught_up = etcd < self.next;
        // Without a session the others hold this replica for dead: what it hears would be no reason for them to wait. But without
        // room none of them is elected.
        let is_alive = self.shared.session().is_some() || self.shared.room() == Room::None;
        if let Some(absence) = absence {
            self.absent(absence, &"it takes no commit").await?;
        } else if caught_up && is_alive && self.contact.is_back() {
            self.send(News::Back).await?;
        }
        if self.replicas.elected {
            let current: Checkpoint = match &look.checkpoint {
                Some(kv) => decode(&self.cluster, "checkpoint/current", &kv.value)?,
                None => Checkpoint::default(),
            };
            self.upkeep.consider(&self.cluster, &head, &current);
        }
        if caught_up {
            self.behind = None;
            return Ok(Course::On);
        }
        // Others commit all the time: it is behind only while it does not move either.
        let since = (*self.behind.get_or_insert_with(Instant::now)).max(self.told_at);
        if since.elapsed() < BEHIND {
            return Ok(Course::On);
        }
        debug!("the watch of the log is behind and is opened again");
        self.behind = None;
        Ok(Course::Again)
    }

    /// Takes in who is there.
    async fn meet(&mut self, look: &Look) -> Result<(), End> {
        let mut replicas = look.replicas(&self.cluster.keys, self.replicas.own);
        let session = self.cluster.keys.session(self.replicas.own);
        let session = look.sessions.iter().find(|kv| kv.key == session);
        self.shared.found_session(session.map(|kv| kv.mod_revision));
        if session.is_none() {
            self.missing.notify_one();
        }
        // Without room a replica that lost its session cannot make another one, and leases that were renewed elsewhere cannot be
        // claimed: who seems dead may well be alive. Whoever is elected afterwards begins to count anew.
        replicas.elected &= match self.shared.room() {
            Room::Enough => true,
            Room::None => false,
            Room::Again(since) => since.elapsed() >= self.tuning.election_pause,
        };
        if replicas != self.replicas {
            info!(own = %replicas.own, alive = replicas.alive.len(), elected = replicas.elected, "replicas have changed");
            self.replicas = replicas.clone();
            self.send(News::Replicas(replicas)).await?;
        }
        Ok(())
    }

    /// Nobody, or no majority, has answered.
    async fn missed(&mut self, failure: &Failure) -> Result<Course, End> {
        if let Some(absence) = self.contact.missed() {
            self.absent(absence, failure).await?;
        }
        Ok(Course::On)
    }

    async fn absent(&mut self, absence: Absence, why: &(dyn fmt::Display + Sync)) -> Result<(), End> {
        match absence {
            Absence::Begins(since) => {
                warn!(%why, ?since, "etcd cannot be reached");
                self.send(News::Away { since }).await
            }
            // Only how long it lasts is new: not worth waiting for a driver that is busy.
            Absence::Lasts(since) => match self.news.try_send(News::Away { since }) {
                Err(mpsc::error::TrySendError::Closed(_)) => Err(End::Closed),
                _ => Ok(()),
            },
        }
    }
}
