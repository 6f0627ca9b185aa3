//! Metrics by target and instance. What the pool counts anyway is read when somebody scrapes, so that a call pays nothing for it;
//! only a wait, which is rare, is measured as it happens.
//!
//! The series of an instance end with it. What it did between the last scrape and its end is not seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use telemetry::{
    metrics::{CounterFamily, GaugeFamily, HistogramFamily, counter, gauge, histogram},
    semconv::DURATION_BUCKETS,
};

use super::live;
use crate::{
    EndpointState, FaultCounts,
    endpoint::{Counts, EJECTIONS, RetryReason, Why},
};

const OUTCOMES: [&str; 3] = ["served", "failed", "cancelled"];
/// Of an instance that is known and never dialled, since it takes no calls.
const PASSED_OVER: &str = "passed_over";
const FAULTS: [&str; 4] = ["retry_withheld", "hedge", "hedge_withheld", "swallowed"];
const STATES: [(EndpointState, &str); 7] = [
    (EndpointState::Idle, "idle"),
    (EndpointState::Connecting, "connecting"),
    (EndpointState::Ready, "ready"),
    (EndpointState::Ejected, "ejected"),
    (EndpointState::Unhealthy, "unhealthy"),
    (EndpointState::BackingOff, "backing_off"),
    (EndpointState::Draining, "draining"),
];

struct Families {
    requests: CounterFamily,
    attempts: CounterFamily,
    retries: CounterFamily,
    further: CounterFamily,
    in_flight: GaugeFamily,
    ejections: CounterFamily,
    faults: CounterFamily,
    breakers: GaugeFamily,
    pool_size: GaugeFamily,
    set_age: GaugeFamily,
    ready_wait: HistogramFamily,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| Families {
    requests: counter(
        "tessera_lb_requests",
        "Calls whose first attempt went to the instance and has ended",
        &["target", "instance"],
    ),
    attempts: counter(
        "tessera_lb_attempts",
        "Attempts that have ended, by what they say of the instance",
        &["target", "instance", "outcome"],
    ),
    retries: counter(
        "tessera_lb_retries",
        "Attempts at the instance that were followed by another one, by reason",
        &["target", "instance", "reason"],
    ),
    further: counter(
        "tessera_lb_further_attempts",
        "Attempts at the instance that were not the first of their calls, by why they were made",
        &["target", "instance", "why"],
    ),
    ejections: counter(
        "tessera_lb_ejections",
        "How often the instance was taken out of service, by reason",
        &["target", "instance", "reason"],
    ),
    breakers: gauge(
        "tessera_lb_breaker_state",
        "Circuit breakers: 0 closed, 1 half-open, 2 open; the method is * for that of the service",
        &["target", "method"],
    ),
    faults: counter(
        "tessera_lb_faults",
        "What the modes of calls did about failures, and did not",
        &["target", "event"],
    ),
    in_flight: gauge(
        "tessera_lb_in_flight",
        "Calls under way until their responses have ended",
        &["target", "instance"],
    ),
    pool_size: gauge(
        "tessera_lb_pool_size",
        "Instances by state; those passed over are known and take no calls",
        &["target", "state"],
    ),
    set_age: gauge(
        "tessera_lb_set_age_seconds",
        "For how long the set of instances is from before the registry was lost; 0 while it answers",
        &["target"],
    ),
    ready_wait: histogram(
        "tessera_lb_ready_wait_seconds",
        "How long calls waited that found no instance ready with room",
        &["target"],
        &DURATION_BUCKETS,
    ),
});

/// A call had to wait for somebody to call.
pub(crate) fn waited(target: &str, wait: Duration) {
    FAMILIES.ready_wait.with(&[target]).observe(wait.as_secs_f64());
}

/// What is shown of an instance: one series of each family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    target: String,
    instance: String,
}

/// What was told at the last scrape.
#[derive(Default)]
struct Told {
    /// By channel: several may have the same instance, and each counts for itself.
    counts: BTreeMap<(u64, Series), Counts>,
    faults: BTreeMap<u64, [u64; FAULTS.len()]>,
    series: BTreeSet<Series>,
    targets: BTreeSet<String>,
    breakers: BTreeMap<(String, String), u8>,
}

static TOLD: LazyLock<Mutex<Told>> = LazyLock::new(Mutex::default);

