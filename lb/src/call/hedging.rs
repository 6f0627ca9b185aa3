//! A call that is sent to one more instance when its answer is late (gRFC A6, `hedgingPolicy`).

use std::time::Duration;

use telemetry::KeyValue;
use tokio::time::{Instant, sleep_until};

use super::{
    RequestBody,
    answer::{Bad, Outcome, Said},
    attempt::{Attempt, Taken},
    attempts::Attempts,
    head::Head,
    race::Race,
    retries::hedging_delay,
};
use crate::{Error, HedgingDelay, HedgingPolicy, retry::Pushback};

pub(super) async fn run(
    call: &Attempts<'_>,
    policy: &HedgingPolicy,
    head: Head,
    body: RequestBody,
) -> Result<Said, Error> {
    let retries = &call.shared.retries;
    retries.begin_hedged();
    let measured = matches!(policy.delay(), HedgingDelay::Percentile(_));
    let latencies = measured.then(|| retries.latencies(head.path()));
    let delay = hedging_delay(policy.delay(), latencies.as_deref());
    // A stream has one reader, and so one attempt.
    let most = if body.copy().is_some() {
        policy.max_attempts()
    } else {
        1
    };

    let taken = Taken::default();
    let (taken, body) = (&taken, &body);
    let mut race = Race::new();
    let attempt = |previous: u32| {
        let mut head = head.clone();
        async move {
            Attempt::new(call)
                .beside(taken)
                .after(previous)
                .judged(&mut head, body)
                .await
        }
    };
    let began = Instant::now();
    race.enter(attempt(0));
    let mut made = 1;
    let mut next = (most > made).then(|| delay.map(|delay| began + delay)).flatten();
    let mut failed: Option<Bad> = None;
    loop {
        // Who waits beyond the deadline with nothing under way waits for nothing.
        next = next.filter(|next| call.deadline.is_none_or(|deadline| *next < deadline.instant()));
        let outcome = tokio::select! {
            biased;
            outcome = race.next(), if !race.is_empty() => outcome,
            () = until(next), if next.is_some() => {
                next = None;
                if retries.hedge() {
                    call.span.event("hedge", || vec![KeyValue::new("tessera.hedge.after_ms", began.elapsed().as_millis() as i64)]);
                    race.enter(attempt(made));
                    made += 1;
                    if made < most {
                        next = delay.map(|delay| Instant::now() + delay);
                    }
                } else {
                    call.span.event("hedge withheld", Vec::new);
                }
                continue;
            }
            else => return failed.map_or_else(|| Err(call.nobody()), Bad::into_said),
        };
        match outcome {
            Outcome::Good(answer) => {
                // Of a hedge that won it is only known that the first would have taken longer, so that is what counts.
                if let Some(latencies) = &latencies {
                    let now = Instant::now();
                    latencies.record(now - began, now);
                }
                body.commit();
                retries.succeeded();
                return Ok(Said::Open(answer));
            }
            Outcome::Bad(bad) => {
                if policy.is_non_fatal(bad.code) || bad.pushback == Pushback::Never {
                    retries.failed();
                }
                if !policy.is_non_fatal(bad.code) {
                    return bad.into_said();
                }
                match HedgingPolicy::after_failure(bad.pushback) {
                    Some(pause) if made < most => next = Some(Instant::now() + pause),
                    Some(_) => {}
                    None => (next, made) = (None, most),
                }
                failed = Some(bad);
            }
            Outcome::Final(error) if race.is_empty() && failed.is_none() => return Err(error),
            Outcome::Final(error @ Error::DeadlineExceeded { .. }) => return Err(error),
            // Nobody to send one more to: those under way decide.
            Outcome::Final(_) | Outcome::NowhereElse => (next, made) = (None, most),
        }
    }
}

async fn until(next: Option<Instant>) {
    sleep_until(next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))).await;
}
