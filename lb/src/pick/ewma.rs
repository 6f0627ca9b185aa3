//! Power of two choices by the latency to be expected: what the instance took lately (`load::ewma`), times the calls that would
//! then be in flight there. Finagle's "peak EWMA" (and linkerd's), with four rules of its own.
//!
//! - **All of few.** Up to [`SCAN_ALL`] of the same weight all are compared, as in `p2c`, and for the same reason.
//! - **Noise is no reason.** Comparing all, the one that happens to be a few per cent faster would get every call of an idle fleet.
//!   So latencies below [`FLOOR`] count as that, and of two that take about as long one wins only if it is less busy, too, or
//!   clearly cheaper ([`CLEARLY`]). Who is picked is never dearer than a third above the cheapest that was looked at; and one
//!   that takes twice as long ([`ALIKE`]) is compared by its cost alone.
//! - **Two busy ones are no reason for a slow one.** Of two that are drawn, one that takes much longer ([`ALIKE`]) wins only because
//!   the other one is busy; then two more are drawn before it is believed that everybody is.
//! - **One call at a time into the unknown.** Of whom nothing is known, and nothing is under way there, is the cheapest of all:
//!   a newcomer is asked at once. Until that call ends it is the dearest: a newcomer that turns out to be slow has one call
//!   and not all of them (linkerd/linkerd2#9652).
//!
//! Weights that differ: two are drawn in proportion to weight, however few there are, and calls in flight count by weight, 1 for
//! an average one. Idle and equally fast ones share by their weights, and none gets more than `2w / total`. The price is that a
//! slow one of weight `w` still gets `(w / total)^2` of the calls, when it is drawn twice.

use super::{Candidates, SCAN_ALL, Weights, around, mix, pair};
use crate::load::Tick;

/// In microseconds. What a scheduler may add at any time on a machine that is not idle.
const FLOOR: f32 = 1000.0;

/// A cost below this share of another one is not just noise. The estimates jump to peaks, so they are a noisy kind.
const CLEARLY: f32 = 0.75;

/// A latency of so many times another one is not noise either. With the benefit of the doubt an instance that was ten times
/// slower than nine others got a quarter of a per cent of the calls; a plain comparison of costs, beside it, a twenty-fifth.
const ALIKE: f32 = 2.0;

/// In microseconds: about a quarter of an hour. Only another unknown one, with more calls under way, is dearer.
const UNKNOWN: f32 = 1e9;

/// What a call would cost.
#[derive(Clone, Copy)]
struct Cost {
    micros: f32,
    latency: f32,
    in_flight: f32,
}

impl Cost {
    /// `per_call` is what a call in flight counts for: 1, or less on an instance that weighs more than most.
    fn of(candidates: &impl Candidates, index: usize, per_call: f32, now: Tick) -> Self {
        let in_flight = candidates.in_flight(index) as f32 * per_call;
        let (latency, calls) = match candidates.latency(index, now) {
            Some(latency) => (latency.max(FLOOR), in_flight + 1.0),
            None => (UNKNOWN, in_flight),
        };
        Self {
            micros: latency * calls,
            latency,
            in_flight,
        }
    }

    fn beats(self, other: Self) -> bool {
        let is_faster = self.latency * ALIKE < other.latency;
        self.micros < other.micros
            && (is_faster || self.in_flight < other.in_flight || self.micros < other.micros * CLEARLY)
    }
}

/// What a call to that candidate would cost, in microseconds; `per_call` is what a call in flight counts for there.
pub(super) fn cost(candidates: &impl Candidates, index: usize, per_call: f32, now: Tick) -> f32 {
    Cost::of(candidates, index, per_call, now).micros
}

/// The cheaper one of two, its cost, and that of the other one.
fn cheaper((first, second): (usize, usize), cost: &impl Fn(usize) -> Cost) -> (usize, Cost, Cost) {
    let costs = (cost(first), cost(second));
    if costs.1.beats(costs.0) {
        (second, costs.1, costs.0)
    } else {
        (first, costs.0, costs.1)
    }
}

