//! Prequal's pool of reports (NSDI'24, section 4): the latest of what some instances said of themselves, each good for a short
//! time and a few calls. Pure: time is an argument, and who is picked is `pick::prequal`'s business.
//!
//! Every slot is two words, so that picks need no lock. The first says whose report it is, how many requests were in flight there
//! and for how many more calls it may be used; whoever uses it counts its own call in the same step, so that no two callers see
//! the same idle instance. The second says how long requests took, and when that was said. A reader that sees the first word of
//! one report and the second of another has a guess that is a moment old; it cannot see an instance that is not there, since the
//! pick looks it up.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use tokio::sync::Notify;

use super::{Report, Tick};
use crate::Prequal;

/// The paper's: more is no better, and less has too little to choose from.
pub(crate) const SLOTS: usize = 16;

/// From so many of the latest reports the line between hot and cold is drawn.
const RECENT: usize = 64;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Probes {
    settings: Prequal,
    slots: [Slot; SLOTS],
    /// So many of the slots are used.
    capacity: AtomicU32,
    /// Requests in flight as they were reported.
    recent: [AtomicU32; RECENT],
    reports: AtomicU32,
    hot_above: AtomicU32,
    removals: AtomicU32,
    /// Calls since probes were last sent.
    demand: AtomicU32,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Slot {
    /// A [`Seen::word`]; 0 when it is empty.
    whose: AtomicU64,
    /// Microseconds, and the tick.
    said: AtomicU64,
}

/// The rank of a slot without a report.
pub(crate) const NOTHING: u64 = u64::MAX;

/// Behind everybody who is not hot; in microseconds, as the ranks are.
const HOT: u64 = 1 << 40;

/// All slots at one moment, as they are compared. As many steps for a few reports as for many, so that a pick takes as long in
/// a small fleet as in a large one.
#[derive(Debug)]
pub(crate) struct Ranked {
    words: [u64; SLOTS],
    latencies: [u32; SLOTS],
    /// In ticks.
    pub(crate) ages: [u32; SLOTS],
    /// The less the better; [`NOTHING`] where there is no report, or an old one. The latency of those that are not hot; behind
    /// them the hot ones, by their requests in flight.
    pub(crate) ranks: [u64; SLOTS],
}

impl Ranked {
    pub(crate) fn count(&self) -> usize {
        self.ranks.iter().filter(|rank| **rank != NOTHING).count()
    }

    pub(crate) fn seen(&self, slot: usize) -> Seen {
        let word = self.words[slot];
        Seen {
            slot,
            number: (word >> 32) as u32,
            rif: (word >> 16) as u16,
            uses: word as u16,
            latency: self.latencies[slot],
        }
    }
}

/// A report as a pick sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) slot: usize,
    /// Whose it is, see [`Load::number`](super::Load::number).
    pub(crate) number: u32,
    pub(crate) rif: u16,
    /// For so many calls more.
    uses: u16,
    pub(crate) latency: u32,
}

impl Seen {
    fn word(&self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.rif) << 16 | u64::from(self.uses)
    }
}

impl Probes {
    pub(crate) fn new(settings: Prequal) -> Self {
        Self {
            settings,
            slots: Default::default(),
            capacity: AtomicU32::new(2),
            recent: std::array::from_fn(|_| AtomicU32::new(0)),
            reports: AtomicU32::new(0),
            hot_above: AtomicU32::new(0),
            removals: AtomicU32::new(0),
            demand: AtomicU32::new(0),
            wanted: Notify::new(),
        }
    }

    pub(crate) fn settings(&self) -> &Prequal {
        &self.settings
    }

