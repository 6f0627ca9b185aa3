//! The store of a single registry: one redb file, one transaction and one fsync for each group of batches.
//!
//! A commit appends its group to the log and does nothing else. What the log has changed is put in order and written as a run
//! every few megabytes, and runs are merged in small steps: both after the commit has been answered, see [`Store::tidy`]. To
//! load is to merge the runs with what the log has after them. The log is the history, too.
//!
//! redb's `Durability::Immediate` (its default) returns from a commit after the fsync. Its file is locked while it is open,
//! which is how a second registry on the same directory is noticed.

pub(super) mod backup;
mod format_1;
mod load;
mod log;
mod medium;
mod names;
mod recent;
mod runs;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use log::LOG;
use medium::{Failure, Watched};
pub(in crate::store) use medium::{InDirectory, Medium};
use recent::Recent;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
pub(in crate::store) use runs::Strides;
use runs::{RUNS, Runs};

use super::{
    Backup, Loaded, Store, StoreError, Verdict,
    record::{self, RecordError},
};
use crate::{
    catalog::{Batch, Change},
    model::{HistoryId, Revision},
};

/// The file in the data directory.
const FILE: &str = "registry.redb";
/// What this code writes. A higher one is refused, not guessed at; a lower one is converted.
const FORMAT: u64 = 2;
/// redb keeps pages of the file in memory. The catalog already holds everything that is read, and what is written is written
/// once, so this only has to hold a step of tidying.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// What a merge reads for each byte of log, while one is under way: it ends before the next is due.
const MERGE_PACE: usize = 8;
/// What is left of the disk for those who deregister, and for redb to open the file once more.
const RESERVE_BYTES: u64 = 1024 * 1024;

/// Numbers, by the keys below.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_HISTORY: &str = "history";
/// Up to and with this revision everything is in the runs.
const META_FLUSHED: &str = "flushed";

/// See the module.
#[derive(Debug)]
pub(crate) struct Embedded {
    /// For messages.
    directory: PathBuf,
    medium: Box<dyn Medium>,
    strides: Strides,
    /// `None` while there is no room to open it.
    engine: Option<Engine>,
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
    /// For those who take backups meanwhile.
    backup: backup::Source,
    /// What the merge should have read; two steps at the most.
    owed: usize,
    /// The history that came by the way when the log was replayed.
    past: Option<Vec<Batch>>,
}

/// What the tables begin with: the history's name, up to where everything is in the runs, and those.
type Tables = (HistoryId, Revision, Runs);

#[derive(Debug)]
struct Engine {
    database: Arc<Database>,
    failure: Failure,
}

/// What can go wrong inside, before it is known at what.
#[derive(Debug)]
enum Fault {
    Engine(redb::Error),
    Record(String, RecordError),
    Damaged(String, String),
    NewerFormat(u64),
}

