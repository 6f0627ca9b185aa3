//! The rules of the driver without its queues, threads and clocks: what is taken up, in which order things happen, and who
//! hears what when.
//!
//! Each input comes with the time; what is to be done comes out: a [`Job`] for the store, answers to those who wait, batches
//! to the hub. It awaits nothing and reads no clock, so that a simulation can run the very rules that serve.
//!
//! Invariants:
//! 1. The catalog is what is durable, then the group that is on its way, then the open group; taken back newest first, what
//!    is left is what is durable.
//! 2. The hub has what is durable and nothing else.
//! 3. Nobody is answered before everything that was applied before is durable, unless with a refusal that says that nothing
//!    was done, or that nobody knows.
//! 4. What another replica commits is followed only with nothing of our own on top.
//! 5. A refusal tells of what is durable, and where others commit too, of the present.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::warn;

use super::{
    Answer, SubmitError,
    absence::{Absence, PATIENCE},
    group::{Caller, Group, Task},
    room::Room,
    rounds::{NotRenewed, Results, Round},
};
use crate::{
    access::Bounds,
    catalog::{
        Asked, Batch, Beat, Catalog, CatalogError, Command, Owner, PULSE, ProtectionStatus, RenewError, Renewed,
    },
    hub::{Hub, Trust},
    metrics::{Metrics, Shed},
    model::{Confidence, LeaseId, Moment, Now, PeerKey, ReplicaId, Revision},
    store::News,
};

/// Leases that are claimed with one group: their records are some 200 KiB, and the leases of a dead replica, which renew within
/// one heartbeat interval, make a few hundred revisions at the most.
const CLAIMS: usize = 2_048;
/// Leases that wait to be claimed, 48 bytes each: as many as may wait for an answer, and more than renew in a second.
const CLAIMS_WAITING: usize = 131_072;

/// Bytes of batches that one who was overtaken sends at once, and half of that for each further time: a large group takes several
/// requests, and would be late each time.
const OVERTAKEN_BYTES: usize = 256 * 1_024;

/// What can be set of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// How long beyond one heartbeat interval a lease may stay silent after the stream of its heartbeats broke; `None`: as long
    /// as ever.
    pub(crate) suspect_after: Option<Duration>,
    /// How long those who wait for a store that is away are made to wait.
    pub(crate) patience: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) catalog: Catalog,
    pub(super) hub: Arc<Hub>,
    pub(super) metrics: Metrics,
    pub(super) settings: Settings,
    /// Whether others commit to the store: then what is known here may be the past.
    shared: bool,
    /// Of what is durable.
    pub(super) durable: Revision,
    /// Applied, waiting for the store to be free.
    pub(super) open: Group,
    /// On its way to the store.
    pub(super) in_flight: Option<Group>,
    pub(super) room: Room,
    pub(super) absence: Option<Absence>,
    /// Another replica was first: until its batches have come, or this moment, what we would commit would be refused again.
    pub(super) behind: Option<Moment>,
    /// How often that has happened in a row, less one for each time that it has not.
    pub(super) overtaken: u32,
    /// Leases that renew here and belong to other replicas, for the next group.
    claims: HashMap<LeaseId, Owner>,
    /// Told while a group was on its way.
    pub(super) queued: VecDeque<News>,
    /// As the metrics were told last.
    pub(super) protection: ProtectionStatus,
    stopping: bool,
    last_pulse: Moment,
}

/// What the store is to make durable.
#[derive(Debug)]
pub(crate) struct Job {
    /// What they, or the answers that wait, are built on.
    pub(crate) base: Revision,
    /// Consecutive. None: the store is to say whether `base` is still the last revision.
    pub(crate) batches: Vec<Arc<Batch>>,
    /// It is to be made durable only if these are still dead.
    pub(crate) dead: Vec<ReplicaId>,
    /// What the history may forget by it.
    pub(crate) compacted: Revision,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Long enough to dial again, to this registry or another one.
            suspect_after: Some(Duration::from_secs(2)),
            patience: PATIENCE,
        }
    }
}

