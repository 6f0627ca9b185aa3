//! The calls of a history, as `call` makes them: past the breaker, to an instance, again where that is allowed, to their end.

use std::{sync::Arc, time::Duration};

use rand::{Rng as _, RngExt as _};
use tokio::time::Instant;

use super::{
    Plant,
    plan::Nature,
    world::{Event, Instance, Phase, World},
};
use crate::{
    Policy, breaker,
    endpoint::{Ending, Endpoint, InFlight},
    load::Report,
    pool::Wish,
};

/// After the healing, until the shares are looked at: averages with a time constant of 10 s have forgotten by then.
const SETTLED: Duration = Duration::from_secs(20);

/// A call from its beginning to its end.
pub(super) struct Call {
    began: Instant,
    permit: Option<breaker::Permit>,
    /// The breaker's state that let it through.
    state: u64,
    /// The instances that had it before.
    tried: Vec<usize>,
    attempt: Option<Attempt>,
}

struct Attempt {
    in_flight: InFlight,
    instance: usize,
    began: Instant,
}

/// What the pool was asked, and what it answered.
#[derive(Debug)]
pub(super) struct Picked {
    /// Which instance; nothing if the pool had none.
    pub(super) instance: Option<usize>,
    /// The instances that had the call before.
    pub(super) tried: Vec<usize>,
    /// Whether another call was proving the chosen one already.
    pub(super) was_proving: bool,
}

impl World {
    pub(super) fn arrives(&mut self) {
        if !self.is_closing {
            let uniform: f64 = self.rng.random_range(f64::EPSILON..1.0);
            self.after(Duration::from_secs_f64(-uniform.ln() / self.plan.rate), Event::Arrival);
        }
        let now = Instant::now();
        let mut permit = None;
        if let Some(breaker) = &self.breaker {
            let admitted = breaker.admit(now);
            let passes = admitted.is_ok() || self.plant == Plant::BreakerIgnored;
            let ledger = self.circuit.as_mut().expect("where there is a breaker");
            ledger.met(passes, breaker.level(), now);
            match admitted {
                Err(_) if !passes => return,
                admitted => permit = admitted.ok(),
            }
        }
        self.retries.begin_retriable();
        self.ledger.calls += 1;
        let id = self.next;
        let call = Call {
            began: now,
            permit,
            state: self.circuit.as_ref().map_or(0, |circuit| circuit.state),
            tried: Vec::new(),
            attempt: None,
        };
        self.calls.insert(id, call);
        if self.rng.random_bool(self.plan.given_up) {
            // Some wait until their breaker has opened, and lets its probes through.
            let longest = if self.rng.random_bool(0.2) { 100.0 } else { 3.0 };
            let patience = self.plan.usual.mul_f64(self.rng.random_range(0.1..longest));
            self.after(patience, Event::GivenUp(id));
        }
        self.attempt(id);
        self.probe();
    }

    /// One more attempt of that call, unless it was given up meanwhile.
    pub(super) fn attempt(&mut self, id: u64) {
        let Some(call) = self.calls.get(&id) else { return };
        let tried = call.tried.clone();
        let avoid: Vec<Arc<Endpoint>> = match self.plant {
            Plant::NotAvoided => Vec::new(),
            Plant::Sticky => self.instances[1..]
                .iter()
                .map(|instance| Arc::clone(&instance.endpoint))
                .collect(),
            _ => tried
                .iter()
                .map(|at| Arc::clone(&self.instances[*at].endpoint))
                .collect(),
        };
        let wish = Wish {
            avoid: &avoid,
            key: Some(self.rng.next_u64()),
            route: None,
        };
        let choice = self.pool.pick(wish);
        let at = choice.as_ref().map(|choice| {
            let is_it = |instance: &Instance| Arc::ptr_eq(&instance.endpoint, choice.in_flight.endpoint());
            self.instances.iter().position(is_it).expect("one of them")
        });
        let now = Instant::now();
        self.picked = Some(Picked {
            instance: at,
            was_proving: at.is_some_and(|at| self.is_proving(at, now)),
            tried: tried.clone(),
        });
        let (Some(at), Some(choice)) = (at, choice) else {
            self.ends(id, true);
            return;
        };
        if tried.is_empty() {
            self.count(at);
        }
        if self.before[at] == Phase::OnProbation && self.phases()[at] == Phase::Proving {
            self.instances[at].proving = Some((id, now));
        }
        let instance = &mut self.instances[at];
        instance.open += 1;
        let usual = self.plan.usual.mul_f64(self.rng.random_range(0.8..1.2));
        let takes = match instance.nature {
            Nature::Well | Nature::Flaky(_) => usual,
            Nature::Slow(times) => usual * times,
            Nature::Failing => Duration::from_micros(50),
        };
        let attempt = Attempt {
            in_flight: choice.in_flight,
            instance: at,
            began: now,
        };
        self.calls.get_mut(&id).expect("it is there").attempt = Some(attempt);
        self.after(takes, Event::Answer(id, now));
    }

