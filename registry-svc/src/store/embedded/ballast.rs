//! Room that is kept for those who make some: a file beside the store's, cut off a slice at a time when a deregistration or the
//! opening of the store finds none, and filled again when there is enough.
//!
//! It has no contents that matter, so nothing of it is promised, and an error here is never the end. Its state is its length. It
//! is opened by its name each time: an operator in need may delete it, and it is made again.

use std::{
    fs, io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use rustix::fs::OFlags;
use tracing::{info, warn};

/// A commit of a deregistration takes some 100 KiB, and what it makes free carries the next.
const SLICE: usize = 1024 * 1024;
/// What others do with the room of one, this process does not get: so several, one after the other.
const SLICES: u64 = 4;
const WHOLE: u64 = SLICES * SLICE as u64;

/// See the module.
#[derive(Debug)]
pub(super) struct Ballast {
    file: PathBuf,
}

impl Ballast {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Bytes that it lacks.
    pub(super) fn missing(&self) -> u64 {
        // One that is not a file is nothing that was kept.
        let kept = fs::symlink_metadata(&self.file).map_or(0, |found| if found.is_file() { found.len() } else { 0 });
        WHOLE.saturating_sub(kept)
    }

    /// Gives a slice to whoever needs it. False: there was none.
    pub(super) fn give_up(&self) -> bool {
        let given = self.open(false).and_then(|(file, length)| {
            let shorter = length.saturating_sub(1) / SLICE as u64 * SLICE as u64;
            file.set_len(shorter)?;
            // Some file systems give room to others only when they have forgotten on the disk whose it was.
            let _ = file.sync_all();
            Ok((length, shorter))
        });
        match given {
            Ok((0, _)) => false,
            Ok((_, left)) => {
                warn!(file = %self.file.display(), left, "the disk is full: room was given up that was kept for this");
                true
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(file = %self.file.display(), %error, "the room that was kept for a full disk cannot be given up");
                }
                false
            }
        }
    }

    /// Takes a slice. False: it could not be had.
    pub(super) fn regain(&self) -> bool {
        let taken = self.open(true).and_then(|(file, length)| {
            let whole = length / SLICE as u64 * SLICE as u64;
            // Random, or a file system that packs would give more than it has.
            let bytes: Vec<u8> = (0..SLICE / 16)
                .flat_map(|_| rand::random::<u128>().to_le_bytes())
                .collect();
            let written = file.write_all_at(&bytes, whole).and_then(|()| file.sync_data());
            if written.is_err() {
                let _ = file.set_len(whole);
            }
            written
        });
        if taken.is_ok() && self.missing() == 0 {
            info!(file = %self.file.display(), "room is kept again for when the disk is full");
        }
        taken.is_ok()
    }

    fn open(&self, make: bool) -> io::Result<(fs::File, u64)> {
        // Somebody may have put anything there; a pipe would keep us waiting.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = fs::OpenOptions::new()
            .write(true)
            .create(make)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed())
            .open(&self.file)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok((file, found.len()))
    }
}
