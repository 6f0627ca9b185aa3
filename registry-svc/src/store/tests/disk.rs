//! A disk in memory, as redb's storage: it can lose its power, once, at any operation, and have room for only so much.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use redb::StorageBackend;

use crate::store::embedded::Medium;

/// The unit in which disks write.
const SECTOR: usize = 512;
/// The unit in which file systems give room.
const BLOCK: usize = 4096;

/// See the module. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

/// See [`Disk`].
#[derive(Debug, Default)]
pub(super) struct Platter {
    /// What reads see.
    live: Vec<u8>,
    /// What is safe.
    synced: Vec<u8>,
    /// What is not, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Since the disk was armed.
    operations: Option<usize>,
    /// The operation at which the power is lost, and what decides what is left of what was not synced.
    cut_at: Option<(usize, u64)>,
    /// Groups.
    pub(super) acknowledged: usize,
    /// What the cut left, and how many groups had been acknowledged by then.
    cut: Option<(Vec<u8>, usize)>,
    /// Blocks that may be written to; those that were once stay.
    room: Option<usize>,
    blocks: BTreeMap<usize, ()>,
    /// The next fsync fails, as that of a disk does that is broken.
    breaks: bool,
}

impl Disk {
    /// An empty one that goes on for ever.
    pub(super) fn new() -> Self {
        Self::with(Vec::new())
    }

    /// One with contents.
    pub(super) fn with(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            synced: image.clone(),
            live: image,
            ..Platter::default()
        })))
    }

    /// Its state.
    pub(super) fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("no panic while locked")
    }

    /// From now on operations are counted, and at the given one the power is lost.
    pub(super) fn arm(&self, cut_at: usize, seed: u64) {
        let mut disk = self.lock();
        (disk.operations, disk.cut_at) = (Some(0), Some((cut_at, seed)));
    }

    /// Operations since it was armed.
    pub(super) fn operations(&self) -> usize {
        self.lock().operations.unwrap_or(0)
    }

    /// What the cut left, or leaves if it comes now, and how many groups had been acknowledged.
    pub(super) fn cut(&self) -> (Vec<u8>, usize) {
        let mut disk = self.lock();
        let (acknowledged, seed) = (disk.acknowledged, disk.cut_at.map_or(0, |(_, seed)| seed));
        disk.cut.take().unwrap_or_else(|| (disk.survivors(seed), acknowledged))
    }

    /// Leaves it so many blocks more than it has, or all that it wants.
    pub(super) fn leave(&self, blocks: Option<usize>) {
        let mut disk = self.lock();
        disk.room = blocks.map(|blocks| disk.blocks.len() + blocks);
    }

    /// The next fsync fails.
    pub(super) fn breaks(&self) {
        self.lock().breaks = true;
    }
}

impl Platter {
    fn count(&mut self) {
        let Some(operation) = self.operations else { return };
        if let Some((cut_at, seed)) = self.cut_at
            && operation == cut_at
        {
            self.cut = Some((self.survivors(seed), self.acknowledged));
        }
        self.operations = Some(operation + 1);
    }

    /// What a cut leaves: what was synced, and of the rest any writes in any order, each whole, in part by sectors, with bits
    /// that are wrong, or not at all.
    fn survivors(&self, seed: u64) -> Vec<u8> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut image = self.synced.clone();
        // The length of a file is metadata that survives with its last change, or does not.
        if image.len() < self.live.len() && random.random() {
            image.resize(self.live.len(), 0);
        }
        let mut writes: Vec<_> = self.unsynced.iter().collect();
        if random.random() {
            for n in (1..writes.len()).rev() {
                writes.swap(n, random.random_range(0..=n));
            }
        }
        // How much a disk has written by itself varies from all to nothing.
        let written = random.random_range(0.0..=1.0);
        for (at, bytes) in writes {
            if !random.random_bool(written) {
                continue;
            }
            let torn = random.random_bool(0.3);
            for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                if torn && random.random() {
                    continue;
                }
                let at = at + n * SECTOR;
                if image.len() < at + sector.len() {
                    image.resize(at + sector.len(), 0);
                }
                image[at..at + sector.len()].copy_from_slice(sector);
                // Not of the first sector: redb checks all it writes but where it begins to look.
                if at >= SECTOR && random.random_bool(0.01) {
                    image[at + random.random_range(0..sector.len())] ^= 1 << random.random_range(0..8_u32);
                }
            }
        }
        image
    }

    /// Gives room to what is written.
    fn allocate(&mut self, at: usize, length: usize) -> io::Result<()> {
        for block in at / BLOCK..=(at + length.max(1) - 1) / BLOCK {
            if self.blocks.contains_key(&block) {
                continue;
            }
            if self.room.is_some_and(|room| self.blocks.len() >= room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.blocks.insert(block, ());
        }
        Ok(())
    }
}

impl Medium for Disk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.clone()))
    }

    fn free(&self) -> Option<u64> {
        // Others fill it up between the look and the leap: what is asked here is never the truth.
        None
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
        // What is cut off gives its room back; what is added is a hole.
        disk.blocks.split_off(&len.div_ceil(BLOCK));
        disk.live.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.lock();
        disk.count();
        if std::mem::take(&mut disk.breaks) {
            return Err(io::Error::from_raw_os_error(5));
        }
        disk.synced = disk.live.clone();
        disk.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small");
        let mut disk = self.lock();
        disk.count();
        disk.allocate(at, data.len())?;
        disk.live[at..at + data.len()].copy_from_slice(data);
        disk.unsynced.push((at, data.to_vec()));
        Ok(())
    }
}
