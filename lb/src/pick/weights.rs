//! The weights of a set of candidates, prepared once per change of the set so that a pick costs the same whatever the number.

/// Weights in the order of the candidates. A weight of zero never gets here: such an instance is not a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// All alike, which is the usual case and has the cheap path.
    Equal,
    /// Not all alike.
    Mixed(Mixed),
}

/// Weights that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mixed {
    each: Vec<u32>,
    total: u64,
    alias: Vec<Cell>,
    strides: Vec<u16>,
}

/// A cell of an alias table (Walker 1977, built as by Vose 1991). Each candidate has one; all are drawn alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    /// So many of 2^32 draws of this cell stay with its candidate; the rest goes to `other`.
    keeps: u32,
    other: u32,
}

impl Weights {
    pub(crate) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let each: Vec<u32> = weights.into_iter().collect();
        if each.windows(2).all(|pair| pair[0] == pair[1]) {
            return Self::Equal;
        }
        let total = each.iter().copied().map(u64::from).sum();
        Self::Mixed(Mixed {
            alias: alias(&each, total),
            strides: strides(&each, total),
            each,
            total,
        })
    }
}

impl Mixed {
    pub(crate) fn of(&self, index: usize) -> u32 {
        self.each[index]
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Who is drawn by 64 random bits: each in proportion to its weight.
    pub(crate) fn owner(&self, bits: u64) -> usize {
        let count = u32::try_from(self.alias.len()).unwrap_or(u32::MAX);
        let index = super::below((bits >> 32) as u32, count);
        let Cell { keeps, other } = self.alias[index as usize];
        if (bits as u32) < keeps {
            index as usize
        } else {
            other as usize
        }
    }

    /// Weights for a static stride schedule: no less than a tenth of their mean and no more than ten times it, and then scaled
    /// so that the largest is `u16::MAX`.
    pub(crate) fn strides(&self) -> &[u16] {
        &self.strides
    }
}

fn alias(each: &[u32], total: u64) -> Vec<Cell> {
    let count = each.len() as u64;
    // In units of 1/count of a weight, so that the mean is `total`, exactly.
    let mut rest: Vec<u64> = each.iter().map(|weight| u64::from(*weight) * count).collect();
    let (mut light, mut heavy): (Vec<usize>, Vec<usize>) = (0..each.len()).partition(|index| rest[*index] < total);
    let whole = |index: usize| Cell {
        keeps: u32::MAX,
        other: index as u32,
    };
    let mut cells: Vec<Cell> = (0..each.len()).map(whole).collect();
    while let (Some(index), Some(&donor)) = (light.pop(), heavy.last()) {
        let keeps = (u128::from(rest[index]) << 32) / u128::from(total);
        cells[index] = Cell {
            keeps: u32::try_from(keeps).unwrap_or(u32::MAX),
            other: donor as u32,
        };
        rest[donor] -= total - rest[index];
        if rest[donor] < total {
            heavy.pop();
            light.push(donor);
        }
    }
    cells
}

fn strides(each: &[u32], total: u64) -> Vec<u16> {
    let mut mean = total as f64 / each.len() as f64;
    // The mean of what is capped at ten times the mean: a heavy one must not raise the mean that it is measured by, or the light
    // ones stay a tenth of a tenth of it. It falls towards its limit, and near it is near enough.
    for _ in 0..16 {
        let capped: f64 = each.iter().map(|weight| f64::from(*weight).min(mean * 10.0)).sum();
        mean = capped / each.len() as f64;
    }
    let clamped = |weight: u32| f64::from(weight).clamp(mean / 10.0, mean * 10.0);
    let largest = each.iter().map(|weight| clamped(*weight)).fold(0.0, f64::max);
    let scale = f64::from(u16::MAX) / largest;
    each.iter()
        .map(|weight| (clamped(*weight) * scale).round() as u16)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pick::testing::proportional;

    fn mixed(weights: &[u32]) -> Option<Mixed> {
        match Weights::new(weights.iter().copied()) {
            Weights::Equal => None,
            Weights::Mixed(mixed) => Some(mixed),
        }
    }

    #[test]
    fn alike_is_the_cheap_case() {
        for weights in [&[][..], &[7], &[7, 7, 7]] {
            assert_eq!(mixed(weights), None);
        }
        assert!(mixed(&[7, 7, 8]).is_some());
    }

    #[test]
    fn strides_are_clamped() {
        let mut weights = vec![100; 98];
        weights.extend([1, 100_000]);
        let strides = mixed(&weights).expect("they differ").strides().to_vec();
        // Capped at 1089 the heavy one leaves a mean of 108.9.
        assert_eq!(strides[99], u16::MAX);
        assert_eq!(strides[98], 655);
        assert!(strides[..98].iter().all(|stride| *stride == 6018), "{strides:?}");
    }

    proptest! {
        /// Exactly, not by drawing: the sum of what the cells give to each.
        #[test]
        fn each_owns_its_share(weights in prop::collection::vec(1_u32..=1_000_000, 2..60)) {
            let Some(mixed) = mixed(&weights) else { return Ok(()) };
            let mut owned = vec![0.0; weights.len()];
            for (index, cell) in mixed.alias.iter().enumerate() {
                let keeps = f64::from(cell.keeps) / f64::from(u32::MAX);
                owned[index] += keeps / weights.len() as f64;
                owned[cell.other as usize] += (1.0 - keeps) / weights.len() as f64;
            }
            for (owned, expected) in owned.iter().zip(proportional(&weights)) {
                prop_assert!((owned - expected).abs() < 1e-6, "{owned} is not {expected}");
            }
        }

        #[test]
        fn a_draw_is_always_one_of_them(weights in prop::collection::vec(1_u32..=1000, 2..60), bits in any::<u64>()) {
            if let Some(mixed) = mixed(&weights) {
                prop_assert!(mixed.owner(bits) < weights.len());
            }
        }
    }
}
