//! The life of an endpoint as types: a transition consumes the old state, so a wrong order does not compile.
//!
//! Pure: time and randomness are arguments, and the live connection is an opaque `L` that only the states that have one can
//! hold. The effects (dialling, sleeping, publishing) are the driver's.
//!
//! ```text
//! Idle --connect--> Connecting --connected--> Ready --retire--> Draining
//!                    ^  ^  |                    |
//!                    |  |  +--failed--+   lost: soon after connecting
//!                    |  |             v         |
//!                    |  +--elapsed-- BackingOff <+
//!                    +--lost: had been well for a while
//! ```
//!
//! Ready --rest--> Resting --wanted--> Connecting: an endpoint that nobody calls is not kept connected for ever.
//!
//!
//! A removed endpoint that has no connection simply ends; `Draining` exists for calls that are still under way.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::backoff::Backoff;

/// A connection that ends sooner than this did not prove that the server is well: its loss counts as one more failure in a
/// row. Without this rule a server that accepts and hangs up at once would be dialled in a tight loop.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Where an endpoint is in its life.
#[derive(Debug)]
pub(crate) enum State<L> {
    Idle(Idle),
    Connecting(Connecting),
    Ready(Ready<L>),
    BackingOff(BackingOff),
    Resting(Resting),
    Draining(Draining<L>),
}

/// Known, and never dialled yet.
#[derive(Debug)]
pub(crate) struct Idle;

/// A connect is under way.
#[derive(Debug)]
pub(crate) struct Connecting {
    failures: u32,
}

/// Connected: the only state in which it is pickable.
#[derive(Debug)]
pub(crate) struct Ready<L> {
    pub(crate) link: L,
    failures: u32,
    since: Instant,
}

/// Unreachable; dialled again at `until`.
#[derive(Debug)]
pub(crate) struct BackingOff {
    failures: u32,
    since: Instant,
    until: Instant,
}

/// Nobody calls: without a connection until somebody does.
#[derive(Debug)]
pub(crate) struct Resting;

/// Removed from the set: finishes the calls it has, takes no new ones.
#[derive(Debug)]
pub(crate) struct Draining<L> {
    pub(crate) link: L,
}

impl Idle {
    pub(crate) fn connect(self) -> Connecting {
        Connecting { failures: 0 }
    }
}

impl Connecting {
    pub(crate) fn connected<L>(self, link: L, now: Instant) -> Ready<L> {
        // The failures are kept until the connection has proved itself, see `STABLE_AFTER`.
        Ready {
            link,
            failures: self.failures,
            since: now,
        }
    }

    pub(crate) fn failed(self, now: Instant, backoff: &Backoff, rng: &mut impl Rng) -> BackingOff {
        BackingOff::after(self.failures.saturating_add(1), now, backoff, rng)
    }
}

impl<L> Ready<L> {
    /// The connection takes no more calls.
    pub(crate) fn lost(self, now: Instant, backoff: &Backoff, rng: &mut impl Rng) -> State<L> {
        if now.saturating_duration_since(self.since) >= STABLE_AFTER {
            State::Connecting(Connecting { failures: 0 })
        } else {
            State::BackingOff(BackingOff::after(self.failures.saturating_add(1), now, backoff, rng))
        }
    }

    pub(crate) fn rest(self) -> Resting {
        Resting
    }

    pub(crate) fn retire(self) -> Draining<L> {
        Draining { link: self.link }
    }
}

impl Resting {
    pub(crate) fn wanted(self) -> Connecting {
        Connecting { failures: 0 }
    }
}

impl BackingOff {
    fn after(failures: u32, now: Instant, backoff: &Backoff, rng: &mut impl Rng) -> Self {
        Self {
            failures,
            since: now,
            until: now + backoff.delay(failures, rng),
        }
    }

    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// When it is dialled again if calls wait for it, and are to wait for `pause` at most: never later than otherwise.
    pub(crate) fn until_at_most(&self, pause: Duration) -> Instant {
        self.until.min(self.since + pause)
    }

    pub(crate) fn elapsed(self) -> Connecting {
        Connecting {
            failures: self.failures,
        }
    }

