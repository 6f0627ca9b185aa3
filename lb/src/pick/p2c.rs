//! Power of two choices by calls in flight: of a few candidates drawn at random (by default two) the least busy one is next.
//!
//! Why two and not all: looking at every candidate costs O(N), and callers that all see the same least busy one stampede it.
//! Why all when they are few ([`SCAN_ALL`]): with two draws out of four, and two of the four slow, one draw in six sees only
//! slow ones, and that sampling floor is the tail (apache/brpc#3340: p99 7.7 ms with two choices, 0.3 ms with all).
//! Ties go to whoever was drawn first, so that idle candidates share evenly.
//!
//! How weight enters, when weights differ: they are drawn in proportion to weight, however few there are, and the one with
//! the fewest calls in flight per weight wins, ties to the first. When all are idle the shares are exactly the weights; under
//! load they are drawn towards equal load per weight; and with two choices an instance of weight `w` never gets more than
//! `2w / total`. Two plainer rules lose: "least in flight per weight" of all gives an idle canary of weight 1 every call that
//! finds it idle, and "least (in flight + 1) per weight" gives the heaviest instance everything while load is low.

use super::{Candidates, SCAN_ALL, Weights, around, below, mix, pair};

/// The index of the next candidate, or `None` when there is none. `choices` are at least two; `bits` are 64 random ones.
pub(super) fn pick(candidates: &impl Candidates, choices: u32, bits: u64) -> Option<usize> {
    let count = candidates.len();
    match (count, candidates.weights()) {
        (0, _) => None,
        (1, _) => Some(0),
        (..=SCAN_ALL, Weights::Equal) => least_busy(candidates, around(bits, count)),
        (_, Weights::Equal) => {
            let (first, second) = pair(bits, count);
            let more = (2..choices).scan(bits, |bits, _| {
                *bits = mix(*bits);
                Some(below(*bits as u32, u32::try_from(count).unwrap_or(u32::MAX)) as usize)
            });
            least_busy(candidates, [first, second].into_iter().chain(more))
        }
        (_, Weights::Mixed(weights)) => {
            let mut bits = bits;
            let mut best = weights.owner(bits);
            for _ in 1..choices {
                bits = mix(bits);
                let next = weights.owner(bits);
                let busy =
                    |index: usize, other: usize| u64::from(candidates.in_flight(index)) * u64::from(weights.of(other));
                if busy(next, best) < busy(best, next) {
                    best = next;
                }
            }
            Some(best)
        }
    }
}

/// The first of the least busy.
fn least_busy(candidates: &impl Candidates, of: impl Iterator<Item = usize>) -> Option<usize> {
    let mut best = None;
    for index in of {
        let load = candidates.in_flight(index);
        if best.is_none_or(|(least, _)| load < least) {
            best = Some((load, index));
        }
    }
    best.map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pick::testing::{Table, close, proportional, spread};

    fn shares(weights: &[u32], picks: usize, hold: usize) -> Vec<f64> {
        crate::pick::testing::shares(Table::new(weights), picks, hold, |table, bits| pick(table, 2, bits))
    }

    #[test]
    fn nobody_and_one() {
        assert_eq!(pick(&Table::new(&[]), 2, 1), None);
        assert_eq!(pick(&Table::new(&[3]), 2, 1), Some(0));
    }

    #[test]
    fn idle_and_alike_share_evenly() {
        close(&shares(&[100; 4], 40_000, 0), &[0.25; 4], 0.01);
        close(&shares(&[100; 20], 40_000, 0), &[0.05; 20], 0.01);
    }

    #[test]
    fn idle_with_weights_share_in_proportion() {
        for weights in [&[100, 300][..], &[100, 50, 1]] {
            close(&shares(weights, 40_000, 0), &proportional(weights), 0.01);
        }
        let many: Vec<u32> = (0..20).map(|n| if n < 10 { 10 } else { 30 }).collect();
        close(&shares(&many, 40_000, 0), &proportional(&many), 0.01);
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
            assert_eq!(pick(&Table::busy(&[5, 4, 9, 1, 7, 6, 2, 3]), 2, spread(draw)), Some(3));
        }
    }

    #[test]
    fn many_never_take_the_busiest() {
        let mut loads = vec![1; 50];
        loads[17] = 9;
        for draw in 0..5000 {
            assert_ne!(pick(&Table::busy(&loads), 2, spread(draw)), Some(17));
        }
    }

    #[test]
    fn more_choices_find_the_idle_one_more_often() {
        let mut loads = vec![5; 50];
        loads[17] = 0;
        let found = |choices| {
            let picks = (0..5000).map(|draw| pick(&Table::busy(&loads), choices, spread(draw)));
            picks.filter(|picked| *picked == Some(17)).count()
        };
        let (two, ten) = (found(2), found(10));
        // 200 and about 920 on average.
        assert!((120..300).contains(&two) && ten > 700, "{two} and {ten}");
    }

    proptest! {
        #[test]
        fn a_pick_is_always_one_of_them(
            weights in prop::collection::vec(1_u32..=1000, 1..40),
            choices in 2_u32..=10,
            load in 0_u32..1000,
            draw in any::<u64>(),
        ) {
            let mut table = Table::new(&weights);
            table.loads.iter_mut().enumerate().for_each(|(n, l)| *l = load.wrapping_mul(n as u32) % 100);
            prop_assert!(pick(&table, choices, draw).is_some_and(|index| index < weights.len()));
        }

        #[test]
        fn of_two_it_never_takes_the_busier(a in 0_u32..1000, b in 0_u32..1000, draw in any::<u64>()) {
            let index = pick(&Table::busy(&[a, b]), 2, draw).expect("two");
            prop_assert!([a, b][index] <= [a, b][1 - index]);
        }
    }
}
