//! A call that is repeated elsewhere when it fails (gRFC A6, and Dubbo's failover).

use telemetry::KeyValue;
use tokio::time::Instant;

use super::{
    RequestBody,
    answer::{Bad, Outcome, Said},
    attempt::Attempt,
    attempts::Attempts,
    head::Head,
};
use crate::{
    Error, RetryPolicy,
    endpoint::RetryReason,
    retry::{Progress, Pushback},
};

pub(super) async fn run(
    call: &Attempts<'_>,
    policy: &RetryPolicy,
    mut head: Head,
    body: RequestBody,
) -> Result<Said, Error> {
    let retries = &call.shared.retries;
    retries.begin_retriable();
    let mut attempt = Attempt::new(call);
    let mut progress = Progress::start();
    let mut last: Option<Bad> = None;
    loop {
        let outcome = attempt.judged(&mut head, &body).await;
        if last.is_some() && !matches!(outcome, Outcome::NowhereElse) {
            retries.retried();
        }
        let bad = match outcome {
            Outcome::Good(answer) => {
                body.commit();
                retries.succeeded();
                return Ok(Said::Open(answer));
            }
            Outcome::Bad(bad) => bad,
            // What went wrong first says more than that nobody else was there; but when time is up it is.
            Outcome::Final(error @ Error::DeadlineExceeded { .. }) => return Err(error),
            Outcome::Final(error) => return last.map_or(Err(error), Bad::into_said),
            Outcome::NowhereElse => return last.map_or_else(|| Err(call.nobody()), Bad::into_said),
        };
        if policy.retries(bad.code, bad.pushback) || bad.pushback == Pushback::Never {
            retries.failed();
        }
        let Some(pause) = progress.failed(policy, bad.code, bad.pushback, rand::random()) else {
            return bad.into_said();
        };
        // A pause beyond the deadline would only make the caller wait for the same failure.
        let until = Instant::now() + pause;
        if !body.is_there() || call.deadline.is_some_and(|deadline| deadline.instant() <= until) {
            return bad.into_said();
        }
        if !retries.retry() {
            call.span.event("retry withheld", || reasons(&bad));
            return bad.into_said();
        }
        call.span.event("retry", || reasons(&bad));
        bad.endpoint.further().is_retried(RetryReason::Code(bad.code));
        attempt.avoid(&bad.endpoint, !policy.revisits());
        last = Some(bad);
        tokio::time::sleep_until(until).await;
    }
}

fn reasons(bad: &Bad) -> Vec<KeyValue> {
    vec![
        KeyValue::new("tessera.retry.code", format!("{:?}", bad.code)),
        KeyValue::new("tessera.retry.failed_at", bad.endpoint.instance_id.to_string()),
    ]
}
