//! The leases that live, whose they are, and who is due when.
//!
//! A lease belongs to the replica that hears its heartbeats, and only that one counts its time. What a dead replica has left
//! behind is an orphan: the elected replica gives it its full time and a grace. All others wait to be told.
//!
//! Renewing is the hottest path of a registry, so it only writes the lease's deadline. The queue keeps for each lease the
//! deadline that it had when it was last queued: never later than the true one. What comes up early is queued again, which
//! happens at most once in a time to live.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Beat, LeaseRecord, LeaseTime, Owner, RenewError, Renewed,
    wheel::{Tick, Wheel},
};
use crate::model::{Heartbeat, Instance, InstanceKey, LeaseId, ReplicaId, Replicas, SecretHash};

/// Entries of the queue that nobody means any more before they are worth a sweep.
const STALE_MAX: usize = 4_096;

/// How long a lease whose owner has been succeeded lives on at the most, to tell it so when it comes back from a pause. With its
/// full time, which may be days, the predecessors of a process that crashes and starts over would fill the registry.
const FENCED_MAX: Duration = Duration::from_secs(60);

/// A lease that lives.
#[derive(Debug)]
pub(super) struct Lease {
    secret: SecretHash,
    pub(super) terms: LeaseTerms,
    beat: Beat,
    deadline: LeaseTime,
    /// Where it stands in the queue, if its time is counted here.
    queued: Option<Tick>,
    /// It is overdue and self-preservation holds it back: it stands in the queue where that ends.
    pub(super) held: bool,
    /// What it keeps, by name.
    instances: Vec<Arc<Instance>>,
    /// What other leases have taken from it.
    #[allow(clippy::box_collection, reason = "few ever lose anything: 8 bytes instead of 24")]
    replaced: Option<Box<BTreeSet<InstanceKey>>>,
}

/// What a command may change of a lease besides what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseTerms {
    /// How often it is renewed and how long it lives.
    pub(super) heartbeat: Heartbeat,
    /// The replica that hears it.
    pub(super) owner: ReplicaId,
    /// See [`LeaseRecord::emptied`].
    pub(super) emptied: bool,
}

/// All leases.
#[derive(Debug)]
pub(super) struct Leases {
    by_id: HashMap<LeaseId, Box<Lease>>,
    queue: Queue,
    /// How many leases each replica hears.
    owners: HashMap<ReplicaId, usize>,
    replicas: Replicas,
    orphan_grace: Duration,
}

/// Who is due when, and what the queue has to tell.
#[derive(Debug)]
struct Queue {
    wheel: Wheel,
    /// How many leases stand in it.
    len: usize,
    /// Those that were held back and are not any more, since [`Leases::take_released`].
    released: Vec<LeaseId>,
}

impl Lease {
    /// The last that it kept was taken: its owner is a process that has been succeeded. One that had something left and ended
    /// it itself has not been.
    pub(super) fn is_fenced(&self) -> bool {
        self.instances.is_empty() && self.replaced.is_some() && !self.terms.emptied
    }

    /// How long it lives without a renewal.
    pub(super) fn ttl(&self) -> Duration {
        self.terms.heartbeat.ttl()
    }

    /// How long it has been overdue.
    pub(super) fn overdue(&self, now: LeaseTime) -> Duration {
        now.since(self.deadline)
    }

    /// When it is due.
    #[cfg(test)]
    pub(super) fn deadline(&self) -> LeaseTime {
        self.deadline
    }

    /// What the store keeps of it.
    pub(super) fn record(&self, id: LeaseId) -> LeaseRecord {
        LeaseRecord {
            id,
            secret: self.secret,
            heartbeat: self.terms.heartbeat,
            owner: self.terms.owner,
            replaced: self.replaced().cloned().collect(),
            emptied: self.terms.emptied,
        }
    }

    /// What it keeps, by name.
    pub(super) fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// Whether it keeps an instance of this name.
    pub(super) fn keeps(&self, key: &InstanceKey) -> bool {
        self.place(key).is_ok()
    }

