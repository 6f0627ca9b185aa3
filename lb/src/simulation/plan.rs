//! What a history is to be: drawn from its seed. Values; nothing happens here.

use std::time::Duration;

use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{ConsistentHash, LeastRequest, PeakEwma, Policy};

/// How an instance answers while nothing else is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Nature {
    /// In the usual time.
    Well,
    /// In so many times the usual one.
    Slow(u32),
    /// With UNAVAILABLE, in no time.
    Failing,
}

/// Something that happens to the fleet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Incident {
    /// The connection of instance `n` is lost; it comes back after so long.
    Lost(usize, Duration),
    /// Instance `n` answers otherwise from here on.
    Turns(usize, Nature),
    /// Instance `n` is removed from the set.
    Removed(usize),
    /// One more is in the set.
    Added,
}

/// A whole history.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) policy: Policy,
    /// The instances of the beginning, with their weights.
    pub(super) natures: Vec<(Nature, u32)>,
    /// Calls a second.
    pub(super) rate: f64,
    /// What a call takes on average where all is well.
    pub(super) usual: Duration,
    /// In order of time.
    pub(super) incidents: Vec<(Duration, Incident)>,
    /// When the faults end: everybody is well, connected and alike from here on.
    pub(super) healed: Duration,
    /// The end.
    pub(super) lasts: Duration,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(1..=20);
        let uneven = rng.random_bool(0.3);
        let natures: Vec<(Nature, u32)> = (0..count)
            .map(|_| {
                let weight = if uneven { rng.random_range(50..=200) } else { 100 };
                (nature(&mut rng), weight)
            })
            .collect();
        let healed = Duration::from_secs(20);
        let mut incidents: Vec<(Duration, Incident)> = (0..rng.random_range(0..12))
            .map(|_| {
                let at = healed.mul_f64(rng.random_range(0.0..0.9));
                (at, incident(&mut rng, count))
            })
            .collect();
        incidents.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            policy: policy(&mut rng),
            natures,
            rate: rng.random_range(20.0..200.0),
            usual: Duration::from_micros(rng.random_range(500..20_000)),
            incidents,
            healed,
            lasts: Duration::from_secs(60),
        }
    }
}

impl Plan {
    /// Whether all instances of the beginning have the same weight.
    pub(super) fn weighs_evenly(&self) -> bool {
        self.natures.windows(2).all(|pair| pair[0].1 == pair[1].1)
    }
}

fn policy(rng: &mut impl Rng) -> Policy {
    match rng.random_range(0..8) {
        0 => Policy::Random,
        1 => Policy::WeightedRandom,
        2 => Policy::RoundRobin,
        3 => Policy::WeightedRoundRobin,
        4 => Policy::LeastActive,
        5 => Policy::LeastRequest(LeastRequest::default()),
        6 => Policy::ConsistentHash(ConsistentHash::default()),
        _ => Policy::PeakEwma(PeakEwma::default()),
    }
}

fn nature(rng: &mut impl Rng) -> Nature {
    match rng.random_range(0..10) {
        0 => Nature::Slow(rng.random_range(2..40)),
        1 => Nature::Failing,
        _ => Nature::Well,
    }
}

fn incident(rng: &mut impl Rng, count: usize) -> Incident {
    let who = rng.random_range(0..count);
    match rng.random_range(0..6) {
        0 | 1 => Incident::Lost(who, Duration::from_millis(rng.random_range(10..5_000))),
        2 => Incident::Removed(who),
        3 => Incident::Added,
        _ => Incident::Turns(who, nature(rng)),
    }
}
