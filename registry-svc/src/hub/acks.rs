//! Which watches are open, what each has been sent and has acknowledged, and who waits for that.
//!
//! Whoever takes an instance out of service wants to know when no watcher calls it any more: when every watch that is told of the
//! instance has *acknowledged* the revision that took it out. Sent is not enough (what HTTP/2 has taken, a stopped process never
//! reads), nor is applied by the client's library (its balancer may still hold the old set): only the watcher knows.
//!
//! The board is a list for those who ask, and nothing on the way of a change: a watch writes what it was sent to two atomics of
//! its own. The list is locked when a watch begins, acknowledges or ends, and while somebody looks through it.
//!
//! It knows the watches of this replica alone. Those of others are theirs to tell of: see [`Acks::others`].

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::sync::{Notify, watch};

use super::{Selection, feeds::Feed};
use crate::model::{Instance, Moment, ReplicaId, Replicas, Revision, WallTime, WatchId};

/// How long those who watched before a restart may take to come back: the longest pause between a client's attempts (10 s and half
/// as much again), and what the attempt itself takes.
pub(crate) const RETURN: Duration = Duration::from_secs(16);

/// See the module.
#[derive(Debug)]
pub(crate) struct Acks {
    open: Mutex<HashMap<WatchId, Arc<Seat>>>,
    /// A watch has acknowledged something, or has ended.
    heard: Notify,
    /// The registries that share the store; `None` until the store has told.
    replicas: watch::Sender<Option<Replicas>>,
    /// There was a registry before us in this history, and so there may be watchers that it told.
    had_watchers: bool,
    /// The registry is RECOVERING.
    is_recovering: watch::Sender<bool>,
}

/// Who holds a watch, or speaks for one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Holder {
    /// The other end of the connection.
    pub(crate) address: Option<SocketAddr>,
    /// Whose token or certificate was shown; `None` where nobody is asked.
    pub(crate) principal: Option<Arc<str>>,
}

impl Holder {
    /// Over the same connection, or as the same principal over another one: behind a proxy a client may not choose. A watch's name
    /// alone is not enough: those who drain are told the names of others' watches.
    fn may_speak_for(&self, other: &Self) -> bool {
        let is_same_connection = self.address.is_some() && self.address == other.address;
        let is_same_principal = self.principal.is_some() && self.principal == other.principal;
        is_same_connection || is_same_principal
    }
}

/// An open watch on the board.
#[derive(Debug)]
pub(super) struct Seat {
    id: WatchId,
    feed: Arc<Feed>,
    holder: Holder,
    since: WallTime,
    sent: Mark,
    acknowledged: Mark,
    has_ended: AtomicBool,
}

/// A revision, and when it was reached. Not read together: the time may be that of the next one.
#[derive(Debug)]
struct Mark {
    revision: AtomicU64,
    /// Nanoseconds of the wall clock, which 64 bits hold until the year 2554; 0: never.
    at: AtomicU64,
}

/// Where a watch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Which.
    pub(crate) id: WatchId,
    /// Who watches, as far as its connection tells.
    pub(crate) peer: Option<SocketAddr>,
    /// When it began.
    pub(crate) since: WallTime,
    /// Everything up to this revision has been handed to its connection.
    pub(crate) sent: Revision,
    /// When something was last told that is more than a bookmark.
    pub(crate) sent_at: Option<WallTime>,
    /// The revision up to which it has applied what it was told.
    pub(crate) acknowledged: Revision,
    /// When it said so; `None` until then.
    pub(crate) acknowledged_at: Option<WallTime>,
}

/// Why an acknowledgement is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum AckError {
    /// It has ended, never was, is open at another replica, or is held by somebody else: which of these is not told.
    #[error(
        "no such watch of yours is open here: it has ended, another replica serves it, or somebody else holds it; acknowledge over \
         the connection of the watch, or with the same token or certificate"
    )]
    UnknownWatch,
    /// What was not sent cannot have been applied.
    #[error(
        "revision {asked} has not been told on this watch, which was told {sent} last: acknowledge what was applied"
    )]
    NotSent {
        /// What was acknowledged.
        asked: Revision,
        /// What was sent last.
        sent: Revision,
    },
}

impl Acks {
    /// An empty board, of a registry that others may have been before.
    pub(super) fn new(had_watchers: bool, is_recovering: bool) -> Self {
        Self {
            open: Mutex::default(),
            heard: Notify::default(),
            replicas: watch::Sender::default(),
            had_watchers,
            is_recovering: watch::Sender::new(is_recovering),
        }
    }