    /// What other leases have taken from it, by name.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &InstanceKey> {
        self.replaced.iter().flat_map(|replaced| replaced.iter())
    }

    /// Whether an instance of this name was taken from it.
    pub(super) fn has_lost(&self, key: &InstanceKey) -> bool {
        self.replaced.as_ref().is_some_and(|replaced| replaced.contains(key))
    }

    /// How many names it has, kept or lost.
    pub(super) fn names(&self) -> usize {
        self.instances.len() + self.replaced.as_ref().map_or(0, |replaced| replaced.len())
    }

    /// Says whether a name was taken from it. Returns whether it was before.
    pub(super) fn set_lost(&mut self, key: &InstanceKey, lost: bool) -> bool {
        if lost {
            return !self.replaced.get_or_insert_default().insert(key.clone());
        }
        let Some(replaced) = &mut self.replaced else {
            return false;
        };
        let was = replaced.remove(key);
        if replaced.is_empty() {
            self.replaced = None;
        }
        was
    }

    /// All that was taken from it.
    pub(super) fn set_all_lost(&mut self, keys: impl IntoIterator<Item = InstanceKey>) {
        let keys: BTreeSet<InstanceKey> = keys.into_iter().collect();
        self.replaced = (!keys.is_empty()).then(|| Box::new(keys));
    }

    /// It keeps this instance from now on, instead of what it kept by this name.
    pub(super) fn keep(&mut self, instance: &Arc<Instance>) {
        match self.place(&instance.key) {
            Ok(place) => self.instances[place] = Arc::clone(instance),
            Err(place) => {
                // Most keep one, and a vector would make room for four.
                if self.instances.is_empty() {
                    self.instances.reserve_exact(1);
                }
                self.instances.insert(place, Arc::clone(instance));
            }
        }
    }

    /// It keeps nothing by this name any more.
    pub(super) fn lose(&mut self, key: &InstanceKey) {
        if let Ok(place) = self.place(key) {
            self.instances.remove(place);
        }
    }

    fn place(&self, key: &InstanceKey) -> Result<usize, usize> {
        self.instances.binary_search_by(|instance| instance.key.cmp(key))
    }
}

impl Queue {
    /// Makes a lease due at a time; the queue must never be later than that.
    fn schedule(&mut self, id: LeaseId, lease: &mut Lease, deadline: LeaseTime) {
        lease.deadline = deadline;
        self.release(id, lease);
        let at = self.wheel.tick(deadline);
        if lease.queued.is_none_or(|queued| at.is_before(queued)) {
            self.put(id, lease, at);
        }
    }

    /// Puts a lease where it comes up at a tick, instead of where it stands.
    fn put(&mut self, id: LeaseId, lease: &mut Lease, at: Tick) {
        if lease.queued.replace(at).is_none() {
            self.len += 1;
        }
        self.wheel.insert(id, at);
    }

    /// Its time is not counted any more.
    fn forget(&mut self, id: LeaseId, lease: &mut Lease) {
        self.release(id, lease);
        if lease.queued.take().is_some() {
            self.len -= 1;
        }
    }

    fn release(&mut self, id: LeaseId, lease: &mut Lease) {
        if std::mem::take(&mut lease.held) {
            self.released.push(id);
        }
    }

    fn has_too_many_stale(&self) -> bool {
        self.wheel.len() > 2 * self.len + STALE_MAX
    }
}