impl Core {
    /// Over what a restart has brought back; the hub has the same.
    pub(crate) fn new(catalog: Catalog, hub: Arc<Hub>, metrics: Metrics, settings: Settings, now: Moment) -> Self {
        Self {
            durable: hub.look(|view| view.revision()),
            shared: catalog.own() != ReplicaId::ALONE,
            catalog,
            hub,
            metrics,
            settings,
            open: Group::default(),
            in_flight: None,
            room: Room::default(),
            absence: None,
            behind: None,
            overtaken: 0,
            claims: HashMap::new(),
            queued: VecDeque::new(),
            protection: ProtectionStatus::default(),
            stopping: false,
            last_pulse: now,
        }
    }

    /// Whether others commit to the store.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    /// The time; every input begins with it.
    pub(crate) fn look(&mut self, now: Now) {
        if let Some(pause) = self.catalog.look(now) {
            warn!(?pause, "the registry was paused; no lease is charged for it");
        }
    }

    /// Whether another mutation may come.
    pub(crate) fn takes_mutations(&self) -> bool {
        !self.stopping && !self.open.is_full()
    }

    /// When to be woken with a pulse at the latest.
    pub(crate) fn next_wake(&self, now: Now) -> Moment {
        let pulse = self.last_pulse.plus(PULSE);
        match self.catalog.next_due() {
            // While nothing expires, being due is no reason to wake.
            Some(due) if self.expires(now) => due.min(pulse),
            _ => pulse,
        }
    }

    /// A change is asked for.
    pub(crate) fn mutate(&mut self, asked: impl Into<Asked>, caller: oneshot::Sender<Answer>, now: Now) {
        let Asked { command, by, trace } = asked.into();
        let task = Task {
            command,
            by,
            trace,
            caller: Caller::Waits(caller),
        };
        if task.is_abandoned() {
            return;
        }
        if self.absence.is_some() {
            self.metrics.shed(Shed::Away).inc();
            return task.refuse(SubmitError::StoreAway);
        }
        let outcome = task.apply(&mut self.catalog, now.wall);
        match outcome.reply {
            Err(CatalogError::RegistryFull { .. }) => self.metrics.shed(Shed::Full).inc(),
            Err(CatalogError::QuotaExceeded { .. }) => self.metrics.shed(Shed::Quota).inc(),
            _ => {}
        }
        // Only now: what changes nothing, a repeat or a refusal, is answered as ever.
        if outcome.batch.is_some()
            && task.grows()
            && let Some(why) = self.room.refuses(now.moment)
        {
            let refusal = SubmitError::NoRoom(why.to_owned());
            self.catalog.undo(outcome.undo);
            self.metrics.shed(Shed::NoRoom).inc();
            return task.refuse(refusal);
        }
        self.open.add(task, outcome, self.catalog.own());
    }

    /// Heartbeats as the catalog takes them.
    pub(crate) fn renew(&mut self, owners: &[Owner], within: Option<&Bounds>) -> Vec<Result<Renewed, RenewError>> {
        let may_claim = !self.stopping && self.absence.is_none();
        let renew = |owner: &Owner| {
            let renewed = self.catalog.renew_within(owner, within);
            // Where it cannot be taken up now, the next heartbeat asks again.
            if may_claim && renewed.is_ok_and(|renewed| renewed.claim) && self.claims.len() < CLAIMS_WAITING {
                self.claims.insert(owner.lease, *owner);
            }
            renewed
        };
        owners.iter().map(renew).collect()
    }

    /// Heartbeats, of one who may be bound to certain services. They touch no disk and are answered at once, unless some are
    /// refused for what is not certain, or come from another replica, which may be ending their leases: that answer waits until it
    /// is certain, or they are ours. Of the rounds that wait a peer has its share, where one is named.
    pub(crate) fn hear(
        &mut self,
        owners: Vec<Owner>,
        within: Option<Bounds>,
        peer: Option<PeerKey>,
        caller: oneshot::Sender<Results>,
    ) {
        self.metrics.renewals.inc_by(owners.len() as u64);
        self.listen(owners, within, peer, caller);
    }

