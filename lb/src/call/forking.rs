//! A call that goes to several instances at once: the first success is its answer (Dubbo's forking).

use super::{
    RequestBody,
    answer::{Bad, Outcome, Said},
    attempt::{Attempt, Taken},
    attempts::Attempts,
    failsafe::is_business,
    head::Head,
    race::Race,
};
use crate::{Error, Forks};

pub(super) async fn run(call: &Attempts<'_>, forks: Forks, head: Head, body: RequestBody) -> Result<Said, Error> {
    let taken = Taken::default();
    let (taken, body) = (&taken, &body);
    // A stream has one reader, and so one attempt.
    let instances = if body.copy().is_some() { forks.instances() } else { 1 };
    let mut race = Race::new();
    for _ in 0..instances {
        let mut head = head.clone();
        race.enter(async move {
            let mut attempt = Attempt::new(call).beside(taken);
            let outcome = attempt.judged(&mut head, body).await;
            call.settled(outcome).await
        });
    }
    let (mut refused, mut failed) = (None, None);
    while !race.is_empty() {
        match race.next().await {
            Outcome::Good(answer) => {
                // The others are cancelled with the race.
                body.commit();
                return Ok(Said::Open(answer));
            }
            // What the business says is worth more than that somebody could not be asked.
            Outcome::Bad(bad) if is_business(bad.code) => refused = Some(bad),
            Outcome::Bad(bad) => failed = Some(bad.into_said()),
            Outcome::Final(error) => failed = failed.or(Some(Err(error))),
            // There are fewer instances than forks.
            Outcome::NowhereElse => {}
        }
    }
    refused
        .map(Bad::into_said)
        .or(failed)
        .unwrap_or_else(|| Err(call.nobody()))
}