impl Leases {
    /// None yet. Alone until it is told of others.
    pub(super) fn new(own: ReplicaId, orphan_grace: Duration, now: LeaseTime) -> Self {
        Self {
            by_id: HashMap::new(),
            queue: Queue {
                wheel: Wheel::new(now),
                len: 0,
                released: Vec::new(),
            },
            owners: HashMap::new(),
            replicas: Replicas {
                own,
                ..Replicas::default()
            },
            orphan_grace,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.by_id.get(&id).map(|lease| &**lease)
    }

    /// To change what it keeps. If it was held back that has to be judged anew.
    pub(super) fn get_mut(&mut self, id: LeaseId) -> Option<&mut Lease> {
        let lease = self.by_id.get_mut(&id)?;
        if lease.held {
            let deadline = lease.deadline;
            self.queue.schedule(id, lease, deadline);
        }
        Some(lease)
    }

    /// The lease, if the caller owns it.
    pub(super) fn owned_by(&self, owner: &Owner) -> Option<&Lease> {
        self.by_id
            .get(&owner.lease)
            .filter(|lease| lease.secret == owner.secret)
            .map(|lease| &**lease)
    }

    /// This replica.
    pub(super) fn own(&self) -> ReplicaId {
        self.replicas.own
    }

    /// A new lease, or one that a restart or another replica brings.
    pub(super) fn insert(&mut self, record: LeaseRecord, now: LeaseTime) {
        let mut lease = Lease {
            secret: record.secret,
            terms: LeaseTerms {
                heartbeat: record.heartbeat,
                owner: record.owner,
                emptied: record.emptied,
            },
            beat: Beat::default(),
            deadline: now,
            queued: None,
            held: false,
            instances: Vec::new(),
            replaced: None,
        };
        lease.set_all_lost(record.replaced);
        self.remove(record.id);
        self.put_back(record.id, Box::new(lease), now);
    }

    /// A lease that was ended comes back. It is due when it was, be that long ago: what was held back must not be so for the
    /// longest time again. Where its time has not been counted here it has its full time.
    pub(super) fn put_back(&mut self, id: LeaseId, mut lease: Box<Lease>, now: LeaseTime) {
        let was_counted = lease.queued.take().is_some();
        lease.held = false;
        *self.owners.entry(lease.terms.owner).or_default() += 1;
        if let Some(span) = self.span(&lease) {
            let deadline = if was_counted { lease.deadline } else { now.plus(span) };
            self.queue.schedule(id, &mut lease, deadline);
        }
        self.by_id.insert(id, lease);
    }

    /// Ends a lease.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Box<Lease>> {
        let mut lease = self.by_id.remove(&id)?;
        // Whoever tells of its end tells that it was held back, and should it come back its time goes on.
        let held = lease.held;
        self.queue.forget(id, &mut lease);
        lease.held = held;
        lease.queued = self.span(&lease).map(|_| self.queue.wheel.tick(lease.deadline));
        self.disown(lease.terms.owner);
        self.sweep();
        Some(lease)
    }

    /// The owner is alive: its lease has its full time again.
    pub(super) fn renew(&mut self, owner: &Owner, now: LeaseTime) -> Result<Renewed, RenewError> {
        let lease = self
            .by_id
            .get_mut(&owner.lease)
            .filter(|lease| lease.secret == owner.secret)
            .ok_or(RenewError::LeaseUnknown)?;
        if lease.is_fenced() {
            return Err(RenewError::LeaseFenced);
        }
        let ttl = lease.ttl();
        lease.beat = lease.beat.next();
        let beat = lease.beat;
        let claim = lease.terms.owner != self.replicas.own;
        if claim || lease.held {
            // An orphan must not end while its claim is on the way, nor what is held back where that would have ended.
            self.extend(owner.lease, now);
        } else {
            lease.deadline = now.plus(ttl);
        }
        Ok(Renewed { ttl, claim, beat })
    }

    /// The owner asks again for a lease that it was granted: like a renewal, from one who may not know the secret yet. Whether
    /// the lease lives. A fenced one lives but gains no time, for its owner has been succeeded.
    pub(super) fn revive(&mut self, id: LeaseId, now: LeaseTime) -> bool {
        let Some(lease) = self.by_id.get(&id) else {
            return false;
        };
        if !lease.is_fenced() {
            self.extend(id, now);
        }
        true
    }

    /// Gives a lease its full time, if it is counted here.
    pub(super) fn extend(&mut self, id: LeaseId, now: LeaseTime) {
        let Some(lease) = self.by_id.get(&id) else { return };
        let Some(span) = self.span(lease) else { return };
        self.due_at(id, now.plus(span));
    }

    /// Gives a lease that is fenced no more time than such a one has. Returns when it was due before, if that was later.
    pub(super) fn hasten_if_fenced(&mut self, id: LeaseId, now: LeaseTime) -> Option<LeaseTime> {
        let lease = self.by_id.get(&id).filter(|lease| lease.is_fenced())?;
        let (before, due) = (lease.deadline, now.plus(self.span(lease)?));
        if before <= due {
            return None;
        }
        self.due_at(id, due);
        Some(before)
    }

    /// The same for all of them.
    pub(super) fn hasten_fenced(&mut self, now: LeaseTime) {
        let fenced = self.by_id.iter().filter(|(_, lease)| lease.is_fenced());
        let mut fenced: Vec<LeaseId> = fenced.map(|(id, _)| *id).collect();
        fenced.sort_unstable();
        for id in fenced {
            self.hasten_if_fenced(id, now);
        }
    }

