//! What was encoded for one watcher, kept for the others who are told the same.
//!
//! A change to a service with a thousand watchers is encoded once and copied or shared a thousand times. The hub does not know
//! how: what it keeps are opaque bytes that the `api` makes. The first who wants them makes them, outside of the hub's lock;
//! who wants the same at the same moment waits for that, and nobody else does.
//!
//! Bounded by bytes for the whole hub, the oldest go first: watchers that keep up are told a change within milliseconds of
//! each other, and for one that does not, encoding again costs what it always did. Not weak references to what is still being
//! sent: of a small message nothing is, by the time that the next watcher comes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;

use crate::model::Revision;

/// Bytes that are kept: the snapshots of a few hundred services of usual size, which is a reconnect storm, or eight parts of
/// very large ones.
const KEPT_BYTES: usize = 8 * 1_024 * 1_024;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 160;

/// What was encoded: all of a revision, or a part of a snapshot by the revision of its content, as one feed sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The feed's number.
    pub(super) feed: u64,
    /// Of this revision.
    pub(super) revision: Revision,
    /// The number of the part; `None`: the delta.
    pub(super) part: Option<usize>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Encodings(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Key, Arc<OnceLock<Bytes>>>,
    /// Those that are made, oldest first, with their cost.
    made: VecDeque<(Key, usize)>,
    bytes: usize,
}

impl Encodings {
    /// The bytes of this key, made now if they are not there.
    pub(super) fn get(&self, key: Key, make: impl FnOnce() -> Bytes) -> Bytes {
        let slot = Arc::clone(self.lock().by_key.entry(key).or_default());
        if let Some(bytes) = slot.get() {
            return bytes.clone();
        }
        let mut is_mine = false;
        let bytes = slot.get_or_init(|| {
            is_mine = true;
            make()
        });
        if is_mine {
            self.lock().add(key, bytes.len() + ENTRY_BYTES);
        }
        bytes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let kept = self.lock();
        assert_eq!(kept.made.len(), kept.by_key.len(), "no entry is forgotten");
        assert_eq!(kept.bytes, kept.made.iter().map(|(_, cost)| cost).sum::<usize>());
        kept.bytes
    }
}

impl Kept {
    fn add(&mut self, key: Key, cost: usize) {
        self.made.push_back((key, cost));
        self.bytes += cost;
        while self.bytes > KEPT_BYTES
            && let Some((oldest, cost)) = self.made.pop_front()
        {
            self.by_key.remove(&oldest);
            self.bytes -= cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(revision: u64) -> Key {
        Key {
            feed: 1,
            revision: Revision::new(revision),
            part: None,
        }
    }

    #[test]
    fn the_same_is_made_once() {
        let encodings = Encodings::default();
        let made = encodings.get(key(1), || Bytes::from_static(b"one"));
        let again = encodings.get(key(1), || panic!("it is there"));
        assert_eq!(made.as_ptr(), again.as_ptr(), "shared, not copied");
        for other in [
            key(2),
            Key { feed: 2, ..key(1) },
            Key {
                part: Some(0),
                ..key(1)
            },
        ] {
            assert_eq!(encodings.get(other, || Bytes::from_static(b"other")), "other");
        }
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let encodings = Encodings::default();
        let quarter = Bytes::from(vec![0; KEPT_BYTES / 4]);
        for revision in 1..=4 {
            encodings.get(key(revision), || quarter.clone());
            assert!(encodings.bytes() <= KEPT_BYTES);
        }
        encodings.get(key(4), || panic!("the newest is kept"));
        let mut made_again = false;
        encodings.get(key(1), || {
            made_again = true;
            Bytes::new()
        });
        assert!(made_again);
        encodings.get(key(5), || Bytes::from(vec![0; KEPT_BYTES * 2]));
        assert_eq!(encodings.bytes(), 0, "what is larger than all is not kept");
    }
}