    /// The same of a round that has been counted.
    pub(super) fn listen(
        &mut self,
        owners: Vec<Owner>,
        within: Option<Bounds>,
        peer: Option<PeerKey>,
        caller: oneshot::Sender<Results>,
    ) {
        let results = self.renew(&owners, within.as_ref());
        let all_are_ours = results.iter().all(|result| result.is_ok_and(|renewed| !renewed.claim));
        let results = results.into_iter().map(|result| result.map_err(NotRenewed::Refused));
        let mut round = Round {
            results: results.collect(),
            owners,
            within,
            peer,
            caller,
        };
        // Nearly all there are.
        if all_are_ours && self.absence.is_none() && !self.is_claiming() {
            return round.answer();
        }
        // What is not taken up, by one who stops or has too much to claim, others may end.
        round.doubt(|owner, renewed| renewed.claim && !self.claims.contains_key(&owner.lease));
        let claims = |group: &Group| round.kept().any(|(owner, _)| group.claims(owner));
        let moves = round.kept().any(|(_, renewed)| renewed.claim);
        let claimed_by_open = moves || claims(&self.open);
        let claimed_in_flight = self.in_flight.as_ref().is_some_and(claims);
        let (mut taken_by_open, mut taken_in_flight, mut unknown) = (false, false, false);
        for owner in round.refused() {
            let open = self.open.hears(owner);
            let in_flight = self.in_flight.as_mut().is_some_and(|group| group.hears(owner));
            taken_by_open |= open;
            taken_in_flight |= in_flight;
            unknown |= !open && !in_flight;
        }
        if let Some(absence) = &self.absence {
            let is_claimed =
                |owner| self.open.claims(owner) || self.in_flight.as_ref().is_some_and(|group| group.claims(owner));
            for (owner, result) in round.owners.iter().zip(&mut round.results) {
                // What is refused may be another's; what is to be claimed, and after a while what is our own, others may end.
                let is_ours = result.is_ok_and(|renewed| !renewed.claim) && !is_claimed(owner);
                if absence.told || !is_ours {
                    *result = Err(NotRenewed::Undecided);
                }
            }
            return round.answer();
        }
        let is_parked = match &mut self.in_flight {
            // Also what nobody here takes may be granted elsewhere. What is on its way may have been decided before it was asked.
            _ if taken_by_open || claimed_by_open || (unknown && self.shared) => self.open.park(round),
            Some(group) if taken_in_flight || claimed_in_flight => group.park(round),
            _ => return round.answer(),
        };
        if !is_parked {
            self.metrics.shed(Shed::Peer).inc();
        }
    }

    /// Whether leases are on their way to become ours.
    fn is_claiming(&self) -> bool {
        self.open.is_claiming() || self.in_flight.as_ref().is_some_and(Group::is_claiming)
    }

    /// Other replicas have heard these leases' heartbeats as yet, and from here on we do.
    fn claim(&mut self, now: Now) {
        // Let through as a probe, for one who takes no registrations would never ask again.
        if self.room.refuses(now.moment).is_some() {
            let claims = std::mem::take(&mut self.claims);
            self.open.doubt(&claims);
        }
        if self.claims.is_empty() {
            return;
        }
        let mut leases: Vec<LeaseId> = self.claims.keys().copied().collect();
        // The same history gives the same bytes.
        if leases.len() > CLAIMS {
            leases.select_nth_unstable(CLAIMS);
            leases.truncate(CLAIMS);
        }
        leases.sort_unstable();
        let owners = leases.iter().filter_map(|lease| self.claims.remove(lease)).collect();
        let task = Task {
            command: Command::Claim(owners),
            by: None,
            trace: None,
            caller: Caller::Driver,
        };
        let outcome = task.apply(&mut self.catalog, now.wall);
        let claimed = outcome.batch.as_ref().map_or(0, |batch| batch.leases.len());
        self.metrics.claims.inc_by(claimed as u64);
        self.open.add(task, outcome, self.catalog.own());
    }

    pub(super) fn forget_claims(&mut self) {
        self.claims.clear();
    }

