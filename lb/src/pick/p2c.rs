//! Power of two choices by calls in flight: of two candidates drawn at random the less busy one is next.
//!
//! Why two and not all: looking at every candidate costs O(N), and callers that all see the same least busy one stampede it.
//! Why all when they are few ([`SCAN_ALL`]): with two draws out of four, and two of the four slow, one draw in six sees only
//! slow ones, and that sampling floor is the tail (apache/brpc#3340: p99 7.7 ms with two choices, 0.3 ms with all).
//! Ties go to whoever was drawn first, so that idle candidates share evenly.
//!
//! How weight enters, when weights differ: two are drawn in proportion to weight, however few there are, and the one with
//! fewer calls in flight per weight wins, ties to the first. When all are idle the shares are exactly the weights; under load
//! they are drawn towards equal load per weight; and an instance of weight `w` never gets more than `2w / total`. Two
//! plainer rules lose: "least in flight per weight" of all gives an idle canary of weight 1 every call that finds it idle, and
//! "least (in flight + 1) per weight" gives the heaviest instance everything while load is low.

use super::{Candidates, Weights, below};

/// Up to this many candidates all are compared.
pub(crate) const SCAN_ALL: usize = 8;

/// The index of the next candidate, or `None` when there is none. `draw` is 64 random bits.
pub(crate) fn pick(candidates: &impl Candidates, draw: u64) -> Option<usize> {
    let count = candidates.len();
    match (count, candidates.weights()) {
        (0, _) => None,
        (1, _) => Some(0),
        (..=SCAN_ALL, Weights::Equal) => Some(least_busy(candidates, draw)),
        (_, Weights::Equal) => {
            let bound = u32::try_from(count).unwrap_or(u32::MAX);
            let first = below(draw as u32, bound) as usize;
            // Drawn from the others: a pair that is twice the same one would be no choice.
            let second = below((draw >> 32) as u32, bound - 1) as usize;
            let second = second + usize::from(second >= first);
            Some(if candidates.in_flight(second) < candidates.in_flight(first) {
                second
            } else {
                first
            })
        }
        (_, Weights::Mixed(weights)) => {
            let first = weights.owner(below(draw as u32, weights.total()));
            let second = weights.owner(below((draw >> 32) as u32, weights.total()));
            let busy =
                |index: usize, other: usize| u64::from(candidates.in_flight(index)) * u64::from(weights.of(other));
            Some(if busy(second, first) < busy(first, second) {
                second
            } else {
                first
            })
        }
    }
}

/// The least busy of all, the search starting anywhere so that ties share evenly.
fn least_busy(candidates: &impl Candidates, draw: u64) -> usize {
    let count = candidates.len();
    let start = below(draw as u32, count as u32) as usize;
    let (mut best, mut least) = (start, candidates.in_flight(start));
    for step in 1..count {
        let index = if start + step < count {
            start + step
        } else {
            start + step - count
        };
        let load = candidates.in_flight(index);
        if load < least {
            (best, least) = (index, load);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::pick::testing::Table;

    /// Consecutive numbers as 64 random bits each.
    fn spread(n: u64) -> u64 {
        StdRng::seed_from_u64(n).next_u64()
    }

    /// Shares of `picks` picks; `hold` calls are in flight at any time, the oldest ending first.
    fn shares(weights: &[u32], picks: usize, hold: usize) -> Vec<f64> {
        let mut table = Table::new(weights);
        let mut rng = StdRng::seed_from_u64(42);
        let mut counts = vec![0_u32; weights.len()];
        let mut open = std::collections::VecDeque::new();
        for _ in 0..picks {
            let index = pick(&table, rng.next_u64()).expect("not empty");
            counts[index] += 1;
            table.loads[index] += 1;
            open.push_back(index);
            if open.len() > hold
                && let Some(done) = open.pop_front()
            {
                table.loads[done] -= 1;
            }
        }
        counts
            .into_iter()
            .map(|count| f64::from(count) / picks as f64)
            .collect()
    }

    fn close(shares: &[f64], expected: &[f64], tolerance: f64) {
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < tolerance, "{shares:?} is not {expected:?}");
        }
    }

    #[test]
    fn nobody_and_one() {
        assert_eq!(pick(&Table::new(&[]), 1), None);
        assert_eq!(pick(&Table::new(&[3]), 1), Some(0));
    }

    #[test]
    fn idle_and_alike_share_evenly() {
        close(&shares(&[100; 4], 40_000, 0), &[0.25; 4], 0.01);
        close(&shares(&[100; 20], 40_000, 0), &[0.05; 20], 0.01);
    }

    #[test]
    fn idle_with_weights_share_in_proportion() {
        close(&shares(&[100, 300], 40_000, 0), &[0.25, 0.75], 0.01);
        close(
            &shares(&[100, 50, 1], 40_000, 0),
            &[100.0 / 151.0, 50.0 / 151.0, 1.0 / 151.0],
            0.01,
        );
        let many: Vec<u32> = (0..20).map(|n| if n < 10 { 10 } else { 30 }).collect();
        let expected: Vec<f64> = many.iter().map(|weight| f64::from(*weight) / 400.0).collect();
        close(&shares(&many, 40_000, 0), &expected, 0.01);
    }

    #[test]
    fn under_load_they_still_share_in_proportion() {
        close(&shares(&[100, 300], 40_000, 64), &[0.25, 0.75], 0.02);
        // A canary stays a canary: idle as it is, it must not take every second call.
        let canary = shares(&[1000, 10], 100_000, 64);
        assert!(canary[1] < 0.021, "{canary:?}");
        let mut fleet = vec![1000; 12];
        fleet.push(10);
        let canary = shares(&fleet, 100_000, 64);
        assert!(canary[12] < 0.0018, "{canary:?}");
    }

    #[test]
    fn few_means_the_least_busy_of_all() {
        for draw in 0..1000 {
            assert_eq!(pick(&Table::busy(&[5, 4, 9, 1, 7, 6, 2, 3]), spread(draw)), Some(3));
        }
    }

    #[test]
    fn many_never_take_the_busiest() {
        let mut loads = vec![1; 50];
        loads[17] = 9;
        for draw in 0..5000 {
            assert_ne!(pick(&Table::busy(&loads), spread(draw)), Some(17));
        }
    }

    proptest! {
        #[test]
        fn a_pick_is_always_one_of_them(weights in prop::collection::vec(1_u32..=1000, 1..40), load in 0_u32..1000, draw in any::<u64>()) {
            let mut table = Table::new(&weights);
            table.loads.iter_mut().enumerate().for_each(|(n, l)| *l = load.wrapping_mul(n as u32) % 100);
            prop_assert!(pick(&table, draw).is_some_and(|index| index < weights.len()));
        }

        #[test]
        fn of_two_it_never_takes_the_busier(a in 0_u32..1000, b in 0_u32..1000, draw in any::<u64>()) {
            let index = pick(&Table::busy(&[a, b]), draw).expect("two");
            prop_assert!([a, b][index] <= [a, b][1 - index]);
        }
    }
}
