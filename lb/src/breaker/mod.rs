//! Circuit breakers: after too many failures, or too many slow answers, calls fail at once for a while instead of each finding out
//! for itself.
//!
//! An outlier is one instance; a breaker is about a method, or the service, that fails wherever it is asked. Ejecting instances
//! would help nobody then, and every further call costs the callee work and the caller its patience.
//!
//! [`Core`] is the state machine (pure), [`Breaker`] shares it: letting a call through while closed is one atomic load, an end
//! takes a short lock. [`Breakers`] has one for each method that has been called. What a breaker rejects it never counts.

mod config;
mod core;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub use self::config::CircuitBreaker;
pub(crate) use self::core::Outcome;
use self::core::{Core, Generation};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// More methods than any service has; those beyond share one breaker.
const MOST_METHODS: usize = 1024;

/// One breaker, shared by all calls of what it guards.
#[derive(Debug)]
pub(crate) struct Breaker {
    config: CircuitBreaker,
    /// The generation while closed, 0 otherwise: what a call is let through by, without a lock.
    closed: AtomicU64,
    core: Mutex<Core>,
}

/// One call that was let through. Dropped without an end it was cancelled, and its place may be taken by another.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    generation: Generation,
    ended: bool,
}

/// The breakers of a channel's methods, made when a method is first called.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    by_path: ArcSwap<HashMap<Box<str>, Arc<Breaker>>>,
}

impl Breaker {
    pub(crate) fn new(config: CircuitBreaker) -> Self {
        let core = Core::new();
        Self {
            config,
            closed: AtomicU64::new(core.closed()),
            core: Mutex::new(core),
        }
    }

    /// Lets a call through, or says after how long to come again.
    ///
    /// # Errors
    /// Open, or half-open with enough probes under way.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<Permit, Duration> {
        let generation = match self.closed.load(Ordering::Acquire) {
            0 => self.core().admit(now, &self.config)?,
            closed => Generation::of(closed),
        };
        Ok(Permit {
            breaker: Arc::clone(self),
            generation,
            ended: false,
        })
    }

    /// See [`Core::level`].
    pub(crate) fn level(&self) -> u8 {
        self.core().level()
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // Nothing under this lock panics half-way.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The call is over `now`; it took so long to its first answer.
    pub(crate) fn ends(mut self, has_failed: bool, took: Duration, now: Instant) {
        self.ended = true;
        let config = &self.breaker.config;
        let outcome = match (has_failed, config.is_slow(took)) {
            (true, _) => Outcome::Failed,
            (false, true) => Outcome::Slow,
            (false, false) => Outcome::Good,
        };
        let mut core = self.breaker.core();
        core.record(self.generation, outcome, now, config, &mut rand::rng());
        // Under the lock, or an older state could be written over a newer one.
        self.breaker.closed.store(core.closed(), Ordering::Release);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.breaker.core().give_back(self.generation);
        }
    }
}

impl Breakers {
    /// All there are, by the path of their method.
    pub(crate) fn levels(&self) -> Vec<(Box<str>, u8)> {
        let known = self.by_path.load();
        known
            .iter()
            .map(|(path, breaker)| (path.clone(), breaker.level()))
            .collect()
    }

    /// The breaker of the method with that path. Another `config` than before is another breaker, closed.
    pub(crate) fn of(&self, path: &str, config: &CircuitBreaker) -> Arc<Breaker> {
        let known = self.by_path.load();
        let path = if known.len() < MOST_METHODS || known.contains_key(path) {
            path
        } else {
            ""
        };
        if let Some(breaker) = known.get(path).filter(|breaker| breaker.config == *config) {
            return Arc::clone(breaker);
        }
        self.by_path.rcu(|known| {
            let mut known = HashMap::clone(known);
            let breaker = known
                .entry(path.into())
                .or_insert_with(|| Arc::new(Breaker::new(*config)));
            if breaker.config != *config {
                *breaker = Arc::new(Breaker::new(*config));
            }
            known
        });
        let known = self.by_path.load();
        // Another caller with another configuration may have replaced it already; then this call is guarded by one of its own.
        known
            .get(path)
            .map_or_else(|| Arc::new(Breaker::new(*config)), Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> CircuitBreaker {
        CircuitBreaker::default().minimum_calls(4).expect("valid")
    }

    fn fail(breaker: &Arc<Breaker>, count: usize) {
        for _ in 0..count {
            breaker
                .admit(Instant::now())
                .expect("closed")
                .ends(true, Duration::ZERO, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_and_lets_probes_through_and_closes() {
        let breaker = Arc::new(Breaker::new(config()));
        fail(&breaker, 4);
        let wait = breaker.admit(Instant::now()).expect_err("open");
        assert!(wait <= Duration::from_secs(5), "{wait:?}");
        tokio::time::advance(wait).await;
        let probes: Vec<Permit> = (0..3)
            .map(|_| breaker.admit(Instant::now()).expect("half-open"))
            .collect();
        breaker.admit(Instant::now()).expect_err("three are enough");
        for probe in probes {
            probe.ends(false, Duration::ZERO, Instant::now());
        }
        breaker
            .admit(Instant::now())
            .expect("closed")
            .ends(false, Duration::ZERO, Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_cancelled_gives_its_place_to_another() {
        let breaker = Arc::new(Breaker::new(config()));
        fail(&breaker, 4);
        tokio::time::advance(Duration::from_secs(5)).await;
        let probes: Vec<Permit> = (0..3)
            .map(|_| breaker.admit(Instant::now()).expect("half-open"))
            .collect();
        drop(probes);
        breaker
            .admit(Instant::now())
            .expect("half-open")
            .ends(true, Duration::ZERO, Instant::now());
        breaker.admit(Instant::now()).expect_err("open again");
    }

    #[tokio::test]
    async fn each_method_has_its_own_and_another_configuration_begins_anew() {
        let breakers = Breakers::default();
        fail(&breakers.of("/a", &config()), 4);
        breakers.of("/a", &config()).admit(Instant::now()).expect_err("open");
        drop(breakers.of("/b", &config()).admit(Instant::now()).expect("closed"));
        let other = config().minimum_calls(5).expect("valid");
        drop(breakers.of("/a", &other).admit(Instant::now()).expect("closed"));
    }

    #[tokio::test]
    async fn methods_without_end_do_not_fill_the_memory() {
        let breakers = Breakers::default();
        for n in 0..MOST_METHODS + 50 {
            drop(
                breakers
                    .of(&format!("/{n}"), &config())
                    .admit(Instant::now())
                    .expect("closed"),
            );
        }
        assert!(breakers.by_path.load().len() <= MOST_METHODS + 1);
    }
}
