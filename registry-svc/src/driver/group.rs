//! What becomes durable together: batches, the answers that wait for it, and what it takes to have none of it happen.
//!
//! A store may refuse a group, so a group remembers the commands that it was made of and how to take each back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use telemetry::TraceParent;
use tokio::sync::oneshot;

use super::{Answer, SubmitError, parked::Parked, rounds::Round};
use crate::{
    catalog::{Batch, Catalog, CatalogError, Command, Decision, LeaseChange, Outcome, Owner, Renewed, Reply, Undo},
    model::{Health, LeaseId, ReplicaId, SecretHash, WallTime, Who},
};

/// Answers or batches that may wait for the disk: a commit of this size takes far less than a time to live. Beyond,
/// mutations wait in their queue and then are refused.
const ENTRIES_MAX: usize = 4_096;
/// Bytes that may wait, roughly: a few times what so many typical registrations cost. One mutation may go beyond it.
const BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// See the module.
#[derive(Debug, Default)]
pub(super) struct Group {
    batches: Vec<Arc<Batch>>,
    entries: Vec<Entry>,
    /// Answers to heartbeats that tell of this group or of what came before it.
    rounds: Parked,
    /// The leases that it ends or takes instances from: while it is not durable they live, whatever the catalog says.
    takes: HashMap<LeaseId, SecretHash>,
    /// Those of them whose owners were heard since, also of those who wait no more.
    heard: BTreeMap<LeaseId, Owner>,
    /// The leases that it makes ours: while it is not durable another replica may end them.
    claims: HashSet<LeaseId>,
    /// Whose leases it ends since they are dead.
    dead: BTreeSet<ReplicaId>,
    bytes: usize,
    grows: bool,
}

/// A command that has been taken up.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) command: Command,
    /// Who asks, for the record.
    pub(super) by: Option<Who>,
    /// The span of the call.
    pub(super) trace: Option<TraceParent>,
    pub(super) caller: Caller,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Caller {
    /// This one.
    Waits(oneshot::Sender<Answer>),
    /// Nobody: the driver asks for itself.
    Driver,
    /// Nobody any more: it was told that the outcome is unknown.
    Told,
}

/// A command that was undone.
#[derive(Debug)]
pub(super) struct TakenBack {
    pub(super) task: Task,
    /// Whether it had made a batch.
    pub(super) changed: bool,
}

/// What a group that was taken back leaves to be done.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// To be applied again or refused.
    pub(super) tasks: Vec<TakenBack>,
    /// To be heard again.
    pub(super) rounds: Parked,
    /// Were heard, and live again.
    pub(super) heard: Vec<Owner>,
}

/// In the order in which they were applied.
#[derive(Debug)]
struct Entry {
    what: What,
    changed: bool,
    undo: Undo,
    /// Of the group's.
    bytes: usize,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are commands")]
enum What {
    Command {
        task: Task,
        /// A refusal waits too: it may tell of a change that is not durable yet.
        reply: Result<Reply, CatalogError>,
    },
    /// Not kept: the catalog finds it again.
    Expiry,
}

impl Task {
    /// Its caller's deadline has passed, or it hung up, or it was told not to wait: it may have asked again, and must not be
    /// surprised by a change that comes later. A Deregister that is dropped for it is made good by the end of its lease.
    pub(super) fn is_abandoned(&self) -> bool {
        match &self.caller {
            Caller::Waits(caller) => caller.is_closed(),
            Caller::Driver => false,
            Caller::Told => true,
        }
    }

    /// Applies it.
    pub(super) fn apply(&self, catalog: &mut Catalog, wall: WallTime) -> Outcome {
        catalog
            .apply(&self.command, wall)
            .by(self.by.as_ref())
            .traced(self.trace)
    }

    /// Whether it makes leases this replica's own.
    pub(super) fn is_claim(&self) -> bool {
        matches!(self.command, Command::Claim(_))
    }

    /// Whether what it does may need room in the store, rather than make some.
    pub(super) fn grows(&self) -> bool {
        match &self.command {
            // As the store sees it: an instance that burns can be taken out on a full disk.
            Command::Govern(govern) => !matches!(govern.decision, Decision::Drain { .. }),
            Command::Judge(judge) => judge.health != Health::Failing,
            Command::Deregister(_) => false,
            Command::Register(_) | Command::Update(_) | Command::Claim(_) => true,
        }
    }

