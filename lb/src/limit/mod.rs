//! How many calls a channel lets out at all: an adaptive concurrency limit, and client-side throttling.
//!
//! Both keep an overloaded service from being asked still more, and neither waits: a queue in the caller would only move the
//! overload to where nobody sees it. They differ in what they go by. The limit ([`Gradient`]) goes by latency, which rises
//! before a server says anything; the throttle ([`Throttle`]) by servers that do say so (RESOURCE_EXHAUSTED). Neither is on
//! unless asked for: on a channel with few calls the one has nothing to measure, and a service that uses RESOURCE_EXHAUSTED for
//! quotas of single users would be throttled for all of them by the other.
//!
//! Which instance is asked is no business of this module.

mod config;
mod gradient;
mod throttle;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

pub use config::{ConcurrencyLimit, Throttling};
use gradient::Gradient;
pub(crate) use throttle::Throttle;

/// The limit of one channel.
#[derive(Debug)]
pub(crate) struct Limiter {
    config: ConcurrencyLimit,
    in_flight: AtomicU32,
    limit: AtomicU32,
    gradient: Mutex<Gradient>,
}

/// One call within the limit, until it is dropped.
#[derive(Debug)]
pub(crate) struct Within {
    limiter: Arc<Limiter>,
    /// Calls under way when it began, itself included.
    among: u32,
}

impl Limiter {
    pub(crate) fn new(config: ConcurrencyLimit) -> Self {
        let gradient = Gradient::new(&config, Instant::now());
        Self {
            config,
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(gradient.limit()),
            gradient: Mutex::new(gradient),
        }
    }

    /// One more call, or the limit that it would exceed.
    ///
    /// # Errors
    /// As many calls as may be are under way.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Within, u32> {
        let limit = self.limit.load(Ordering::Relaxed);
        let among = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        if among > limit {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(limit);
        }
        Ok(Within {
            limiter: Arc::clone(self),
            among,
        })
    }
}

impl Within {
    /// The call took so long to its first answer; `overloaded` if it was refused for being one too many.
    pub(crate) fn ends(self, took: Duration, overloaded: bool) {
        let limiter = &self.limiter;
        let mut gradient = limiter.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = gradient.learn(took, self.among, overloaded, Instant::now(), &limiter.config) {
            limiter.limit.store(limit, Ordering::Relaxed);
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        self.limiter.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_get_in_than_may_and_each_that_leaves_makes_room() {
        let config = ConcurrencyLimit::default().bounds(2, 2).expect("valid");
        let limiter = Arc::new(Limiter::new(config));
        let (one, two) = (limiter.enter().expect("room"), limiter.enter().expect("room"));
        assert_eq!(limiter.enter().expect_err("full"), 2);
        drop(one);
        let three = limiter.enter().expect("room");
        two.ends(Duration::from_millis(1), false);
        drop((limiter.enter().expect("room"), three));
        assert_eq!(limiter.in_flight.load(Ordering::Relaxed), 0);
    }
}
