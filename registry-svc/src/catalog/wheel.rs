//! A hierarchical timing wheel (Varghese and Lauck 1987): who is due when, at a constant cost each, however many there are.
//!
//! Time is counted in ticks of [`TICK`]. Four levels of 256 slots cover 32 bits of them: an entry stands on the level of the
//! highest byte in which its tick differs from the present one, and moves down when the present reaches its slot, three times at
//! the most. It comes out when its tick has begun, which is never before its time and at most a tick after it.
//!
//! An entry keeps 32 bits of its tick, which begin again at 0 every 497 days. So it stands at most half of that ahead: what is
//! due later comes out then, and its owner queues it again.
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

/// How far ahead an entry may stand: 248 days.
const AHEAD: u32 = u32::MAX / 2;

/// A point in time that an entry can stand at, as long as there is one: see the module. What stands at the same time compares as
/// its times do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick(u32);

type Entry = (LeaseId, Tick);

/// See the module.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Ticks since the beginning of time.
    now: u64,
    levels: [Level; LEVELS],
    /// Their tick has begun.
    due: Vec<Entry>,
    len: usize,
}

#[derive(Debug)]
struct Level {
    slots: Vec<Vec<Entry>>,
    /// A bit for each slot that holds something.
    used: [u64; SLOTS / 64],
}

impl Tick {
    /// Whether it comes before another one.
    pub(super) fn is_before(self, other: Self) -> bool {
        other.since(self) > 0
    }

    /// The ticks from `earlier` to here; fewer than none where that is not earlier.
    #[allow(clippy::cast_possible_wrap, reason = "the sign says which is earlier")]
    fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    fn slot(self, level: usize) -> usize {
        usize::from(self.0.to_le_bytes()[level])
    }
}

fn nanos_of_a_tick() -> u64 {
    u64::from(TICK.subsec_nanos())
}

