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

/// So long after the last group nobody is waiting for the next one.
const IDLE: Duration = Duration::from_millis(20);

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
            // What an earlier life has left behind, to begin with.
            let mut more = true;
            while let Some(job) = next(&inbox, &mut store, &mut more, &outbox) {
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
                match store.tidy() {
                    Ok(left) => more = left,
                    Err(error) => {
                        let _ = outbox.blocking_send(Err(error));
                        return;
                    }
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

/// The next group. Until it comes the store works on what earlier ones have left. `None`: there is none, or the store has failed
/// and that was told.
fn next(
    inbox: &std_mpsc::Receiver<Job>,
    store: &mut impl Store,
    more: &mut bool,
    outbox: &mpsc::Sender<Result<Committed, StoreError>>,
) -> Option<Job> {
    if *more {
        match inbox.recv_timeout(IDLE) {
            Ok(job) => return Some(job),
            Err(std_mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(std_mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
    while *more {
        match store.idle() {
            Ok(left) => *more = left,
            Err(error) => {
                let _ = outbox.blocking_send(Err(error));
                return None;
            }
        }
        // A group waits for one step at most.
        match inbox.try_recv() {
            Ok(job) => return Some(job),
            Err(std_mpsc::TryRecvError::Disconnected) => return None,
            Err(std_mpsc::TryRecvError::Empty) => {}
        }
    }
    inbox.recv().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{catalog::Batch, model::Revision, store::Loaded};

    /// Has so much left to do, and tells when it does some of it.
    struct Behind {
        left: usize,
        done: std_mpsc::Sender<usize>,
    }

    impl Store for Behind {
        fn load(&mut self) -> Result<Loaded, StoreError> {
            Ok(Loaded::default())
        }

        fn history(&mut self) -> Result<Vec<Batch>, StoreError> {
            Ok(Vec::new())
        }

        fn commit(&mut self, _: &[Arc<Batch>], _: Revision) -> Result<Verdict, StoreError> {
            self.left += 3;
            Ok(Verdict::Durable)
        }

        fn tidy(&mut self) -> Result<bool, StoreError> {
            Ok(self.left > 0)
        }

        fn idle(&mut self) -> Result<bool, StoreError> {
            self.left = self.left.saturating_sub(1);
            let _ = self.done.send(self.left);
            Ok(self.left > 0)
        }
    }

    /// What commits leave behind was worked on after commits alone, a little after each: a registry that nobody changes any more
    /// kept all that a storm had left, and a restart read it.
    #[tokio::test]
    async fn an_idle_store_catches_up() {
        let (done, steps) = std_mpsc::channel();
        let mut writer = Writer::spawn(Behind { left: 2, done }).expect("a thread");
        let until_done = |steps: &std_mpsc::Receiver<usize>| {
            while steps.recv_timeout(Duration::from_secs(20)).expect("goes on") > 0 {}
        };
        until_done(&steps);
        for _ in 0..3 {
            let batch = Batch {
                revision: Revision::new(1),
                at: crate::fixtures::WALL,
                changes: Vec::new(),
                leases: Vec::new(),
                overrides: Vec::new(),
                by: None,
                trace: None,
            };
            writer.commit(Job {
                base: Revision::ZERO,
                batches: vec![Arc::new(batch)],
                dead: Vec::new(),
                compacted: Revision::ZERO,
            });
            writer.committed().await.expect("commits");
        }
        until_done(&steps);
        writer.join().await;
    }
}
