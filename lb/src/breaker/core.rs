//! The life of a circuit breaker as types. Pure: time and randomness are arguments.
//!
//! ```text
//! Closed --too many bad--> Open --elapsed--> HalfOpen --all probes good--> Closed
//!                           ^                   |
//!                           +---one is bad------+   (and for twice as long)
//! ```

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::CircuitBreaker;
use crate::window::Window;

/// A breaker's state, numbered: how a call ended counts only in the state that let it through.
#[derive(Debug)]
pub(crate) struct Core {
    state: State,
    generation: u64,
}

/// The number of the state that let a call through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    Slow,
    Failed,
}

#[derive(Debug)]
enum State {
    Closed(Closed),
    Open(Open),
    HalfOpen(HalfOpen),
}

/// Everything is let through and counted: calls, failed ones, slow ones. `None` until the first one ends.
#[derive(Debug, Default)]
struct Closed {
    window: Option<Window<3>>,
}

/// Nothing is let through.
#[derive(Debug)]
struct Open {
    /// For the how many-th time without having been closed.
    times: u32,
    until: Instant,
}

/// A few are let through.
#[derive(Debug)]
struct HalfOpen {
    times: u32,
    /// How many more may be let through.
    left: u32,
    most: u32,
    good: u32,
    since: Instant,
}

impl Generation {
    pub(crate) fn of(number: u64) -> Self {
        Self(number)
    }
}

impl Closed {
    fn record(mut self, outcome: Outcome, now: Instant, config: &CircuitBreaker, rng: &mut impl Rng) -> State {
        let window = self.window.get_or_insert_with(|| Window::new(config.window, now));
        window.add(
            now,
            [
                1,
                u32::from(outcome == Outcome::Failed),
                u32::from(outcome == Outcome::Slow),
            ],
        );
        let [calls, failed, slow] = window.totals(now);
        // Only what is bad opens: or the good call that completes the minimum would.
        if outcome != Outcome::Good && config.trips(calls, failed, slow) {
            State::Open(Open::for_the(1, now, config, rng))
        } else {
            State::Closed(self)
        }
    }
}

impl Open {
    fn for_the(times: u32, now: Instant, config: &CircuitBreaker, rng: &mut impl Rng) -> Self {
        Self {
            times,
            until: now + config.open.delay(times, rng),
        }
    }

    fn elapsed(self, now: Instant, config: &CircuitBreaker) -> HalfOpen {
        HalfOpen {
            times: self.times,
            left: config.probes,
            most: config.probes,
            good: 0,
            since: now,
        }
    }
}

impl HalfOpen {
    fn record(mut self, outcome: Outcome, now: Instant, config: &CircuitBreaker, rng: &mut impl Rng) -> State {
        if outcome != Outcome::Good {
            return State::Open(Open::for_the(self.times.saturating_add(1), now, config, rng));
        }
        self.good += 1;
        if self.good >= config.probes {
            State::Closed(Closed::default())
        } else {
            State::HalfOpen(self)
        }
    }
}

