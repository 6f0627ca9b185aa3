//! The last good set of a target, on disk: a process that starts while its registry is away calls by it.
//!
//! [`belief`] decides when the set on disk is gone by, and `file` what is in a file; both are pure. Here is what moves them: one
//! [`Kept`] for each target, owned and driven by the keeper's task, with every access to the disk on a thread that may block.
//!
//! One file holds one set. It is replaced as a whole (written beside, fsync, rename), so a crash leaves the old one or the new
//! one. Nothing is written but what a registry has told, and never an empty set: what is on disk is there for the day on which
//! the registry cannot be asked, and "nobody" is the one answer that is worthless then.

mod belief;
mod file;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use self::{belief::Belief, file::CacheFile};
pub(crate) use self::{belief::Told, file::Saved};
use crate::pool::Backend;

/// Between two writes of a file: a set that changes all the time must not keep a disk busy.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a set that stays the same is written again, so that its age says how long the registry is away and not how long
/// nothing has happened.
const REFRESH: Duration = Duration::from_secs(600);

/// The set on disk of one target.
#[derive(Debug)]
pub(crate) struct Kept {
    file: Arc<CacheFile>,
    belief: Belief,
    /// When the belief changes by itself.
    look_again: Option<Instant>,
    reading: Option<JoinHandle<Option<Saved>>>,
    writing: Option<JoinHandle<()>>,
    wanted: Option<(Vec<Backend>, i64)>,
    /// When the next write may be made, or has to.
    due: Option<Instant>,
    is_fresh: bool,
}

impl Kept {
    /// Begins to read the file. `target` is what the set is of: a file of another one is not believed. Must be called within a
    /// Tokio runtime.
    pub(crate) fn open(dir: PathBuf, service: &str, target: String) -> Self {
        let file = Arc::new(CacheFile::new(dir, service, target));
        let read = Arc::clone(&file);
        Self {
            file,
            belief: Belief::new(Instant::now()),
            look_again: None,
            reading: Some(tokio::task::spawn_blocking(move || read.load(SystemTime::now()))),
            writing: None,
            wanted: None,
            due: None,
            is_fresh: false,
        }
    }

    /// The set on disk, if it is to be gone by while the registry has told that.
    pub(crate) fn instead_of(&mut self, told: Told) -> Option<&Saved> {
        let (saved, look_again) = self.belief.instead_of(told, Instant::now());
        self.look_again = look_again;
        saved
    }

    /// The registry has told this set, and stands by it (`is_fresh`) or has gone since.
    pub(crate) fn learns(&mut self, backends: &[Backend], revision: i64, is_fresh: bool) {
        self.is_fresh = is_fresh && !backends.is_empty();
        if self.is_fresh {
            self.wanted = Some((backends.to_vec(), revision));
            self.due.get_or_insert_with(Instant::now);
            // What waits to be written again is written as soon as a pause has passed.
            self.due = self.due.map(|due| due.min(Instant::now() + PAUSE));
        }
    }

    /// Reads and writes; returns when the set that is gone by may be another one. Cancel safe.
    pub(crate) async fn turns(&mut self) {
        loop {
            tokio::select! {
                saved = ended(&mut self.reading) => {
                    self.reading = None;
                    self.belief.finds(saved.flatten());
                    return;
                }
                _ = ended(&mut self.writing) => {
                    self.writing = None;
                    self.due = Some(Instant::now() + if self.wanted.is_some() { PAUSE } else { REFRESH });
                }
                () = at(self.due), if self.writing.is_none() => self.write(),
                () = at(self.look_again) => return,
            }
        }
    }

    /// Writes what is still to be written.
    pub(crate) async fn close(&mut self) {
        let _ = ended_if_any(&mut self.writing).await;
        if self.wanted.is_some() {
            self.write();
            let _ = ended_if_any(&mut self.writing).await;
        }
    }

    fn write(&mut self) {
        self.due = None;
        let file = Arc::clone(&self.file);
        let now = SystemTime::now();
        self.writing = match self.wanted.take() {
            Some((backends, revision)) => Some(tokio::task::spawn_blocking(move || {
                file.store(&Saved {
                    backends,
                    revision,
                    at: now,
                });
            })),
            None if self.is_fresh => Some(tokio::task::spawn_blocking(move || file.refresh(now))),
            None => {
                self.due = Some(Instant::now() + REFRESH);
                None
            }
        };
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// The end of a task, which is nothing if it was cancelled; never without one.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    match task {
        Some(task) => task.await.ok(),
        None => std::future::pending().await,
    }
}

async fn ended_if_any<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let ended = task.as_mut()?.await.ok();
    *task = None;
    ended
}
