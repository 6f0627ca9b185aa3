//! How requests reach the driver: bounded queues, so that heartbeats never stand behind registrations.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::rounds::Results;
use crate::{
    access::Bounds,
    catalog::{Asked, Beat, CatalogError, Owner, Reply},
    metrics::{Metrics, Shed},
    model::{LeaseId, PeerKey},
};

/// Mutations that wait for the driver. Beyond, the registry is behind by more than it could answer in time, and says so.
const MUTATIONS: usize = 1_024;
/// Bytes of them, roughly: some 60 KiB each, and 27 of the largest there can be.
const MUTATION_BYTES: usize = 64 * 1_024 * 1_024;
/// Rounds of renewals that wait. Each takes microseconds; a caller beyond waits for a place.
const RENEWALS: usize = 1_024;
/// Streams that broke and wait to be told of. When a whole rack goes at once the later ones are not: their leases have their
/// full time then, which is what a lease is for.
const SUSPICIONS: usize = 1_024;
/// Questions of the prober, which asks one at a time.
const QUESTIONS: usize = 1;

/// What a caller is told.
pub(crate) type Answer = Result<Reply, SubmitError>;

/// Reaches the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    mutations: mpsc::Sender<Mutation>,
    room: Arc<Semaphore>,
    renewals: mpsc::Sender<Renewals>,
    suspicions: mpsc::Sender<Vec<(LeaseId, Beat)>>,
    questions: mpsc::Sender<Question>,
    metrics: Metrics,
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) mutations: mpsc::Receiver<Mutation>,
    pub(super) mutations_closed: bool,
    pub(super) renewals: mpsc::Receiver<Renewals>,
    pub(super) renewals_closed: bool,
    pub(super) suspicions: mpsc::Receiver<Vec<(LeaseId, Beat)>>,
    pub(super) suspicions_closed: bool,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) questions_closed: bool,
    room: Arc<Semaphore>,
}

/// Whether this replica hears the heartbeats of these leases, with the way back.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) leases: Vec<LeaseId>,
    pub(super) reply: oneshot::Sender<Vec<bool>>,
}

/// A command with the way back.
#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) asked: Asked,
    pub(super) reply: oneshot::Sender<Answer>,
    /// Its bytes of [`MUTATION_BYTES`].
    pub(super) room: OwnedSemaphorePermit,
}

/// Heartbeats with the way back.
#[derive(Debug)]
pub(super) struct Renewals {
    pub(super) owners: Vec<Owner>,
    /// What the caller is bound to, where that is to be looked at.
    pub(super) within: Option<Bounds>,
    pub(super) reply: oneshot::Sender<Results>,
    /// The caller's place in this queue, given back when it is taken out. A round that waits for the store stands in nobody's way.
    pub(super) seat: Option<Seat>,
}

/// A peer's place in the queue of heartbeats.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Whose it is.
    pub(crate) peer: PeerKey,
    /// Given back when dropped.
    pub(crate) place: OwnedSemaphorePermit,
}

/// Why there is no answer of the kind that was hoped for.
#[derive(Debug, Error)]
pub(crate) enum SubmitError {
    /// The catalog refused.
    #[error(transparent)]
    Refused(#[from] CatalogError),
    /// Too much is waiting already; nothing was done.
    #[error("the registry has more changes waiting than it can make durable in time")]
    Busy,
    /// The store takes no more; nothing was done.
    #[error("the registry's store has no room: {0}")]
    NoRoom(String),
    /// The store cannot be reached; nothing was done.
    #[error(
        "the registry cannot reach its store: reads and watches go on, changes do not, and leases are to be renewed at another"
    )]
    StoreAway,
    /// The registry is going away; nothing was done.
    #[error("the registry is stopping")]
    Stopping,
    /// The registry or its store went away before the answer.
    #[error("the change was not confirmed: it may or may not have been made")]
    OutcomeUnknown,
}

