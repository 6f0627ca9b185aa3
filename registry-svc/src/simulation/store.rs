//! The store as its users find it: a disk, or a log that several registries share.
//!
//! What it has taken is the `truth`. A commit is on its way for a while; a crash in that time leaves open whether it was
//! taken. A shared log takes what follows its last revision and nothing else, whoever comes first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::Time;
use crate::{
    catalog::Batch,
    model::{ReplicaId, Replicas, Revision},
};

/// How long a registry is not heard before the store holds it for dead.
pub(super) const SESSION: Duration = Duration::from_secs(3);
/// How long the store is not heard before a registry is told that it is away.
pub(super) const CONTACT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// The last revision that the history no longer has.
    pub(super) compacted: Revision,
    /// On their way.
    pub(super) commits: BTreeMap<u64, Commit>,
    next: u64,
    /// By how much a commit takes longer.
    pub(super) slow: Duration,
    /// The next commit fails.
    pub(super) failing: bool,
    /// There is no room.
    pub(super) full: bool,
    /// Nobody reaches it.
    pub(super) gone: Time,
    /// This one does not reach it.
    pub(super) cut: BTreeMap<usize, Time>,
    /// Who is alive, the longest first, as the store sees it.
    pub(super) sessions: Vec<ReplicaId>,
    /// How many sessions each has had.
    joined: BTreeMap<ReplicaId, u64>,
    /// When each was last known to begin to be heard.
    contact: BTreeMap<ReplicaId, Time>,
    /// What each has been told.
    pub(super) links: BTreeMap<usize, Link>,
}

/// What a registry hears of the store.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Told up to here.
    pub(super) fed: Revision,
    /// The news arrives in order.
    pub(super) arrives: Time,
    /// When contact was lost.
    pub(super) lost: Option<Time>,
    /// It has been told that the store is away.
    pub(super) away: bool,
    /// What it knows of who is there.
    pub(super) knows: Vec<ReplicaId>,
}

/// A group on its way.
#[derive(Debug)]
pub(super) struct Commit {
    /// Whose.
    pub(super) replica: usize,
    /// Of which life.
    pub(super) life: u64,
    /// What it is built on.
    pub(super) base: Revision,
    /// These are to be dead.
    pub(super) dead: Vec<ReplicaId>,
    /// Its registry's session when it was decided.
    pub(super) session: Option<u64>,
    /// What.
    pub(super) batches: Vec<Arc<Batch>>,
    /// What may be forgotten with it.
    pub(super) compacted: Revision,
    /// When it was decided.
    pub(super) decided: Time,
    /// How long its answer takes.
    pub(super) back: Duration,
}

impl Store {
    /// A commit sets out.
    pub(super) fn send(&mut self, commit: Commit) -> u64 {
        self.next += 1;
        self.commits.insert(self.next, commit);
        self.next
    }

    /// Whether a registry has not been heard for a session's time to live. One that was silent, was heard and is silent again
    /// has all of it again.
    pub(super) fn is_missed(&self, id: ReplicaId, now: Time) -> bool {
        self.contact.get(&id).is_none_or(|contact| *contact + SESSION <= now)
    }

    /// A registry is there. Whether that is new.
    pub(super) fn joins(&mut self, id: ReplicaId, now: Time) -> bool {
        self.contact.insert(id, now);
        if self.sessions.contains(&id) {
            return false;
        }
        self.sessions.push(id);
        *self.joined.entry(id).or_default() += 1;
        true
    }

    /// Which of its sessions a registry has.
    pub(super) fn session(&self, id: ReplicaId) -> Option<u64> {
        self.sessions.contains(&id).then(|| self.joined[&id])
    }

    /// From when on a registry reaches it; now or earlier: it does.
    pub(super) fn reached_at(&self, replica: usize) -> Time {
        self.gone.max(self.cut.get(&replica).copied().unwrap_or_default())
    }

    /// What a registry of this name would be told of who is there.
    pub(super) fn replicas(&self, own: ReplicaId) -> Replicas {
        Replicas {
            own,
            alive: self.sessions.iter().copied().collect::<BTreeSet<_>>(),
            elected: self.sessions.first() == Some(&own),
        }
    }
}
