//! The leases that live, whose they are, and who is due when.
//!
//! A lease belongs to the replica that hears its heartbeats, and only that one counts its time. What a dead replica has left
//! behind is an orphan: the elected replica gives it its full time and a grace. All others wait to be told.
//!
//! Renewing is the hottest path of a registry, so it only writes the lease's deadline: the queue finds out when it comes up.

mod lease;
mod queue;
mod quota;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

pub(super) use lease::{Lease, LeaseTerms};
use queue::Queue;
use quota::Quotas;

use super::{Beat, LeaseRecord, LeaseTime, Owner, RenewError, Renewed};
use crate::model::{ByLease, Instance, LeaseId, Registrant, ReplicaId, Replicas};

/// How long a lease whose owner has been succeeded lives on at the most, to tell it so when it comes back from a pause. With its
/// full time, which may be days, the predecessors of a process that crashes and starts over would fill the registry.
const FENCED_MAX: Duration = Duration::from_secs(60);

/// All leases.
#[derive(Debug)]
pub(super) struct Leases {
    by_id: ByLease<Box<Lease>>,
    queue: Queue,
    /// How many leases each replica hears.
    owners: HashMap<ReplicaId, usize>,
    quotas: Quotas,
    replicas: Replicas,
    orphan_grace: Duration,
}

impl Leases {
    /// None yet. Alone until it is told of others.
    pub(super) fn new(own: ReplicaId, orphan_grace: Duration, now: LeaseTime) -> Self {
        Self {
            by_id: ByLease::default(),
            queue: Queue::new(now),
            owners: HashMap::new(),
            quotas: Quotas::default(),
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

    /// Its lease keeps it from now on, instead of what it kept by this name.
    pub(super) fn keep(&mut self, instance: &Arc<Instance>) {
        if let Some(lease) = self.get_mut(instance.lease)
            && lease.keep(instance)
        {
            let registrant = lease.registrant;
            self.quotas.charge(registrant, 1);
        }
    }

    /// Its lease keeps nothing by this name any more.
    pub(super) fn lose(&mut self, instance: &Instance) {
        if let Some(lease) = self.get_mut(instance.lease)
            && lease.lose(&instance.key)
        {
            let registrant = lease.registrant;
            self.quotas.discharge(registrant, 1);
        }
    }

    /// How many instances are kept in somebody's name.
    pub(super) fn kept_for(&self, registrant: Registrant) -> usize {
        self.quotas.of(registrant)
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

    /// Whether it is this replica that ends what belongs to none: it is alone, or elected.
    pub(super) fn ends_for_all(&self) -> bool {
        self.replicas.own == ReplicaId::ALONE || self.replicas.elected
    }

    /// A new lease, or one that a restart or another replica brings.
    pub(super) fn insert(&mut self, record: LeaseRecord, now: LeaseTime) {
        let (id, lease) = (record.id, Lease::new(record, now));
        self.remove(id);
        self.put_back(id, Box::new(lease), now);
    }

    /// A lease that was ended comes back. It is due when it was, be that long ago: what was held back must not be so for the
    /// longest time again. Where its time has not been counted here it has its full time.
    pub(super) fn put_back(&mut self, id: LeaseId, mut lease: Box<Lease>, now: LeaseTime) {
        let was_counted = lease.queued.take().is_some();
        lease.held = false;
        *self.owners.entry(lease.terms.owner).or_default() += 1;
        self.quotas.charge(lease.registrant, lease.instances.len());
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
        self.quotas.discharge(lease.registrant, lease.instances.len());
        self.sweep();
        Some(lease)
    }

    /// The owner is alive: its lease has its full time again.
    pub(super) fn renew(&mut self, owner: &Owner, now: LeaseTime) -> Result<Renewed, RenewError> {
        let lease = self
            .by_id
            .get_mut(&owner.lease)
            .filter(|lease| lease.secret == owner.secret)
            .ok_or(RenewError::Unknown)?;
        if lease.is_fenced() {
            return Err(RenewError::Fenced);
        }
        let ttl = lease.ttl();
        lease.beat = lease.beat.next();
        let (beat, names) = (lease.beat, lease.named);
        let claim = lease.terms.owner != self.replicas.own;
        if claim || lease.held {
            // An orphan must not end while its claim is on the way, nor what is held back where that would have ended.
            self.extend(owner.lease, now);
        } else {
            // As in `extend`, which would stand in the queue anew.
            lease.deadline = lease.deadline.max(now.plus(ttl));
        }
        Ok(Renewed {
            ttl,
            claim,
            beat,
            names,
        })
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

    /// Gives a lease its full time, if it is counted here. One that was taken over lately may have more, and keeps it.
    pub(super) fn extend(&mut self, id: LeaseId, now: LeaseTime) {
        let Some(lease) = self.by_id.get(&id) else { return };
        let Some(span) = self.span(lease) else { return };
        self.due_at(id, lease.deadline.max(now.plus(span)));
    }

    /// Gives a lease that was another replica's until now its full time and the grace: that replica goes on saying that all is
    /// well until the news has reached it, and its owner may be silent for a whole time to live from then on.
    pub(super) fn take_over(&mut self, id: LeaseId, now: LeaseTime) {
        let Some(lease) = self.by_id.get(&id) else { return };
        let Some(span) = self.span(lease) else { return };
        self.due_at(id, now.plus(span + self.orphan_grace));
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

    /// Gives those that something was taken from the time that they have with what is left to them: a restart brings what they
    /// keep after them.
    pub(super) fn begin_again(&mut self, now: LeaseTime) {
        let robbed = self.by_id.iter().filter(|(_, lease)| lease.replaced().next().is_some());
        let mut robbed: Vec<LeaseId> = robbed.map(|(id, _)| *id).collect();
        robbed.sort_unstable();
        for id in robbed {
            if let Some(span) = self.by_id.get(&id).and_then(|lease| self.span(lease)) {
                self.due_at(id, now.plus(span));
            }
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
        self.quotas.check(self.by_id.values().map(|lease| &**lease));
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