impl Embedded {
    /// Opens the directory's file or makes both. Fails at once when another process has it.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        };
        let made = names::make(directory).map_err(unusable)?;
        let store = Self::over(
            directory.to_owned(),
            Box::new(InDirectory(directory.join(FILE))),
            Strides::default(),
        )?;
        names::sync(directory, made).map_err(unusable)?;
        Ok(store)
    }

    /// Whether a directory has one.
    pub(crate) fn is_in(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// Over any medium; `directory` is for messages.
    pub(super) fn over(directory: PathBuf, medium: Box<dyn Medium>, strides: Strides) -> Result<Self, StoreError> {
        let mut store = Self {
            directory,
            medium,
            strides,
            engine: None,
            history_id: HistoryId::default(),
            revision: Revision::ZERO,
            compacted: Revision::ZERO,
            flushed: Revision::ZERO,
            runs: Runs::default(),
            recent: Recent::default(),
            logged: 0,
            flush_at: strides.flush,
            owed: 0,
            backup: backup::Source::default(),
            past: None,
        };
        store.engine = Some(store.start()?);
        let ready = store.ready().map_err(|fault| store.failed("read the tables", fault))?;
        (store.history_id, store.flushed, store.runs) = match ready {
            Some(ready) => ready,
            None => store.run("prepare the tables", prepare)?,
        };
        store.replay().map_err(|fault| store.failed("read the log", fault))?;
        Ok(store)
    }

    fn start(&self) -> Result<Engine, StoreError> {
        let unusable = |source| StoreError::Directory {
            path: self.directory.clone(),
            source,
        };
        let failure = Failure::default();
        let backend = Watched {
            inner: self.medium.open().map_err(unusable)?,
            failure: failure.clone(),
        };
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(|error| match error {
                _ if failure.is_no_room() => unusable(std::io::ErrorKind::StorageFull.into()),
                DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
                    path: self.directory.clone(),
                },
                DatabaseError::Storage(redb::StorageError::Io(source)) => unusable(source),
                other => self.failed("open the file", Fault::Engine(other.into())),
            })?;
        let database = Arc::new(database);
        self.backup.is(&database);
        Ok(Engine { database, failure })
    }

    fn database(&self) -> Result<&Database, Fault> {
        // Asked for after a full disk only once it is open again.
        let engine = self.engine.as_ref().ok_or(redb::Error::PreviousIo)?;
        Ok(&engine.database)
    }

    /// What is there if nothing has to be made first: a store on a full disk can be opened, and read.
    fn ready(&self) -> Result<Option<Tables>, Fault> {
        let read = self.database()?.begin_read()?;
        let meta = match read.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            meta => meta?,
        };
        let number = |key| -> Result<Option<u64>, Fault> { Ok(meta.get(key)?.map(|number| number.value())) };
        let (Some(FORMAT), Some(history_id)) = (number(META_FORMAT)?, number(META_HISTORY)?) else {
            return Ok(None);
        };
        let flushed = Revision::new(number(META_FLUSHED)?.unwrap_or(0));
        Ok(Some((HistoryId::from_random(history_id), flushed, Runs::read(&read)?)))
    }

    /// Brings the index of the log up to date with it.
    fn replay(&mut self) -> Result<(), Fault> {
        let table = self.database()?.begin_read()?.open_table(LOG)?;
        (self.revision, self.compacted) = log::newest(&table)?;
        let (mut recent, mut past, mut logged) = (Recent::default(), Vec::new(), 0);
        let (flushed, compacted) = (self.flushed, self.compacted);
        log::replay(&table, flushed.min(compacted), |mut batch, bytes| {
            if batch.revision > flushed {
                recent.apply(&batch);
                logged += bytes;
            }
            if batch.revision > compacted {
                batch.leases = Vec::new();
                past.push(batch);
            }
        })?;
        (self.recent, self.past, self.logged) = (recent, Some(past), logged);
        Ok(())
    }

    /// One write transaction, durable when this returns.
    fn run<T>(
        &self,
        action: &'static str,
        write: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let run = || -> Result<T, Fault> {
            let transaction = self.database()?.begin_write()?;
            let result = write(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|fault| self.failed(action, fault))
    }

    fn failed(&self, action: &'static str, fault: Fault) -> StoreError {
        let path = self.directory.clone();
        match fault {
            Fault::Engine(source) => StoreError::Engine {
                path,
                action,
                source: Box::new(source),
            },
            Fault::Record(what, why) => StoreError::Damaged {
                path,
                what,
                why: why.to_string(),
            },
            Fault::Damaged(what, why) => StoreError::Damaged { path, what, why },
            Fault::NewerFormat(found) => StoreError::NewerFormat {
                path,
                found,
                known: FORMAT,
            },
        }
    }

    /// Whether there was no room for what failed, which then has left no trace.
    fn found_no_room(&self) -> bool {
        self.engine.as_ref().is_none_or(|engine| engine.failure.is_no_room())
    }

    fn no_room(&self) -> Verdict {
        let directory = self.directory.display();
        Verdict::NoRoom(format!(
            "the disk of data directory {directory} is full: make room there; the registry needs no restart"
        ))
    }

    /// Registrations leave some room to those who deregister. Looked at before each, so that a disk that fills up slowly is
    /// never full for redb, which would have to be opened again.
    fn is_cramped(&self, batches: &[Arc<Batch>], bytes: usize) -> bool {
        let puts = |batch: &Arc<Batch>| batch.changes.iter().any(|change| matches!(change, Change::Put { .. }));
        let needed = RESERVE_BYTES + 2 * bytes as u64;
        batches.iter().any(puts) && self.medium.free().is_some_and(|free| free < needed)
    }

    /// Opens the file again after a write that found no room. False: there is no room for that either.
    fn reopen(&mut self) -> Result<bool, StoreError> {
        self.backup.is_closed();
        self.engine = None;
        match self.start() {
            Ok(engine) => self.engine = Some(engine),
            Err(StoreError::Directory { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// What the log on disk ends with.
    fn newest(&self) -> Result<Revision, StoreError> {
        let read = || -> Result<_, Fault> { Ok(log::newest(&self.database()?.begin_read()?.open_table(LOG)?)?.0) };
        read().map_err(|fault| self.failed("read the revision", fault))
    }

    /// What changes the tables, and the runs that it leaves; without room it is put off.
    fn rearrange(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&Self, &WriteTransaction) -> Result<Runs, Fault>,
    ) -> Result<bool, StoreError> {
        match self.run(action, |write| work(self, write)) {
            Ok(runs) => {
                self.runs = runs;
                Ok(true)
            }
            Err(_) if self.found_no_room() => {
                self.reopen()?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a run of what the log has changed, and forgets of the log what nobody needs.
    fn flush(&mut self) -> Result<(), StoreError> {
        let done = self.rearrange("put the log in order", |store, write| {
            let runs = store.runs.add(store.strides, write, |put| {
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
            self.flushed = self.revision;
            self.recent.clear();
            self.logged = 0;
        }
        // Without room it is tried again after as much log.
        self.flush_at = self.logged + self.strides.flush;
        Ok(())
    }

    fn merge(&mut self) -> Result<(), StoreError> {
        let mut read = 0;
        self.rearrange("merge what is old", |store, write| {
            let (runs, bytes) = store.runs.merge(store.strides, write)?;
            read = bytes;
            Ok(runs)
        })?;
        self.owed = self.owed.saturating_sub(read.max(self.strides.step));
        Ok(())
    }
}

/// Checks the format, names the history and makes the tables.
fn prepare(write: &WriteTransaction) -> Result<Tables, Fault> {
    let found = write.open_table(META)?.get(META_FORMAT)?.map(|format| format.value());
    match found {
        // Its tables may be of other types: touch none of them.
        Some(found) if found > FORMAT => return Err(Fault::NewerFormat(found)),
        Some(FORMAT) | None => {}
        Some(_) => format_1::convert(write)?,
    }
    write.open_table(LOG)?;
    let runs = Runs::open(write)?;
    let mut meta = write.open_table(META)?;
    if found != Some(FORMAT) {
        meta.insert(META_FORMAT, FORMAT)?;
    }
    // A store of a version that gave it no name is named now: from here on its revisions are told from others.
    let named = meta.get(META_HISTORY)?.map(|id| id.value());
    let history_id = match named {
        Some(id) => id,
        None => {
            let id = rand::random::<u64>();
            meta.insert(META_HISTORY, id)?;
            id
        }
    };
    let flushed = meta.get(META_FLUSHED)?.map_or(0, |flushed| flushed.value());
    Ok((HistoryId::from_random(history_id), Revision::new(flushed), runs))
}

impl Store for Embedded {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let read = || -> Result<_, Fault> {
            let table = self.database()?.begin_read()?.open_table(RUNS)?;
            load::read_all(&self.runs, &table, &self.recent)
        };
        let living = read().map_err(|fault| self.failed("read the instances", fault))?;
        Ok(Loaded {
            history_id: self.history_id,
            revision: self.revision,
            compacted: self.compacted,
            instances: living.instances,
            leases: living.leases,
        })
    }

    fn history(&mut self) -> Result<Vec<Batch>, StoreError> {
        if let Some(past) = self.past.take() {
            return Ok(past);
        }
        let mut past = Vec::new();
        let mut read = || -> Result<_, Fault> {
            let table = self.database()?.begin_read()?.open_table(LOG)?;
            log::replay(&table, self.compacted, |mut batch, _| {
                batch.leases = Vec::new();
                past.push(batch);
            })
        };
        read().map_err(|fault| self.failed("read the history", fault))?;
        Ok(past)
    }

    fn commit(&mut self, batches: &[Arc<Batch>], compacted: Revision) -> Result<Verdict, StoreError> {
        let Some(newest) = batches.last().map(|batch| batch.revision) else {
            return Ok(Verdict::Durable);
        };
        let group = record::encode_group(batches);
        if self.is_cramped(batches, group.len()) || (self.engine.is_none() && !self.reopen()?) {
            return Ok(self.no_room());
        }
        match self.run("commit", |write| log::append(write, newest, compacted, &group)) {
            Ok(()) => {}
            Err(_) if self.found_no_room() => {
                // redb writes the root last, so nothing of the group is there, unless the file system found out about its
                // room only when all was written. What is there is as it was left by the last fsync that succeeded, or, once
                // it is open again, by the one of the repair: what it shows survives.
                if !self.reopen()? || self.newest()? != newest {
                    return Ok(self.no_room());
                }
            }
            Err(error) => return Err(error),
        }
        batches.iter().for_each(|batch| self.recent.apply(batch));
        self.logged += group.len();
        if self.runs.merge_is_due(self.strides) {
            self.owed = (self.owed + MERGE_PACE * group.len()).min(2 * self.strides.step);
        }
        (self.revision, self.compacted, self.past) = (newest, compacted, None);
        Ok(Verdict::Durable)
    }

    fn backup(&self) -> Option<Arc<dyn Backup>> {
        Some(Arc::new(self.backup.clone()))
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        if self.engine.is_none() {
            return Ok(());
        }
        if self.logged >= self.flush_at {
            self.flush()?;
        } else if self.owed >= self.strides.step && self.runs.merge_is_due(self.strides) {
            self.merge()?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Record(what, why) => write!(f, "the record of {what} is damaged: {why}"),
            Self::Damaged(what, why) => write!(f, "the record of {what} is damaged: {why}"),
            Self::NewerFormat(found) => write!(f, "it has format {found}, this registry reads {FORMAT}"),
        }
    }
}

impl Fault {
    fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged(what.into(), why.into())
    }
}

/// redb has an error type for each of its steps.
macro_rules! from_redb {
    ($($error:ident),*) => {
        $(
            impl From<redb::$error> for Fault {
                fn from(error: redb::$error) -> Self {
                    Self::Engine(error.into())
                }
            }
        )*
    };
}

from_redb!(Error, StorageError, TableError, TransactionError, CommitError);