pub(super) fn channel(metrics: Metrics) -> (Handle, Inbox) {
    let (mutations, mutations_rx) = mpsc::channel(MUTATIONS);
    let (renewals, renewals_rx) = mpsc::channel(RENEWALS);
    let (suspicions, suspicions_rx) = mpsc::channel(SUSPICIONS);
    let (questions, questions_rx) = mpsc::channel(QUESTIONS);
    let room = Arc::new(Semaphore::new(MUTATION_BYTES));
    let inbox = Inbox {
        mutations: mutations_rx,
        mutations_closed: false,
        renewals: renewals_rx,
        renewals_closed: false,
        suspicions: suspicions_rx,
        suspicions_closed: false,
        questions: questions_rx,
        questions_closed: false,
        room: Arc::clone(&room),
    };
    let handle = Handle {
        mutations,
        room,
        renewals,
        suspicions,
        questions,
        metrics,
    };
    (handle, inbox)
}

impl Inbox {
    /// Nothing more is let in; what has been let in can still be taken out.
    pub(super) fn close(&mut self) {
        self.mutations.close();
        self.renewals.close();
        self.suspicions.close();
        self.questions.close();
    }

    /// Mutations that wait.
    pub(super) fn queued(&self) -> usize {
        self.mutations.len()
    }

    /// Bytes of them, roughly.
    pub(super) fn queued_bytes(&self) -> usize {
        MUTATION_BYTES - self.room.available_permits()
    }
}

impl Handle {
    /// Asks for a change; answers when it is durable.
    pub(crate) async fn submit(&self, asked: impl Into<Asked>) -> Answer {
        let answer = self.send(asked.into())?;
        answer.await.map_err(|_| SubmitError::OutcomeUnknown)?
    }

    fn send(&self, asked: Asked) -> Result<oneshot::Receiver<Answer>, SubmitError> {
        let bytes = u32::try_from(asked.command.bytes()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        let room = room.try_acquire_many_owned(bytes).map_err(|_| self.busy())?;
        let (reply, answer) = oneshot::channel();
        let mutation = Mutation { asked, reply, room };
        self.mutations.try_send(mutation).map_err(|error| match error {
            TrySendError::Full(_) => self.busy(),
            TrySendError::Closed(_) => SubmitError::Stopping,
        })?;
        Ok(answer)
    }

    fn busy(&self) -> SubmitError {
        self.metrics.shed(Shed::Busy).inc();
        SubmitError::Busy
    }

    /// Heartbeats; one result each, in order. `seat`: the caller's share of the queue, held until the driver has heard them.
    /// `within`: what the caller is bound to, where some of the leases have not been compared with it yet.
    pub(crate) async fn renew(
        &self,
        owners: Vec<Owner>,
        within: Option<Bounds>,
        seat: Option<Seat>,
    ) -> Result<Results, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.renewals
            .send(Renewals {
                owners,
                within,
                reply,
                seat,
            })
            .await
            .map_err(|_| SubmitError::Stopping)?;
        // A renewal that was lost changed nothing that a later one does not change too.
        answer.await.map_err(|_| SubmitError::Stopping)
    }

    /// Whether this replica hears the heartbeats of these leases, in order.
    pub(crate) async fn hears(&self, leases: Vec<LeaseId>) -> Result<Vec<bool>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let question = Question { leases, reply };
        self.questions.send(question).await.map_err(|_| SubmitError::Stopping)?;
        answer.await.map_err(|_| SubmitError::Stopping)
    }

    /// The stream that carried the heartbeats of these leases broke. Does not wait.
    pub(crate) fn suspect(&self, leases: Vec<(LeaseId, Beat)>) {
        // One that is lost leaves its leases their full time.
        let _ = self.suspicions.try_send(leases);
    }
}

#[cfg(test)]
impl Handle {
    /// How many mutations wait for the driver.
    pub(super) fn queued(&self) -> usize {
        self.mutations.max_capacity() - self.mutations.capacity()
    }

    /// Whether a command like this one would be taken now.
    pub(super) fn has_room_for(&self, command: &crate::catalog::Command) -> bool {
        self.room.available_permits() >= command.bytes()
    }

    /// Sends a command and keeps the way back without waiting on it.
    pub(super) fn abandoned(&self, command: crate::catalog::Command) -> oneshot::Receiver<Answer> {
        self.send(command.into()).expect("there is room")
    }
}
