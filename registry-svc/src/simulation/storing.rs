//! What happens between the registries of a world and their store: commits, news, sessions.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Plant,
    invariants::Seen,
    replica::Delivery,
    request::{lease, short},
    store::{CONTACT, Commit, SESSION},
    world::{Event, World},
};
use crate::{
    catalog::{Batch, Change, LeaseChange, OverrideChange},
    driver::Job,
    model::{Act, Override, ReplicaId},
    store::{News, Verdict},
};

impl World {
    /// A group sets out for the store.
    pub(super) fn commit(&mut self, replica: usize, job: Job) {
        let Job {
            base,
            mut batches,
            dead,
            compacted,
        } = job;
        if self.plant == Plant::DropTheOther {
            batches.iter_mut().for_each(drop_the_other);
        }
        let (fastest, slowest) = self.plan.disk;
        let took = self.rng.between(fastest, slowest) + self.store.slow;
        let (decided, life) = (self.truth.now, self.replicas[replica].life);
        if let (Some(first), Some(last)) = (batches.first(), batches.last()) {
            self.note_registry(replica, format_args!("commits {}..{}", first.revision, last.revision));
        }
        // A disk answers when it is done; from a store in the network the answer has to travel, or is lost and asked for again.
        let back = match self.plan.replicas {
            1 => Duration::ZERO,
            _ if self.calm() || !self.rng.chance(self.plan.lost) => took / 2,
            _ => took + Duration::from_millis(500),
        };
        let id = self.store.send(Commit {
            replica,
            life,
            base,
            dead,
            session: self.store.session(self.id(replica)),
            batches,
            compacted,
            decided,
            back,
        });
        self.at(decided + took - (took / 2).min(back), Event::Stores(id));
    }

    /// A commit reaches the store.
    pub(super) fn stores(&mut self, id: u64) {
        let Some(commit) = self.store.commits.remove(&id) else {
            return;
        };
        let replica = commit.replica;
        // It is tried again and again, and nothing is assumed meanwhile.
        let reached = self.store.reached_at(replica);
        if reached > self.truth.now {
            self.store.commits.insert(id, commit);
            return self.at(reached + Duration::from_millis(5), Event::Stores(id));
        }
        if self.store.failing && self.plan.replicas == 1 {
            self.store.failing = false;
            self.note("store", format_args!("fails"));
            // What is on the disk is unknown, and the process ends itself: as a crash with the group on its way.
            self.store.commits.insert(id, commit);
            let down = self.rng.between(Duration::from_millis(1), Duration::from_secs(1));
            return self.crashes(replica, down);
        }
        let verdict = self.judge(&commit);
        if verdict == Verdict::Durable && !commit.batches.is_empty() {
            let before = self.truth.head();
            for batch in &commit.batches {
                if let Err(what) = self
                    .truth
                    .append(Arc::clone(batch), commit.decided, (replica, commit.life))
                {
                    return self.broken("revisions", what);
                }
            }
            self.store.compacted = self.store.compacted.max(commit.compacted);
            if self.trace.is_on() {
                for batch in &commit.batches {
                    self.note("store", format_args!("takes {}", Says(batch)));
                }
            }
            self.see(Seen::Durable { after: before });
            self.tell_all();
        }
        self.note("store", format_args!("{verdict:?}, has {}", self.truth.head()));
        let (at, took) = (
            self.truth.now + commit.back,
            self.truth.now + commit.back - commit.decided,
        );
        if commit.back.is_zero() {
            return self.says(replica, commit.life, verdict, took);
        }
        self.at(at, Event::Says(replica, commit.life, verdict, took));
    }

    fn judge(&mut self, commit: &Commit) -> Verdict {
        let first = commit.batches.first().map(|batch| batch.revision);
        let shared = self.plan.replicas > 1;
        let fits = match first {
            Some(first) => first == self.truth.head().next() || self.plant == Plant::NoFence,
            None => commit.base == self.truth.head() || self.plant == Plant::RefuseBehind,
        };
        if shared && !fits {
            return Verdict::Overtaken;
        }
        if first.is_none() {
            return Verdict::Durable;
        }
        let back = commit.dead.iter().any(|id| self.store.sessions.contains(id));
        let was_dead = commit.session.is_none() || commit.session != self.store.session(self.id(commit.replica));
        if !commit.dead.is_empty() && (back || was_dead) {
            return Verdict::Overtaken;
        }
        // What makes room may or may not find the little that it needs itself.
        let shrinks = commit.batches.iter().all(|batch| {
            let mut changes = batch.changes.iter();
            changes.all(|change| matches!(change, Change::Removed(_)))
        });
        if self.store.full && !(shrinks && self.rng.chance(500)) {
            return Verdict::NoRoom("the disk is full".into());
        }
        Verdict::Durable
    }

