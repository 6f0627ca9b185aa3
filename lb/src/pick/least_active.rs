//! The least busy of all, by calls in flight; of several, one in proportion to weight (as Dubbo's `leastactive`).
//!
//! It costs O(N), and callers that see the same least busy instance all run to it: see `p2c` for what is better when there
//! are many of either.

use super::{Candidates, Weights, below};

/// The index of the next candidate, or `None` when there is none. `bits` are 64 random ones.
pub(super) fn pick(candidates: &impl Candidates, bits: u64) -> Option<usize> {
    let weight = |index: usize| match candidates.weights() {
        Weights::Equal => 1,
        Weights::Mixed(weights) => u64::from(weights.of(index)),
    };
    let (mut least, mut total, mut last) = (u32::MAX, 0, None);
    for index in 0..candidates.len() {
        let load = candidates.in_flight(index);
        if load < least {
            (least, total) = (load, 0);
        }
        if load == least {
            total += weight(index);
            last = Some(index);
        }
    }
    let mut point = u64::from(below(bits as u32, u32::try_from(total).unwrap_or(u32::MAX)));
    for index in 0..candidates.len() {
        // Loads change meanwhile; who has got a call since the first look is not the least busy any more.
        if candidates.in_flight(index) <= least {
            match point.checked_sub(weight(index)) {
                Some(rest) => point = rest,
                None => return Some(index),
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pick::testing::{Table, close, proportional, shares};

    #[test]
    fn nobody_and_one() {
        assert_eq!(pick(&Table::new(&[]), 1), None);
        assert_eq!(pick(&Table::new(&[3]), 1), Some(0));
    }

    #[test]
    fn idle_ones_share_in_proportion() {
        close(&shares(Table::new(&[100; 20]), 40_000, 0, pick), &[0.05; 20], 0.01);
        let weights = [100, 50, 250, 1];
        close(
            &shares(Table::new(&weights), 40_000, 0, pick),
            &proportional(&weights),
            0.01,
        );
    }

    proptest! {
        #[test]
        fn it_is_always_one_of_the_least_busy(loads in prop::collection::vec(0_u32..5, 1..60), bits in any::<u64>()) {
            let index = pick(&Table::busy(&loads), bits).expect("not empty");
            prop_assert_eq!(Some(&loads[index]), loads.iter().min());
        }
    }
}
