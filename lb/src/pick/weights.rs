//! The weights of a set of candidates, prepared once per change of the set so that a pick costs O(log N) at most.

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
    /// Running sums of `each`; the last one is the total.
    sums: Vec<u32>,
    largest: u32,
}

impl Weights {
    pub(crate) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let each: Vec<u32> = weights.into_iter().collect();
        if each.windows(2).all(|pair| pair[0] == pair[1]) {
            return Self::Equal;
        }
        let sums = each
            .iter()
            // Weights are at most 1000 (the registry's limit), so four million instances fit before this saturates.
            .scan(0_u32, |total, weight| {
                *total = total.saturating_add(*weight);
                Some(*total)
            })
            .collect();
        let largest = each.iter().copied().max().unwrap_or(1);
        Self::Mixed(Mixed { each, sums, largest })
    }
}

impl Mixed {
    pub(crate) fn of(&self, index: usize) -> u32 {
        self.each[index]
    }

    pub(crate) fn largest(&self) -> u32 {
        self.largest
    }

    pub(crate) fn total(&self) -> u32 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// The candidate that owns `point`, a number below [`Mixed::total`]: each owns as many points as it weighs.
    pub(crate) fn owner(&self, point: u32) -> usize {
        self.sums
            .partition_point(|sum| *sum <= point)
            .min(self.each.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_is_the_cheap_case() {
        assert_eq!(Weights::new([]), Weights::Equal);
        assert_eq!(Weights::new([7]), Weights::Equal);
        assert_eq!(Weights::new([7, 7, 7]), Weights::Equal);
        assert!(matches!(Weights::new([7, 7, 8]), Weights::Mixed(_)));
    }

    #[test]
    fn each_owns_as_many_points_as_it_weighs() {
        let Weights::Mixed(mixed) = Weights::new([2, 1, 3]) else {
            panic!("they differ")
        };
        let owners: Vec<usize> = (0..mixed.total()).map(|point| mixed.owner(point)).collect();
        assert_eq!(owners, [0, 0, 1, 2, 2, 2]);
    }
}
