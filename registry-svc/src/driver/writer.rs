//! The store's own thread: an fsync blocks, and must not block a runtime thread that others wait on.

use std::{
    io,
    sync::mpsc as std_mpsc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{DriverError, core::Job};
use crate::store::{Store, StoreError, Verdict};

/// One group is on its way at a time: the driver waits for it before it sends the next.
const IN_FLIGHT: usize = 1;

/// The driver's end of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` once joined: the thread ends when this is dropped.
    jobs: Option<std_mpsc::SyncSender<Job>>,
    done: mpsc::Receiver<Result<Committed, StoreError>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The store has answered.
#[derive(Debug)]
pub(super) struct Committed {
    /// What became of it.
    pub(super) verdict: Verdict,
    /// How long the disk took.
    pub(super) took: Duration,
}

impl Writer {
    pub(super) fn spawn(mut store: impl Store) -> io::Result<Self> {
        let (jobs, inbox) = std_mpsc::sync_channel::<Job>(IN_FLIGHT);
        let (outbox, done) = mpsc::channel(IN_FLIGHT);
        let work = move || {
            while let Ok(job) = inbox.recv() {
                let begun = Instant::now();
                let result = match (&job.batches[..], &job.dead[..]) {
                    ([], _) => store.confirm(job.base),
                    (batches, []) => store.commit(batches, job.compacted),
                    (batches, dead) => store.commit_if_dead(batches, job.compacted, dead),
                };
                drop(job);
                let failed = result.is_err();
                let told = outbox.blocking_send(result.map(|verdict| Committed {
                    verdict,
                    took: begun.elapsed(),
                }));
                // After an error the store must not be used again.
                if failed || told.is_err() {
                    return;
                }
                if let Err(error) = store.tidy() {
                    let _ = outbox.blocking_send(Err(error));
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("registry-store".into()).spawn(work)?;
        Ok(Self {
            jobs: Some(jobs),
            done,
            thread: Some(thread),
        })
    }

    /// Sends a group on its way. Never blocks: the one before has been waited for. A thread that has ended takes none, and says
    /// why by [`Writer::committed`].
    pub(super) fn commit(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.try_send(job);
        }
    }

    /// Waits for the group that is on its way, or for the store to fail at what nobody waits for. Cancel safe.
    pub(super) async fn committed(&mut self) -> Result<Committed, DriverError> {
        match self.done.recv().await {
            Some(result) => Ok(result?),
            None => Err(DriverError::WriterGone),
        }
    }

    /// Ends the thread, which closes the store.
    pub(super) async fn join(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told as WriterGone when it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
