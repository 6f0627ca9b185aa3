//! The store of a single registry: one redb file, one transaction and one fsync for each group of batches.
//!
//! A commit appends its group to the log and does nothing else. What the log has changed is put in order and written as a run
//! every few megabytes, and runs are merged in small steps: both after the commit has been answered, see [`Store::tidy`]. To
//! load is to merge the runs with what the log has after them. The log is the history, too.
//!
//! redb's `Durability::Immediate` (its default) returns from a commit after the fsync. Its file is locked while it is open,
//! which is how a second registry on the same directory is noticed.

pub(super) mod backup;
mod ballast;
mod build;
mod engine;
mod fault;
mod format_1;
mod load;
mod log;
pub(in crate::store) mod medium;
mod recent;
mod runs;
mod tables;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{Engine, Outcome, Regained};
use fault::Fault;
use log::LOG;
pub(in crate::store) use medium::{InDirectory, Medium};
use recent::Recent;
use redb::WriteTransaction;
pub(in crate::store) use runs::Strides;
use runs::{RUNS, Runs};
use tables::{FORMAT, META, META_FLUSHED, META_FORMAT, META_HISTORY, PLAIN};

use super::{Backup, Loaded, Store, StoreError, Verdict, names};
use crate::{
    catalog::Batch,
    model::{HistoryId, Revision},
};

/// The file in the data directory.
const FILE: &str = "registry.redb";
/// Beside it: room for those who deregister on a full disk.
const SPARE: &str = "registry.spare";
/// redb keeps pages of the file in memory. The catalog already holds everything that is read, and what is written is written
/// once, so this only has to hold a step of tidying.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// What a merge reads for each byte of log, while one is under way. It writes some three, so it ends before the next is due.
const MERGE_PACE: usize = 8;
/// A flush that has no room is put off until so many are due.
const FLUSH_LATEST: usize = 4;
/// A merge that has no room is put off until it owes so many steps.
const MERGE_LATEST: usize = 8;
/// Steps of a merge between two groups.
const MERGES_AT_ONCE: usize = 8;
/// After a slice of [`SPARE`] could not be had, so many commits pass before it is tried again.
const SPARE_PAUSE: u32 = 100;

/// See the module.
#[derive(Debug)]
pub(crate) struct Embedded {
    engine: Engine,
    strides: Strides,
    history_id: HistoryId,
    revision: Revision,
    compacted: Revision,
    flushed: Revision,
    pub(in crate::store) runs: Runs,
    recent: Recent,
    /// Bytes of the log that are in no run.
    logged: usize,
    /// When that is due to become one.
    flush_at: usize,
    /// Commits until what was given up on a full disk is asked for again.
    spare_pause: u32,
    /// Commits until a merge is tried again that found no room.
    merge_pause: u32,
    /// What the merge should have read by now.
    owed: usize,
    /// The history that came by the way when the log was replayed.
    past: Option<Vec<Batch>>,
}

