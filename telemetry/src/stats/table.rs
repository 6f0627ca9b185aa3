//! All series of a process: found without a lock, bounded in number. Who is new waits for a lock; who is idle for long goes.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use twox_hash::XxHash64;

use super::series::{Delta, Key, Series, Side};
use crate::semconv::OTHER;

/// Series of one process; what comes after shares one for each side. A caller of ten services of ten methods on nine instances
/// has 1,000; each takes 2 KiB for each of at most four threads, so all of them at most 8 MiB.
pub const MAX_SERIES: usize = 1_000;

/// Callers that a provider tells apart. Their names come from the wire: whoever makes names up must not push out the rest.
pub const MAX_CALLERS: usize = 64;

/// Takings without a call after which a series goes: 15 min at the usual interval. Instances come and go, and the table would be
/// full of those that are gone.
const IDLE: u32 = 90;

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    seed: u64,
    known: ArcSwap<Known>,
    /// Held while the table changes. What was taken out of it stays here until nobody holds it: somebody may have found it in the
    /// moment before.
    changing: Mutex<Vec<Arc<Series>>>,
}

/// By hash; those of one hash are told apart by looking.
#[derive(Debug, Clone, Default)]
struct Known {
    by_hash: HashMap<u64, Vec<Arc<Series>>, BuildHasherDefault<Hashed>>,
    len: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            seed: RandomState::new().hash_one(0),
            known: ArcSwap::default(),
            changing: Mutex::default(),
        }
    }

    /// The series of a key. One that is known costs a hash and a look; neither a lock nor memory.
    pub(super) fn of(&self, side: Side, service: &str, method: &str, peer: &str) -> Arc<Series> {
        let hash = self.hash(side, service, method, peer);
        let known = self.known.load();
        match known.find(hash, side, service, method, peer) {
            Some(found) => Arc::clone(found),
            None => self.make(side, service, method, peer),
        }
    }

    #[cold]
    fn make(&self, side: Side, service: &str, method: &str, peer: &str) -> Arc<Series> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.load();
        let (service, method, peer) = if known.len >= MAX_SERIES {
            (if service.is_empty() { "" } else { OTHER }, OTHER, OTHER)
        } else if side == Side::Provider && known.is_crowd(peer) {
            (service, method, OTHER)
        } else {
            (service, method, peer)
        };
        let hash = self.hash(side, service, method, peer);
        if let Some(found) = known.find(hash, side, service, method, peer) {
            return Arc::clone(found);
        }
        let series = Arc::new(Series::new(Key {
            side,
            service: service.into(),
            method: method.into(),
            peer: peer.into(),
        }));
        let mut next = Known::clone(&known);
        next.by_hash.entry(hash).or_default().push(Arc::clone(&series));
        next.len += 1;
        self.known.store(Arc::new(next));
        series
    }

    /// What every series counted since the last time, in the order of their keys.
    pub(super) fn take(&self) -> Vec<Delta> {
        let mut gone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut deltas = Vec::new();
        gone.retain_mut(|series| {
            let is_held = Arc::get_mut(series).is_none();
            deltas.extend(series.take());
            is_held
        });
        let known = self.known.load_full();
        for series in known.by_hash.values().flatten() {
            deltas.extend(series.take());
        }
        // One that is held has a call under way.
        let is_over = |series: &Arc<Series>| series.idle() >= IDLE && Arc::strong_count(series) == 1;
        if known.by_hash.values().flatten().any(is_over) {
            let mut next = Known::default();
            for (hash, all) in &known.by_hash {
                for series in all {
                    if is_over(series) {
                        gone.push(Arc::clone(series));
                    } else {
                        next.by_hash.entry(*hash).or_default().push(Arc::clone(series));
                        next.len += 1;
                    }
                }
            }
            self.known.store(Arc::new(next));
        }
        drop(gone);
        // One that went and came again in between is there twice.
        deltas.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        deltas
    }

    /// XXH64 rather than the standard library's hash, which takes three times as long. Whoever finds names that collide wins
    /// little: the number of callers is bounded, and methods and services are our own.
    fn hash(&self, side: Side, service: &str, method: &str, peer: &str) -> u64 {
        let seed = self.seed.wrapping_add(side as u64);
        let parts = [service, method, peer];
        parts.iter().fold(seed, |seed, part| match part.len() {
            0 => seed.rotate_left(1),
            _ => XxHash64::oneshot(seed, part.as_bytes()),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.known.load().len
    }
}

impl Known {
    fn find(&self, hash: u64, side: Side, service: &str, method: &str, peer: &str) -> Option<&Arc<Series>> {
        let all = self.by_hash.get(&hash)?;
        all.iter().find(|series| series.is_of(side, service, method, peer))
    }

    /// Whether `peer` would be one caller too many.
    fn is_crowd(&self, peer: &str) -> bool {
        let providers = self.by_hash.values().flatten().map(|series| &series.key);
        let callers: BTreeSet<&str> = providers
            .filter(|key| key.side == Side::Provider)
            .map(|key| &*key.peer)
            .collect();
        callers.len() >= MAX_CALLERS && !callers.contains(peer)
    }
}

/// Hashes what is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys are u64; whatever else there may be one day is mixed in, badly but correctly.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn calls(deltas: &[Delta]) -> u64 {
        deltas
            .iter()
            .flat_map(|delta| &delta.codes)
            .map(|(_, count)| count)
            .sum()
    }

    #[test]
    fn what_is_taken_is_what_came_since() {
        let table = Table::new();
        let series = table.of(Side::Caller, "ticket-svc", "a.B/C", "");
        series.record(0, MS);
        series.record(0, 2 * MS);
        series.record(14, MS);
        series.record(99, MS);
        let taken = table.take();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].codes, [(0, 2), (2, 1), (14, 1)]);
        assert_eq!(taken[0].total_micros, 5_000);
        let buckets: u64 = taken[0].latencies.iter().map(|(_, count)| count).sum();
        assert_eq!(buckets, 4);
        assert_eq!(table.take(), []);
        table.of(Side::Caller, "ticket-svc", "a.B/C", "").record(0, MS);
        assert_eq!(table.take()[0].codes, [(0, 1)]);
    }

    #[test]
    fn a_series_too_many_shares_one() {
        let table = Table::new();
        for n in 0..MAX_SERIES + 50 {
            table.of(Side::Attempt, "s", "a.B/C", &n.to_string()).record(0, MS);
        }
        assert_eq!(table.len(), MAX_SERIES + 1);
        let taken = table.take();
        let other = taken.iter().find(|delta| &*delta.key.peer == OTHER).expect("one");
        assert_eq!(other.codes, [(0, 50)]);
        assert_eq!(calls(&taken), MAX_SERIES as u64 + 50);
    }

    #[test]
    fn who_makes_names_up_does_not_push_out_the_others() {
        let table = Table::new();
        for n in 0..10 * MAX_CALLERS {
            table
                .of(Side::Provider, "", "a.B/C", &format!("caller-{n}"))
                .record(0, MS);
        }
        assert_eq!(table.len(), MAX_CALLERS + 1);
        table.of(Side::Provider, "", "a.B/D", "caller-1").record(0, MS);
        let taken = table.take();
        assert!(
            taken
                .iter()
                .any(|delta| &*delta.key.method == "a.B/D" && &*delta.key.peer == "caller-1")
        );
    }

    #[test]
    fn who_is_idle_goes_and_may_come_again() {
        let table = Table::new();
        table.of(Side::Caller, "s", "a.B/C", "").record(0, MS);
        let held = table.of(Side::Caller, "s", "a.B/Stream", "");
        for _ in 0..=IDLE + 1 {
            table.take();
        }
        assert_eq!(table.len(), 1, "a call is under way in the other one");
        held.record(0, MS);
        table.of(Side::Caller, "s", "a.B/C", "").record(0, MS);
        assert_eq!(calls(&table.take()), 2);
    }

    #[test]
    fn nothing_is_lost_between_those_who_count_and_the_one_who_takes() {
        const EACH: u64 = 20_000;
        let table = Table::new();
        let (mut counted, mut timed) = (0, 0);
        thread::scope(|scope| {
            let recorders: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for n in 0..EACH {
                            let method = if n % 2 == 0 { "a.B/C" } else { "a.B/D" };
                            table.of(Side::Caller, "s", method, "").record(0, MS);
                        }
                    })
                })
                .collect();
            let mut take = || {
                let taken = table.take();
                counted += calls(&taken);
                timed += taken
                    .iter()
                    .flat_map(|delta| &delta.latencies)
                    .map(|(_, count)| count)
                    .sum::<u64>();
            };
            while recorders.iter().any(|recorder| !recorder.is_finished()) {
                take();
            }
            take();
        });
        assert_eq!((counted, timed), (4 * EACH, 4 * EACH));
    }
}
