//! What the store's file lies on, and what went wrong there. It knows nothing of the file's contents.
//!
//! redb says that a write failed but not which, and once a write that it needs has failed it answers nothing more until it is
//! opened again. So its storage is looked after on the way: a write for which there was no room leaves what was durable as it
//! was, and the file can be opened again; after a failed fsync nothing is known any more.

use std::{
    fmt::Debug,
    fs, io,
    ops::Bound,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use redb::{BackendError, StorageBackend, backends::FileBackend};
use rustix::fs::{Advice, FlockOperation};

use super::{ballast::Ballast, fault::Fault};

/// What to do about a file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Missing {
    /// Make it.
    IsMade,
    /// Somebody has taken it away.
    IsAnError,
}

/// Where the file is.
pub(in crate::store) trait Medium: Debug + Send {
    /// Opens the file.
    fn open(&self, missing: Missing) -> io::Result<Box<dyn StorageBackend>>;

    /// Bytes that may still be written there; `None` where that cannot be told.
    fn free(&self) -> Option<u64>;

    /// What is read of the file from here on comes from the disk and not from memory, as far as that can be had. After a failed
    /// fsync the system's memory shows what the disk has lost.
    fn distrust(&self) {}

    /// Gives up a slice of the room that is kept for a full disk. False: there is none.
    fn give_up(&self) -> bool {
        false
    }

    /// Takes such a slice back. False: it could not be had.
    fn regain(&self) -> bool {
        false
    }

    /// Bytes of them that are given up.
    fn missing(&self) -> u64 {
        0
    }
}

/// A file in a directory.
#[derive(Debug)]
pub(in crate::store) struct InDirectory {
    file: PathBuf,
    ballast: Option<Ballast>,
    /// Held as long as this lives: while the file is opened again after a full disk its own lock is not.
    _lock: Option<fs::File>,
}

impl InDirectory {
    /// A file that nobody else has heard of.
    pub(in crate::store) fn new(file: PathBuf) -> Self {
        Self {
            file,
            ballast: None,
            _lock: None,
        }
    }

    /// The one of this name in a directory that is there, for ourselves alone, with room that is kept under the name `spare`;
    /// `None` if somebody else has it.
    pub(super) fn claim(directory: &Path, name: &str, spare: &str) -> io::Result<Option<Self>> {
        let lock = fs::File::open(directory)?;
        // Some file systems have no such locks, or none of directories: the file's own has to do there.
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
            return Ok(None);
        }
        Ok(Some(Self {
            ballast: Some(Ballast::new(directory.join(spare))),
            _lock: Some(lock),
            ..Self::new(directory.join(name))
        }))
    }
}

impl Medium for InDirectory {
    fn open(&self, missing: Missing) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = fs::OpenOptions::new();
        // Who is where is nobody else's business.
        let file = options
            .read(true)
            .write(true)
            .create(missing == Missing::IsMade)
            .truncate(false)
            .mode(0o600)
            .open(&self.file)?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn free(&self) -> Option<u64> {
        // Some file systems have no sizes, and say zero.
        let found = rustix::fs::statvfs(self.file.parent()?)
            .ok()
            .filter(|found| found.f_blocks > 0)?;
        // What is left for us and not for root alone.
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn distrust(&self) {
        // What was not written yet stays in memory, and is not lost yet either.
        if let Ok(file) = fs::File::open(&self.file) {
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        }
    }

    fn give_up(&self) -> bool {
        self.ballast.as_ref().is_some_and(Ballast::give_up)
    }

    fn regain(&self) -> bool {
        self.ballast.as_ref().is_some_and(Ballast::regain)
    }

    fn missing(&self) -> u64 {
        self.ballast.as_ref().map_or(0, Ballast::missing)
    }
}

/// Whether an error says that there is no room.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The worst that went wrong since the file was opened.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    worst: AtomicU8,
    root: AtomicU8,
}

const NO_ROOM: u8 = 1;
const OTHER: u8 = 2;

/// Where redb names its root, in a header that is written to begin with and synced with the rest.
const ROOT: u64 = 0;
const WRITTEN: u8 = 1;
const SYNCED: u8 = 2;

impl Failure {
    /// Whether this came of a write that found no room, and of nothing else. redb also writes what it need not, goes on when that
    /// fails, and says nothing: a failure is no proof of what failed later.
    pub(super) fn is_no_room(&self, fault: &Fault) -> bool {
        let fits = match fault {
            Fault::Engine(redb::Error::Io(error)) => is_no_room(error),
            Fault::Engine(redb::Error::PreviousIo) => true,
            _ => false,
        };
        fits && self.0.worst.load(Ordering::Acquire) == NO_ROOM
    }

    /// A transaction begins.
    pub(super) fn begin(&self) {
        self.0.root.store(0, Ordering::Release);
    }

    /// Whether the transaction that failed may be durable all the same: redb has work to do after the fsync.
    pub(super) fn root_is_synced(&self) -> bool {
        self.0.root.load(Ordering::Acquire) == SYNCED
    }

    fn note(&self, what: u8) {
        // The worst and not the first: that one may have been of a write that redb did not need.
        self.0.worst.fetch_max(what, Ordering::AcqRel);
    }

    fn written<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.note(if is_no_room(error) { NO_ROOM } else { OTHER });
        }
        result
    }

    /// Of anything but a write: an fsync too, for what it has lost the next one does not miss.
    fn done<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.note(OTHER);
        }
        result
    }
}

/// Storage that is looked after.
#[derive(Debug)]
pub(super) struct Watched {
    /// What is looked after.
    pub(super) inner: Box<dyn StorageBackend>,
    /// Where failures are noted.
    pub(super) failure: Failure,
}

type Locked<T> = Result<T, BackendError>;

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.failure.done(self.inner.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.failure.done(self.inner.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.failure.written(self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.failure.done(self.inner.sync_data())?;
        let root = &self.failure.0.root;
        let _ = root.compare_exchange(WRITTEN, SYNCED, Ordering::AcqRel, Ordering::Acquire);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.failure.written(self.inner.write(offset, data))?;
        if offset == ROOT {
            self.failure.0.root.fetch_max(WRITTEN, Ordering::AcqRel);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.inner.query_lock_range(start, end)
    }
}