    /// A lease was not hastened after all.
    pub(super) fn give_back(&mut self, id: LeaseId, deadline: LeaseTime) {
        if let Some(lease) = self.by_id.get(&id)
            && self.span(lease).is_some()
        {
            self.due_at(id, deadline.max(lease.deadline));
        }
    }

    /// Changes the terms of a lease. It keeps the time it has, but no more than its new terms give and, with a new owner, as
    /// much as that owner gives. Returns the former terms.
    pub(super) fn set_terms(&mut self, id: LeaseId, terms: LeaseTerms, now: LeaseTime) -> Option<LeaseTerms> {
        let lease = self.by_id.get_mut(&id)?;
        let before = std::mem::replace(&mut lease.terms, terms);
        if before.owner != terms.owner {
            self.disown(before.owner);
            *self.owners.entry(terms.owner).or_default() += 1;
        }
        let lease = self.by_id.get(&id)?;
        match self.span(lease) {
            None => self.unqueue(id),
            Some(span) if before.owner != terms.owner => self.due_at(id, now.plus(span)),
            Some(span) if before.heartbeat != terms.heartbeat => {
                self.due_at(id, lease.deadline.min(now.plus(span)));
            }
            Some(_) => {}
        }
        Some(before)
    }

    /// The stream that carried its heartbeats broke: unless one has come by another way since, the lease is due when the next
    /// heartbeat and `slack` have passed. Whether that changed anything.
    pub(super) fn suspect(&mut self, id: LeaseId, beat: Beat, slack: Duration, now: LeaseTime) -> bool {
        let Some(lease) = self.by_id.get(&id) else { return false };
        let due = now.plus(lease.terms.heartbeat.interval()).plus(slack);
        if lease.beat != beat || lease.terms.owner != self.replicas.own || lease.deadline <= due {
            return false;
        }
        self.due_at(id, due);
        true
    }

    /// Who is there. Looks at every lease when an owner of some is counted anew or not any more, which is when a replica comes
    /// or goes.
    pub(super) fn set_replicas(&mut self, replicas: &Replicas, now: LeaseTime) {
        let before = std::mem::replace(&mut self.replicas, replicas.clone());
        let turned: HashSet<ReplicaId> = self
            .owners
            .keys()
            .copied()
            .filter(|owner| counting(&before, *owner) != counting(&self.replicas, *owner))
            .collect();
        if turned.is_empty() {
            return;
        }
        let turned: Vec<LeaseId> = self
            .by_id
            .iter()
            .filter(|(_, lease)| turned.contains(&lease.terms.owner))
            .map(|(id, _)| *id)
            .collect();
        for id in turned {
            let Some(lease) = self.by_id.get(&id) else { continue };
            match self.span(lease) {
                Some(span) => self.due_at(id, now.plus(span)),
                None => self.unqueue(id),
            }
        }
    }

    /// Gives all orphans their full time and the grace.
    pub(super) fn restart_orphans(&mut self, now: LeaseTime) {
        let orphans = self.by_id.iter().filter(|(_, lease)| self.is_orphan(lease));
        let orphans: Vec<LeaseId> = orphans.map(|(id, _)| *id).collect();
        for id in orphans {
            self.extend(id, now);
        }
    }

    /// Whether every lease has an owner that lives.
    pub(super) fn all_are_heard(&self) -> bool {
        self.owners
            .keys()
            .all(|owner| *owner == self.replicas.own || self.replicas.alive.contains(owner))
    }

    /// Whether its replica has died.
    pub(super) fn is_orphan(&self, lease: &Lease) -> bool {
        counting(&self.replicas, lease.terms.owner) == Counting::Orphans
    }

    /// How long it lives from a sign of life on; `None` for a lease whose time is not counted here.
    fn span(&self, lease: &Lease) -> Option<Duration> {
        let ttl = if lease.is_fenced() {
            lease.ttl().min(FENCED_MAX)
        } else {
            lease.ttl()
        };
        match counting(&self.replicas, lease.terms.owner) {
            Counting::Own => Some(ttl),
            Counting::Orphans => Some(ttl + self.orphan_grace),
            Counting::Elsewhere => None,
        }
    }

