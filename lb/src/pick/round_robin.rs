//! One after the other, in proportion to weight if that is asked for.
//!
//! Weights use the static stride schedule of gRFC A58: one counter and no lock, yet the picks of an instance are spread out
//! instead of coming in a burst. Each turn of the counter offers one candidate; it accepts in `weight / largest` of its turns.
//! The number of turns per pick is `largest / mean weight` on average. Weights are clamped to a tenth and to ten times their
//! mean (see `weights`), or one heavy candidate among many light ones makes every pick loop (grpc/grpc-java#10366). Even so
//! a pick takes [`MAX_TURNS`] at most, and then the candidate at hand: a skewed pick is better than a spinning caller.

use super::{Candidates, Weights};

/// More than a clamped schedule needs for one pick, but for streaks.
const MAX_TURNS: usize = 1024;

/// The largest weight of a schedule.
const FULL: u64 = u16::MAX as u64;

/// Whose turn it is of `count`. `turn` yields consecutive numbers, shared by all callers.
pub(super) fn pick(count: usize, mut turn: impl FnMut() -> u64) -> Option<usize> {
    // Of 32 bits, since dividing those is several times faster. One turn in four billion comes out of order for it.
    let count = u32::try_from(count).ok().filter(|count| *count > 0)?;
    Some((turn() as u32 % count) as usize)
}

/// As [`pick`], in proportion to the clamped weights.
pub(super) fn weighted(candidates: &impl Candidates, mut turn: impl FnMut() -> u64) -> Option<usize> {
    let Weights::Mixed(weights) = candidates.weights() else {
        return pick(candidates.len(), turn);
    };
    let strides = weights.strides();
    let count = u32::try_from(strides.len()).ok().filter(|count| *count > 0)?;
    let mut index = 0;
    for _ in 0..MAX_TURNS {
        let turn = turn() as u32;
        let round = u64::from(turn / count);
        index = (turn % count) as usize;
        let weight = u64::from(strides[index]);
        // Accepts whenever its accumulated weight passes a multiple of the largest one. The offset keeps candidates of the same
        // weight from accepting in the same rounds.
        let offset = index as u64 * (FULL / 2);
        if (weight * round + offset) % FULL >= FULL - weight {
            return Some(index);
        }
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pick::testing::{Table, proportional};

    fn sequence(weights: &[u32], picks: usize) -> Vec<usize> {
        let (table, mut next) = (Table::new(weights), 0);
        let mut turn = || {
            next += 1;
            next - 1
        };
        (0..picks)
            .map(|_| weighted(&table, &mut turn).expect("not empty"))
            .collect()
    }

    #[test]
    fn nobody() {
        assert_eq!(pick(0, || 0), None);
        assert_eq!(weighted(&Table::new(&[]), || 0), None);
    }

    #[test]
    fn alike_take_turns() {
        assert_eq!(sequence(&[100; 3], 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn without_weights_nobody_is_passed_over() {
        let turns: Vec<_> = (5..12).filter_map(|turn| pick(3, || turn)).collect();
        assert_eq!(turns, [2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn half_the_weight_is_every_second_turn() {
        let heavy = sequence(&[2, 1], 600).iter().filter(|index| **index == 0).count();
        assert!((399..=401).contains(&heavy), "{heavy}");
    }

    /// grpc/grpc-java#10366: with one of a weight of 1000 among a thousand of weight 1, nearly every turn was declined.
    #[test]
    fn one_heavy_among_many_light_ones_makes_nobody_loop() {
        let mut weights = vec![1; 1000];
        weights[500] = 1000;
        let (table, mut turns) = (Table::new(&weights), 0_u64);
        for _ in 0..10_000 {
            weighted(&table, || {
                turns += 1;
                turns
            })
            .expect("not empty");
        }
        assert!(turns < 11 * 10_000, "{turns} turns for 10,000 picks");
    }

    proptest! {
        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(10_u32..=100, 2..12)) {
            let picks = 20_000;
            let mut counts = vec![0_u32; weights.len()];
            for index in sequence(&weights, picks) {
                counts[index] += 1;
            }
            for (count, expected) in counts.iter().zip(proportional(&weights)) {
                let share = f64::from(*count) / picks as f64;
                // The mean is within 10 and 100 here, so nothing is clamped.
                prop_assert!((share - expected).abs() < 0.01, "{counts:?} for {weights:?}");
            }
        }
    }
}
