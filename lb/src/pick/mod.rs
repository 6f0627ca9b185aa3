//! Who is next. One pure file per policy: a pick is a function of loads, weights, the time and one random draw.
//!
//! Nothing here awaits, locks, allocates, reads a clock or draws randomness; who is *there* and who is *well* is the pool's
//! business, and only ready endpoints with a weight above zero ever get here.

mod ewma;
mod hash;
mod least_active;
mod looked;
mod numbers;
mod own;
mod p2c;
mod policy;
mod prequal;
mod random;
mod round_robin;
mod weights;

pub use hash::HashKey;
pub(crate) use hash::{Maglev, identity};
pub(crate) use looked::Price;
pub(crate) use numbers::Numbers;
pub use own::{Choose, InstanceRef, Instances, OwnPolicy};
pub use policy::{ConsistentHash, InvalidPolicy, LeastRequest, PeakEwma, Policy, Prequal, UnknownPolicy};
pub(crate) use weights::Weights;

use crate::load::{Probes, Tick};

/// What a policy may ask of the endpoints it chooses from.
pub(crate) trait Candidates {
    fn len(&self) -> usize;
    /// Calls in flight on candidate `index`, which is below `len`.
    fn in_flight(&self, index: usize) -> u32;
    /// Calls in flight on all of them; counted only where the policy asks for it.
    fn all_in_flight(&self) -> u32;
    /// The microseconds that a call to candidate `index` may take until its answer, to be expected at `now`; `None` if nothing is
    /// known of it. Measured only where the policy asks for it.
    fn latency(&self, index: usize, now: Tick) -> Option<f32>;
    /// What candidate `index` is, for consistent hashing: the same for as long as the instance lives, wherever it moves.
    fn identity(&self, index: usize) -> u64;
    fn weights(&self) -> &Weights;
    /// Of the same candidates, if the policy asks for it.
    fn maglev(&self) -> Option<&Maglev>;
    /// What candidate `index` has to bear for its failures at `now`, in microseconds. Measured only where the policy asks for it.
    fn penalty(&self, index: usize, now: Tick) -> f32;
    /// What the candidates said of themselves, if the policy asks for it.
    fn probes(&self) -> Option<&Probes>;
    /// Which candidate has that number.
    fn find(&self, number: u32) -> Option<usize>;
    /// What candidate `index` says of itself.
    fn about(&self, index: usize) -> InstanceRef<'_>;
}

/// What a pick gets from outside: it has no randomness and no clock of its own.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// 64 random bits.
    pub(crate) bits: u64,
    pub(crate) now: Tick,
    /// The digest of the call's key, if it has one.
    pub(crate) key: Option<u64>,
}

impl Draw {
    /// 64 random bits, new for every pick.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.bits
    }

    /// The digest of the call's key, if it has one: see [`Choose::key`].
    #[must_use]
    pub fn key(&self) -> Option<u64> {
        self.key
    }
}

impl Policy {
    /// The index of the next candidate, or `None` when there is none. `turn` yields consecutive numbers, shared by all callers.
    pub(crate) fn pick(&self, candidates: &impl Candidates, turn: impl FnMut() -> u64, draw: Draw) -> Option<usize> {
        match self {
            Self::Random => random::pick(candidates.len(), draw.bits),
            Self::WeightedRandom => random::weighted(candidates, draw.bits),
            Self::RoundRobin => round_robin::pick(candidates.len(), turn),
            Self::WeightedRoundRobin => round_robin::weighted(candidates, turn),
            Self::LeastActive => least_active::pick(candidates, draw.bits),
            Self::LeastRequest(settings) => p2c::pick(candidates, settings.choices, draw.bits),
            Self::PeakEwma(_) => ewma::pick(candidates, draw.bits, draw.now),
            Self::ConsistentHash(settings) => hash::pick(candidates, settings.factor, draw),
            Self::Prequal(settings) => prequal::pick(candidates, settings, draw),
            Self::Own(policy) => policy.pick(candidates, draw),
        }
    }
}

/// Up to this many candidates all are compared.
const SCAN_ALL: usize = 8;

/// An even number in `0..bound` from 32 random bits, by multiplication instead of division. `bound` is at least one.
fn below(bits: u32, bound: u32) -> u32 {
    ((u64::from(bits) * u64::from(bound)) >> 32) as u32
}