    /// The attempt of that call that began then is answered, unless it was given up meanwhile.
    pub(super) fn answer(&mut self, id: u64, began: Instant) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let is_of_it = |attempt: &mut Attempt| attempt.began == began;
        let Some(mut attempt) = call.attempt.take_if(is_of_it) else {
            return;
        };
        let at = attempt.instance;
        let failed = match self.instances[at].nature {
            Nature::Well | Nature::Slow(_) => false,
            Nature::Failing => true,
            Nature::Flaky(share) => self.rng.random_bool(share),
        };
        if let Policy::Prequal(_) = self.plan.policy {
            attempt.in_flight.endpoint().load().hears(Report {
                rif: self.instances[at].open as u16,
                latency: began.elapsed().as_micros() as u32,
            });
        }
        if failed {
            attempt.in_flight.ends(Ending::Failed);
        } else {
            attempt.in_flight.speaks();
            attempt.in_flight.ends(Ending::Served);
        }
        self.is_left(id, at);
        self.row(at, failed);
        if self.plant == Plant::LeakedCall && id.is_multiple_of(5) {
            std::mem::forget(attempt);
        } else {
            drop(attempt);
        }
        if !failed {
            self.retries.succeeded();
            self.ledger.succeeded();
            self.ends(id, false);
            return;
        }
        self.retries.failed();
        self.ledger.failed();
        let tried = &mut self.calls.get_mut(&id).expect("it is there").tried;
        if tried.len() == self.plan.retries.most {
            self.ends(id, true);
            return;
        }
        tried.push(at);
        let granted = self.retries.retry() || self.plant == Plant::BudgetIgnored;
        self.ledger.asked(granted, Instant::now());
        if granted {
            self.after(self.plan.retries.pause, Event::Retry(id));
        } else {
            self.ends(id, true);
        }
    }

    /// The caller of that call waits no longer, unless it was answered meanwhile.
    pub(super) fn given_up(&mut self, id: u64) {
        let Some(call) = self.calls.remove(&id) else { return };
        if let Some(attempt) = &call.attempt {
            self.is_left(id, attempt.instance);
        }
        if let Some(circuit) = self.circuit.as_mut().filter(|_| call.permit.is_some()) {
            circuit.given_back(call.state);
        }
        drop(call);
    }

    /// An attempt of that call is no longer at that instance.
    fn is_left(&mut self, id: u64, at: usize) {
        let instance = &mut self.instances[at];
        instance.open -= 1;
        if instance.proving.is_some_and(|(by, _)| by == id) {
            instance.proving = None;
        }
    }

    fn ends(&mut self, id: u64, has_failed: bool) {
        let call = self.calls.remove(&id).expect("each call ends once");
        if let (Some(permit), Some(circuit), Some(breaker)) = (call.permit, &mut self.circuit, &self.breaker) {
            let now = Instant::now();
            permit.ends(has_failed, now - call.began, now);
            circuit.ended(call.state, has_failed, breaker.level(), now);
        }
    }

    /// Failures in a row, as they should be counted; and whether this one makes the instance suspect.
    fn row(&mut self, at: usize, failed: bool) {
        let Some(most) = self.plan.outlier.and_then(|config| config.consecutive_failures) else {
            return;
        };
        let instance = &mut self.instances[at];
        instance.row = if failed { instance.row + 1 } else { 0 };
        if instance.row == most {
            instance.row = 0;
            self.suspect = Some(at);
        }
    }

    /// What the shares are judged by.
    fn count(&mut self, at: usize) {
        fn is_failing(instance: &Instance) -> bool {
            instance.nature == Nature::Failing
        }
        // Newcomers have little weight at first, for 20 s by default: here none.
        let ramps = |instance: &Instance| {
            let is_new = instance.since.is_some_and(|since| since.elapsed() < SETTLED);
            self.plan.slow_start && is_new
        };
        let weigh = |count: fn(&Instance) -> bool| -> f64 {
            let counted = self
                .callable()
                .filter(|(_, instance)| count(instance) && !ramps(instance));
            counted.map(|(_, instance)| f64::from(instance.weight)).sum()
        };
        let (failing, all) = (weigh(is_failing), weigh(|_| true));
        if failing > 0.0 && failing < all {
            self.failing.0 += f64::from(u8::from(is_failing(&self.instances[at])));
            self.failing.1 += failing / all;
        }
        if self.elapsed() >= self.plan.healed + SETTLED {
            self.settled += 1.0;
            self.instances[at].picks += 1.0;
        }
    }

    /// One call in four has somebody asked how it is, as the prober would.
    fn probe(&mut self) {
        let Policy::Prequal(_) = self.plan.policy else { return };
        if !self.rng.random_bool(0.25) {
            return;
        }
        let at = self.rng.random_range(0..self.instances.len());
        let instance = &self.instances[at];
        if instance.connected && !instance.removed {
            let latency = match instance.nature {
                Nature::Well | Nature::Flaky(_) => self.plan.usual,
                Nature::Slow(times) => self.plan.usual * times,
                Nature::Failing => Duration::from_micros(50),
            };
            instance.endpoint.load().hears(Report {
                rif: instance.open as u16,
                latency: latency.as_micros() as u32,
            });
        }
    }
}