    /// A watch begins. `told` is what its client has been told already, and has still to say that it has applied.
    pub(super) fn join(
        &self,
        id: WatchId,
        feed: Arc<Feed>,
        holder: Holder,
        since: WallTime,
        told: Revision,
    ) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            id,
            feed,
            holder,
            since,
            sent: Mark::new(told),
            acknowledged: Mark::new(Revision::ZERO),
            has_ended: AtomicBool::new(false),
        });
        self.lock().insert(id, Arc::clone(&seat));
        seat
    }

    /// A watch ends: nobody waits for it any more.
    pub(super) fn leave(&self, seat: &Seat) {
        self.lock().remove(&seat.id);
        seat.has_ended.store(true, Ordering::Release);
        self.heard.notify_waiters();
    }

    /// A watcher says that it has applied all that it was told up to `revision`. A lower one than before changes nothing.
    pub(crate) fn acknowledge(
        &self,
        id: WatchId,
        holder: &Holder,
        revision: Revision,
        at: WallTime,
    ) -> Result<(), AckError> {
        let seat = self.lock().get(&id).cloned();
        let seat = seat.filter(|seat| holder.may_speak_for(&seat.holder));
        let seat = seat.ok_or(AckError::UnknownWatch)?;
        let sent = seat.sent.get();
        if revision > sent {
            return Err(AckError::NotSent { asked: revision, sent });
        }
        if seat.acknowledged.raise(revision) {
            seat.acknowledged.stamp(at);
            self.heard.notify_waiters();
        }
        Ok(())
    }

    /// The watches that are told of this instance, and where each stands.
    pub(crate) fn told_of(&self, instance: &Instance) -> Vec<Standing> {
        self.seats(instance, |_| true)
            .iter()
            .map(|seat| seat.standing())
            .collect()
    }

    /// Resolves when none of them is left that has not acknowledged `revision`. Those that begin meanwhile are waited for too. Cancel safe.
    pub(crate) async fn acknowledged(&self, instance: &Instance, revision: Revision) {
        loop {
            let mut late = self.seats(instance, |seat| !seat.has_acknowledged(revision));
            if late.is_empty() {
                return;
            }
            // From the end, one after another: thousands acknowledge in the same moment, and looking through all of them at each
            // one's would take a second.
            while !late.is_empty() {
                let mut heard = std::pin::pin!(self.heard.notified());
                // Before looking, so that what comes in between is not missed.
                heard.as_mut().enable();
                while late.pop_if(|seat| seat.has_acknowledged(revision)).is_some() {}
                if !late.is_empty() {
                    heard.await;
                }
            }
        }
    }

    /// Whether all who watched before a restart are on the board again, or have had the time to be.
    pub(crate) fn is_settled(&self, now: Moment) -> bool {
        self.returning_for(now).is_zero() && !*self.is_recovering.borrow()
    }

    /// Resolves when that is so. Until then a board on which all have acknowledged says nothing of those who are on their way back
    /// with what they were told before. Cancel safe.
    pub(crate) async fn settled(&self, now: Moment) {
        tokio::time::sleep(self.returning_for(now)).await;
        let mut is_recovering = self.is_recovering.subscribe();
        // The sender is ours, so this does not fail.
        let _ = is_recovering.wait_for(|is_recovering| !is_recovering).await;
    }

    fn returning_for(&self, now: Moment) -> Duration {
        if self.had_watchers {
            RETURN.saturating_sub(now.since_start())
        } else {
            Duration::ZERO
        }
    }

    /// Whether the registry is RECOVERING.
    pub(super) fn set_recovering(&self, is_recovering: bool) {
        self.is_recovering.send_replace(is_recovering);
    }

    /// Who shares the store.
    pub(crate) fn set_replicas(&self, replicas: &Replicas) {
        self.replicas.send_replace(Some(replicas.clone()));
    }

    /// This replica, and the others that live, whose watches are not on this board. Waits at most `patience` until the store has
    /// told who they are; `None` if it has not.
    pub(crate) async fn others(&self, patience: Duration) -> Option<(ReplicaId, Vec<ReplicaId>)> {
        let mut replicas = self.replicas.subscribe();
        let told = tokio::time::timeout(patience, replicas.wait_for(Option::is_some)).await;
        let Ok(Ok(told)) = told else { return None };
        let Replicas { own, alive, .. } = told.as_ref()?;
        Some((*own, alive.iter().copied().filter(|replica| replica != own).collect()))
    }

    /// The seats of those who are told of an instance. All are looked at: a hundred thousand take a few milliseconds, and drains
    /// are rare.
    fn seats(&self, instance: &Instance, wanted: impl Fn(&Seat) -> bool) -> Vec<Arc<Seat>> {
        let open = self.lock();
        let told = open
            .values()
            .filter(|seat| seat.selection().holds(instance) && wanted(seat));
        told.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WatchId, Arc<Seat>>> {
        // Nothing panics while it is locked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Everything up to `revision` is handed over; `at` is `None` for a bookmark, which tells nothing.
    pub(super) fn sent(&self, revision: Revision, at: Option<WallTime>) {
        self.sent.raise(revision);
        if let Some(at) = at {
            self.sent.stamp(at);
        }
    }

    fn selection(&self) -> &Selection {
        self.feed.selection()
    }

    fn has_acknowledged(&self, revision: Revision) -> bool {
        self.acknowledged.get() >= revision || self.has_ended.load(Ordering::Acquire)
    }

    fn standing(&self) -> Standing {
        Standing {
            id: self.id,
            peer: self.holder.address,
            since: self.since,
            sent: self.sent.get(),
            sent_at: self.sent.at(),
            acknowledged: self.acknowledged.get(),
            acknowledged_at: self.acknowledged.at(),
        }
    }
}

impl Mark {
    fn new(revision: Revision) -> Self {
        Self {
            revision: AtomicU64::new(revision.get()),
            at: AtomicU64::new(0),
        }
    }

    fn get(&self) -> Revision {
        Revision::new(self.revision.load(Ordering::Acquire))
    }

    /// Whether that is higher than before.
    fn raise(&self, revision: Revision) -> bool {
        self.revision.fetch_max(revision.get(), Ordering::AcqRel) < revision.get()
    }

    fn stamp(&self, at: WallTime) {
        let seconds = u64::try_from(at.seconds).unwrap_or(0);
        let nanos = seconds.saturating_mul(NANOS).saturating_add(at.nanos.into());
        self.at.store(nanos, Ordering::Release);
    }

    fn at(&self) -> Option<WallTime> {
        let nanos = self.at.load(Ordering::Acquire);
        (nanos > 0).then(|| WallTime {
            seconds: i64::try_from(nanos / NANOS).unwrap_or(i64::MAX),
            nanos: u32::try_from(nanos % NANOS).unwrap_or(0),
        })
    }
}

/// In a second.
const NANOS: u64 = 1_000_000_000;
