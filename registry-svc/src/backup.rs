//! Backups as an operator sees them: files that are whole or not there.
//!
//! A backup holds the state at one revision, the hashes of the leases' secrets, and the history that leads there. It is taken
//! from a registry that serves (the wire's `GovernanceService.Backup`) or from a data directory that nobody uses. Restored, it
//! is a store with another name: clients that have seen more than the backup has are told so and take a snapshot. Every lease
//! has its full time again, and until the longest of them has passed nothing expires, as after any restart.

mod unfinished;

use std::{
    fs::{self, File},
    io::{self, BufReader, Seek as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;
pub use unfinished::Unfinished;

use crate::{
    driver::Clock,
    model::HistoryId,
    store::{self, ArchiveError, AtRest, Backup as _, BackupError, Contents, Embedded, Restored, StoreError, names},
};

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The name of the history that it was taken from.
    pub history_id: String,
    /// Everything up to and with it is in the backup.
    pub revision: u64,
    /// How many.
    pub instances: u64,
    /// How many.
    pub leases: u64,
    /// What operators have laid over how many instances, registered or not.
    pub overrides: u64,
    /// Of the file.
    pub bytes: u64,
    /// When it was taken, by the wall clock of that registry.
    pub taken: SystemTime,
}

/// Why there is no backup, or none that can be used.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or directory cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A backup never replaces a file: it may be the only good one.
    #[error("{} is there already", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// It is no backup, or one that cannot be used.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process is writing it.
    #[error("another backup to {} is under way", path.display())]
    Busy {
        /// Which.
        path: PathBuf,
    },
    /// A backup is only restored into a directory with nothing in it.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// There is no registry's state.
    #[error("{} holds no registry's state", path.display())]
    NoStore {
        /// Which.
        path: PathBuf,
    },
    /// A registry serves from it.
    #[error("data directory {} is in use by a registry", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The store cannot be read or made.
    #[error("{0}")]
    Store(String),
}

/// Backs a data directory up that no registry uses.
///
/// # Errors
/// [`enum@Error`], and there is no backup.
pub fn save(data_dir: &Path, file: &Path) -> Result<Summary, Error> {
    let no_store = || Error::NoStore {
        path: data_dir.to_owned(),
    };
    if !Embedded::is_in(data_dir) {
        return Err(no_store());
    }
    let mut unfinished = Unfinished::create(file)?;
    let store = AtRest::open(data_dir).map_err(|error| match error {
        StoreError::InUse { path } => Error::InUse { path },
        error => Error::Store(error.to_string()),
    })?;
    let mut failed = None;
    let written = store.ok_or_else(no_store)?.write(Clock::wall(), &mut |bytes| {
        unfinished.write(&bytes).map_err(|error| {
            failed = Some(error);
            io::ErrorKind::Other.into()
        })
    });
    written.map_err(|error| failed.unwrap_or_else(|| of(data_dir, error)))?;
    unfinished.finish()
}

/// Reads a backup to its end, and every record in it.
///
/// # Errors
/// [`Error::Io`], [`Error::Unusable`].
pub fn verify(file: &Path) -> Result<Summary, Error> {
    let archive = File::open(file).map_err(io_at(file))?;
    let contents = store::verify(BufReader::new(archive)).map_err(|error| of(file, error.into()))?;
    Ok(contents.into())
}

/// Makes a data directory of a backup.
///
/// # Errors
/// [`enum@Error`]; the directory then holds no state, as before.
pub fn restore(file: &Path, data_dir: &Path) -> Result<Summary, Error> {
    let mut archive = File::open(file).map_err(io_at(file))?;
    // The whole of it first: what is damaged makes no directory.
    let contents = store::verify(BufReader::new(&archive)).map_err(|error| of(file, error.into()))?;
    archive.rewind().map_err(io_at(file))?;
    let made = names::make(data_dir).map_err(io_at(data_dir))?;
    let not_empty = || Error::NotEmpty {
        path: data_dir.to_owned(),
    };
    if !is_empty(data_dir).map_err(io_at(data_dir))? {
        return Err(not_empty());
    }
    let failed = |error: BackupError| match error {
        // Whoever was there between the look and this.
        BackupError::Io(error) if error.kind() == io::ErrorKind::AlreadyExists => not_empty(),
        BackupError::Archive(_) => of(file, error),
        error => of(data_dir, error),
    };
    let restored = Restored::of(BufReader::new(archive), &contents, data_dir).map_err(failed)?;
    restored.finish().map_err(|error| failed(error.into()))?;
    names::sync(data_dir, made).map_err(io_at(data_dir))?;
    Ok(contents.into())
}

/// Whether nothing is in a directory, but for what a file system puts at its root.
fn is_empty(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

fn of(path: &Path, error: BackupError) -> Error {
    let path = path.to_owned();
    match error {
        BackupError::Io(source) | BackupError::Archive(ArchiveError::Io(source)) => Error::Io { path, source },
        BackupError::Archive(why) => Error::Unusable {
            path,
            why: why.to_string(),
        },
        BackupError::Store(why) => Error::Store(why),
    }
}

impl From<Contents> for Summary {
    fn from(contents: Contents) -> Self {
        let Contents {
            head,
            instances,
            leases,
            overrides,
            bytes,
        } = contents;
        let name = |id: HistoryId| id.to_string();
        let since = Duration::new(u64::try_from(head.taken.seconds).unwrap_or(0), head.taken.nanos);
        Self {
            history_id: name(head.history_id),
            revision: head.revision.get(),
            instances,
            leases,
            overrides,
            bytes,
            taken: UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH),
        }
    }
}
