//! Backups as an operator sees them: files that are whole or not there.
//!
//! A backup holds the state at one revision, the hashes of the leases' secrets, and the history that leads there. It is taken
//! from a registry that serves (the wire's `GovernanceService.Backup`) or from a data directory that nobody uses. Restored, it
//! is a store with another name: clients that have seen more than the backup has are told so and take a snapshot. Every lease
//! has its full time again, and until the longest of them has passed nothing expires, as after any restart.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;

use crate::{
    driver::Clock,
    model::HistoryId,
    store::{self, ArchiveError, BackupError, Contents, Embedded, Store as _},
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
    /// The store cannot be read or made.
    #[error("{0}")]
    Store(String),
}

/// A backup that is being written. It gets its name when it is known to be whole; dropped before that it leaves nothing.
pub struct Unfinished {
    file: Option<File>,
    name: PathBuf,
    part: PathBuf,
}

impl Unfinished {
    /// Beside the name that it is to have.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`].
    pub fn create(name: &Path) -> Result<Self, Error> {
        if name.exists() {
            return Err(Error::Exists { path: name.to_owned() });
        }
        let mut part = name.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // Its secrets are hashes of 128 random bits, but who is where is nobody else's business.
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&part).map_err(io_at(&part))?;
        Ok(Self {
            file: Some(file),
            name: name.to_owned(),
            part,
        })
    }

    /// The next bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(io_at(&self.part))
    }

    /// All is written: reads it, makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`enum@Error`], and no file is left.
    pub fn finish(mut self) -> Result<Summary, Error> {
        let summary = verify(&self.part)?;
        if let Some(file) = self.file.take() {
            file.sync_all().map_err(io_at(&self.part))?;
        }
        fs::rename(&self.part, &self.name).map_err(io_at(&self.name))?;
        let directory = match self.name.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(io_at(directory))?;
        Ok(summary)
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unfinished")
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it has its name there is nothing here.
        let _ = fs::remove_file(&self.part);
    }
}

/// Backs a data directory up that no registry uses.
///
/// # Errors
/// [`enum@Error`], and no file is left.
pub fn save(data_dir: &Path, file: &Path) -> Result<Summary, Error> {
    if !Embedded::is_in(data_dir) {
        return Err(Error::NoStore {
            path: data_dir.to_owned(),
        });
    }
    let mut unfinished = Unfinished::create(file)?;
    let store = Embedded::open(data_dir).map_err(|error| Error::Store(error.to_string()))?;
    if let Some(backup) = store.backup() {
        let mut failed = None;
        let written = backup.write(Clock::start().now().wall, &mut |bytes| {
            unfinished.write(&bytes).map_err(|error| {
                failed = Some(error);
                io::ErrorKind::Other.into()
            })
        });
        written.map_err(|error| failed.unwrap_or_else(|| of(data_dir, error)))?;
    }
    unfinished.finish()
}

/// Reads a backup to its end, and every record in it.
///
/// # Errors
/// [`Error::Io`], [`Error::Unusable`].
pub fn verify(file: &Path) -> Result<Summary, Error> {
    store::verify(file).map(Summary::from).map_err(|error| of(file, error))
}

/// Makes a data directory of a backup.
///
/// # Errors
/// [`enum@Error`]; the directory then holds no state, as before.
pub fn restore(file: &Path, data_dir: &Path) -> Result<Summary, Error> {
    // Whatever else fails below is the directory's fault.
    verify(file)?;
    store::restore(file, data_dir)
        .map(Summary::from)
        .map_err(|error| of(data_dir, error))
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
        BackupError::NotEmpty => Error::NotEmpty { path },
        BackupError::Store(why) => Error::Store(why),
    }
}

impl From<Contents> for Summary {
    fn from(contents: Contents) -> Self {
        let Contents {
            head,
            instances,
            leases,
            bytes,
        } = contents;
        let name = |id: HistoryId| id.to_string();
        let since = Duration::new(u64::try_from(head.taken.seconds).unwrap_or(0), head.taken.nanos);
        Self {
            history_id: name(head.history_id),
            revision: head.revision.get(),
            instances,
            leases,
            bytes,
            taken: UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH),
        }
    }
}