impl Core {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Closed(Closed::default()),
            generation: 1,
        }
    }

    /// The generation while closed, 0 otherwise.
    pub(crate) fn closed(&self) -> u64 {
        match self.state {
            State::Closed(_) => self.generation,
            State::Open(_) | State::HalfOpen(_) => 0,
        }
    }

    /// For metrics: 0 closed, 1 half-open, 2 open.
    pub(crate) fn level(&self) -> u8 {
        match self.state {
            State::Closed(_) => 0,
            State::HalfOpen(_) => 1,
            State::Open(_) => 2,
        }
    }

    /// Lets a call through, or says after how long to come again.
    pub(crate) fn admit(&mut self, now: Instant, config: &CircuitBreaker) -> Result<Generation, Duration> {
        // Open -> HalfOpen
        if let State::Open(open) = &mut self.state
            && open.until <= now
        {
            let open = Open { ..*open };
            self.become_(State::HalfOpen(open.elapsed(now, config)));
        }
        match &mut self.state {
            State::Closed(_) => Ok(Generation(self.generation)),
            State::Open(open) => Err(open.until - now),
            State::HalfOpen(half_open) => {
                // Probes that have not ended after a whole window (subscriptions, calls without a deadline) decide nothing.
                if half_open.left == 0 && now.saturating_duration_since(half_open.since) >= config.window {
                    half_open.left = config.probes;
                    half_open.since = now;
                }
                match half_open.left.checked_sub(1) {
                    Some(left) => {
                        half_open.left = left;
                        Ok(Generation(self.generation))
                    }
                    None => Err((half_open.since + config.window).saturating_duration_since(now)),
                }
            }
        }
    }

    pub(crate) fn record(
        &mut self,
        generation: Generation,
        outcome: Outcome,
        now: Instant,
        config: &CircuitBreaker,
        rng: &mut impl Rng,
    ) {
        if generation.0 != self.generation {
            return;
        }
        let before = std::mem::discriminant(&self.state);
        let state = match std::mem::replace(&mut self.state, State::Closed(Closed::default())) {
            State::Closed(closed) => closed.record(outcome, now, config, rng),
            State::HalfOpen(half_open) => half_open.record(outcome, now, config, rng),
            // Open lets nobody through who could end.
            State::Open(open) => State::Open(open),
        };
        if std::mem::discriminant(&state) == before {
            self.state = state;
        } else {
            self.become_(state);
        }
    }

    /// A call that was let through was cancelled.
    pub(crate) fn give_back(&mut self, generation: Generation) {
        if generation.0 == self.generation
            && let State::HalfOpen(half_open) = &mut self.state
        {
            half_open.left = (half_open.left + 1).min(half_open.most);
        }
    }

    fn become_(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::Backoff;

    fn config() -> CircuitBreaker {
        CircuitBreaker::default().open(Backoff::doubling(Duration::from_secs(5), Duration::from_secs(60), 0.0))
    }

    fn open(core: &mut Core, now: Instant, config: &CircuitBreaker, rng: &mut StdRng) {
        for _ in 0..20 {
            let generation = core.admit(now, config).expect("closed");
            core.record(generation, Outcome::Failed, now, config, rng);
        }
    }

    #[test]
    fn each_time_it_fails_to_close_it_stays_open_longer() {
        let (config, mut rng, mut now) = (config(), StdRng::seed_from_u64(7), Instant::now());
        let mut core = Core::new();
        open(&mut core, now, &config, &mut rng);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let wait = core.admit(now, &config).expect_err("open");
            waits.push(wait.as_secs());
            now += wait;
            let probe = core.admit(now, &config).expect("half-open");
            core.record(probe, Outcome::Failed, now, &config, &mut rng);
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn calls_from_before_it_opened_do_not_decide_whether_it_closes() {
        let (config, mut rng, mut now) = (config(), StdRng::seed_from_u64(7), Instant::now());
        let mut core = Core::new();
        let old = core.admit(now, &config).expect("closed");
        open(&mut core, now, &config, &mut rng);
        now += Duration::from_secs(5);
        let probe = core.admit(now, &config).expect("half-open");
        core.record(old, Outcome::Failed, now, &config, &mut rng);
        core.record(probe, Outcome::Good, now, &config, &mut rng);
        for _ in 0..2 {
            let probe = core.admit(now, &config).expect("half-open");
            core.record(probe, Outcome::Good, now, &config, &mut rng);
        }
        assert_ne!(core.closed(), 0);
    }

    #[test]
    fn probes_that_never_end_do_not_keep_it_shut() {
        let (config, mut rng, mut now) = (config(), StdRng::seed_from_u64(7), Instant::now());
        let mut core = Core::new();
        open(&mut core, now, &config, &mut rng);
        now += Duration::from_secs(5);
        for _ in 0..3 {
            core.admit(now, &config).expect("half-open");
        }
        let wait = core.admit(now, &config).expect_err("three are enough");
        assert_eq!(wait, Duration::from_secs(10));
        core.admit(now + wait, &config).expect("another one");
    }

    #[test]
    fn slow_calls_open_it_as_failures_do() {
        let config = config().slow_calls(Duration::from_millis(1), 0.5).expect("valid");
        let (mut rng, now) = (StdRng::seed_from_u64(7), Instant::now());
        let mut core = Core::new();
        for n in 0..20 {
            let generation = core.admit(now, &config).expect("closed");
            let outcome = if n < 10 { Outcome::Good } else { Outcome::Slow };
            core.record(generation, outcome, now, &config, &mut rng);
        }
        core.admit(now, &config).expect_err("open");
    }

    proptest! {
        /// Whatever happens in whatever order: half-open never has more probes out than it may in one window, closed rejects
        /// nobody, and from open there is always a way out after at most the longest time.
        #[test]
        fn it_is_always_one_wait_away_from_trying(
            events in prop::collection::vec((0_u8..4, 0_u64..4_000), 1..200), seed in any::<u64>(),
        ) {
            let config = config().minimum_calls(3).expect("valid");
            let (mut rng, mut now) = (StdRng::seed_from_u64(seed), Instant::now());
            let mut core = Core::new();
            let mut out = Vec::new();
            for (event, millis) in events {
                now += Duration::from_millis(millis);
                match event {
                    0 => {
                        let was_closed = core.closed() != 0;
                        match core.admit(now, &config) {
                            Ok(generation) => out.push(generation),
                            Err(wait) => {
                                prop_assert!(!was_closed);
                                prop_assert!(wait <= Duration::from_secs(60));
                            }
                        }
                    }
                    1 => if let Some(generation) = out.pop() { core.give_back(generation) },
                    _ => if let Some(generation) = out.pop() {
                        let outcome = if event == 2 { Outcome::Good } else { Outcome::Failed };
                        core.record(generation, outcome, now, &config, &mut rng);
                    },
                }
                if let State::HalfOpen(half_open) = &core.state {
                    prop_assert!(half_open.left <= config.probes && half_open.good < config.probes);
                }
            }
            if let Err(wait) = core.admit(now, &config) {
                prop_assert!(core.admit(now + wait, &config).is_ok());
            }
        }
    }
}