    /// Answers without having done anything.
    pub(super) fn refuse(self, why: SubmitError) {
        self.caller.answer(Err(why));
    }
}

impl Entry {
    fn grows(&self) -> bool {
        match &self.what {
            What::Command { task, .. } => self.changed && task.grows(),
            What::Expiry => false,
        }
    }
}

impl Caller {
    fn answer(self, answer: Answer) {
        if let Self::Waits(caller) = self {
            // One that has gone is not told; what was done is done and shows in lists and watches.
            let _ = caller.send(answer);
        }
    }
}

impl Group {
    /// Consecutive.
    pub(super) fn batches(&self) -> &[Arc<Batch>] {
        &self.batches
    }

    /// Whether there is nothing in it, no answer either.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rounds.is_empty()
    }

    /// How many commands and expiries.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Whether somebody waits for an answer, which tells of the present.
    pub(super) fn is_awaited(&self) -> bool {
        let waits = |entry: &Entry| match &entry.what {
            What::Command { task, .. } => matches!(task.caller, Caller::Waits(_)) && !task.is_abandoned(),
            What::Expiry => false,
        };
        self.entries.iter().any(waits) || self.rounds.iter().any(|round| !round.is_abandoned())
    }

    /// Whose leases it ends since they are dead.
    pub(super) fn dead(&self) -> Vec<ReplicaId> {
        self.dead.iter().copied().collect()
    }

    /// Whether any of its batches may need room, rather than make some.
    pub(super) fn grows(&self) -> bool {
        self.grows
    }