    /// There are so many instances: the pool has half as many reports, and 2 to 16. With reports of all of them, the paper's
    /// reuse budget has no meaning, and a slow instance's report stays until nothing better is left.
    pub(crate) fn fit(&self, instances: usize) {
        let capacity = (instances / 2).clamp(2, SLOTS);
        self.capacity.store(capacity as u32, Relaxed);
        for slot in &self.slots[capacity..] {
            slot.whose.store(0, Relaxed);
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity.load(Relaxed) as usize
    }

    /// An instance has said how it is. Takes the place of what it said before, else an empty one, else that of the oldest.
    pub(crate) fn add(&self, number: u32, report: Report, now: Tick) {
        let reports = self.reports.fetch_add(1, Relaxed);
        self.recent[reports as usize % RECENT].store(u32::from(report.rif), Relaxed);
        // Drawn anew now and then: the line moves slowly.
        if reports.is_multiple_of(8) {
            self.draw_line(reports);
        }
        let slots = &self.slots[..self.capacity()];
        let place = |slot: &Slot| match slot.whose.load(Relaxed) {
            word if word >> 32 == u64::from(number) => (0, 0.0),
            0 => (1, 0.0),
            _ => (2, -now.since(Tick(slot.said.load(Relaxed) as u32))),
        };
        let taken = slots.iter().min_by(|a, b| {
            let ((a, a_age), (b, b_age)) = (place(a), place(b));
            a.cmp(&b).then(a_age.total_cmp(&b_age))
        });
        let Some(slot) = taken else { return };
        let seen = Seen {
            slot: 0,
            number,
            rif: report.rif,
            uses: self.settings.uses(),
            latency: report.latency,
        };
        slot.said
            .store(u64::from(report.latency) << 32 | u64::from(now.0), Relaxed);
        slot.whose.store(seen.word(), Relaxed);
    }

    /// As [`Probes::add`], for more uses than there will be.
    #[cfg(feature = "bench")]
    pub(crate) fn add_for_ever(&self, number: u32, report: Report, now: Tick) {
        self.add(number, report, now);
        for slot in &self.slots {
            slot.whose.fetch_or(u64::from(u16::MAX), Relaxed);
        }
    }

    /// The quantile of the requests in flight that were reported lately.
    fn draw_line(&self, reports: u32) {
        let mut rifs: [u32; RECENT] = std::array::from_fn(|at| self.recent[at].load(Relaxed));
        let count = (reports as usize + 1).min(RECENT);
        let rifs = &mut rifs[..count];
        let at = ((count as f32 * self.settings.hot_quantile) as usize).min(count - 1);
        self.hot_above.store(*rifs.select_nth_unstable(at).1, Relaxed);
    }

    /// Whoever has more requests in flight than this is hot.
    pub(crate) fn hot_above(&self) -> u16 {
        u16::try_from(self.hot_above.load(Relaxed)).unwrap_or(u16::MAX)
    }

    /// Everything that was said lately.
    pub(crate) fn ranked(&self, now: Tick) -> Ranked {
        let (oldest, hot_above) = (Tick::span(self.settings.age) as u32, self.hot_above());
        let mut ranked = Ranked {
            words: [0; SLOTS],
            latencies: [0; SLOTS],
            ages: [0; SLOTS],
            ranks: [NOTHING; SLOTS],
        };
        for (slot, words) in self.slots.iter().enumerate() {
            let (word, said) = (words.whose.load(Relaxed), words.said.load(Relaxed));
            let (latency, rif) = ((said >> 32) as u32, (word >> 16) as u16);
            // One that is of a later moment than this pick is as good as of this one.
            let age = (now.0.wrapping_sub(said as u32) as i32).max(0) as u32;
            let rank = if rif > hot_above {
                HOT + u64::from(rif)
            } else {
                u64::from(latency)
            };
            let is_there = (word != 0) & (age <= oldest);
            ranked.words[slot] = word;
            ranked.latencies[slot] = latency;
            ranked.ages[slot] = age;
            ranked.ranks[slot] = if is_there { rank } else { NOTHING };
        }
        ranked
    }

    /// Whether there is something to choose between.
    pub(crate) fn has_choice(&self, now: Tick) -> bool {
        self.ranked(now).count() >= 2
    }

    /// A call goes there by that report: it counts as in flight until the next report, and the report wears out.
    pub(crate) fn used(&self, seen: &Seen) {
        let used = Seen {
            rif: seen.rif.saturating_add(1),
            uses: seen.uses.saturating_sub(1),
            ..*seen
        };
        self.replace(seen, if used.uses == 0 { 0 } else { used.word() });
    }

    pub(crate) fn remove(&self, seen: &Seen) {
        self.replace(seen, 0);
    }

    fn replace(&self, seen: &Seen, word: u64) {
        // If it fails, somebody else has used it or there is a newer report: either is as good.
        let _ = self.slots[seen.slot]
            .whose
            .compare_exchange(seen.word(), word, AcqRel, Acquire);
    }

    /// Whether the next report to go is the oldest one; else it is the worst.
    pub(crate) fn removes_oldest(&self) -> bool {
        self.removals.fetch_add(1, Relaxed).is_multiple_of(2)
    }

    /// A call is being placed: probes are to follow.
    pub(crate) fn demand(&self) {
        if self.demand.fetch_add(1, Relaxed) == 0 {
            self.wanted.notify_one();
        }
    }

    /// Resolves when there were calls since the last time; how many.
    pub(crate) async fn demanded(&self) -> u32 {
        self.wanted.notified().await;
        self.demand.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Tick = Tick::ZERO;

    fn probes(instances: usize) -> Probes {
        let probes = Probes::new(Prequal::default());
        probes.fit(instances);
        probes
    }

    fn report(rif: u16, latency: u32) -> Report {
        Report { rif, latency }
    }

    fn seen(probes: &Probes, now: Tick) -> Vec<Seen> {
        let ranked = probes.ranked(now);
        let slots = (0..SLOTS).filter(|slot| ranked.ranks[*slot] != NOTHING);
        slots.map(|slot| ranked.seen(slot)).collect()
    }

    fn numbers(probes: &Probes, now: Tick) -> Vec<u32> {
        seen(probes, now).iter().map(|seen| seen.number).collect()
    }

    #[test]
    fn it_has_half_as_many_reports_as_there_are_instances() {
        for (instances, reports) in [(0, 2), (3, 2), (10, 5), (1000, 16)] {
            let probes = probes(instances);
            for number in 1..100 {
                probes.add(number, report(1, 1), NOW);
            }
            assert_eq!(numbers(&probes, NOW).len(), reports, "{instances}");
        }
    }

    #[test]
    fn the_latest_word_counts_and_the_oldest_makes_room() {
        let probes = probes(4);
        let later = |n| NOW.after(n * Duration::from_millis(10));
        probes.add(1, report(5, 5000), later(0));
        probes.add(2, report(5, 5000), later(1));
        probes.add(1, report(6, 6000), later(2));
        assert_eq!(numbers(&probes, later(2)), [1, 2]);
        assert_eq!(
            seen(&probes, later(2)).first().map(|seen| (seen.rif, seen.latency)),
            Some((6, 6000))
        );
        probes.add(3, report(5, 5000), later(3));
        assert_eq!(numbers(&probes, later(3)), [1, 3]);
    }

    #[test]
    fn reports_are_forgotten_after_a_second() {
        let probes = probes(10);
        probes.add(1, report(5, 5000), NOW);
        assert_eq!(numbers(&probes, NOW.after(Duration::from_millis(990))), [1]);
        assert!(numbers(&probes, NOW.after(Duration::from_millis(1010))).is_empty());
    }

    #[test]
    fn a_use_counts_as_in_flight_and_wears_the_report_out() {
        let probes = probes(10);
        probes.add(1, report(5, 5000), NOW);
        let uses = Prequal::default().uses();
        for n in 0..uses {
            let seen = seen(&probes, NOW);
            assert_eq!(seen[0].rif, 5 + n);
            probes.used(&seen[0]);
        }
        assert!(numbers(&probes, NOW).is_empty());
    }

    #[test]
    fn of_two_that_use_a_report_at_once_one_counts() {
        let probes = probes(10);
        probes.add(1, report(5, 5000), NOW);
        let before = seen(&probes, NOW);
        probes.used(&before[0]);
        probes.used(&before[0]);
        probes.remove(&before[0]);
        assert_eq!(seen(&probes, NOW)[0].rif, 6);
    }

    #[test]
    fn the_line_is_drawn_where_three_in_five_are_below() {
        let probes = probes(1000);
        for n in 0..640_u16 {
            probes.add(u32::from(n) + 1, report(n % 64, 1), NOW);
        }
        // 0 to 63, evenly: three in five of them are below 38.4.
        assert!((36..=40).contains(&probes.hot_above()), "{}", probes.hot_above());
    }

    proptest! {
        #[test]
        fn it_never_has_two_reports_of_one_or_more_than_fit(
            instances in 0_usize..50,
            reports in prop::collection::vec((1_u32..50, any::<u16>(), any::<u32>(), 0_u32..50), 0..100),
        ) {
            let (probes, mut now) = (probes(instances), NOW);
            for (number, rif, latency, pause) in reports {
                now = now.after(Duration::from_millis(u64::from(pause)));
                probes.add(number, report(rif, latency), now);
                let mut numbers = numbers(&probes, now);
                prop_assert!(numbers.contains(&number) && numbers.len() <= probes.capacity());
                numbers.sort_unstable();
                prop_assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
            }
        }
    }
}
