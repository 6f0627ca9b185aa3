//! A backup of the embedded store, taken while others commit, and a store made from one.
//!
//! redb's readers see one revision for as long as they live, and hold nobody up. The pages that they see are not used again
//! meanwhile, so whoever takes a backup must not take for ever: the API has a bound for it.

use std::{
    io::{self, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, TableError};

use super::{
    Embedded, FILE, FORMAT, Fault, InDirectory, LOG, META, META_FLUSHED, META_FORMAT, META_HISTORY, PLAIN, RUNS,
    Recent, Runs, SPARE, Strides,
    build::{Builder, build},
    load::{self, Found},
    log,
    recent::{self, Kind},
};
use crate::{
    model::{HistoryId, Revision, WallTime},
    store::{
        Backup, BackupError, Store as _, StoreError,
        archive::{self, Archive, ArchiveError, Check, Contents, Head, Key, Part},
        names::Unnamed,
    },
};

/// The database as it is opened now: after a full disk it is another one.
#[derive(Debug, Clone, Default)]
pub(super) struct Source(Arc<Mutex<Weak<Database>>>);

impl Source {
    /// From now on it is this one.
    pub(super) fn is(&self, database: &Arc<Database>) {
        if let Ok(mut current) = self.0.lock() {
            *current = Arc::downgrade(database);
        }
    }

    /// From now on there is none, and nobody holds the one that was. Readers that have begun fail when it is dropped.
    pub(super) fn is_closed(&self) {
        if let Ok(mut current) = self.0.lock() {
            *current = Weak::new();
        }
    }

    fn begin(&self) -> Result<ReadTransaction, BackupError> {
        // Under the lock: a database that somebody still holds cannot be opened again.
        let current = self.0.lock().ok();
        let database = current.as_ref().and_then(|current| current.upgrade());
        let closed = "it is not open: there is no room on its disk, or the registry is ending";
        let database = database.ok_or_else(|| BackupError::Store(closed.to_owned()))?;
        Ok(database.begin_read().map_err(Fault::from)?)
    }
}

impl Backup for Source {
    fn write(&self, taken: WallTime, to: &mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> Result<(), BackupError> {
        write(&self.begin()?, taken, to)
    }
}

/// Writes what a transaction sees.
fn write(
    read: &ReadTransaction,
    taken: WallTime,
    to: &mut dyn FnMut(Vec<u8>) -> io::Result<()>,
) -> Result<(), BackupError> {
    let number = |key| -> Result<u64, Fault> {
        let found = read.open_table(META)?.get(key)?;
        Ok(found.map_or(0, |number| number.value()))
    };
    let flushed = Revision::new(number(META_FLUSHED)?);
    let log = read.open_table(LOG).map_err(Fault::from)?;
    let (revision, compacted) = log::newest(&log)?;
    // What this costs in memory is bounded as the log is that is in no run.
    let mut recent = Recent::default();
    log::replay(&log, flushed, |batch, _| recent.apply(&batch))?;

    let head = Head {
        history_id: HistoryId::from_random(number(META_HISTORY)?),
        revision,
        compacted,
        taken,
    };
    let mut archive = Archive::begin(to, head)?;
    let table = read.open_table(RUNS).map_err(Fault::from)?;
    let mut failed = None;
    load::for_each_living(&Runs::read(read)?, &table, &recent, |key, found| {
        let encoded;
        let record = match found {
            Found::Stored(record) => record,
            Found::Known(entry) => {
                encoded = entry.encode().unwrap_or_default();
                &encoded
            }
        };
        let written = match recent::kind_of(key) {
            Kind::Lease(id) => archive.lease(id, record),
            Kind::Override => archive.laid(record),
            Kind::Instance => archive.instance(record),
        };
        Ok(match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    for entry in log.range(compacted.next().get()..).map_err(Fault::from)? {
        let (last, group) = entry.map_err(Fault::from)?;
        archive.past(Revision::new(last.value()), group.value().1)?;
    }
    Ok(archive.end()?)
}

/// The store of a directory that no registry uses, to be read. It is left as it is: what an earlier version has written is not
/// converted, so that the version that wrote it can go on with it.
#[derive(Debug)]
pub(crate) struct AtRest {
    database: Database,
    /// Nobody else has it meanwhile.
    _claimed: InDirectory,
}

impl AtRest {
    /// Of a directory; `None` if it has none.
    pub(crate) fn open(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = || directory.to_owned();
        let engine = |error: redb::Error| StoreError::Engine {
            path: path(),
            action: "open the file",
            source: Box::new(error),
        };
        let claimed = match InDirectory::claim(directory, FILE, SPARE) {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return Err(StoreError::InUse { path: path() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Directory { path: path(), source }),
        };
        let opened = Database::builder()
            .set_cache_size(super::CACHE_BYTES)
            .open(directory.join(FILE));
        let database = match opened {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse { path: path() }),
            Err(DatabaseError::Storage(redb::StorageError::Io(source))) => {
                return match source.kind() {
                    io::ErrorKind::NotFound => Ok(None),
                    _ => Err(StoreError::Directory { path: path(), source }),
                };
            }
            Err(error) => return Err(engine(error.into())),
        };
        let number = |key| -> Result<Option<u64>, redb::Error> {
            match database.begin_read()?.open_table(META) {
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                meta => Ok(meta?.get(key)?.map(|number| number.value())),
            }
        };
        match number(META_FORMAT).map_err(engine)? {
            None => Ok(None),
            Some(PLAIN | FORMAT) => Ok(Some(Self {
                database,
                _claimed: claimed,
            })),
            Some(found) if found < FORMAT => Err(StoreError::OlderFormat { path: path(), found }),
            Some(found) => Err(StoreError::NewerFormat {
                path: path(),
                found,
                known: FORMAT,
            }),
        }
    }
}

impl Backup for AtRest {
    fn write(&self, taken: WallTime, to: &mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> Result<(), BackupError> {
        let read = self.database.begin_read().map_err(Fault::from)?;
        write(&read, taken, to)
    }
}

/// A store made of a backup, that has not got its name yet. It opens, and holds what the backup does.
#[derive(Debug)]
pub(crate) struct Restored {
    file: Unnamed,
    name: PathBuf,
}

impl Restored {
    /// Of what was verified, in a directory without anything in it. The store has a new name: what its revisions count from here
    /// on is not what those of the old one counted, and a client that has seen more of that than the backup must notice.
    pub(crate) fn of(archive: impl Read, verified: &Contents, directory: &Path) -> Result<Self, BackupError> {
        let restored = Self {
            // Under another name until it is all there.
            file: Unnamed::create(directory.join("registry.restoring"))?,
            name: directory.join(FILE),
        };
        fill(archive, verified, restored.file.path())?;
        let medium = Box::new(InDirectory::new(restored.file.path().to_owned()));
        let mut store = Embedded::over(directory.to_owned(), medium, Strides::default())?;
        compare(&mut store, verified)?;
        Ok(restored)
    }

    /// Gives it its name: from here on a registry starts from it. What a registry has begun there meanwhile is left alone
    /// ([`io::ErrorKind::AlreadyExists`]).
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.name(&self.name)
    }
}

fn fill(archive: impl Read, verified: &Contents, to: &Path) -> Result<(), BackupError> {
    let database = Database::builder()
        .set_cache_size(super::CACHE_BYTES)
        .create(to)
        .map_err(|error| Fault::Engine(error.into()))?;
    let write = database.begin_write().map_err(Fault::from)?;
    let Head {
        revision, compacted, ..
    } = verified.head;
    build(&write, revision, compacted, |to| copy(archive, verified, to))?;
    {
        let mut meta = write.open_table(META).map_err(Fault::from)?;
        let format = if verified.overrides > 0 { FORMAT } else { PLAIN };
        for (key, number) in [(META_FORMAT, format), (META_HISTORY, rand::random())] {
            meta.insert(key, number).map_err(Fault::from)?;
        }
    }
    write.commit().map_err(Fault::from)?;
    Ok(())
}

fn copy(archive: impl Read, verified: &Contents, to: &mut Builder<'_, '_>) -> Result<(), BackupError> {
    let mut check = Check::default();
    let found = archive::read(archive, |part| -> Result<(), BackupError> {
        let key = check.part(part)?;
        match (part, key) {
            (Part::Instance(record), Some(Key::Instance(key))) => to.put(&recent::instance_key(key), record)?,
            (Part::Override(record), Some(Key::Override(key))) => to.put(&recent::override_key(key), record)?,
            (Part::Lease(record), Some(Key::Lease(id))) => to.put(&recent::lease_key(*id), record)?,
            (Part::Past(last, group), _) => to.past(last, group)?,
            _ => {}
        }
        Ok(())
    })?;
    check.end()?;
    if found != *verified {
        return Err(ArchiveError::Damaged("it was changed while it was read".to_owned()).into());
    }
    Ok(())
}

/// Whether a store opens with what a backup holds: what a checksum vouches for is what was written, not that it was right.
fn compare(store: &mut Embedded, backup: &Contents) -> Result<(), BackupError> {
    let (loaded, history) = (store.load()?, store.history()?);
    let found = (
        loaded.revision,
        loaded.compacted,
        loaded.instances.len() as u64,
        loaded.leases.len() as u64,
        loaded.overrides.len() as u64,
        history.len() as u64,
    );
    let Head {
        revision, compacted, ..
    } = backup.head;
    let past = revision.get().saturating_sub(compacted.get());
    let wanted = (
        revision,
        compacted,
        backup.instances,
        backup.leases,
        backup.overrides,
        past,
    );
    if found != wanted {
        let why = format!("it makes a store of {found:?} where it should be {wanted:?}");
        return Err(ArchiveError::Damaged(why).into());
    }
    Ok(())
}

impl From<Fault> for BackupError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Engine(redb::Error::Io(error)) => Self::Io(error),
            other => Self::Store(other.to_string()),
        }
    }
}
