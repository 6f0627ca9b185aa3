//! A hierarchical timing wheel (Varghese and Lauck 1987): who is due when, at a constant cost each, however many there are.
//!
//! Time is counted in ticks of [`TICK`]. Four levels of 256 slots cover 32 bits of them: an entry stands on the level of the
//! highest byte in which its tick differs from the present one, and moves down when the present reaches its slot, three times at
//! the most. It comes out when its tick has begun, which is never before its time and at most a tick after it.
//!
//! Nothing is taken out before its time. Who does not mean an entry any more passes it over when it comes, and has them swept
//! out when there are too many ([`Wheel::retain`]).

use std::time::Duration;

use super::LeaseTime;
use crate::model::LeaseId;

/// How exact it is: well below what a pulse of the driver is.
pub(super) const TICK: Duration = Duration::from_millis(10);

const LEVELS: usize = 4;
const SLOTS: usize = 256;

/// A point in time that an entry can stand at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

/// See the module.
#[derive(Debug)]
pub(super) struct Wheel {
    now: Tick,
    levels: [Level; LEVELS],
    /// Their tick has begun.
    due: Vec<(LeaseId, Tick)>,
    len: usize,
}

#[derive(Debug)]
struct Level {
    slots: Vec<Vec<(LeaseId, Tick)>>,
    /// A bit for each slot that holds something.
    used: [u64; SLOTS / 64],
}

impl Tick {
    /// The first tick that is not before a time.
    pub(super) fn not_before(time: LeaseTime) -> Self {
        Self(ticks(time.nanos().div_ceil(nanos_of_a_tick())))
    }

    /// The tick that a time is in.
    fn of(time: LeaseTime) -> Self {
        Self(ticks(time.nanos() / nanos_of_a_tick()))
    }

    fn time(self) -> LeaseTime {
        LeaseTime::at_nanos(u64::from(self.0) * nanos_of_a_tick())
    }

    fn slot(self, level: usize) -> usize {
        usize::from(self.0.to_le_bytes()[level])
    }
}

fn nanos_of_a_tick() -> u64 {
    u64::from(TICK.subsec_nanos())
}

/// 497 days of lease time fit; a lease that were due later would be looked at then and queued again.
fn ticks(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Level {
    fn new() -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            used: [0; SLOTS / 64],
        }
    }

    fn push(&mut self, slot: usize, entry: (LeaseId, Tick)) {
        self.slots[slot].push(entry);
        self.used[slot / 64] |= 1 << (slot % 64);
    }

    fn take(&mut self, slot: usize) -> Vec<(LeaseId, Tick)> {
        self.used[slot / 64] &= !(1 << (slot % 64));
        std::mem::take(&mut self.slots[slot])
    }

    /// The first slot after one that holds something.
    fn first_after(&self, slot: usize) -> Option<usize> {
        let from = slot + 1;
        for word in from / 64..SLOTS / 64 {
            let mask = if word == from / 64 { !0 << (from % 64) } else { !0 };
            let used = self.used[word] & mask;
            if used != 0 {
                return Some(word * 64 + used.trailing_zeros() as usize);
            }
        }
        None
    }
}

