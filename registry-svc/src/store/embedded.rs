//! The store of a single registry: one redb file, one transaction and one fsync for each group of batches.
//!
//! redb's `Durability::Immediate` (its default) returns from a commit after the fsync. Its file is locked while it is open,
//! which is how a second registry on the same directory is noticed.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, DatabaseError, ReadableTable as _, TableDefinition, WriteTransaction};

use super::{Loaded, Store, StoreError, Verdict, record};
use crate::{
    catalog::{Batch, Change, LeaseChange},
    model::{HistoryId, InstanceKey, LeaseId, Revision},
};

/// The file in the data directory.
const FILE: &str = "registry.redb";
/// What this code writes. A higher one is refused, not guessed at.
const FORMAT: u64 = 1;
/// redb keeps pages of the file in memory; the catalog already holds everything that is read.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// namespace, service, id → instance.
const INSTANCES: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("instances");
/// lease id → terms and the secret's hash.
const LEASES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("leases");
/// revision → what changed.
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
/// Numbers, by the keys below.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
const META_COMPACTED: &str = "compacted";
const META_HISTORY: &str = "history";

/// See the module.
#[derive(Debug)]
pub(crate) struct Embedded {
    directory: PathBuf,
    database: Database,
}

impl Embedded {
    /// Opens the directory's file or makes both. Fails at once when another process has it.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.to_owned();
        let unusable = |source| StoreError::Directory {
            path: path.clone(),
            source,
        };
        let made = make(directory).map_err(unusable)?;
        let file = directory.join(FILE);
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&file)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.clone() },
                DatabaseError::Storage(redb::StorageError::Io(source)) => unusable(source),
                other => StoreError::Engine {
                    path: path.clone(),
                    action: "open the file",
                    source: Box::new(other.into()),
                },
            })?;
        sync_names(directory, made).map_err(unusable)?;
        Self::over(directory.to_owned(), database)
    }

    /// Over an open database; `directory` is for messages.
    pub(super) fn over(directory: PathBuf, database: Database) -> Result<Self, StoreError> {
        let store = Self { directory, database };
        store.prepare()?;
        Ok(store)
    }

    /// Checks the format, names the history and makes the tables.
    fn prepare(&self) -> Result<(), StoreError> {
        let found = self.run("prepare the tables", |write| {
            let mut meta = write.open_table(META)?;
            let found = meta.get(META_FORMAT)?.map(|format| format.value());
            match found {
                None => {
                    meta.insert(META_FORMAT, FORMAT)?;
                }
                // Its tables may be of other types: touch none of them.
                Some(found) if found > FORMAT => return Ok(Some(found)),
                Some(_) => {}
            }
            // A store of a version that gave it no name is named now: from here on its revisions are told from others.
            if meta.get(META_HISTORY)?.is_none() {
                meta.insert(META_HISTORY, rand::random::<u64>())?;
            }
            write.open_table(INSTANCES)?;
            write.open_table(LEASES)?;
            write.open_table(HISTORY)?;
            Ok(found)
        })?;
        match found {
            Some(found) if found > FORMAT => Err(StoreError::NewerFormat {
                path: self.directory.clone(),
                found,
                known: FORMAT,
            }),
            _ => Ok(()),
        }
    }

    /// One write transaction, durable when this returns.
    fn run<T>(
        &self,
        action: &'static str,
        write: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let transaction = self
            .database
            .begin_write()
            .map_err(|error| self.failed(action, error))?;
        let result = write(&transaction).map_err(|error| self.failed(action, error))?;
        transaction.commit().map_err(|error| self.failed(action, error))?;
        Ok(result)
    }

    fn failed(&self, action: &'static str, source: impl Into<redb::Error>) -> StoreError {
        StoreError::Engine {
            path: self.directory.clone(),
            action,
            source: Box::new(source.into()),
        }
    }

    fn damaged(&self, what: impl Into<String>, why: impl ToString) -> StoreError {
        StoreError::Damaged {
            path: self.directory.clone(),
            what: what.into(),
            why: why.to_string(),
        }
    }

    fn meta(&self) -> Result<Loaded, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let meta = self.database.begin_read_table(META)?;
            let number = |key| -> Result<u64, redb::Error> { Ok(meta.get(key)?.map_or(0, |value| value.value())) };
            Ok(Loaded {
                history_id: HistoryId::from_random(number(META_HISTORY)?),
                revision: Revision::new(number(META_REVISION)?),
                compacted: Revision::new(number(META_COMPACTED)?),
                ..Loaded::default()
            })
        };
        read().map_err(|error| self.failed("read the revision", error))
    }
}