    /// The store's answer to a commit comes back.
    pub(super) fn says(&mut self, replica: usize, life: u64, verdict: Verdict, took: Duration) {
        if self.replicas[replica].life != life || self.replicas[replica].process.is_none() {
            return;
        }
        let reached = self.store.reached_at(replica);
        if reached > self.truth.now {
            let again = reached + Duration::from_millis(5);
            return self.at(again, Event::Says(replica, life, verdict, took));
        }
        self.deliver(replica, Delivery::Verdict(verdict, took));
    }

    /// Something has happened that every registry is told of.
    fn tell_all(&mut self) {
        if self.plan.replicas == 1 {
            return;
        }
        for replica in 0..self.plan.replicas {
            let delay = self.rng.between(self.plan.delay.0, self.plan.delay.1 * 2);
            let delay = if !self.calm() && self.rng.chance(self.plan.late) {
                delay + Duration::from_millis(700)
            } else {
                delay
            };
            let link = self.store.links.entry(replica).or_default();
            link.arrives = link.arrives.max(self.truth.now + delay);
            let (at, life) = (link.arrives, self.replicas[replica].life);
            self.at(at, Event::Feeds(replica, life));
        }
    }

    /// What a registry has not been told yet reaches it.
    pub(super) fn feeds(&mut self, replica: usize, life: u64) {
        if self.replicas[replica].life != life || self.replicas[replica].process.is_none() {
            return;
        }
        if self.store.reached_at(replica) > self.truth.now {
            return;
        }
        let own = self.id(replica);
        let (head, echo) = (self.truth.head(), self.plan.echo);
        let link = self.store.links.entry(replica).or_default();
        let fed = std::mem::replace(&mut link.fed, head);
        let replicas = (link.knows != self.store.sessions).then(|| self.store.sessions.clone());
        if let Some(sessions) = replicas {
            link.knows = sessions;
            let replicas = self.store.replicas(own);
            self.note_registry(replica, format_args!("is told of {replicas:?}"));
            self.deliver(replica, Delivery::News(News::Replicas(replicas)));
        }
        // Its own may or may not be among them.
        let mut run = Vec::new();
        let mut runs = Vec::new();
        for entry in self.truth.after(fed) {
            if !echo && entry.by == (replica, life) {
                runs.push(std::mem::take(&mut run));
            } else {
                run.push(Arc::clone(&entry.batch));
            }
        }
        runs.push(run);
        for run in runs.into_iter().filter(|run| !run.is_empty()) {
            self.deliver(replica, Delivery::News(News::Batches(run)));
        }
        let link = self.store.links.entry(replica).or_default();
        link.lost = None;
        if std::mem::take(&mut link.away) {
            self.note_registry(replica, format_args!("reaches the store again"));
            self.see(Seen::Trouble { until: self.truth.now });
            self.deliver(replica, Delivery::News(News::Back));
        }
    }

    /// From now on some do not reach the store, for a time.
    pub(super) fn loses_the_store(&mut self, whom: Option<usize>, time: Duration) {
        let now = self.truth.now;
        match whom {
            Some(replica) => {
                let cut = self.store.cut.entry(replica).or_default();
                *cut = (*cut).max(now + time);
            }
            None => self.store.gone = self.store.gone.max(now + time),
        }
        self.see(Seen::Trouble {
            until: now + time + CONTACT,
        });
        for replica in 0..self.plan.replicas {
            let reached = self.store.reached_at(replica);
            if reached > now {
                let link = self.store.links.entry(replica).or_default();
                link.lost.get_or_insert(now);
                let life = self.replicas[replica].life;
                self.at(now + CONTACT, Event::Misses(replica, life));
                self.at(reached + Duration::from_millis(10), Event::Rejoins(replica, life));
                if self.store.cut.get(&replica) == Some(&(now + time)) {
                    self.falls_silent(replica);
                }
            }
        }
    }

