//! A disk in memory that loses its power once, as redb's storage.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::StorageBackend;

/// A disk in memory that loses its power once.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

/// See [`Disk`].
#[derive(Debug)]
pub(super) struct Platter {
    /// What reads see.
    pub(super) live: Vec<u8>,
    /// What is safe.
    synced: Vec<u8>,
    /// What is not, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Decides, write by write, what of the unsynced survives: all, nothing, or the first half.
    keeps: Vec<u8>,
    /// Operations are counted from here on.
    pub(super) armed: bool,
    operations: usize,
    cut_at: usize,
    /// Groups.
    pub(super) acknowledged: usize,
    /// What the cut left, and how many groups had been acknowledged by then.
    pub(super) cut: Option<(Vec<u8>, usize)>,
}

impl Disk {
    /// Loses its power at so many operations after it is armed.
    pub(super) fn new(cut_at: usize, keeps: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            live: Vec::new(),
            synced: Vec::new(),
            unsynced: Vec::new(),
            keeps,
            armed: false,
            operations: 0,
            cut_at,
            acknowledged: 0,
            cut: None,
        })))
    }

    /// Its state.
    pub(super) fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("no panic while locked")
    }
}

impl Platter {
    fn count(&mut self) {
        if !self.armed {
            return;
        }
        if self.operations == self.cut_at {
            self.cut = Some((self.survivors(), self.acknowledged));
        }
        self.operations += 1;
    }

    /// What a cut would leave now.
    pub(super) fn survivors(&self) -> Vec<u8> {
        let mut image = self.synced.clone();
        for (n, (at, bytes)) in self.unsynced.iter().enumerate() {
            let kept = match self.keeps[n % self.keeps.len()] % 3 {
                0 => &bytes[..],
                1 => &bytes[..bytes.len() / 2],
                _ => &[],
            };
            if image.len() < at + kept.len() {
                image.resize(at + kept.len(), 0);
            }
            image[*at..at + kept.len()].copy_from_slice(kept);
        }
        // The length of a file is metadata that survives with its last change.
        if image.len() < self.live.len() {
            image.resize(self.live.len(), 0);
        }
        image
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small");
        let disk = self.lock();
        let found = disk.live.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).expect("small");
        let mut disk = self.lock();
        disk.count();
        disk.live.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.lock();
        disk.count();
        disk.synced = disk.live.clone();
        disk.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small");
        let mut disk = self.lock();
        disk.count();
        disk.live[at..at + data.len()].copy_from_slice(data);
        disk.unsynced.push((at, data.to_vec()));
        Ok(())
    }
}
