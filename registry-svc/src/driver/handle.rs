//! How requests reach the driver: two bounded queues, so that heartbeats never stand behind registrations.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::catalog::{CatalogError, Command, Owner, RenewError, Renewed, Reply};

/// Mutations that wait for the driver. Beyond, the registry is behind by more than it could answer in time, and says so.
const MUTATIONS: usize = 1_024;
/// Bytes of them, roughly: some 60 KiB each, and 27 of the largest there can be.
const MUTATION_BYTES: usize = 64 * 1_024 * 1_024;
/// Rounds of renewals that wait. Each takes microseconds; a caller beyond waits for a place.
const RENEWALS: usize = 1_024;

/// Reaches the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    mutations: mpsc::Sender<Mutation>,
    room: Arc<Semaphore>,
    renewals: mpsc::Sender<Renewals>,
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) mutations: mpsc::Receiver<Mutation>,
    pub(super) mutations_closed: bool,
    pub(super) renewals: mpsc::Receiver<Renewals>,
    pub(super) renewals_closed: bool,
}

/// A command with the way back.
#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<Reply, CatalogError>>,
    /// Its bytes of [`MUTATION_BYTES`].
    pub(super) room: OwnedSemaphorePermit,
}

/// Heartbeats with the way back.
#[derive(Debug)]
pub(super) struct Renewals {
    pub(super) owners: Vec<Owner>,
    pub(super) reply: oneshot::Sender<Vec<Result<Renewed, RenewError>>>,
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
    /// The registry is going away; nothing was done.
    #[error("the registry is stopping")]
    Stopping,
    /// The registry went away before the answer.
    #[error("the registry stopped before the change was confirmed: it may or may not have been made")]
    OutcomeUnknown,
}

pub(super) fn channel() -> (Handle, Inbox) {
    let (mutations, mutations_rx) = mpsc::channel(MUTATIONS);
    let (renewals, renewals_rx) = mpsc::channel(RENEWALS);
    let inbox = Inbox {
        mutations: mutations_rx,
        mutations_closed: false,
        renewals: renewals_rx,
        renewals_closed: false,
    };
    let handle = Handle {
        mutations,
        room: Arc::new(Semaphore::new(MUTATION_BYTES)),
        renewals,
    };
    (handle, inbox)
}

impl Handle {
    /// Asks for a change; answers when it is durable.
    pub(crate) async fn submit(&self, command: Command) -> Result<Reply, SubmitError> {
        let answer = self.send(command)?;
        Ok(answer.await.map_err(|_| SubmitError::OutcomeUnknown)??)
    }

    fn send(&self, command: Command) -> Result<oneshot::Receiver<Result<Reply, CatalogError>>, SubmitError> {
        let bytes = u32::try_from(command.bytes()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        let room = room.try_acquire_many_owned(bytes).map_err(|_| SubmitError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let mutation = Mutation { command, reply, room };
        self.mutations.try_send(mutation).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Busy,
            TrySendError::Closed(_) => SubmitError::Stopping,
        })?;
        Ok(answer)
    }

    /// Heartbeats; one result each, in order.
    pub(crate) async fn renew(&self, owners: Vec<Owner>) -> Result<Vec<Result<Renewed, RenewError>>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.renewals
            .send(Renewals { owners, reply })
            .await
            .map_err(|_| SubmitError::Stopping)?;
        // A renewal that was lost changed nothing that a later one does not change too.
        answer.await.map_err(|_| SubmitError::Stopping)
    }
}

#[cfg(test)]
impl Handle {
    /// How many mutations wait for the driver.
    pub(super) fn queued(&self) -> usize {
        self.mutations.max_capacity() - self.mutations.capacity()
    }

    /// Whether a command like this one would be taken now.
    pub(super) fn has_room_for(&self, command: &Command) -> bool {
        self.room.available_permits() >= command.bytes()
    }

    /// Sends a command and keeps the way back without waiting on it.
    pub(super) fn abandoned(&self, command: Command) -> oneshot::Receiver<Result<Reply, CatalogError>> {
        self.send(command).expect("there is room")
    }
}