impl Store for Embedded {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        const ACTION: &str = "read the instances";
        let mut loaded = self.meta()?;
        let table = self
            .database
            .begin_read_table(INSTANCES)
            .map_err(|error| self.failed(ACTION, error))?;
        let mut decoder = record::Decoder::default();
        for entry in table.iter().map_err(|error| self.failed(ACTION, error))? {
            let (key, value) = entry.map_err(|error| self.failed(ACTION, error))?;
            let instance = decoder
                .instance(value.value())
                .map_err(|why| self.damaged(format!("instance {:?}", key.value()), why))?;
            loaded.instances.push(Arc::new(instance));
        }
        let table = self
            .database
            .begin_read_table(LEASES)
            .map_err(|error| self.failed(ACTION, error))?;
        for entry in table.iter().map_err(|error| self.failed(ACTION, error))? {
            let (id, value) = entry.map_err(|error| self.failed(ACTION, error))?;
            let id = LeaseId::from_random(id.value());
            let lease = decoder
                .lease(id, value.value())
                .map_err(|why| self.damaged(format!("lease {id}"), why))?;
            loaded.leases.push(lease);
        }
        // An instance without its lease would never expire.
        let leases: HashSet<LeaseId> = loaded.leases.iter().map(|lease| lease.id).collect();
        match loaded
            .instances
            .iter()
            .find(|instance| !leases.contains(&instance.lease))
        {
            Some(orphan) => Err(self.damaged(format!("instance {}", orphan.key), "its lease is missing")),
            None => Ok(loaded),
        }
    }

    fn history(&mut self) -> Result<Vec<Batch>, StoreError> {
        const ACTION: &str = "read the history";
        let Loaded {
            revision: newest,
            compacted,
            ..
        } = self.meta()?;
        let table = self
            .database
            .begin_read_table(HISTORY)
            .map_err(|error| self.failed(ACTION, error))?;
        let mut batches = Vec::new();
        let mut decoder = record::Decoder::default();
        let mut expected = compacted.next();
        for entry in table
            .range(expected.get()..)
            .map_err(|error| self.failed(ACTION, error))?
        {
            let (revision, value) = entry.map_err(|error| self.failed(ACTION, error))?;
            let revision = Revision::new(revision.value());
            if revision != expected {
                return Err(self.damaged(format!("revision {expected}"), "it is missing"));
            }
            batches.push(
                decoder
                    .batch(revision, value.value())
                    .map_err(|why| self.damaged(format!("revision {revision}"), why))?,
            );
            expected = revision.next();
        }
        if expected != newest.next() {
            return Err(self.damaged(format!("revision {expected}"), "it is missing"));
        }
        Ok(batches)
    }

    fn commit(&mut self, batches: &[Arc<Batch>], compacted: Revision) -> Result<Verdict, StoreError> {
        let Some(newest) = batches.last() else {
            return Ok(Verdict::Durable);
        };
        self.run("commit", |write| {
            let mut instances = write.open_table(INSTANCES)?;
            let mut leases = write.open_table(LEASES)?;
            let mut history = write.open_table(HISTORY)?;
            let mut meta = write.open_table(META)?;
            for batch in batches {
                for change in &batch.changes {
                    let key = table_key(change.key());
                    match change {
                        Change::Put { instance, .. } => {
                            instances.insert(key, record::encode_instance(instance).as_slice())?;
                        }
                        Change::Removed(_) => {
                            instances.remove(key)?;
                        }
                    }
                }
                for change in &batch.leases {
                    match change {
                        LeaseChange::Kept(lease) | LeaseChange::Lost(lease) => {
                            leases.insert(lease.id.bits(), record::encode_lease(lease).as_slice())?;
                        }
                        LeaseChange::Ended(id) => {
                            leases.remove(id.bits())?;
                        }
                    }
                }
                history.insert(batch.revision.get(), record::encode_batch(batch).as_slice())?;
            }
            while history
                .first()?
                .is_some_and(|(oldest, _)| oldest.value() <= compacted.get())
            {
                history.pop_first()?;
            }
            meta.insert(META_REVISION, newest.revision.get())?;
            meta.insert(META_COMPACTED, compacted.get())?;
            Ok(Verdict::Durable)
        })
    }
}

/// Makes a directory and those above it. Returns how many there were to make.
fn make(directory: &Path) -> io::Result<usize> {
    let missing = directory
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing = missing.count();
    fs::create_dir_all(directory)?;
    Ok(missing)
}

/// A file's name is in its directory, which has an fsync of its own, and so is the directory's in the one above. At each open
/// and not only when something was made: a crash may have come between making it and this.
fn sync_names(directory: &Path, made: usize) -> io::Result<()> {
    let directory = fs::canonicalize(directory)?;
    // The directory, those above it that were made, and the one that holds the first of them.
    for (above, directory) in directory.ancestors().take(made.max(1) + 1).enumerate() {
        match fs::File::open(directory) {
            Ok(directory) => directory.sync_all()?,
            // One that we may not read was there before us.
            Err(error) if above > 0 && error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn table_key(key: &InstanceKey) -> (&str, &str, &str) {
    (key.namespace.as_str(), key.service.as_str(), key.id.as_str())
}

/// redb opens a table in two steps that fail in two ways; here it is one.
trait ReadTable {
    fn begin_read_table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<redb::ReadOnlyTable<K, V>, redb::Error>;
}

impl ReadTable for Database {
    fn begin_read_table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<redb::ReadOnlyTable<K, V>, redb::Error> {
        use redb::ReadableDatabase as _;
        Ok(self.begin_read()?.open_table(table)?)
    }
}
