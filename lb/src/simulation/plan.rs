//! What a history is to be: drawn from its seed. Values; nothing happens here.

use std::time::Duration;

use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{ConsistentHash, LeastRequest, OutlierDetection, PeakEwma, Policy, Prequal};

/// How an instance answers while nothing else is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Nature {
    /// In the usual time.
    Well,
    /// In so many times the usual one.
    Slow(u32),
    /// With UNAVAILABLE, in no time.
    Failing,
    /// In the usual time, and that share of its answers is UNAVAILABLE.
    Flaky(f64),
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
    /// No call begins any more.
    pub(super) lasts: Duration,
    /// The share of the calls that their callers give up before they are answered.
    pub(super) given_up: f64,
    pub(super) outlier: Option<OutlierDetection>,
    pub(super) slow_start: bool,
    pub(super) circuit: Option<Circuit>,
    pub(super) retries: Retrying,
}

/// When the breaker that all calls pass opens and closes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circuit {
    pub(super) window: Duration,
    pub(super) minimum_calls: u32,
    pub(super) error_ratio: f64,
    pub(super) probes: u32,
    /// How long it is open at first; doubled each time, up to `longest`.
    pub(super) open: Duration,
    pub(super) longest: Duration,
}

/// How failed calls are repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retrying {
    /// Attempts of a call besides the first.
    pub(super) most: usize,
    /// Before each of them.
    pub(super) pause: Duration,
    /// The budget: thousandths of the calls, and so many a second.
    pub(super) thousandths: u32,
    pub(super) per_second: u32,
    /// gRPC's throttle: so many tokens, and thousandths of one for each success.
    pub(super) throttle: Option<(u32, u32)>,
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
            given_up: if rng.random_bool(0.5) { 0.05 } else { 0.0 },
            outlier: rng.random_bool(0.8).then(|| outlier(&mut rng)),
            slow_start: rng.random_bool(0.5),
            circuit: rng.random_bool(0.5).then(|| circuit(&mut rng)),
            retries: retrying(&mut rng),
        }
    }

    /// Whether all instances have the same weight; those that are added have 100.
    pub(super) fn weighs_evenly(&self) -> bool {
        self.natures.iter().all(|(_, weight)| *weight == 100)
    }
}

fn policy(rng: &mut impl Rng) -> Policy {
    match rng.random_range(0..9) {
        0 => Policy::Random,
        1 => Policy::WeightedRandom,
        2 => Policy::RoundRobin,
        3 => Policy::WeightedRoundRobin,
        4 => Policy::LeastActive,
        5 => Policy::LeastRequest(LeastRequest::default()),
        6 => Policy::ConsistentHash(ConsistentHash::default()),
        7 => Policy::Prequal(Prequal::default()),
        _ => Policy::PeakEwma(PeakEwma::default()),
    }
}

/// Quicker than the defaults, so that a minute has many ejections and at its end everybody has had the time to come back.
fn outlier(rng: &mut impl Rng) -> OutlierDetection {
    let percent = [0, 10, 10, 10, 10, 30, 100][rng.random_range(0..7)];
    OutlierDetection::default()
        .interval(Duration::from_millis(rng.random_range(500..5_000)))
        .and_then(|it| it.base_ejection(Duration::from_millis(rng.random_range(300..3_000))))
        .and_then(|it| it.max_ejection_percent(percent))
        .and_then(|it| it.consecutive_failures((!rng.random_bool(0.2)).then(|| rng.random_range(2..8))))
        .expect("in their ranges")
        .max_ejection(Duration::from_secs(8))
}

fn circuit(rng: &mut impl Rng) -> Circuit {
    let open = Duration::from_millis(rng.random_range(100..2_000));
    Circuit {
        window: Duration::from_millis(rng.random_range(1_000..5_000)),
        minimum_calls: rng.random_range(3..20),
        error_ratio: rng.random_range(0.2..0.8),
        probes: rng.random_range(1..5),
        open,
        longest: open * 4,
    }
}

fn retrying(rng: &mut impl Rng) -> Retrying {
    Retrying {
        most: rng.random_range(0..=2),
        pause: Duration::from_millis(rng.random_range(0..50)),
        thousandths: [0, 100, 200, 500][rng.random_range(0..4)],
        per_second: [0, 1, 10, 10][rng.random_range(0..4)],
        throttle: rng
            .random_bool(0.3)
            .then(|| (rng.random_range(2..20), rng.random_range(50..500))),
    }
}

fn nature(rng: &mut impl Rng) -> Nature {
    match rng.random_range(0..10) {
        0 => Nature::Slow(rng.random_range(2..40)),
        1 => Nature::Failing,
        2 => Nature::Flaky(rng.random_range(0.05..0.9)),
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