    /// News from the registry (the instance registered anew): what we learnt of its former life no longer holds.
    pub(crate) fn nudged(self) -> Connecting {
        Connecting { failures: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn steady() -> Backoff {
        Backoff::try_new(Duration::from_millis(100), Duration::from_secs(10), 0.0).expect("valid")
    }

    #[test]
    fn failures_in_a_row_wait_longer_and_longer() {
        let (backoff, mut rng, now) = (steady(), StdRng::seed_from_u64(7), Instant::now());
        let mut connecting = Idle.connect();
        let mut waits = Vec::new();
        for _ in 0..9 {
            let backing_off = connecting.failed(now, &backoff, &mut rng);
            waits.push((backing_off.until() - now).as_millis());
            connecting = backing_off.elapsed();
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn a_long_lived_connection_that_is_lost_is_dialled_at_once() {
        let (backoff, mut rng, now) = (steady(), StdRng::seed_from_u64(7), Instant::now());
        let ready = Idle
            .connect()
            .failed(now, &backoff, &mut rng)
            .elapsed()
            .connected("link", now);
        let state = ready.lost(now + STABLE_AFTER, &backoff, &mut rng);
        let State::Connecting(connecting) = state else {
            panic!("{state:?}")
        };
        // And the count starts anew.
        assert_eq!(
            connecting.failed(now, &backoff, &mut rng).until() - now,
            Duration::from_millis(100)
        );
    }

    #[test]
    fn a_server_that_accepts_and_hangs_up_is_not_dialled_in_a_loop() {
        let (backoff, mut rng, mut now) = (steady(), StdRng::seed_from_u64(7), Instant::now());
        let mut connecting = Idle.connect();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let state = connecting.connected((), now).lost(now, &backoff, &mut rng);
            let State::BackingOff(backing_off) = state else {
                panic!("{state:?}")
            };
            waits.push((backing_off.until() - now).as_millis());
            now = backing_off.until();
            connecting = backing_off.elapsed();
        }
        assert_eq!(waits, [100, 200, 400, 800]);
    }

    #[test]
    fn news_from_the_registry_forgets_the_failures() {
        let (backoff, mut rng, now) = (steady(), StdRng::seed_from_u64(7), Instant::now());
        let third = Idle
            .connect()
            .failed(now, &backoff, &mut rng)
            .elapsed()
            .failed(now, &backoff, &mut rng);
        let fresh = third.nudged().failed(now, &backoff, &mut rng);
        assert_eq!(fresh.until() - now, Duration::from_millis(100));
    }

    #[test]
    fn who_waits_shortens_the_pause_and_does_not_end_it() {
        let (backoff, mut rng, now) = (steady(), StdRng::seed_from_u64(7), Instant::now());
        let pause = Duration::from_millis(200);
        let first = Idle.connect().failed(now, &backoff, &mut rng);
        assert_eq!(first.until_at_most(pause) - now, Duration::from_millis(100));
        let mut later = first;
        for _ in 0..6 {
            later = later.elapsed().failed(now, &backoff, &mut rng);
        }
        assert_eq!(later.until() - now, Duration::from_millis(6_400));
        assert_eq!(later.until_at_most(pause) - now, pause);
    }

    proptest! {
        /// Whatever happens in whatever order: it never waits longer than the cap and never dials twice without either a
        /// wait or a connection that had lasted.
        #[test]
        fn any_history_keeps_its_distance(events in prop::collection::vec((any::<bool>(), 0_u64..3_000), 1..60), seed in any::<u64>()) {
            let (backoff, mut rng) = (Backoff::default(), StdRng::seed_from_u64(seed));
            let mut now = Instant::now();
            let mut connecting = Idle.connect();
            for (connects, lives_ms) in events {
                let state = if connects {
                    let ready = connecting.connected((), now);
                    now += Duration::from_millis(lives_ms);
                    ready.lost(now, &backoff, &mut rng)
                } else {
                    State::BackingOff(connecting.failed(now, &backoff, &mut rng))
                };
                connecting = match state {
                    State::Connecting(next) => {
                        prop_assert!(connects && lives_ms >= 1_000);
                        next
                    }
                    State::BackingOff(wait) => {
                        let pause = wait.until() - now;
                        prop_assert!(pause >= Duration::from_millis(50) && pause <= Duration::from_secs(10));
                        now = wait.until();
                        wait.elapsed()
                    }
                    other => panic!("{other:?}"),
                };
            }
        }
    }
}
