//! Who is next. One pure file per policy: a pick is a function of loads, weights and one random draw.
//!
//! Nothing here awaits, locks, reads a clock or draws randomness; who is *there* and who is *well* is the pool's business,
//! and only ready endpoints with a weight above zero ever get here.

pub(crate) mod p2c;
pub(crate) mod round_robin;
mod weights;

pub(crate) use weights::Weights;

/// How the next endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// The least busy of two drawn at random, by calls in flight; of all of them when there are at most eight. The default:
    /// it moves load away from slow instances without anybody measuring latency.
    #[default]
    PowerOfTwoChoices,
    /// One after the other, in proportion to the weights. For instances that are known to be alike and calls that cost alike.
    RoundRobin,
}

/// What a policy may ask of the endpoints it chooses from.
pub(crate) trait Candidates {
    fn len(&self) -> usize;
    /// Calls in flight on candidate `index`, which is below `len`.
    fn in_flight(&self, index: usize) -> u32;
    fn weights(&self) -> &Weights;
}

/// An even number in `0..bound` from 32 random bits, by multiplication instead of division. `bound` is at least one.
fn below(bits: u32, bound: u32) -> u32 {
    ((u64::from(bits) * u64::from(bound)) >> 32) as u32
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Endpoints as two columns of numbers.
    pub(crate) struct Table {
        pub(crate) loads: Vec<u32>,
        weights: Weights,
    }

    impl Table {
        pub(crate) fn new(weights: &[u32]) -> Self {
            Self {
                loads: vec![0; weights.len()],
                weights: Weights::new(weights.iter().copied()),
            }
        }

        pub(crate) fn busy(loads: &[u32]) -> Self {
            Self {
                loads: loads.to_vec(),
                weights: Weights::new(loads.iter().map(|_| 100)),
            }
        }
    }

    impl Candidates for Table {
        fn len(&self) -> usize {
            self.loads.len()
        }

        fn in_flight(&self, index: usize) -> u32 {
            self.loads[index]
        }

        fn weights(&self) -> &Weights {
            &self.weights
        }
    }
}