/// Two different ones of `count`, which is at least two: a pair that is twice the same one would be no choice.
fn pair(bits: u64, count: usize) -> (usize, usize) {
    let bound = u32::try_from(count).unwrap_or(u32::MAX);
    let first = below(bits as u32, bound) as usize;
    // Drawn from the others.
    let second = below((bits >> 32) as u32, bound - 1) as usize;
    (first, second + usize::from(second >= first))
}

/// The numbers of `0..count`, beginning with any of them.
fn around(bits: u64, count: usize) -> impl Iterator<Item = usize> {
    let start = below(bits as u32, u32::try_from(count).unwrap_or(u32::MAX)) as usize;
    (start..count).chain(0..start)
}

/// 64 more bits from 64 random ones: the step and the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(bits: u64) -> u64 {
    let z = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
pub(crate) mod testing {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// Endpoints as columns of numbers.
    pub(crate) struct Table {
        pub(crate) loads: Vec<u32>,
        pub(crate) latencies: Vec<Option<f32>>,
        pub(crate) identities: Vec<u64>,
        pub(crate) maglev: Option<Maglev>,
        pub(crate) penalties: Vec<f32>,
        /// Candidates have their index and one more as their number.
        pub(crate) probes: Option<Probes>,
        weights: Weights,
    }

    impl Table {
        pub(crate) fn new(weights: &[u32]) -> Self {
            let identities: Vec<u64> = (0..weights.len()).map(|n| identity(&format!("instance-{n}"))).collect();
            Self {
                loads: vec![0; weights.len()],
                latencies: vec![None; weights.len()],
                identities,
                maglev: None,
                penalties: vec![0.0; weights.len()],
                probes: None,
                weights: Weights::new(weights.iter().copied()),
            }
        }

        pub(crate) fn busy(loads: &[u32]) -> Self {
            Self {
                loads: loads.to_vec(),
                ..Self::new(&vec![100; loads.len()])
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

        fn all_in_flight(&self) -> u32 {
            self.loads.iter().sum()
        }

        fn latency(&self, index: usize, _: Tick) -> Option<f32> {
            self.latencies[index]
        }

        fn identity(&self, index: usize) -> u64 {
            self.identities[index]
        }

        fn weights(&self) -> &Weights {
            &self.weights
        }

        fn maglev(&self) -> Option<&Maglev> {
            self.maglev.as_ref()
        }

        fn penalty(&self, index: usize, _: Tick) -> f32 {
            self.penalties[index]
        }

        fn probes(&self) -> Option<&Probes> {
            self.probes.as_ref()
        }

        fn find(&self, number: u32) -> Option<usize> {
            let index = (number as usize).checked_sub(1)?;
            (index < self.loads.len()).then_some(index)
        }

        fn about(&self, index: usize) -> InstanceRef<'_> {
            const IDS: [&str; 4] = ["0", "1", "2", "3"];
            static NOTHING: std::sync::LazyLock<crate::pool::Attributes> = std::sync::LazyLock::new(Default::default);
            InstanceRef {
                id: IDS[index % IDS.len()],
                address: "",
                weight: match &self.weights {
                    Weights::Equal => 100,
                    Weights::Mixed(weights) => weights.of(index),
                },
                attributes: &NOTHING,
            }
        }
    }

    /// Consecutive numbers as 64 random bits each.
    pub(crate) fn spread(n: u64) -> u64 {
        StdRng::seed_from_u64(n).next_u64()
    }

    /// Shares of `picks` picks; `hold` calls are in flight at any time, the oldest ending first.
    pub(crate) fn shares(
        mut table: Table,
        picks: usize,
        hold: usize,
        mut pick: impl FnMut(&Table, u64) -> Option<usize>,
    ) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(42);
        let mut counts = vec![0_u32; table.loads.len()];
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

    pub(crate) fn close(shares: &[f64], expected: &[f64], tolerance: f64) {
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < tolerance, "{shares:?} is not {expected:?}");
        }
    }

    /// What each should get by its weight.
    pub(crate) fn proportional(weights: &[u32]) -> Vec<f64> {
        let total: u32 = weights.iter().sum();
        weights
            .iter()
            .map(|weight| f64::from(*weight) / f64::from(total))
            .collect()
    }
}