impl Embedded {
    /// Opens the directory's file or makes both. Fails at once when another process has it.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        };
        let made = names::make(directory).map_err(unusable)?;
        let medium = InDirectory::claim(directory, FILE, SPARE).map_err(unusable)?;
        let medium = medium.ok_or_else(|| StoreError::InUse {
            path: directory.to_owned(),
        })?;
        let store = Self::over(directory.to_owned(), Box::new(medium), Strides::default())?;
        names::sync(directory, made).map_err(unusable)?;
        Ok(store)
    }

    /// Whether a directory has one.
    pub(crate) fn is_in(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// Over any medium; `directory` is for messages.
    pub(super) fn over(directory: PathBuf, medium: Box<dyn Medium>, strides: Strides) -> Result<Self, StoreError> {
        let (engine, tables) = Engine::open(directory, medium, strides.cache)?;
        let mut store = Self {
            engine,
            strides,
            history_id: tables.history_id,
            revision: tables.revision,
            compacted: tables.compacted,
            flushed: tables.flushed,
            runs: tables.runs,
            recent: Recent::default(),
            logged: 0,
            flush_at: strides.flush,
            spare_pause: 0,
            merge_pause: 0,
            owed: 0,
            past: None,
        };
        store.replay()?;
        while store.engine.regain() == Regained::Slice {}
        Ok(store)
    }

    /// Makes the index of the log, of what is in no run yet.
    fn replay(&mut self) -> Result<(), StoreError> {
        let (mut recent, mut past, mut logged) = (Recent::default(), Vec::new(), 0);
        let (flushed, compacted) = (self.flushed, self.compacted);
        self.engine.read("read the log", |read| {
            log::replay(&read.open_table(LOG)?, flushed.min(compacted), |mut batch, bytes| {
                if batch.revision > flushed {
                    recent.apply(&batch);
                    logged += bytes;
                }
                if batch.revision > compacted {
                    batch.leases = Vec::new();
                    past.push(batch);
                }
            })
        })?;
        (self.recent, self.past, self.logged) = (recent, Some(past), logged);
        Ok(())
    }

    fn no_room(&self) -> Verdict {
        let directory = self.engine.directory().display();
        Verdict::NoRoom(format!(
            "the disk of data directory {directory} is full: make room there; the registry needs no restart"
        ))
    }

    /// Whether the file can be used, at the latest from here on.
    fn is_open(&mut self) -> Result<bool, StoreError> {
        Ok(self.engine.is_open() || self.resume(self.revision)?.is_some())
    }

    /// Opens the file again after a write that found no room, and goes on from what it says; what that is may be ahead of what
    /// was told, since redb can fail after its fsync. Returns its revision, which is ours or that of the group that was on its
    /// way. `None`: there is no room for that either.
    fn resume(&mut self, on_its_way: Revision) -> Result<Option<Revision>, StoreError> {
        let Some(found) = self.engine.reopen()? else {
            return Ok(None);
        };
        let known = |found, known: [Revision; 2]| known.contains(&found);
        if found.history_id != self.history_id {
            return Err(self.engine.exchanged("it has another history"));
        }
        if !known(found.revision, [self.revision, on_its_way]) || !known(found.flushed, [self.flushed, self.revision]) {
            return Err(self
                .engine
                .exchanged(format!("it has revision {} and not {}", found.revision, self.revision)));
        }
        if found.flushed != self.flushed {
            self.has_flushed();
        }
        self.runs = found.runs;
        Ok(Some(found.revision))
    }

    /// What changes the tables, and the runs that it leaves; without room it is put off. Returns whether it was done, as far as
    /// that could be told.
    fn rearrange(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&Self, &WriteTransaction) -> Result<Runs, Fault>,
    ) -> Result<bool, StoreError> {
        match self.engine.write(action, |write| work(self, write))? {
            Outcome::Durable(runs) => {
                self.runs = runs;
                Ok(true)
            }
            Outcome::NoRoom { .. } => {
                self.resume(self.revision)?;
                Ok(false)
            }
        }
    }

    /// Makes a run of what the log has changed, and forgets of the log what nobody needs.
    fn flush(&mut self) -> Result<(), StoreError> {
        let done = self.rearrange("put the log in order", |store, write| {
            let runs = store.runs.add::<Fault>(store.strides, write, |put| {
                for (key, entry) in store.recent.iter() {
                    put(key, entry.encode().as_deref())?;
                }
                Ok(())
            })?;
            write.open_table(META)?.insert(META_FLUSHED, store.revision.get())?;
            log::trim(write, store.compacted.min(store.revision))?;
            Ok(runs)
        })?;
        if done {
            self.has_flushed();
        }
        // Without room it is tried again after as much log.
        self.flush_at = self.logged + self.strides.flush;
        Ok(())
    }

    /// Everything is in the runs.
    fn has_flushed(&mut self) {
        self.flushed = self.revision;
        self.recent.clear();
        self.logged = 0;
    }

    /// Takes back some of what was given up on a full disk.
    fn regain(&mut self) {
        self.spare_pause = match self.spare_pause {
            0 if self.engine.regain() == Regained::Failed => SPARE_PAUSE,
            commits => commits.saturating_sub(1),
        };
    }

    fn merge_can_go_on(&self) -> bool {
        let is_due = self.engine.is_open() && self.runs.merge_is_due(self.strides) && self.merge_pause == 0;
        // As with a flush: the file may have room of its own, and without merges it would only grow.
        let is_overdue = self.owed >= MERGE_LATEST * self.strides.step;
        is_due && (is_overdue || self.engine.has_room(2 * self.strides.step))
    }

    /// One step. False: it was put off.
    fn merge(&mut self) -> Result<bool, StoreError> {
        let mut read = 0;
        let done = self.rearrange("merge what is old", |store, write| {
            let (runs, bytes) = store.runs.merge(store.strides, write)?;
            read = bytes;
            Ok(runs)
        })?;
        self.owed = self.owed.saturating_sub(read.max(self.strides.step));
        if !self.runs.merge_is_due(self.strides) {
            self.owed = 0;
        }
        if !done {
            self.merge_pause = self.strides.pause;
        }
        Ok(done)
    }
}