/// The number of the tick that a time is in.
fn number_of(time: LeaseTime) -> u64 {
    time.nanos() / nanos_of_a_tick()
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

    /// The first slot from one on that holds something.
    fn first_from(&self, from: usize) -> Option<usize> {
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
            now: number_of(now),
            levels: std::array::from_fn(|_| Level::new()),
            due: Vec::new(),
            len: 0,
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where an entry has to stand to come out as soon as a time has come, or as late as it can.
    pub(super) fn tick(&self, time: LeaseTime) -> Tick {
        let number = time.nanos().div_ceil(nanos_of_a_tick());
        let ahead = number.saturating_sub(self.now).min(AHEAD.into());
        Tick(low_bits(self.now + ahead))
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, id: LeaseId, at: Tick) {
        self.len += 1;
        self.place((id, at));
    }

    /// Takes one of the entries that are due by now, in any order.
    pub(super) fn pop(&mut self, now: LeaseTime) -> Option<Entry> {
        let end = number_of(now);
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
            return Some(time_of(self.now));
        }
        let present = self.present();
        self.levels.iter().enumerate().find_map(|(level, slots)| {
            let after = slots.first_from(present.slot(level) + 1);
            // Only the last level is a ring: the others have been emptied when their slots begin again.
            let slot = after.or_else(|| slots.first_from(0).filter(|_| level + 1 == LEVELS))?;
            let mut bytes = present.0.to_le_bytes();
            bytes[..level].fill(0);
            bytes[level] = u8::try_from(slot).ok()?;
            let ahead = u32::from_le_bytes(bytes).wrapping_sub(present.0);
            Some(time_of(self.now + u64::from(ahead)))
        })
    }

    /// Keeps only what is meant, and of that each once.
    pub(super) fn retain(&mut self, mut is_meant: impl FnMut(LeaseId, Tick) -> bool) {
        let mut sweep = |entries: &mut Vec<Entry>| {
            entries.retain(|(id, at)| is_meant(*id, *at));
            // Where an entry stands follows from its tick, so the same ones stand together.
            entries.sort_unstable_by_key(|(id, at)| (*id, at.0));
            entries.dedup();
            entries.shrink_to_fit();
            entries.len()
        };
        self.len = sweep(&mut self.due);
        for level in &mut self.levels {
            for slot in 0..SLOTS {
                let left = sweep(&mut level.slots[slot]);
                self.len += left;
                if left == 0 {
                    level.used[slot / 64] &= !(1 << (slot % 64));
                }
            }
        }
    }

    fn present(&self) -> Tick {
        Tick(low_bits(self.now))
    }

    fn place(&mut self, entry: Entry) {
        let (at, present) = (entry.1, self.present());
        if at.since(present) <= 0 {
            self.due.push(entry);
            return;
        }
        let highest = 31 - (at.0 ^ present.0).leading_zeros();
        let level = highest as usize / 8;
        self.levels[level].push(at.slot(level), entry);
    }

    fn step(&mut self) {
        self.now += 1;
        let present = self.present();
        // The present has entered a slot of each level whose lower bytes have all become 0.
        for level in 0..LEVELS {
            let entered = self.levels[level].take(present.slot(level));
            for entry in entered {
                self.place(entry);
            }
            if present.slot(level) != 0 {
                break;
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "see the module")]
fn low_bits(number: u64) -> u32 {
    number as u32
}

fn time_of(number: u64) -> LeaseTime {
    LeaseTime::at_nanos(number.saturating_mul(nanos_of_a_tick()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// When the low bits of the ticks begin again, in milliseconds.
    const AROUND: u64 = (u32::MAX as u64 + 1) * 10;

    fn at(millis: u64) -> LeaseTime {
        LeaseTime::at_nanos(millis * 1_000_000)
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64),
        /// What was inserted so many steps ago, once more.
        Again(usize),
        Pass(u64),
        Sweep(u128),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let ahead = prop_oneof![0..300_u64, 0..30_000_u64, 0..2_000_000_u64, 0..400_000_000_u64];
        let step = prop_oneof![
            4 => ahead.prop_map(Step::Insert),
            1 => (0..4_usize).prop_map(Step::Again),
            3 => (0..700_u64).prop_map(Step::Pass),
            1 => (0..900_000_u64).prop_map(Step::Pass),
            1 => (2..5_u128).prop_map(Step::Sweep),
        ];
        proptest::collection::vec(step, 1..60)
    }

    /// Against an ordered map: each comes out as often as it was inserted since it was swept, not before its time and less than a
    /// tick after it.
    fn check(begin: u64, steps: Vec<Step>) {
        let mut now = begin;
        let mut wheel = Wheel::new(at(now));
        // By time in ticks: how often each was inserted.
        let mut model: BTreeMap<(u64, u128), (Tick, usize)> = BTreeMap::new();
        for (n, step) in (0..).zip(steps) {
            match step {
                Step::Insert(ahead) => {
                    let number = at(now + ahead).nanos().div_ceil(nanos_of_a_tick());
                    let tick = wheel.tick(at(now + ahead));
                    assert_eq!(tick.0, low_bits(number));
                    wheel.insert(LeaseId::from_random(n), tick);
                    model.insert((number, n), (tick, 1));
                }
                Step::Again(place) => {
                    if let Some(((_, n), (tick, times))) = model.iter_mut().nth(place) {
                        wheel.insert(LeaseId::from_random(*n), *tick);
                        *times += 1;
                    }
                }
                Step::Pass(millis) => now += millis,
                Step::Sweep(divisor) => {
                    wheel.retain(|id, _| id.bits() % divisor > 0);
                    model.retain(|(_, n), _| n % divisor > 0);
                    model.values_mut().for_each(|(_, times)| *times = 1);
                }
            }
            let mut popped: BTreeMap<u128, usize> = BTreeMap::new();
            while let Some((id, _)) = wheel.pop(at(now)) {
                *popped.entry(id.bits()).or_default() += 1;
            }
            let later = model.split_off(&(at(now).nanos() / nanos_of_a_tick() + 1, 0));
            let due = std::mem::replace(&mut model, later).into_iter();
            let due: BTreeMap<u128, usize> = due.map(|((_, n), (_, times))| (n, times)).collect();
            assert_eq!(popped, due);
            assert_eq!(wheel.len(), model.values().map(|(_, times)| times).sum::<usize>());
            match (wheel.next(), model.first_key_value()) {
                (None, None) => {}
                (Some(next), Some(((first, _), _))) => {
                    assert!(next <= time_of(*first), "nothing is due before it");
                    assert!(next > at(now), "and it is ahead");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn behaves_as_an_ordered_map(begin in 0..10_000_000_u64, steps in steps()) {
            check(begin, steps);
        }

        /// The ticks stopped at the highest that 32 bits hold: after 497 days every lease was due at once, was queued again for
        /// the same tick, and the registry did nothing else any more.
        #[test]
        fn goes_on_when_the_low_bits_begin_again(
            before in prop_oneof![0..2_000_u64, 0..1_000_000_u64, 0..500_000_000_u64],
            steps in steps(),
        ) {
            check(AROUND - before, steps);
        }
    }

    #[test]
    fn what_is_due_in_years_comes_out_earlier_and_what_was_due_long_ago_now() {
        let year = 365 * 24 * 3_600 * 1_000;
        let mut wheel = Wheel::new(at(2 * year));
        let (id, distant) = (LeaseId::from_random(1), wheel.tick(at(4 * year)));
        assert_eq!(distant.since(wheel.present()), i32::MAX);
        wheel.insert(id, distant);
        assert_eq!(wheel.pop(at(2 * year + 1_000_000)), None);
        assert!(wheel.next() > Some(at(2 * year + 1_000_000)));
        let past = wheel.tick(at(1));
        assert!(past.is_before(distant) && !distant.is_before(past));
        wheel.insert(id, past);
        assert_eq!(wheel.pop(at(2 * year + 1_000_000)), Some((id, past)));
    }
}
