//! A backup that is being written.

use std::{
    fmt, fs,
    io::{self, BufReader, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use super::{Error, Summary, io_at, of};
use crate::store::{self, names::Unnamed};

/// A backup that is being written. It gets its name when it is known to be whole; dropped before that it leaves nothing.
pub struct Unfinished {
    part: Unnamed,
    name: PathBuf,
}

impl Unfinished {
    /// Beside the name that it is to have.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Busy`], [`Error::Io`].
    pub fn create(name: &Path) -> Result<Self, Error> {
        let exists = |path: &Path| Error::Exists { path: path.to_owned() };
        // Looked at before there is anything to throw away; what comes meanwhile is not replaced either.
        if fs::symlink_metadata(name).is_ok() {
            return Err(exists(name));
        }
        let mut part = name.as_os_str().to_owned();
        part.push(".part");
        let part = Path::new(&part);
        let claimed = Unnamed::claim(part).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(part),
            io::ErrorKind::ResourceBusy => Error::Busy { path: name.to_owned() },
            _ => io_at(part)(error),
        })?;
        Ok(Self {
            part: claimed,
            name: name.to_owned(),
        })
    }

    /// The next bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.part.file().write_all(bytes).map_err(io_at(self.part.path()))
    }

    /// All is written: reads it, makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`enum@Error`], and there is no backup.
    pub fn finish(self) -> Result<Summary, Error> {
        let Self { part, name } = self;
        // What was written here, whatever lies at that name by now.
        part.file().rewind().map_err(io_at(part.path()))?;
        let contents = store::verify(BufReader::new(part.file())).map_err(|error| of(part.path(), error.into()))?;
        part.file().sync_all().map_err(io_at(part.path()))?;
        part.name(&name).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { path: name },
            _ => io_at(&name)(error),
        })?;
        Ok(contents.into())
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unfinished")
            .field("part", &self.part.path())
            .finish_non_exhaustive()
    }
}