/// Whether a group takes more room than it makes.
fn grows(batches: &[Arc<Batch>]) -> bool {
    batches.iter().any(|batch| batch.grows())
}

impl Store for Embedded {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let living = self.engine.read("read the instances", |read| {
            load::read_all(&self.runs, &read.open_table(RUNS)?, &self.recent)
        })?;
        Ok(Loaded {
            history_id: self.history_id,
            revision: self.revision,
            compacted: self.compacted,
            instances: living.instances,
            leases: living.leases,
            overrides: living.overrides,
        })
    }

    fn history(&mut self) -> Result<Vec<Batch>, StoreError> {
        if let Some(past) = self.past.take() {
            return Ok(past);
        }
        let mut past = Vec::new();
        self.engine.read("read the history", |read| {
            log::replay(&read.open_table(LOG)?, self.compacted, |mut batch, _| {
                batch.leases = Vec::new();
                past.push(batch);
            })
        })?;
        Ok(past)
    }

    fn commit(&mut self, batches: &[Arc<Batch>], compacted: Revision) -> Result<Verdict, StoreError> {
        let Some(newest) = batches.last().map(|batch| batch.revision) else {
            return Ok(Verdict::Durable);
        };
        let entries = log::entries(batches);
        let bytes: usize = entries.iter().map(|(_, entry)| entry.len()).sum();
        // Registrations leave some room to those who deregister. Looked at before each, so that a disk that fills up slowly is
        // never full for redb, which would have to be opened again.
        let grows = grows(batches);
        let has_overrides = batches.iter().any(|batch| !batch.overrides.is_empty());
        if (grows && !self.engine.has_room(2 * bytes)) || !self.is_open()? {
            return Ok(self.no_room());
        }
        if !grows {
            self.engine.make_room(2 * bytes);
        }
        loop {
            let append = |write: &WriteTransaction| {
                if has_overrides {
                    write.open_table(META)?.insert(META_FORMAT, FORMAT)?;
                }
                entries
                    .iter()
                    .try_for_each(|(last, entry)| log::append(write, *last, compacted, entry))
            };
            let Outcome::NoRoom { in_doubt } = self.engine.write("commit", append)? else {
                break;
            };
            // What is there is as it was left by the last fsync that succeeded, or, once it is open again, by the one of the
            // repair: what it shows survives.
            match (self.resume(newest)?, in_doubt) {
                (Some(found), _) if found == newest => break,
                // It may be there, and its revisions would be given to others.
                (None, Some(error)) => return Err(error),
                // What was kept for this is given up slice by slice: others may take the room of any before we do.
                (Some(_), _) if !grows && self.engine.give_up() => {}
                _ => return Ok(self.no_room()),
            }
        }
        batches.iter().for_each(|batch| self.recent.apply(batch));
        self.logged += bytes;
        self.merge_pause = self.merge_pause.saturating_sub(1);
        if self.runs.merge_is_due(self.strides) {
            // More than all of it there is not to read.
            self.owed = (self.owed + MERGE_PACE * bytes).min(self.runs.bytes());
        }
        (self.revision, self.compacted, self.past) = (newest, compacted, None);
        Ok(Verdict::Durable)
    }

    fn backup(&self) -> Option<Arc<dyn Backup>> {
        Some(Arc::new(self.engine.backup().clone()))
    }

    fn tidy(&mut self) -> Result<bool, StoreError> {
        if !self.engine.is_open() {
            return Ok(false);
        }
        self.regain();
        if self.logged >= self.flush_at {
            // What was kept for those who make room is not for this. But it is not put off for ever: the file may have room of
            // its own, and what is logged is in memory too.
            if self.engine.has_room(2 * self.logged) || self.logged >= FLUSH_LATEST * self.strides.flush {
                self.flush()?;
            } else {
                self.flush_at = self.logged + self.strides.flush;
            }
        }
        // A step after a commit, as a rule, and after large groups half of what is owed, but never so much that the next group waits
        // for long; what is left is done when there is nothing else to do. Only who owes all that there is pays without that bound.
        let left = self.owed / 2;
        let most = if self.owed < self.runs.bytes() {
            MERGES_AT_ONCE
        } else {
            usize::MAX
        };
        for _ in 0..most {
            if !self.merge_can_go_on() || self.owed < self.strides.step || self.owed <= left || !self.merge()? {
                break;
            }
        }
        Ok(self.merge_can_go_on())
    }

    fn idle(&mut self) -> Result<bool, StoreError> {
        Ok(self.merge_can_go_on() && self.merge()? && self.merge_can_go_on())
    }
}
