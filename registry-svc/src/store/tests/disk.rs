//! A disk in memory, as redb's storage: it can lose its power, once, at any operation, and have room for only so much.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use redb::StorageBackend;

use crate::store::embedded::{Medium, medium::Missing};

/// The unit in which disks write.
const SECTOR: usize = 512;
/// The unit in which file systems give room.
const BLOCK: usize = 4096;

/// See the module. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

/// See [`Disk`].
#[derive(Debug, Default)]
struct Platter {
    state: State,
    /// What was done since it was armed, and what it was then.
    recorded: Option<(State, Vec<Operation>)>,
    /// Blocks that may be written to; those that were once stay.
    room: Option<usize>,
    blocks: BTreeSet<usize>,
    /// What the next fsync fails of, as that of a disk does that is broken.
    breaks: Option<i32>,
    /// What finds no room, also where some was before.
    stuck: Late,
    /// What will not after the next fsync of a commit.
    late: Late,
    /// The root was written since the last fsync.
    rooted: bool,
    /// How often that was.
    failed_late: usize,
    /// Slices that are kept for when it is full, of how many, and of so many blocks each.
    spare: (usize, usize, usize),
    /// It says how much room it has.
    tells: bool,
    /// How often its file was opened.
    opened: usize,
}

/// Whether room is lacking only after the fsync that makes a commit durable: redb has pages to write and may cut the file off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Late {
    /// It is not.
    #[default]
    Never,
    /// For a single write.
    Once,
    /// For all that comes.
    FromThenOn,
}

/// What is on a disk.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// What reads see.
    live: Vec<u8>,
    /// What is safe.
    synced: Vec<u8>,
    /// What is not, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Groups.
    pub(super) acknowledged: usize,
}

/// What is done to it.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// It is cut off, or holes are added.
    SetLength(usize),
    /// Where, and what.
    Write(usize, Vec<u8>),
    /// All that was written is safe.
    Sync,
    /// A group has been acknowledged.
    Acknowledge,
}

