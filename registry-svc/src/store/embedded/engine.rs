//! The engine's life: it is opened, does one transaction after the other, and is opened again after a write that found no room.
//! It tells the failures that are the end from those that are not, and hands over what the file says each time that it is
//! opened. What that means is the store's affair.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, WriteTransaction};

use super::{
    backup,
    fault::Fault,
    medium::{Failure, Medium, Missing, Watched, is_no_room},
    tables::Tables,
};
use crate::store::StoreError;

/// What is left of the disk for those who deregister, and for redb to open the file once more.
const RESERVE_BYTES: u64 = 1024 * 1024;
/// What a commit writes beside its group: the pages on the way to it, and those that say which pages are free.
const COMMIT_BYTES: u64 = 256 * 1024;
/// So much more there is when what was kept for a full disk is taken back: or it would come and go with every file of others.
const REGAIN_MARGIN_BYTES: u64 = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Engine {
    /// For messages.
    directory: PathBuf,
    /// `None` while there is no room to open it.
    opened: Option<Opened>,
    /// For those who take backups meanwhile.
    backup: backup::Source,
    /// Bytes of pages that are kept in memory.
    cache: usize,
    /// Dropped last: it may be what keeps others out.
    medium: Box<dyn Medium>,
}

#[derive(Debug)]
struct Opened {
    database: Arc<Database>,
    failure: Failure,
}

/// What became of a transaction.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    /// It survives a power cut.
    Durable(T),
    /// A write found no room. [`Engine::reopen`] comes next: only the file knows whether it is durable all the same.
    NoRoom {
        /// What it is to fail with when the file cannot be asked, unless it is certain that nothing of it is there.
        in_doubt: Option<StoreError>,
    },
}

/// What became of taking room back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Regained {
    /// None is missing, or there is not enough.
    Nothing,
    /// One slice.
    Slice,
    /// There is room, and it is not for us.
    Failed,
}

impl Engine {
    /// Opens the file, or makes it with its tables.
    pub(super) fn open(
        directory: PathBuf,
        medium: Box<dyn Medium>,
        cache: usize,
    ) -> Result<(Self, Tables), StoreError> {
        let mut engine = Self {
            directory,
            opened: None,
            backup: backup::Source::default(),
            cache,
            medium,
        };
        engine.start_somehow(Missing::IsMade)?;
        let tables = match engine.read("read the tables", Tables::read)? {
            Some(tables) => tables,
            None => match engine.write("prepare the tables", |write| {
                Tables::prepare(write, &engine.directory, engine.medium.free())
            })? {
                Outcome::Durable(tables) => tables,
                Outcome::NoRoom { .. } => return Err(engine.unusable(io::ErrorKind::StorageFull.into())),
            },
        };
        Ok((engine, tables))
    }

    /// Opens the file again, after a write that found no room, and tells what it says. `None`: there is no room for that either.
    pub(super) fn reopen(&mut self) -> Result<Option<Tables>, StoreError> {
        self.backup.is_closed();
        self.opened = None;
        match self.start_somehow(Missing::IsAnError) {
            Ok(()) => {}
            Err(StoreError::Directory { source, .. }) if is_no_room(&source) => return Ok(None),
            Err(error) => return Err(error),
        }
        match self.read("read the tables", Tables::read)? {
            Some(tables) => Ok(Some(tables)),
            None => Err(self.exchanged("it is empty")),
        }
    }

    /// Whether it can be used.
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Opens the file, with the room that is kept for this if need be: where everything is written anew opening takes some.
    fn start_somehow(&mut self, missing: Missing) -> Result<(), StoreError> {
        loop {
            match self.start(missing) {
                Err(StoreError::Directory { source, .. }) if is_no_room(&source) && self.medium.give_up() => {}
                started => return started,
            }
        }
    }

