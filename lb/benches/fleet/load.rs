//! Calls at a given rate, and what became of them.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::Instant};
use tonic::{Code, Status};

/// One call: resolves to the number of the instance that answered.
pub(crate) type Call = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<i32, Status>> + Send>> + Send + Sync>;

/// What became of the calls of one run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Of those that were answered, in milliseconds, sorted.
    pub(crate) latencies: Vec<f64>,
    pub(crate) errors: BTreeMap<i32, usize>,
    /// By the instance that answered.
    pub(crate) answered_by: BTreeMap<i32, usize>,
}

impl Outcome {
    pub(crate) fn calls(&self) -> usize {
        self.latencies.len() + self.failed()
    }

    pub(crate) fn failed(&self) -> usize {
        self.errors.values().sum()
    }

    /// In milliseconds.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let at = (self.latencies.len() as f64 * q) as usize;
        let at = at.min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).copied().unwrap_or(f64::NAN)
    }

    /// As [`Outcome::quantile`], with calls that failed as slower than any answer.
    pub(crate) fn quantile_of_all(&self, q: f64) -> f64 {
        let at = (self.calls() as f64 * q) as usize;
        self.latencies.get(at).copied().unwrap_or(f64::INFINITY)
    }

    /// The part of the answers that came from that instance.
    pub(crate) fn share(&self, number: i32) -> f64 {
        let answers = self.answered_by.get(&number).copied().unwrap_or(0);
        answers as f64 / self.latencies.len().max(1) as f64
    }

    pub(crate) fn errors_told(&self) -> String {
        let told = self
            .errors
            .iter()
            .map(|(code, count)| format!("{count} {:?}", Code::from(*code)));
        told.collect::<Vec<_>>().join(", ")
    }
}

/// Each call is made by any of those.
pub(crate) fn any_of(calls: Vec<Call>) -> Call {
    Arc::new(move || calls[rand::rng().random_range(0..calls.len())]())
}

/// Calls at random moments (a Poisson process) at `rate` a second for `duration`; then waits for those under way.
pub(crate) async fn open_loop(call: &Call, rate: f64, duration: Duration, seed: u64) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut calls, mut outcome) = (JoinSet::new(), Outcome::default());
    let begun = Instant::now();
    let mut next = begun;
    while next < begun + duration {
        tokio::time::sleep_until(next).await;
        let call = Arc::clone(call);
        calls.spawn(async move {
            let begun = Instant::now();
            let answer = call().await;
            (answer, begun.elapsed())
        });
        while let Some(ended) = calls.try_join_next() {
            outcome.note(ended);
        }
        let uniform: f64 = rng.random_range(f64::EPSILON..1.0);
        next += Duration::from_secs_f64(-uniform.ln() / rate);
    }
    while let Some(ended) = calls.join_next().await {
        outcome.note(ended);
    }
    outcome.latencies.sort_by(f64::total_cmp);
    outcome
}

impl Outcome {
    fn note(&mut self, ended: Result<(Result<i32, Status>, Duration), tokio::task::JoinError>) {
        match ended {
            Ok((Ok(number), took)) => {
                self.latencies.push(took.as_secs_f64() * 1e3);
                *self.answered_by.entry(number).or_default() += 1;
            }
            Ok((Err(status), _)) => *self.errors.entry(status.code().into()).or_default() += 1,
            Err(_) => *self.errors.entry(Code::Aborted.into()).or_default() += 1,
        }
    }
}
