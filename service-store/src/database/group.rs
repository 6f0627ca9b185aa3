//! Group commit: the writes of one process on one file share its fsync.
//!
//! A file is written by one after the other, and what takes long is not the statements (a fraction of a millisecond) but the
//! commit, which waits for the disk (milliseconds). So whoever is done with its statements does not commit at once: it goes back
//! to the end of the queue, those who waited before it write meanwhile, and when its turn comes it commits for all of them. To SQLite
//! they are savepoints of one transaction. Nobody waits longer than for the statements of those who were there already, and
//! alone in the queue it commits at once. PostgreSQL does the like by itself.
//!
//! 1. **Nobody is answered before the commit.** Who wrote after another one has seen what that one wrote, so a transaction that
//!    found everything done already waits for the commit as well ([`Write::commit`](super::Write::commit)).
//! 2. **Who gives up takes nobody along**: only its own savepoint is undone.
//! 3. **What is undone for one reason is undone for all.** SQLite may end the whole transaction by itself (a full disk, a failed
//!    write). The savepoints are gone then, which the next statement about them says: everybody in the group is told an error,
//!    and nothing of it was written.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{Any, AnyPool, Transaction};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, oneshot},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use super::Connection;

/// Members of a group: what one of them costs the others if the commit fails, and how much is written before the disk is asked.
const MAX_MEMBERS: usize = 64;

/// After so long a group is committed by whoever comes next: other processes wait for the file.
const MAX_OPEN: Duration = Duration::from_millis(25);

/// The queue of those who write to a file. Clones are the same.
#[derive(Clone)]
pub(super) struct Queue {
    writer: AnyPool,
    /// First come, first served: tokio's mutex is fair.
    group: Arc<Mutex<Group>>,
    /// How many wait for their turn: with nobody there, nothing is to be gained by waiting.
    waiting: Arc<AtomicUsize>,
    /// Commits run to their end also when nobody waits for them any more: others may be part of them.
    commits: TaskTracker,
}

/// The transaction of those who have written and wait for their commit, and of the one that writes now.
#[derive(Default)]
struct Group {
    /// `None`: the next one begins it.
    tx: Option<Transaction<'static, Any>>,
    /// Told how the commit went.
    members: Vec<oneshot::Sender<Result<(), NotCommitted>>>,
    /// Somebody has given up within its savepoint, which is still there.
    undo: bool,
    opened: Option<Instant>,
}

/// Somebody's turn: nobody else writes until it is dropped, which undoes what it wrote, or committed.
pub(super) struct Turn {
    /// `None` once it is over.
    group: Option<OwnedMutexGuard<Group>>,
    queue: Queue,
}

/// A commit that was made for several, as each of them is told.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the transaction was not committed, and nothing of it was written")]
pub(super) struct NotCommitted(#[source] Arc<sqlx::Error>);

impl NotCommitted {
    /// What the database said, where `error` is one of ours.
    pub(super) fn cause(error: &sqlx::Error) -> &sqlx::Error {
        match error {
            sqlx::Error::AnyDriverError(inner) => inner.downcast_ref::<Self>().map_or(error, |error| &error.0),
            _ => error,
        }
    }
}

impl From<NotCommitted> for sqlx::Error {
    fn from(error: NotCommitted) -> Self {
        Self::AnyDriverError(Box::new(error))
    }
}

impl Queue {
    /// `writer` has one connection.
    pub(super) fn new(writer: AnyPool) -> Self {
        Self {
            writer,
            group: Arc::default(),
            waiting: Arc::default(),
            commits: TaskTracker::new(),
        }
    }

    /// Waits for its turn, and for the file if nobody of this process has it. Dropped while it waits, it was never there.
    pub(super) async fn turn(&self) -> Result<Turn, sqlx::Error> {
        let mut turn = Turn {
            group: Some(self.wait().await),
            queue: self.clone(),
        };
        let group = turn.group();
        group.undo().await;
        if group.tx.is_none() {
            group.tx = Some(self.writer.begin_with("BEGIN IMMEDIATE").await?);
            group.opened = Some(Instant::now());
        }
        // If this is given up half-way, the savepoint may be there or not; the next one finds out.
        group.undo = true;
        group.execute("SAVEPOINT member").await?;
        group.undo = false;
        Ok(turn)
    }

    /// Waits for the commits that are under way and closes the connection.
    pub(super) async fn close(&self) {
        self.commits.close();
        self.commits.wait().await;
        self.writer.close().await;
    }

    /// How many wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    async fn wait(&self) -> OwnedMutexGuard<Group> {
        let _waits = Waits::new(&self.waiting);
        self.group.clone().lock_owned().await
    }
}