    fn start(&mut self, missing: Missing) -> Result<(), StoreError> {
        let failure = Failure::default();
        let backend = Watched {
            inner: self.medium.open(missing).map_err(|source| self.unusable(source))?,
            failure: failure.clone(),
        };
        let database = Database::builder()
            .set_cache_size(self.cache)
            .create_with_backend(backend)
            .map_err(|error| self.not_opened(error, &failure))?;
        let database = Arc::new(database);
        self.backup.is(&database);
        self.opened = Some(Opened { database, failure });
        Ok(())
    }

    fn not_opened(&self, error: DatabaseError, failure: &Failure) -> StoreError {
        if let DatabaseError::DatabaseAlreadyOpen = error {
            return StoreError::InUse {
                path: self.directory.clone(),
            };
        }
        match Fault::Engine(error.into()) {
            fault if failure.is_no_room(&fault) => self.unusable(io::ErrorKind::StorageFull.into()),
            fault => {
                self.medium.distrust();
                match fault {
                    // An fsync that found no room is not a write that found none.
                    Fault::Engine(redb::Error::Io(source)) if !is_no_room(&source) => self.unusable(source),
                    fault => fault.at("open the file", &self.directory),
                }
            }
        }
    }

    /// One read transaction.
    pub(super) fn read<T>(
        &self,
        action: &'static str,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let run = || -> Result<T, Fault> {
            let opened = self.opened.as_ref().ok_or(redb::Error::PreviousIo)?;
            read(&opened.database.begin_read()?)
        };
        run().map_err(|fault| fault.at(action, &self.directory))
    }

    /// One write transaction.
    pub(super) fn write<T>(
        &self,
        action: &'static str,
        write: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<Outcome<T>, StoreError> {
        let Some(opened) = &self.opened else {
            return Ok(Outcome::NoRoom { in_doubt: None });
        };
        opened.failure.begin();
        let run = || -> Result<T, Fault> {
            let transaction = opened.database.begin_write()?;
            let result = write(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        match run() {
            Ok(result) => Ok(Outcome::Durable(result)),
            Err(fault) if opened.failure.is_no_room(&fault) => Ok(Outcome::NoRoom {
                in_doubt: opened
                    .failure
                    .root_is_synced()
                    .then(|| fault.at(action, &self.directory)),
            }),
            Err(fault) => {
                // Who starts next on this machine must not take from memory what the disk has lost.
                self.medium.distrust();
                Err(fault.at(action, &self.directory))
            }
        }
    }

    /// Whether so much may be written without taking what is kept for those who make room. True where that cannot be told: it is
    /// tried then.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let needed = RESERVE_BYTES + self.medium.missing() + bytes as u64;
        self.medium.free().is_none_or(|free| free >= needed)
    }

    /// Gives up room that is kept for a change that makes some, if it needs that.
    pub(super) fn make_room(&self, bytes: usize) {
        // One slice and not as many as it takes: some file systems tell late that there is more.
        if self
            .medium
            .free()
            .is_some_and(|free| free < COMMIT_BYTES + bytes as u64)
        {
            self.medium.give_up();
        }
    }

    /// The same for one that has failed for want of room. False: there was nothing left to give up.
    pub(super) fn give_up(&self) -> bool {
        self.medium.give_up()
    }

    /// Takes back a slice of what was given up, when there is room for all of it and some more.
    pub(super) fn regain(&self) -> Regained {
        let missing = self.medium.missing();
        let needed = RESERVE_BYTES + missing + REGAIN_MARGIN_BYTES;
        if missing == 0 || self.medium.free().is_none_or(|free| free < needed) {
            return Regained::Nothing;
        }
        match self.medium.regain() {
            true => Regained::Slice,
            false => Regained::Failed,
        }
    }

    /// Takes backups from other threads.
    pub(super) fn backup(&self) -> &backup::Source {
        &self.backup
    }

    /// For messages.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file is not the one that was left there.
    pub(super) fn exchanged(&self, how: impl Into<String>) -> StoreError {
        StoreError::Exchanged {
            path: self.directory.clone(),
            how: how.into(),
        }
    }

    fn unusable(&self, source: io::Error) -> StoreError {
        StoreError::Directory {
            path: self.directory.clone(),
            source,
        }
    }
}
