//! A call whose failure its caller is not told of (Dubbo's failsafe), and is made good for later if that is wanted (failback).

use bytes::Bytes;
use tonic::{Code, Status};

use super::{
    RequestBody,
    answer::{Bad, Outcome, Said},
    attempt::Attempt,
    attempts::{Attempts, code_of},
    failback::Undelivered,
    head::Head,
    retries::count,
};
use crate::{Error, FailbackPolicy, degrade::replied, endpoint::Ending};

/// A message of no fields, as gRPC frames it.
const EMPTY: [u8; 5] = [0; 5];

/// What stands behind an empty message: an extension of responses in [`Mode::Failsafe`](crate::Mode::Failsafe) and
/// [`Mode::Failback`](crate::Mode::Failback).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Swallowed {
    /// How the call failed.
    pub status: Status,
    /// Whether it is tried again in the background.
    pub tried_again: bool,
}

/// Whether an error is an answer of the business, which is nobody's to hide or to repeat.
pub(super) fn is_business(code: Code) -> bool {
    Ending::of(code) == Ending::Served
}

/// With `later` the call is tried again in the background.
pub(super) async fn run(
    call: &Attempts<'_>,
    later: Option<FailbackPolicy>,
    mut head: Head,
    body: RequestBody,
) -> Result<Said, Error> {
    let unsent = head.clone();
    let outcome = Attempt::new(call).judged(&mut head, &body).await;
    let (status, endpoint, failure) = match call.settled(outcome).await {
        Outcome::Good(answer) => {
            body.commit();
            return Ok(Said::Open(answer));
        }
        Outcome::Bad(bad) if is_business(bad.code) => return bad.into_said(),
        Outcome::Bad(bad) => (bad.to_status(), Some(bad.endpoint.clone()), Failed::Bad(bad)),
        // It can never be sent: the caller has to know.
        Outcome::Final(error @ Error::Malformed { .. }) => return Err(error),
        Outcome::Final(error) => (of(&error), None, Failed::Final(error)),
        Outcome::NowhereElse => {
            let error = call.nobody();
            (of(&error), None, Failed::Final(error))
        }
    };
    let tried_again = match later {
        None => false,
        Some(policy) => {
            let copy = body.copy();
            let waits = copy.is_some_and(|body| {
                call.shared.failback.take(Undelivered {
                    head: unsent,
                    body,
                    policy,
                    settings: call.settings.clone(),
                    context: call.span.context().clone(),
                    key: call.key,
                    route: call.route.clone(),
                    failed_at: endpoint,
                })
            });
            if !waits {
                // Too many wait already, or the request is gone: nobody is told a fairy tale.
                return failure.into_said();
            }
            true
        }
    };
    count(&call.shared.retries.counts().swallowed);
    tracing::warn!(service = %call.shared.service, path = head.path(), %status, tried_again, "a call has failed, and its caller is not told");
    call.span.event("failure swallowed", Vec::new);
    let code = status.code();
    let mut response = replied(Bytes::from_static(&EMPTY));
    response.extensions_mut().insert(Swallowed { status, tried_again });
    Ok(Said::Over(Box::new(response), code))
}

enum Failed {
    Bad(Bad),
    Final(Error),
}

impl Failed {
    fn into_said(self) -> Result<Said, Error> {
        match self {
            Self::Bad(bad) => bad.into_said(),
            Self::Final(error) => Err(error),
        }
    }
}

fn of(error: &Error) -> Status {
    Status::new(code_of(error), error.to_string())
}