impl Turn {
    pub(super) fn connection(&self) -> &Connection {
        let tx = self.group.as_ref().and_then(|group| group.tx.as_deref());
        tx.expect("taken when the turn is over, which consumes it")
    }

    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        let tx = self.group().tx.as_deref_mut();
        tx.expect("ended when the turn is over, which consumes it")
    }

    /// Commits, together with whoever else has written by then.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let commits = self.queue.commits.clone();
        match commits.spawn(self.commit_in_turn()).await {
            Ok(outcome) => outcome,
            // The runtime ends, and this process with it.
            Err(_) => Err(sqlx::Error::WorkerCrashed),
        }
    }

    async fn commit_in_turn(mut self) -> Result<(), sqlx::Error> {
        let Some(mut group) = self.group.take() else {
            return Err(sqlx::Error::WorkerCrashed);
        };
        if group.members.is_empty() && self.queue.waiting() == 0 {
            // The commit ends the savepoint too, and fails if there is nothing left to commit.
            return group.commit().await.map_err(unshared);
        }
        if let Err(error) = group.execute("RELEASE member").await {
            return Err(group.fail(error).into());
        }
        let (told, mut outcome) = oneshot::channel();
        group.members.push(told);
        let is_due = group.opened.is_some_and(|opened| opened.elapsed() >= MAX_OPEN);
        if group.members.len() >= MAX_MEMBERS || is_due {
            return group.commit().await.map_err(unshared);
        }
        drop(group);
        let mut group = self.queue.wait().await;
        group.undo().await;
        match outcome.try_recv() {
            // Another one's turn came first.
            Ok(outcome) => Ok(outcome?),
            Err(oneshot::error::TryRecvError::Empty) => group.commit().await.map_err(unshared),
            // It was told nothing: whoever was to tell it has ended half-way.
            Err(oneshot::error::TryRecvError::Closed) => Err(sqlx::Error::WorkerCrashed),
        }
    }

    fn group(&mut self) -> &mut Group {
        self.group
            .as_mut()
            .expect("taken when the turn is over, which consumes it")
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Turn").finish_non_exhaustive()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(group) = &mut self.group else { return };
        if group.members.is_empty() {
            // All of it is this one's: sqlx rolls back.
            group.end();
        } else {
            group.undo = true;
        }
    }
}

impl Group {
    /// Undoes what somebody left that gave up.
    async fn undo(&mut self) {
        if !self.undo {
            return;
        }
        let undone = match self.execute("ROLLBACK TO member").await {
            Ok(()) => self.execute("RELEASE member").await,
            failed => failed,
        };
        self.undo = false;
        if let Err(error) = undone {
            self.fail(error);
        }
    }

    /// Commits and tells everybody.
    async fn commit(&mut self) -> Result<(), NotCommitted> {
        let outcome = match self.tx.take() {
            Some(tx) => tx.commit().await,
            // Whoever has written and was told nothing yet has it.
            None => Err(sqlx::Error::WorkerCrashed),
        };
        let outcome = outcome.map_err(|error| NotCommitted(Arc::new(error)));
        self.tell(&outcome);
        outcome
    }

    /// Everything is undone, for this reason, and everybody told.
    fn fail(&mut self, error: sqlx::Error) -> NotCommitted {
        let error = NotCommitted(Arc::new(error));
        self.tell(&Err(error.clone()));
        error
    }

    fn tell(&mut self, outcome: &Result<(), NotCommitted>) {
        for member in self.members.drain(..) {
            // Whoever has gone does not want to know.
            let _ = member.send(outcome.clone());
        }
        self.end();
    }

    fn end(&mut self) {
        (self.tx, self.opened, self.undo) = (None, None, false);
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        let Some(tx) = &mut self.tx else { return Ok(()) };
        sqlx::query(statement).execute(&mut **tx).await.map(drop)
    }
}

/// The database's own error where nobody else has it.
fn unshared(error: NotCommitted) -> sqlx::Error {
    Arc::try_unwrap(error.0).unwrap_or_else(|shared| NotCommitted(shared).into())
}

/// Counts somebody who waits, for as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