/// The index of the next candidate, or `None` when there is none. `bits` are 64 random ones.
pub(super) fn pick(candidates: &impl Candidates, bits: u64, now: Tick) -> Option<usize> {
    let count = candidates.len();
    let cost = |index: usize| Cost::of(candidates, index, 1.0, now);
    match (count, candidates.weights()) {
        (0, _) => None,
        (1, _) => Some(0),
        (..=SCAN_ALL, Weights::Equal) => {
            let mut best: Option<(usize, Cost)> = None;
            for index in around(bits, count) {
                let cost = cost(index);
                if best.is_none_or(|(_, least)| cost.beats(least)) {
                    best = Some((index, cost));
                }
            }
            best.map(|(index, _)| index)
        }
        (_, Weights::Equal) => {
            let (index, least, other) = cheaper(pair(bits, count), &cost);
            if least.latency <= other.latency * ALIKE {
                return Some(index);
            }
            let (next, next_cost, _) = cheaper(pair(mix(bits), count), &cost);
            Some(if next_cost.beats(least) { next } else { index })
        }
        (_, Weights::Mixed(weights)) => {
            let (first, second) = (weights.owner(bits), weights.owner(mix(bits)));
            let mean = weights.total() as f32 / count as f32;
            let cost = |index: usize| Cost::of(candidates, index, mean / weights.of(index) as f32, now);
            Some(if cost(second).beats(cost(first)) { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pick::testing::{Table, close, proportional, shares, spread};

    const NOW: Tick = Tick::ZERO;

    /// Latencies in milliseconds.
    fn table(weights: &[u32], latencies: &[f32]) -> Table {
        let mut table = Table::new(weights);
        table.latencies = latencies.iter().map(|ms| Some(ms * 1000.0)).collect();
        table
    }

    fn got(table: Table, hold: usize) -> Vec<f64> {
        shares(table, 40_000, hold, |table, bits| pick(table, bits, NOW))
    }

    #[test]
    fn nobody_and_one() {
        assert_eq!(pick(&Table::new(&[]), 1, NOW), None);
        assert_eq!(pick(&Table::new(&[3]), 1, NOW), Some(0));
    }

    #[test]
    fn the_slow_one_of_few_is_left_alone() {
        let shares = got(table(&[100; 5], &[5.0, 6.0, 55.0, 5.5, 4.8]), 4);
        assert_eq!(shares[2], 0.0);
    }

    #[test]
    fn the_slow_one_of_many_loses_every_comparison() {
        let mut latencies = [5.0; 50];
        latencies[7] = 55.0;
        assert_eq!(got(table(&[100; 50], &latencies), 0)[7], 0.0);
    }

    /// Ten at 3,000 calls a second: bursts had one in ten of the pairs' fast instances busy enough for the slow one to look cheap,
    /// and it got more than one call in a hundred, which is the whole p99.
    #[test]
    fn that_one_of_two_is_busy_is_no_reason_for_the_slow_one() {
        let mut table = table(&[100; 20], &[5.0; 20]);
        table.latencies[7] = Some(50_000.0);
        table.loads = (0..20).map(|index| if index % 5 == 0 { 30 } else { 2 }).collect();
        table.loads[7] = 0;
        let picks = (0..40_000)
            .filter(|draw| pick(&table, spread(*draw), NOW) == Some(7))
            .count();
        // Drawn with one of the four busy ones (2 %), and again two busy ones of the twenty (3 %).
        assert!(picks < 80, "{picks}");
    }

    #[test]
    fn under_enough_load_the_slow_one_has_its_part() {
        let shares = got(table(&[100; 2], &[5.0, 50.0]), 200);
        // Of 200 in flight 18 with the slow one, or up to a third more: who is less busy keeps what is not clearly cheaper elsewhere.
        assert!((0.08..0.13).contains(&shares[1]), "{shares:?}");
    }

    #[test]
    fn a_few_per_cent_faster_is_no_reason() {
        close(&got(table(&[100; 4], &[0.1, 0.4, 0.9, 0.2]), 0), &[0.25; 4], 0.01);
        close(&got(table(&[100; 4], &[5.0, 5.5, 5.2, 6.0]), 0), &[0.25; 4], 0.01);
    }

    #[test]
    fn alike_share_in_proportion() {
        for (weights, hold) in [
            (&[100, 300][..], 0),
            (&[100, 300], 64),
            (&[100, 50, 5], 0),
            (&[100; 20], 64),
        ] {
            let shares = got(table(weights, &vec![5.0; weights.len()]), hold);
            close(&shares, &proportional(weights), 0.02);
        }
        let canary = got(table(&[1000, 10], &[5.0, 5.0]), 64);
        assert!(canary[1] < 0.021, "{canary:?}");
    }

    #[test]
    fn a_newcomer_is_asked_at_once_and_then_has_one_call_at_a_time() {
        let mut table = table(&[100; 3], &[5.0; 3]);
        table.latencies[1] = None;
        assert_eq!(pick(&table, spread(1), NOW), Some(1));
        table.loads = vec![40, 1, 40];
        for draw in 0..100 {
            assert_ne!(pick(&table, spread(draw), NOW), Some(1));
        }
    }

    #[test]
    fn where_all_are_unknown_the_least_busy_is_next() {
        let table = Table::busy(&[2, 1, 3]);
        for draw in 0..100 {
            assert_eq!(pick(&table, spread(draw), NOW), Some(1));
        }
    }

    proptest! {
        #[test]
        fn a_pick_is_always_one_of_them(weights in prop::collection::vec(1_u32..=1000, 1..40), draw in any::<u64>()) {
            prop_assert!(pick(&Table::new(&weights), draw, NOW).is_some_and(|index| index < weights.len()));
        }

        #[test]
        fn of_few_it_is_never_much_dearer_than_the_cheapest(
            rows in prop::collection::vec((prop::option::of(0.0_f32..1e6), 0_u32..100), 1..=SCAN_ALL),
            draw in any::<u64>(),
        ) {
            let mut table = Table::busy(&rows.iter().map(|row| row.1).collect::<Vec<_>>());
            table.latencies = rows.iter().map(|row| row.0).collect();
            let cost = |index: usize| Cost::of(&table, index, 1.0, NOW).micros;
            let index = pick(&table, draw, NOW).expect("not empty");
            let least = (0..rows.len()).map(cost).fold(f32::INFINITY, f32::min);
            prop_assert!(cost(index) * CLEARLY <= least, "{} of {least}", cost(index));
        }
    }
}
