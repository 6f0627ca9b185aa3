//! The names of files and directories: that they reach the disk as a file's contents do, that one is never taken from a file
//! that has it, and that a file which is not whole has none.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

/// Others may come between a look and what follows from it; not so often.
const TRIES: usize = 8;

/// Makes a directory and those above it. Returns how many there were to make.
pub(crate) fn make(directory: &Path) -> io::Result<usize> {
    let missing = directory
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing = missing.count();
    fs::create_dir_all(directory)?;
    Ok(missing)
}

/// A file's name is in its directory, which has an fsync of its own, and so is the directory's in the one above. At each open
/// and not only when something was made: a crash may have come between making it and this.
pub(crate) fn sync(directory: &Path, made: usize) -> io::Result<()> {
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

/// Makes the name of a file durable. A directory that we may write but not read cannot be asked for that, and is not.
pub(crate) fn sync_of(file: &Path) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match fs::File::open(directory) {
        Ok(directory) => directory.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file that is being written. Dropped before it has got its name it leaves nothing.
#[derive(Debug)]
pub(crate) struct Unnamed {
    file: fs::File,
    path: PathBuf,
    named: bool,
}

impl Unnamed {
    /// Makes it, where nothing is, for us alone: who is where is nobody else's business.
    pub(crate) fn create(path: PathBuf) -> io::Result<Self> {
        // Where something is, be it a link to nothing, this fails.
        let mut options = fs::OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            file,
            path,
            named: false,
        })
    }

    /// Makes it in the place of what a crash has left there. What another process writes is busy, and what is no file is in the
    /// way ([`io::ErrorKind::ResourceBusy`], [`io::ErrorKind::AlreadyExists`]): both are left alone.
    pub(crate) fn claim(path: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            match Self::create(path.to_owned()) {
                Ok(mut claimed) => {
                    if is_ours(&claimed.file)? && is_at(&claimed.file, path)? {
                        return Ok(claimed);
                    }
                    // Before it was locked somebody took it for what a crash had left. What is there now is theirs.
                    claimed.named = true;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_left(path)?,
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// To write it, and to read what was written.
    pub(crate) fn file(&self) -> &fs::File {
        &self.file
    }

    /// Where it is until then.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, for good when this returns. [`io::ErrorKind::AlreadyExists`] if something has that.
    pub(crate) fn name(mut self, name: &Path) -> io::Result<()> {
        rename(&self.path, name)?;
        self.named = true;
        sync_of(name).inspect_err(|_| {
            // It may be gone after a power cut: then it is not to be relied on before.
            let _ = fs::remove_file(name);
        })
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what a process has left that is no more. Those that live hold the lock of what they write.
fn remove_left(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let left = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(left) => fs::File::from(left),
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !is_ours(&left)? {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    if is_at(&left, path)? {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Locks a file for as long as it is open here. False: another process has it.
fn is_ours(file: &fs::File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        // A file system without locks: two at once are then not kept apart.
        Ok(()) | Err(Errno::NOSYS | Errno::NOTSUP | Errno::NOLCK | Errno::INVAL) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether what is there is this file still.
fn is_at(file: &fs::File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Renames a file, and never replaces one.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags};
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system and kernel can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return Ok(done?),
        }
    }
    link(from, to)
}

/// The same for file systems that cannot rename so: a link never replaces anything. Those that have no links either are left
/// with a look before.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, PermissionDenied, Unsupported};
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if matches!(error.kind(), PermissionDenied | Unsupported) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn a_name_is_never_taken_from_a_file_that_has_it() {
        for give in [rename, link] {
            let folder = folder();
            let (from, to) = (folder.path().join("from"), folder.path().join("to"));
            fs::write(&from, "new").expect("writes");
            fs::write(&to, "old").expect("writes");
            let error = give(&from, &to).expect_err("is there");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
            assert_eq!(fs::read(&to).expect("reads"), b"old");
            fs::remove_file(&to).expect("removes");
            give(&from, &to).expect("is free");
            assert_eq!(fs::read(&to).expect("reads"), b"new");
            assert!(!from.exists());
        }
    }

    /// What lay at the temporary name was opened whatever it was: a link that somebody had planted was followed, and a file of
    /// before kept the mode that it had.
    #[test]
    fn what_is_at_the_temporary_name_is_not_written_to() {
        let folder = folder();
        let (path, victim) = (folder.path().join("x.part"), folder.path().join("victim"));
        fs::write(&victim, "mine").expect("writes");
        symlink(&victim, &path).expect("links");
        let error = Unnamed::claim(&path).expect_err("no file");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
        fs::remove_file(&path).expect("removes");

        // What a crash has left, and a second name of something else.
        fs::hard_link(&victim, &path).expect("links");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("allows");
        let unnamed = Unnamed::claim(&path).expect("nobody has it");
        unnamed.file().write_all(b"ours").expect("writes");
        assert_eq!(unnamed.file().metadata().expect("is there").mode() & 0o777, 0o600);
        assert_eq!(fs::read(&victim).expect("reads"), b"mine");
    }

    #[test]
    fn one_at_a_time_writes_what_is_to_have_a_name() {
        let folder = folder();
        let (path, name) = (folder.path().join("x.part"), folder.path().join("x"));
        let first = Unnamed::claim(&path).expect("nobody has it");
        let error = Unnamed::claim(&path).expect_err("the first has it");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
        assert!(path.exists(), "it is left alone");
        drop(first);
        assert!(!path.exists());
        let second = Unnamed::claim(&path).expect("nobody has it");
        second.name(&name).expect("is free");
        assert!(name.exists() && !path.exists());
    }
}
