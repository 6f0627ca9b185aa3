//! What the calls of a channel share when more than one attempt is made: budgets, throttle, latencies, counts.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;

use crate::{
    RetryBudget, RetryThrottling,
    retry::{Budget, Latencies, Throttle},
    settings::ChannelSettings,
};

/// Methods whose latencies are kept apart. A service has some dozens; a proxy that passes on whatever paths it is given shall
/// not make this grow for ever, and the rest of its methods share a table.
const MOST_METHODS: usize = 512;
const THE_REST: &str = "";

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Retries {
    /// For failover.
    budget: Terms,
    /// For hedging.
    hedges: Terms,
    throttle: ArcSwapOption<Throttle>,
    latencies: RwLock<HashMap<Box<str>, Arc<Latencies>>>,
    counts: Counts,
}

/// A budget whose terms may change: one that is changed begins anew.
#[derive(Debug)]
struct Terms(ArcSwap<(RetryBudget, Budget)>);

impl Terms {
    fn new(terms: RetryBudget) -> Self {
        Self(ArcSwap::from_pointee((terms, Budget::new(terms, Instant::now()))))
    }

    fn set(&self, terms: RetryBudget) {
        if self.0.load().0 != terms {
            self.0.store(Arc::new((terms, Budget::new(terms, Instant::now()))));
        }
    }

    fn deposit(&self) {
        self.0.load().1.deposit(Instant::now());
    }

    fn withdraw(&self) -> bool {
        self.0.load().1.withdraw(Instant::now())
    }
}

/// How often what has happened on a channel, since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounts {
    /// Attempts that [`Mode::Failover`](crate::Mode::Failover) made beyond the first.
    pub retries: u64,
    /// Those that it did not make because the budget or the throttle was against it.
    pub retries_withheld: u64,
    /// Attempts that [`Mode::Hedging`](crate::Mode::Hedging) made beyond the first.
    pub hedges: u64,
    /// Those that it did not make because the budget or the throttle was against it.
    pub hedges_withheld: u64,
    /// Failures that callers were not told of: [`Mode::Failsafe`](crate::Mode::Failsafe) and
    /// [`Mode::Failback`](crate::Mode::Failback).
    pub swallowed: u64,
    /// Of those, calls that wait to be tried again.
    pub waiting: u64,
    /// Of those, calls that got there at last.
    pub delivered: u64,
    /// Of those, calls that never did.
    pub undelivered: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) retries: AtomicU64,
    pub(super) retries_withheld: AtomicU64,
    pub(super) hedges: AtomicU64,
    pub(super) hedges_withheld: AtomicU64,
    pub(super) swallowed: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) undelivered: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Retries {
    /// With budgets of the default terms, and no throttle.
    pub(crate) fn new() -> Self {
        let defaults = ChannelSettings::default();
        Self {
            budget: Terms::new(defaults.retry_budget),
            hedges: Terms::new(defaults.hedging_budget),
            throttle: ArcSwapOption::empty(),
            latencies: RwLock::default(),
            counts: Counts::default(),
        }
    }

    /// From now on so many attempts may be made beyond calls; a budget that is as before keeps its balance.
    pub(crate) fn set_budgets(&self, retries: RetryBudget, hedges: RetryBudget) {
        self.budget.set(retries);
        self.hedges.set(hedges);
    }

    /// From now on retries and hedges are throttled so; one that is as before keeps its count.
    pub(crate) fn set_throttling(&self, throttling: Option<RetryThrottling>) {
        let before = self.throttle.load();
        if before.as_ref().map(|throttle| throttle.terms()) != throttling {
            self.throttle.store(throttling.map(Throttle::new).map(Arc::new));
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn view(&self) -> FaultCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        FaultCounts {
            retries: read(&counts.retries),
            retries_withheld: read(&counts.retries_withheld),
            hedges: read(&counts.hedges),
            hedges_withheld: read(&counts.hedges_withheld),
            swallowed: read(&counts.swallowed),
            waiting: read(&counts.waiting),
            delivered: read(&counts.delivered),
            undelivered: read(&counts.undelivered),
        }
    }

    /// A call begins that may need retries.
    pub(crate) fn begin_retriable(&self) {
        self.budget.deposit();
    }

    /// A call begins that may need hedges.
    pub(super) fn begin_hedged(&self) {
        self.hedges.deposit();
    }

    /// One more attempt of a call that has failed, if it may be made.
    pub(crate) fn retry(&self) -> bool {
        let may = self.throttle_allows() && self.budget.withdraw();
        if !may {
            count(&self.counts.retries_withheld);
        }
        may
    }

    /// That attempt was made. One that may be made and finds nobody to go to is none.
    pub(super) fn retried(&self) {
        count(&self.counts.retries);
    }

    /// One more attempt of a call that is late, if it may be made.
    pub(super) fn hedge(&self) -> bool {
        let may = self.throttle_allows() && self.hedges.withdraw();
        count(if may {
            &self.counts.hedges
        } else {
            &self.counts.hedges_withheld
        });
        may
    }

    fn throttle_allows(&self) -> bool {
        self.throttle.load().as_ref().is_none_or(|throttle| throttle.allows())
    }

    /// An attempt has failed in a way that asks for another one.
    pub(crate) fn failed(&self) {
        if let Some(throttle) = &*self.throttle.load() {
            throttle.failed();
        }
    }

    pub(crate) fn succeeded(&self) {
        if let Some(throttle) = &*self.throttle.load() {
            throttle.succeeded();
        }
    }

    /// The latencies of the method with that path.
    pub(super) fn latencies(&self, path: &str) -> Arc<Latencies> {
        let known = self.latencies.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(latencies) = known.get(path) {
            return Arc::clone(latencies);
        }
        let name = if known.len() < MOST_METHODS { path } else { THE_REST };
        drop(known);
        let mut known = self.latencies.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Latencies::new(Instant::now()));
        Arc::clone(known.entry(name.into()).or_insert_with(new))
    }
}

/// How late a call is hedged: after a fixed time, or by what others took.
pub(super) fn hedging_delay(delay: crate::HedgingDelay, latencies: Option<&Latencies>) -> Option<Duration> {
    match delay {
        crate::HedgingDelay::After(delay) => Some(delay),
        crate::HedgingDelay::Percentile(share) => latencies?.percentile(share, Instant::now()),
    }
}