    /// Takes a lease whose deadline has come from the queue, and says whether it has been held back as long as may be. The
    /// caller ends it or holds it back.
    pub(super) fn pop_due(&mut self, now: LeaseTime) -> Option<(LeaseId, bool)> {
        while let Some((id, at)) = self.queue.wheel.pop(now) {
            let Some(lease) = self.by_id.get_mut(&id) else { continue };
            if lease.queued != Some(at) {
                continue;
            }
            if !lease.held && lease.deadline > now {
                let at = self.queue.wheel.tick(lease.deadline);
                self.queue.put(id, lease, at);
                continue;
            }
            lease.queued = None;
            self.queue.len -= 1;
            return Some((id, lease.held));
        }
        None
    }

    /// Holds back a lease that is due, for so long after its deadline at the most.
    pub(super) fn hold(&mut self, id: LeaseId, longest: Duration) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            let until = self.queue.wheel.tick(lease.deadline.plus(longest));
            lease.held = true;
            self.queue.put(id, lease, until);
        }
    }

    /// The leases that were held back and have been renewed, changed or ended since the last call.
    pub(super) fn take_released(&mut self) -> Vec<LeaseId> {
        std::mem::take(&mut self.queue.released)
    }

    /// A time before which no lease is due.
    pub(super) fn next_due(&self) -> Option<LeaseTime> {
        self.queue.wheel.next()
    }

    /// Sets a deadline.
    fn due_at(&mut self, id: LeaseId, deadline: LeaseTime) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            self.queue.schedule(id, lease, deadline);
            self.sweep();
        }
    }

    fn unqueue(&mut self, id: LeaseId) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            self.queue.forget(id, lease);
        }
    }

    /// Rids the queue of what nobody means any more, when that is more than half: leases of days that come and go would fill
    /// the memory with their deadlines.
    fn sweep(&mut self) {
        if self.queue.has_too_many_stale() {
            let by_id = &self.by_id;
            self.queue
                .wheel
                .retain(|id, at| by_id.get(&id).is_some_and(|lease| lease.queued == Some(at)));
        }
    }

    fn disown(&mut self, owner: ReplicaId) {
        if let Some(count) = self.owners.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&owner);
            }
        }
    }

    /// Panics where the structures disagree.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let queued = self.by_id.values().filter(|lease| lease.queued.is_some()).count();
        assert_eq!(self.queue.len, queued, "the count of those in the queue");
        assert!(!self.queue.has_too_many_stale(), "the queue is swept");
        let mut owners = HashMap::new();
        for (id, lease) in &self.by_id {
            *owners.entry(lease.terms.owner).or_insert(0) += 1;
            assert_eq!(
                lease.queued.is_some(),
                self.span(lease).is_some(),
                "{id} is queued where it is counted"
            );
            if let Some(queued) = lease.queued {
                let in_time = !self.queue.wheel.tick(lease.deadline).is_before(queued);
                assert!(lease.held || in_time, "{id} is never queued late");
            }
            assert!(
                lease.instances.iter().all(|instance| !lease.has_lost(&instance.key)),
                "{id} has lost what it keeps"
            );
            assert!(
                lease.instances.windows(2).all(|two| two[0].key < two[1].key),
                "{id} keeps each name once"
            );
            assert!(
                !lease.terms.emptied || lease.instances.is_empty(),
                "{id} keeps something again"
            );
        }
        assert_eq!(owners, self.owners, "the count of leases by owner");
    }

    /// The leases whose time is counted here.
    #[cfg(test)]
    pub(super) fn counted(&self) -> Vec<LeaseId> {
        let counted = self.by_id.iter().filter(|(_, lease)| lease.queued.is_some());
        counted.map(|(id, _)| *id).collect()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&LeaseId, &Lease)> {
        self.by_id.iter().map(|(id, lease)| (id, &**lease))
    }
}

/// How a replica counts the time of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counting {
    /// It hears its heartbeats.
    Own,
    /// The one that did is dead, and this one is elected to end what stays silent.
    Orphans,
    /// Another one does.
    Elsewhere,
}

fn counting(replicas: &Replicas, owner: ReplicaId) -> Counting {
    if owner == replicas.own {
        Counting::Own
    } else if replicas.elected && !replicas.alive.contains(&owner) {
        Counting::Orphans
    } else {
        Counting::Elsewhere
    }
}
