//! What becomes durable together: batches, the answers that wait for it, and what it takes to have none of it happen.
//!
//! A store may refuse a group, so a group remembers the commands that it was made of and how to take each back.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Answer, SubmitError, rounds::Round};
use crate::catalog::{Batch, Catalog, CatalogError, Command, Outcome, Reply, Undo};

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
    /// Refusals of heartbeats that tell of this group or of what came before it.
    rounds: Vec<Round>,
    bytes: usize,
    grows: bool,
}

/// A command that has been taken up.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) command: Command,
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
    pub(super) rounds: Vec<Round>,
}

/// In the order in which they were applied.
#[derive(Debug)]
struct Entry {
    what: What,
    changed: bool,
    undo: Undo,
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

    /// Whether what it does may need room in the store, rather than make some.
    pub(super) fn grows(&self) -> bool {
        !matches!(self.command, Command::Deregister(_))
    }

    /// Answers without having done anything.
    pub(super) fn refuse(self, why: SubmitError) {
        self.caller.answer(Err(why));
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
        self.entries.is_empty()
    }

    /// Whether any of its batches may need room, rather than make some.
    pub(super) fn grows(&self) -> bool {
        self.grows
    }

    /// Whether it takes no more mutations. Answers count too: a refusal, a repeat or an update without a change makes no batch.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX || self.bytes >= BYTES_MAX
    }

    /// Adds what a command did; it is answered when the group is durable.
    pub(super) fn add(&mut self, task: Task, outcome: Outcome) {
        let Outcome { reply, batch, undo } = outcome;
        // 512: the channel, a refusal's text, and what undoing takes.
        self.bytes += 512 + task.command.bytes() + reply.as_ref().map_or(0, Reply::bytes);
        self.grows |= batch.is_some() && task.grows();
        let changed = batch.is_some();
        self.push(What::Command { task, reply }, changed, undo);
        self.batches.extend(batch.inspect(|batch| self.bytes += cost(batch)));
    }

    /// Adds what has lapsed.
    pub(super) fn add_expiry(&mut self, batch: Arc<Batch>, undo: Undo) {
        self.bytes += cost(&batch);
        self.push(What::Expiry, true, undo);
        self.batches.push(batch);
    }

    /// Keeps a refusal of heartbeats until the group is durable.
    pub(super) fn park(&mut self, round: Round) {
        self.rounds.push(round);
    }

    fn push(&mut self, what: What, changed: bool, undo: Undo) {
        self.entries.push(Entry { what, changed, undo });
    }

    /// All of it is durable.
    pub(super) fn answer(self, catalog: &mut Catalog) {
        for round in self.rounds {
            round.confirm(catalog);
        }
        for entry in self.entries {
            if let What::Command { task, reply } = entry.what {
                task.caller.answer(reply.map_err(SubmitError::from));
            }
        }
    }

    /// Tells those who wait that nobody knows when this will be decided, nor how.
    pub(super) fn answer_unknown(&mut self) {
        for round in self.rounds.drain(..) {
            round.answer();
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
        for Entry { what, changed, undo } in self.entries.into_iter().rev() {
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
        }
    }
}

fn cost(batch: &Batch) -> usize {
    batch.bytes() + batch.lease_bytes()
}