impl Disk {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self::with(Vec::new())
    }

    /// One with contents.
    pub(super) fn with(image: Vec<u8>) -> Self {
        let state = State {
            synced: image.clone(),
            live: image,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(Platter {
            state,
            ..Platter::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("no panic while locked")
    }

    /// From now on everything is recorded.
    pub(super) fn record(&self) {
        let mut disk = self.lock();
        disk.recorded = Some((disk.state.clone(), Vec::new()));
    }

    /// What it was when that began, and what was done to it.
    pub(super) fn recorded(&self) -> (State, Vec<Operation>) {
        self.lock().recorded.take().expect("was recorded")
    }

    /// A group has been acknowledged.
    pub(super) fn acknowledge(&self) {
        self.lock().perform(Operation::Acknowledge);
    }

    /// Leaves it so many blocks more than it has, or all that it wants.
    pub(super) fn leave(&self, blocks: Option<usize>) {
        let mut disk = self.lock();
        disk.room = blocks.map(|blocks| disk.blocks.len() + blocks);
        disk.stuck = Late::Never;
    }

    /// What becomes of the next commit, and of nothing that is under way.
    pub(super) fn late(&self, late: Late) {
        let mut disk = self.lock();
        (disk.late, disk.stuck, disk.rooted) = (late, Late::Never, false);
    }

    /// How many writes failed for that.
    pub(super) fn failed_late(&self) -> usize {
        self.lock().failed_late
    }

    /// From now on nothing can be written, also where something was before.
    pub(super) fn sticks(&self) {
        self.lock().stuck = Late::FromThenOn;
    }

    /// So many slices of so many blocks are kept for when it is full.
    pub(super) fn keeps(&self, slices: usize, blocks: usize) {
        self.lock().spare = (slices, slices, blocks);
    }

    /// How many slices it still has.
    pub(super) fn kept(&self) -> usize {
        self.lock().spare.0
    }

    /// Gives one of them up.
    pub(super) fn gives(&self) {
        assert!(Medium::give_up(self));
    }

    /// From now on it says how much room it has.
    pub(super) fn tells(&self) {
        self.lock().tells = true;
    }

    /// How often its file was opened.
    pub(super) fn opened(&self) -> usize {
        self.lock().opened
    }

    /// All that is on it.
    pub(super) fn image(&self) -> Vec<u8> {
        self.lock().state.live.clone()
    }

    /// Somebody puts another file in the place of this one, or, with nothing in it, none.
    pub(super) fn exchange(&self, image: Vec<u8>) {
        let other = Self::with(image);
        *self.lock() = std::mem::take(&mut *other.lock());
    }

    /// The next fsync fails with this error of the system.
    pub(super) fn breaks(&self, error: i32) {
        self.lock().breaks = Some(error);
    }
}

impl Platter {
    fn perform(&mut self, operation: Operation) {
        self.state.perform(&operation);
        if let Some((_, operations)) = &mut self.recorded {
            operations.push(operation);
        }
    }

    /// Whether anything can be written.
    fn finds_room(&mut self) -> io::Result<()> {
        match self.stuck {
            Late::Never => return Ok(()),
            Late::Once => self.stuck = Late::Never,
            Late::FromThenOn => {}
        }
        self.failed_late += 1;
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Gives room to what is written.
    fn allocate(&mut self, at: usize, length: usize) -> io::Result<()> {
        self.finds_room()?;
        for block in at / BLOCK..=(at + length.max(1) - 1) / BLOCK {
            if self.blocks.contains(&block) {
                continue;
            }
            if self.room.is_some_and(|room| self.blocks.len() >= room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.blocks.insert(block);
        }
        Ok(())
    }
}

impl State {
    /// What is there once all of it is written that has not been lost.
    fn safe(&self) -> Vec<u8> {
        let mut image = self.synced.clone();
        image.resize(self.live.len(), 0);
        for (at, bytes) in &self.unsynced {
            if let Some(found) = image.get_mut(*at..at + bytes.len()) {
                found.copy_from_slice(bytes);
            }
        }
        image
    }

    /// Does one thing to it.
    pub(super) fn perform(&mut self, operation: &Operation) {
        match operation {
            Operation::SetLength(length) => self.live.resize(*length, 0),
            Operation::Write(at, bytes) => {
                self.live[*at..at + bytes.len()].copy_from_slice(bytes);
                self.unsynced.push((*at, bytes.clone()));
            }
            Operation::Sync => {
                self.synced = self.safe();
                self.unsynced.clear();
            }
            Operation::Acknowledge => self.acknowledged += 1,
        }
    }

    /// What a cut of the power leaves now: what was synced, and of the rest any writes in any order, each whole, in part by
    /// sectors, with bits that are wrong, or not at all.
    pub(super) fn survivors(&self, seed: u64) -> Vec<u8> {
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
}

impl Medium for Disk {
    fn open(&self, missing: Missing) -> io::Result<Box<dyn StorageBackend>> {
        if missing == Missing::IsAnError && self.lock().state.live.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.lock().opened += 1;
        Ok(Box::new(self.clone()))
    }

    fn free(&self) -> Option<u64> {
        let disk = self.lock();
        // As a rule others fill it up between the look and the leap: what is asked here is not the truth.
        let free = |room: usize| (room.saturating_sub(disk.blocks.len()) * BLOCK) as u64;
        disk.tells.then(|| disk.room.map_or(u64::MAX, free))
    }

    fn distrust(&self) {
        let mut disk = self.lock();
        disk.state.live = disk.state.safe();
    }

    fn give_up(&self) -> bool {
        let mut disk = self.lock();
        let (kept, of, blocks) = disk.spare;
        if kept == 0 {
            return false;
        }
        disk.spare = (kept - 1, of, blocks);
        if blocks > 0 {
            disk.stuck = Late::Never;
        }
        disk.room = disk.room.map(|room| room + blocks);
        true
    }

    fn regain(&self) -> bool {
        let mut disk = self.lock();
        let (kept, of, blocks) = disk.spare;
        disk.room = disk.room.map(|room| room - blocks);
        disk.spare = (kept + 1, of, blocks);
        true
    }

    fn missing(&self) -> u64 {
        let (kept, of, blocks) = self.lock().spare;
        ((of - kept) * blocks * BLOCK) as u64
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().state.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small");
        let disk = self.lock();
        let found = disk.state.live.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).expect("small");
        let mut disk = self.lock();
        disk.finds_room()?;
        // What is cut off gives its room back; what is added is a hole.
        disk.blocks.split_off(&len.div_ceil(BLOCK));
        disk.perform(Operation::SetLength(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.lock();
        if let Some(error) = disk.breaks.take() {
            // What was to be written is lost, and is still seen in memory.
            disk.state.unsynced.clear();
            return Err(io::Error::from_raw_os_error(error));
        }
        disk.perform(Operation::Sync);
        if std::mem::take(&mut disk.rooted) && disk.late != Late::Never {
            disk.stuck = std::mem::take(&mut disk.late);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small");
        let mut disk = self.lock();
        disk.allocate(at, data.len())?;
        disk.rooted |= at == 0;
        disk.perform(Operation::Write(at, data.to_vec()));
        Ok(())
    }
}