    /// The stream that carried the heartbeats of these leases broke.
    pub(crate) fn suspect(&mut self, heard: &[(LeaseId, Beat)]) {
        if let Some(after) = self.settings.suspect_after {
            let suspected = self.catalog.suspect(heard, after);
            self.metrics.suspected.inc_by(suspected as u64);
        }
    }

    /// Time has passed; `draw` is fresh random bits. Who has knocked by now must have been let in with [`Core::hear`].
    pub(crate) fn pulse(&mut self, now: Now, draw: u64) {
        self.last_pulse = now.moment;
        self.measure(now);
        self.lose_patience(now);
        self.expire(now, draw);
    }

    pub(super) fn expire(&mut self, now: Now, draw: u64) {
        // Before what it allows: an expiry must not be told with the confidence of a recovery, during which there is none.
        self.tell_trust();
        if self.expires(now) {
            // They have knocked, too.
            self.open.keep(&mut self.catalog);
            let own = self.catalog.own();
            for (batch, undo) in self.catalog.expire(now.wall, draw) {
                self.open.add_expiry(batch, undo, own);
            }
            for (batch, undo) in self.catalog.end_overrides(now.wall) {
                self.open.add_expiry(batch, undo, own);
            }
            // A protection may have begun or ended by it.
            self.tell_trust();
        }
    }

    /// Only while nothing is on its way to the store: a lease whose grant waits for a slow disk has not begun to live.
    fn expires(&self, now: Now) -> bool {
        let could_be_committed = self.absence.is_none() && self.behind.is_none() && self.room.may_expire(now.moment);
        could_be_committed && self.in_flight.is_none() && !self.stopping
    }

    /// Tells the readers how far what they read can be trusted.
    pub(super) fn tell_trust(&mut self) {
        self.hub.set_trust(Trust {
            recovering: self.catalog.confidence() == Confidence::Recovering,
            protecting: self.catalog.protecting(),
            stale_since: self.absence.as_ref().map(|absence| absence.since),
        });
    }

    /// Closes the open group if the store is free for it; answers it if there is nothing to write. What others may have changed
    /// is asked for first: an answer tells of the present.
    pub(crate) fn next_job(&mut self, now: Now) -> Option<Job> {
        let waits_for_others = self.behind.is_some_and(|until| now.moment < until);
        if self.in_flight.is_some() || self.absence.is_some() || waits_for_others {
            return None;
        }
        // Also with nothing to send: until then nothing expires.
        self.behind = None;
        // Last, so that all that gathered since the last commit move in one revision.
        self.claim(now);
        if self.open.is_empty() {
            return None;
        }
        let group = match self.overtaken.checked_sub(1) {
            None => std::mem::take(&mut self.open),
            Some(further) => {
                let bytes = OVERTAKEN_BYTES.checked_shr(further).unwrap_or(0);
                self.open.split_front(bytes, self.catalog.own())
            }
        };
        if group.batches().is_empty() && !(self.shared && group.is_awaited()) {
            self.answer(group);
            return None;
        }
        self.room.sent(group.grows(), now.moment);
        let job = Job {
            base: self.durable,
            batches: group.batches().to_vec(),
            dead: group.dead(),
            compacted: self.hub.compacted_after(group.batches()),
        };
        self.in_flight = Some(group);
        Some(job)
    }

    /// A group is durable, or has nothing to be made so.
    pub(super) fn answer(&mut self, group: Group) {
        for round in group.answer(&mut self.catalog, &mut self.open) {
            self.listen(round.owners, round.within, round.peer, round.caller);
        }
    }

    /// Nothing more is taken up. What has been is finished.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Instances and leases that the catalog holds.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.catalog.instances(), self.catalog.leases())
    }

    /// Commands and expiries that are applied and not durable.
    #[cfg(test)]
    pub(crate) fn unsettled(&self) -> usize {
        self.open.entries() + self.in_flight.as_ref().map_or(0, Group::entries)
    }

    /// Panics where an invariant of the catalog is broken.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.catalog.check_invariants();
    }

    /// Whether it has been stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether nothing waits for the store or for others.
    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.open.is_empty()
    }
}