/// Brings the series in line with the channels that are open. Runs before each scrape.
pub(super) fn collect() {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut now = Told::default();
    let mut in_flight: BTreeMap<Series, u32> = BTreeMap::new();
    let mut ages: BTreeMap<String, Duration> = BTreeMap::new();
    let mut sizes: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for (channel, shared) in live::channels() {
        let target = shared.service.to_string();
        let census = shared.pool.census();
        let age = shared.pool.origin().age(SystemTime::now()).unwrap_or_default();
        // Of several channels the one that has been without for longest.
        let oldest = ages.entry(target.clone()).or_default();
        *oldest = age.max(*oldest);
        for state in states() {
            sizes.entry((target.clone(), state)).or_default();
        }
        *sizes.entry((target.clone(), PASSED_OVER)).or_default() += census.passed_over;
        for member in census.members {
            let state = STATES.iter().find(|(state, _)| *state == member.state);
            if let Some((_, name)) = state {
                *sizes.entry((target.clone(), name)).or_default() += 1;
            }
            let series = Series {
                target: target.clone(),
                instance: member.instance_id.to_string(),
            };
            *in_flight.entry(series.clone()).or_default() += member.in_flight;
            // An instance may be there twice: its former address finishes its calls.
            let sum = now.counts.entry((channel, series)).or_default();
            *sum = sum.plus(member.counts);
        }
        let faults = faults(shared.retries.view());
        let before = told.faults.get(&channel).copied().unwrap_or_default();
        for ((event, count), before) in FAULTS.into_iter().zip(faults).zip(before) {
            let series = FAMILIES.faults.with(&[&target, event]);
            series.inc_by(count.saturating_sub(before));
        }
        now.faults.insert(channel, faults);
        for (method, level) in shared.gate.breakers() {
            let method = method.unwrap_or_else(|| "*".into());
            // Of several channels the one that is worst off.
            let worst = now.breakers.entry((target.clone(), method.into())).or_default();
            *worst = level.max(*worst);
        }
        now.targets.insert(target);
    }
    for (key, counts) in &now.counts {
        let new = counts.since(told.counts.get(key).copied().unwrap_or_default());
        key.1.add(new);
        key.1.add_ejections(new);
    }
    for (series, count) in &in_flight {
        series.in_flight(*count);
    }
    for (target, age) in ages {
        FAMILIES.set_age.with(&[&target]).set(age.as_secs_f64());
    }
    for ((target, state), count) in sizes {
        FAMILIES.pool_size.with(&[&target, state]).set(count as f64);
    }
    for ((target, method), level) in &now.breakers {
        FAMILIES.breakers.with(&[target, method]).set(f64::from(*level));
    }
    for (target, method) in told.breakers.keys().filter(|key| !now.breakers.contains_key(key)) {
        FAMILIES.breakers.remove(&[target, method]);
    }
    now.series = in_flight.into_keys().collect();
    told.series.difference(&now.series).for_each(Series::remove);
    for target in told.targets.difference(&now.targets) {
        states().for_each(|state| FAMILIES.pool_size.remove(&[target, state]));
        FAMILIES.set_age.remove(&[target]);
        FAULTS.iter().for_each(|event| FAMILIES.faults.remove(&[target, event]));
    }
    *told = now;
}

/// In the order of [`FAULTS`].
fn faults(counts: FaultCounts) -> [u64; FAULTS.len()] {
    [
        counts.retries_withheld,
        counts.hedges,
        counts.hedges_withheld,
        counts.swallowed,
    ]
}

fn states() -> impl Iterator<Item = &'static str> {
    STATES.iter().map(|(_, name)| *name).chain([PASSED_OVER])
}

impl Series {
    fn add(&self, new: Counts) {
        let (target, instance) = (&*self.target, &*self.instance);
        FAMILIES.requests.with(&[target, instance]).inc_by(new.requests());
        for (outcome, count) in OUTCOMES.into_iter().zip([new.served, new.failed, new.cancelled]) {
            let series = FAMILIES.attempts.with(&[target, instance, outcome]);
            series.inc_by(count);
        }
        for (why, count) in Why::NAMES.into_iter().zip(new.further) {
            if count > 0 {
                let series = FAMILIES.further.with(&[target, instance, why]);
                series.inc_by(count);
            }
        }
        for (reason, count) in RetryReason::names().zip(new.retried) {
            // One that never happened needs no series.
            if count > 0 {
                let series = FAMILIES.retries.with(&[target, instance, reason]);
                series.inc_by(count);
            }
        }
    }

    fn add_ejections(&self, new: Counts) {
        for (reason, count) in EJECTIONS.into_iter().zip(new.ejected) {
            if count > 0 {
                let series = FAMILIES.ejections.with(&[&self.target, &self.instance, reason]);
                series.inc_by(count);
            }
        }
    }

    fn in_flight(&self, count: u32) {
        let series = FAMILIES.in_flight.with(&[&self.target, &self.instance]);
        series.set(f64::from(count));
    }

    fn remove(&self) {
        let (target, instance) = (&*self.target, &*self.instance);
        FAMILIES.requests.remove(&[target, instance]);
        FAMILIES.in_flight.remove(&[target, instance]);
        for outcome in OUTCOMES {
            FAMILIES.attempts.remove(&[target, instance, outcome]);
        }
        for why in Why::NAMES {
            FAMILIES.further.remove(&[target, instance, why]);
        }
        for reason in RetryReason::names() {
            FAMILIES.retries.remove(&[target, instance, reason]);
        }
        for reason in EJECTIONS {
            FAMILIES.ejections.remove(&[target, instance, reason]);
        }
    }
}
