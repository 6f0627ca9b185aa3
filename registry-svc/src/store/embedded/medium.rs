//! What the store's file lies on, and what went wrong there. It knows nothing of the file's contents.
//!
//! redb says that a write failed but not which, and after any failure it answers nothing more until it is opened again. So
//! its storage is looked after on the way: a write for which there was no room leaves what was durable as it was, and the file
//! can be opened again; after a failed fsync nothing is known any more.

use std::{
    fmt::Debug,
    fs, io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use redb::{BackendError, StorageBackend, backends::FileBackend};

/// Where the file is.
pub(in crate::store) trait Medium: Debug + Send {
    /// Opens the file, or makes it.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Bytes that may still be written there; `None` where that cannot be told.
    fn free(&self) -> Option<u64>;
}

/// A file in a directory.
#[derive(Debug)]
pub(in crate::store) struct InDirectory(pub(in crate::store) PathBuf);

impl Medium for InDirectory {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = fs::OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.0)?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.0.parent()?).ok()?;
        // What is left for us and not for root alone.
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// What went wrong first since the file was opened.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<AtomicU8>);

const NONE: u8 = 0;
const NO_ROOM: u8 = 1;
const OTHER: u8 = 2;

impl Failure {
    /// Whether it was a write that found no room.
    pub(super) fn is_no_room(&self) -> bool {
        self.0.load(Ordering::Acquire) == NO_ROOM
    }

    fn note(&self, what: u8) {
        // The later ones are consequences.
        let _ = self.0.compare_exchange(NONE, what, Ordering::AcqRel, Ordering::Acquire);
    }

    fn written<T>(&self, result: io::Result<T>) -> io::Result<T> {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        if let Err(error) = &result {
            let no_room = matches!(error.kind(), StorageFull | QuotaExceeded);
            self.note(if no_room { NO_ROOM } else { OTHER });
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
        self.failure.done(self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.failure.written(self.inner.write(offset, data))
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