impl Wheel {
    /// Empty, at a time.
    pub(super) fn new(now: LeaseTime) -> Self {
        Self {
            now: Tick::of(now),
            levels: std::array::from_fn(|_| Level::new()),
            due: Vec::new(),
            len: 0,
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, id: LeaseId, at: Tick) {
        self.len += 1;
        self.place((id, at));
    }

    /// Takes one of the entries that are due by now, in any order.
    pub(super) fn pop(&mut self, now: LeaseTime) -> Option<(LeaseId, Tick)> {
        let end = Tick::of(now);
        while self.due.is_empty() && self.now < end {
            self.step();
        }
        let entry = self.due.pop()?;
        self.len -= 1;
        Some(entry)
    }

    /// A time before which nothing is due.
    pub(super) fn next(&self) -> Option<LeaseTime> {
        if !self.due.is_empty() {
            return Some(self.now.time());
        }
        self.levels.iter().enumerate().find_map(|(level, slots)| {
            let slot = slots.first_after(self.now.slot(level))?;
            let mut bytes = self.now.0.to_le_bytes();
            bytes[..level].fill(0);
            bytes[level] = u8::try_from(slot).ok()?;
            Some(Tick(u32::from_le_bytes(bytes)).time())
        })
    }

    /// Keeps only what is meant.
    pub(super) fn retain(&mut self, mut is_meant: impl FnMut(LeaseId, Tick) -> bool) {
        self.due.retain(|(id, at)| is_meant(*id, *at));
        self.len = self.due.len();
        for level in &mut self.levels {
            for slot in 0..SLOTS {
                let entries = &mut level.slots[slot];
                entries.retain(|(id, at)| is_meant(*id, *at));
                entries.shrink_to_fit();
                self.len += entries.len();
                if entries.is_empty() {
                    level.used[slot / 64] &= !(1 << (slot % 64));
                }
            }
        }
    }

    fn place(&mut self, entry: (LeaseId, Tick)) {
        let at = entry.1;
        if at <= self.now {
            self.due.push(entry);
            return;
        }
        let highest = 31 - (at.0 ^ self.now.0).leading_zeros();
        let level = highest as usize / 8;
        self.levels[level].push(at.slot(level), entry);
    }

    fn step(&mut self) {
        self.now.0 += 1;
        // The present has entered a slot of each level whose lower bytes have all become 0.
        for level in 0..LEVELS {
            let entered = self.levels[level].take(self.now.slot(level));
            for entry in entered {
                self.place(entry);
            }
            if self.now.slot(level) != 0 {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> LeaseTime {
        LeaseTime::at_nanos(millis * 1_000_000)
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64),
        Pass(u64),
        Sweep(u128),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let ahead = prop_oneof![0..300_u64, 0..30_000_u64, 0..2_000_000_u64, 0..400_000_000_u64];
        let step = prop_oneof![
            4 => ahead.prop_map(Step::Insert),
            3 => (0..700_u64).prop_map(Step::Pass),
            1 => (0..900_000_u64).prop_map(Step::Pass),
            1 => (2..5_u128).prop_map(Step::Sweep),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against an ordered set: each comes out once, not before its time and less than a tick after it.
        #[test]
        fn behaves_as_an_ordered_set(begin in 0..10_000_000_u64, steps in steps()) {
            let mut now = begin;
            let mut wheel = Wheel::new(at(now));
            let mut model: BTreeSet<(Tick, u128)> = BTreeSet::new();
            for (n, step) in (0..).zip(steps) {
                match step {
                    Step::Insert(ahead) => {
                        let tick = Tick::not_before(at(now + ahead));
                        prop_assert!(tick.time() >= at(now + ahead) && tick.time() < at(now + ahead).plus(TICK));
                        wheel.insert(LeaseId::from_random(n), tick);
                        model.insert((tick, n));
                    }
                    Step::Pass(millis) => now += millis,
                    Step::Sweep(divisor) => {
                        wheel.retain(|id, _| id.bits() % divisor > 0);
                        model.retain(|(_, n)| n % divisor > 0);
                    }
                }
                let mut popped = BTreeSet::new();
                while let Some((id, tick)) = wheel.pop(at(now)) {
                    prop_assert!(popped.insert((tick, id.bits())), "once");
                }
                let due: BTreeSet<_> = model.iter().copied().filter(|(tick, _)| tick.time() <= at(now)).collect();
                prop_assert_eq!(&popped, &due);
                model.retain(|entry| !due.contains(entry));
                prop_assert_eq!(wheel.len(), model.len());
                match (wheel.next(), model.first()) {
                    (None, None) => {}
                    (Some(next), Some((first, _))) => {
                        prop_assert!(next <= first.time(), "nothing is due before it");
                        prop_assert!(next > at(now), "and it is ahead");
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