    /// Whether it takes no more mutations. Answers count too: a refusal, a repeat or an update without a change makes no batch.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX || self.bytes >= BYTES_MAX
    }

    /// Adds what a command did; it is answered when the group is durable. `own`: this replica.
    pub(super) fn add(&mut self, task: Task, outcome: Outcome, own: ReplicaId) {
        let Outcome { reply, batch, undo } = outcome;
        // 512: the channel, a refusal's text, and what undoing takes.
        let answer = 512 + task.command.bytes() + reply.as_ref().map_or(0, Reply::bytes);
        self.grows |= batch.is_some() && task.grows();
        let changed = batch.is_some();
        if let Some(batch) = &batch {
            self.note_taken(batch, &undo);
            self.claims.extend(undo.moved(own));
        }
        let bytes = answer + batch.as_deref().map_or(0, cost);
        self.push(What::Command { task, reply }, changed, undo, bytes);
        self.batches.extend(batch);
    }

    /// Adds what has lapsed. `own`: this replica.
    pub(super) fn add_expiry(&mut self, batch: Arc<Batch>, undo: Undo, own: ReplicaId) {
        self.note_taken(&batch, &undo);
        let owners = undo.ended().map(|lease| lease.owner);
        self.dead.extend(owners.filter(|owner| *owner != own));
        self.push(What::Expiry, true, undo, cost(&batch));
        self.batches.push(batch);
    }

    fn note_taken(&mut self, batch: &Batch, undo: &Undo) {
        self.takes.extend(undo.ended().map(|lease| (lease.id, lease.secret)));
        for change in &batch.leases {
            if let LeaseChange::Lost(lease) = change {
                self.takes.insert(lease.id, lease.secret);
            }
        }
    }

    /// Hears an owner whose lease this group takes: if it is taken back the lease lives, with its full time. Whether it does.
    pub(super) fn hears(&mut self, owner: &Owner) -> bool {
        let takes = self.takes.get(&owner.lease) == Some(&owner.secret);
        if takes {
            self.heard.insert(owner.lease, *owner);
        }
        takes
    }

    /// Whether it makes any lease ours.
    pub(super) fn is_claiming(&self) -> bool {
        !self.claims.is_empty()
    }

    /// Whether it makes this owner's lease ours.
    pub(super) fn claims(&self, owner: &Owner) -> bool {
        self.claims.contains(&owner.lease)
    }

    /// Keeps an answer to heartbeats until the group is durable. Whether there is room for it; else it is answered that nobody
    /// can say.
    pub(super) fn park(&mut self, round: Round) -> bool {
        self.rounds.park(round).map_err(Round::give_up).is_ok()
    }

    /// The owners who wait here with others who are refused are alive.
    pub(super) fn keep(&self, catalog: &mut Catalog) {
        for round in self.rounds.iter().filter(|round| !round.is_abandoned()) {
            round.keep(catalog);
        }
    }

    /// Takes what comes first of it, with batches of so many bytes or one that is larger, to be sent by itself: the rest is built
    /// on it. Of those who wait for an answer to heartbeats it takes whom it can answer: what they ask about is nothing that
    /// this group takes or claims. `own`: this replica.
    pub(super) fn split_front(&mut self, bytes: usize, own: ReplicaId) -> Self {
        let (mut entries, mut batches, mut sum) = (0, 0, 0);
        for entry in &self.entries {
            if entry.changed {
                let next = self.batches.get(batches).map_or(0, |batch| cost(batch));
                if batches > 0 && sum + next > bytes {
                    break;
                }
                batches += 1;
                sum += next;
            }
            entries += 1;
        }
        if entries == self.entries.len() {
            return std::mem::take(self);
        }
        let mut front = Self {
            entries: self.entries.drain(..entries).collect(),
            batches: self.batches.drain(..batches).collect(),
            ..Self::default()
        };
        let claims = |entries: &[Entry]| entries.iter().flat_map(|entry| entry.undo.moved(own)).collect();
        (front.claims, self.claims) = (claims(&front.entries), claims(&self.entries));
        let (takes, claims) = (&self.takes, &self.claims);
        let is_taken = |owner: &Owner| takes.get(&owner.lease) == Some(&owner.secret);
        let waits = |round: &mut Round| {
            round.refused().any(is_taken) || round.kept().any(|(owner, _)| claims.contains(&owner.lease))
        };
        front.rounds = self.rounds.take_if(|round| !waits(round));
        front.bytes = front.entries.iter().map(|entry| entry.bytes).sum();
        if front.entries.iter().any(|entry| matches!(entry.what, What::Expiry)) {
            front.dead = self.dead.clone();
        }
        front.grows = front.entries.iter().any(Entry::grows);
        self.grows = self.entries.iter().any(Entry::grows);
        self.bytes -= front.bytes;
        front
    }

    fn push(&mut self, what: What, changed: bool, undo: Undo, bytes: usize) {
        self.bytes += bytes;
        self.entries.push(Entry {
            what,
            changed,
            undo,
            bytes,
        });
    }

    /// All of it is durable; `open` is what has been applied since. Returns those who wait on, for claims that are not in it.
    pub(super) fn answer(self, catalog: &mut Catalog, open: &mut Self) -> Vec<Round> {
        let rounds = self.rounds.into_iter();
        let waiting = rounds.filter_map(|round| round.confirm(catalog, open)).collect();
        for entry in self.entries {
            if let What::Command { task, reply } = entry.what {
                task.caller.answer(reply.map_err(SubmitError::from));
            }
        }
        waiting
    }

    /// Tells those who wait for leases that cannot be claimed now. Whoever waits for a refusal as well waits on.
    pub(super) fn doubt(&mut self, claims: &HashMap<LeaseId, Owner>) {
        let is_claimed = |owner: &Owner, _: &Renewed| claims.contains_key(&owner.lease);
        let told = self
            .rounds
            .take_if(|round| round.doubt(is_claimed) && round.refused().next().is_none());
        told.into_iter().for_each(Round::answer);
    }

    /// Tells those who wait that nobody knows when this will be decided, nor how.
    pub(super) fn answer_unknown(&mut self) {
        for round in std::mem::take(&mut self.rounds) {
            round.give_up();
        }
        for entry in &mut self.entries {
            if let What::Command { task, .. } = &mut entry.what
                && matches!(task.caller, Caller::Waits(_))
            {
                std::mem::replace(&mut task.caller, Caller::Told).answer(Err(SubmitError::OutcomeUnknown));
            }
        }
    }

    /// Has none of it happen; it must be the newest there is. Returns the commands in their order, without those that nobody
    /// waits for.
    pub(super) fn take_back(self, catalog: &mut Catalog) -> Taken {
        let mut tasks = Vec::new();
        for Entry {
            what, changed, undo, ..
        } in self.entries.into_iter().rev()
        {
            catalog.undo(undo);
            if let What::Command { task, .. } = what
                && !task.is_abandoned()
            {
                tasks.push(TakenBack { task, changed });
            }
        }
        tasks.reverse();
        Taken {
            tasks,
            rounds: self.rounds,
            heard: self.heard.into_values().collect(),
        }
    }
}

fn cost(batch: &Batch) -> usize {
    batch.bytes() + batch.lease_bytes()
}
