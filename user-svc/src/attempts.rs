//! The throttle of wrong passwords and of sign-ups with a clock and a lock around it. What is counted is `domain::throttle`'s.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::{
    account::Email,
    throttle::{Attempt, SignUp, Throttle},
};

/// Attempts at one process. Each replica counts for itself: what is bounded is bounded by so much for each of them. Clones
/// are the same.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    throttle: Arc<Mutex<Throttle>>,
    since: Instant,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self {
            throttle: Arc::new(Mutex::new(Throttle::new())),
            since: Instant::now(),
        }
    }

    /// Takes an attempt, or says how long to wait before the next one.
    pub(crate) fn begin(&self, email: &Email, peer: IpAddr) -> Result<Attempt, Duration> {
        let now = self.since.elapsed();
        self.lock().attempt(email, peer, now)
    }

    /// The password was right.
    pub(crate) fn succeeded(&self, attempt: Attempt) {
        let now = self.since.elapsed();
        self.lock().succeeded(attempt, now);
    }

    /// The password was not looked at.
    pub(crate) fn give_back(&self, attempt: Attempt) {
        self.lock().give_back(attempt);
    }

    /// Takes a sign-up, or says how long to wait before the next one.
    pub(crate) fn begin_sign_up(&self, peer: IpAddr) -> Result<SignUp, Duration> {
        let now = self.since.elapsed();
        self.lock().sign_up(peer, now)
    }

    /// There is an account more.
    pub(crate) fn signed_up(&self, sign_up: SignUp) {
        self.lock().signed_up(sign_up);
    }

    /// Nobody was told whether there is an account, and none was made.
    pub(crate) fn no_sign_up(&self, sign_up: SignUp) {
        self.lock().no_sign_up(sign_up);
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