    /// A registry has not heard the store for some time.
    pub(super) fn misses(&mut self, replica: usize, life: u64) {
        let now = self.truth.now;
        if self.replicas[replica].life != life || self.store.reached_at(replica) <= now {
            return;
        }
        let link = self.store.links.entry(replica).or_default();
        let Some(lost) = link.lost else { return };
        link.away = true;
        self.note_registry(replica, format_args!("misses the store"));
        self.deliver(replica, Delivery::News(News::Away { since: now - lost }));
        self.at(now + Duration::from_secs(1), Event::Misses(replica, life));
    }

    /// A registry reaches the store again, if nothing else is in the way.
    pub(super) fn rejoins(&mut self, replica: usize, life: u64) {
        if self.replicas[replica].life == life {
            self.join(replica);
        }
    }

    /// A registry that runs and reaches the store is one of those that are there.
    pub(super) fn join(&mut self, replica: usize) {
        let now = self.truth.now;
        let runs = self.replicas[replica]
            .process
            .as_ref()
            .is_some_and(|process| process.stopped.is_none());
        if self.plan.replicas == 1 || !runs || self.store.reached_at(replica) > now {
            return;
        }
        let (own, life) = (self.id(replica), self.replicas[replica].life);
        let booted = self.replicas[replica]
            .process
            .as_ref()
            .is_some_and(|process| process.since == now);
        let head = self.truth.head();
        let link = self.store.links.entry(replica).or_default();
        if booted {
            *link = super::store::Link {
                fed: head,
                ..Default::default()
            };
        }
        if self.store.joins(own, now) {
            self.tell_all();
        }
        self.at(now + Duration::from_millis(1), Event::Feeds(replica, life));
    }

    /// From now on the store does not hear this life of a registry.
    pub(super) fn falls_silent(&mut self, replica: usize) {
        if self.plan.replicas > 1 {
            let id = self.id(replica);
            self.at(self.truth.now + SESSION, Event::SessionEnds(replica, id));
        }
    }

    /// The store holds a registry for dead, if it is still not heard.
    pub(super) fn session_ends(&mut self, replica: usize, id: ReplicaId) {
        let now = self.truth.now;
        // A store that was away itself gives everybody a full time again.
        if self.store.gone > now {
            return self.at(self.store.gone + SESSION, Event::SessionEnds(replica, id));
        }
        let runs = self.replicas[replica]
            .process
            .as_ref()
            .is_some_and(|process| process.stopped.is_none());
        let heard = runs && self.id(replica) == id && self.store.reached_at(replica) <= now;
        if heard || !self.store.sessions.contains(&id) || !self.store.is_missed(id, now) {
            return;
        }
        self.store.sessions.retain(|session| *session != id);
        self.note("store", format_args!("holds {id} for dead"));
        self.see(Seen::Died { id });
        self.tell_all();
    }

    /// Whether nothing goes wrong any more.
    pub(super) fn calm(&self) -> bool {
        self.truth.now >= self.plan.heal
    }
}

/// The planted bug: what ends one of the two decisions about an instance takes the other with it.
fn drop_the_other(batch: &mut Arc<Batch>) {
    let ends = |change: &OverrideChange| {
        matches!(
            change.act,
            Act::Undrained | Act::WeightCleared | Act::DrainEnded | Act::WeightEnded
        )
    };
    if !batch.overrides.iter().any(ends) {
        return;
    }
    let batch = Arc::make_mut(batch);
    for dropped in batch.overrides.iter_mut().filter(|change| ends(change)) {
        dropped.now = None::<Arc<Override>>;
        for change in &mut batch.changes {
            if let Change::Put { instance, .. } = change
                && instance.key == dropped.key
            {
                Arc::make_mut(instance).governance = None;
            }
        }
    }
}

/// A batch, for people.
struct Says<'a>(&'a Batch);

impl fmt::Display for Says<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.0.revision)?;
        for change in &self.0.changes {
            match change {
                Change::Put { instance, .. } => write!(f, " +{}", short(&instance.key))?,
                Change::Removed(removal) => write!(f, " -{} ({})", short(&removal.key), removal.reason.as_str())?,
            }
        }
        for change in &self.0.overrides {
            write!(f, ", {} {}", short(&change.key), change.act.as_str())?;
        }
        for change in &self.0.leases {
            match change {
                LeaseChange::Kept(record) => write!(f, ", {} kept by {}", lease(record.id), record.owner.bits())?,
                LeaseChange::Lost(record) => write!(f, ", {} loses", lease(record.id))?,
                LeaseChange::Ended(id) => write!(f, ", {} ends", lease(*id))?,
            }
        }
        Ok(())
    }
}
