//! One after the other, in proportion to weight.
//!
//! Weights that differ use the static stride schedule of gRFC A58: one counter and no lock, yet the picks of an instance are
//! spread out instead of coming in a burst. Each turn of the counter offers one candidate; it accepts in `weight / largest` of
//! its turns. The number of turns per pick is `largest / mean weight` on average and never more than
//! [`MAX_TURNS`] (then the candidate at hand is taken: a skewed pick is better than a spinning caller).

use super::{Candidates, Weights};

/// Bounds the work of one pick when a few heavy candidates stand among very many light ones.
const MAX_TURNS: usize = 4096;

/// The index of the next candidate, or `None` when there is none. `turn` yields consecutive numbers, shared by all callers.
pub(crate) fn pick(candidates: &impl Candidates, mut turn: impl FnMut() -> u64) -> Option<usize> {
    let count = candidates.len() as u64;
    if count == 0 {
        return None;
    }
    match candidates.weights() {
        Weights::Equal => Some((turn() % count) as usize),
        Weights::Mixed(weights) => {
            let largest = u64::from(weights.largest());
            let mut index = 0;
            for _ in 0..MAX_TURNS {
                let turn = turn();
                let round = turn / count;
                index = (turn % count) as usize;
                // Accept whenever the candidate's accumulated weight passes a multiple of the largest one. The offset keeps
                // candidates of the same weight from accepting in the same rounds.
                let offset = index as u64 * largest / 2;
                let accumulated = u128::from(round) * u128::from(weights.of(index)) + u128::from(offset);
                if accumulated % u128::from(largest) >= u128::from(largest - u64::from(weights.of(index))) {
                    return Some(index);
                }
            }
            Some(index)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pick::testing::Table;

    fn sequence(weights: &[u32], picks: usize) -> Vec<usize> {
        let (table, mut next) = (Table::new(weights), 0);
        let mut turn = || {
            next += 1;
            next - 1
        };
        (0..picks)
            .map(|_| pick(&table, &mut turn).expect("not empty"))
            .collect()
    }

    #[test]
    fn nobody() {
        assert_eq!(pick(&Table::new(&[]), || 0), None);
    }

    #[test]
    fn alike_take_turns() {
        assert_eq!(sequence(&[100; 3], 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn half_the_weight_is_every_second_turn() {
        assert_eq!(sequence(&[2, 1], 6).iter().filter(|index| **index == 0).count(), 4);
    }

    proptest! {
        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1_u32..=100, 2..12)) {
            let picks = 20_000;
            let mut counts = vec![0_u32; weights.len()];
            for index in sequence(&weights, picks) {
                counts[index] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let (share, expected) = (f64::from(*count) / picks as f64, f64::from(*weight) / f64::from(total));
                prop_assert!((share - expected).abs() < 0.01, "{counts:?} for {weights:?}");
            }
        }
    }
}
