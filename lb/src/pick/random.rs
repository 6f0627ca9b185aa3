//! Any of them. The yardstick for every other policy, and what they fall back to when they know nothing.

use super::{Candidates, Weights, below};

/// One of `count`, each as likely as the next. `bits` are 64 random ones.
pub(super) fn pick(count: usize, bits: u64) -> Option<usize> {
    let bound = u32::try_from(count).unwrap_or(u32::MAX);
    (count > 0).then(|| below(bits as u32, bound) as usize)
}

/// One of the candidates, in proportion to their weights.
pub(super) fn weighted(candidates: &impl Candidates, bits: u64) -> Option<usize> {
    match candidates.weights() {
        Weights::Mixed(weights) => Some(weights.owner(bits)),
        Weights::Equal => pick(candidates.len(), bits),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pick::testing::{Table, close, proportional, shares};

    #[test]
    fn nobody_and_one() {
        assert_eq!(pick(0, 7), None);
        assert_eq!(pick(1, u64::MAX), Some(0));
        assert_eq!(weighted(&Table::new(&[]), 7), None);
        assert_eq!(weighted(&Table::new(&[3]), 7), Some(0));
    }

    #[test]
    fn all_are_as_likely() {
        let even = shares(Table::new(&[1, 10, 100, 1000]), 40_000, 0, |table, bits| {
            pick(table.loads.len(), bits)
        });
        close(&even, &[0.25; 4], 0.01);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn weights_are_kept(weights in prop::collection::vec(1_u32..=1000, 1..40)) {
            let got = shares(Table::new(&weights), 20_000, 0, weighted);
            // Five standard deviations of a share of one half.
            close(&got, &proportional(&weights), 0.018);
        }
    }
}
