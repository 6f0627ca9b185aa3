//! The response of an attempt, before it is the call's: whether it is one that the call should have.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use telemetry::client::AttemptSpan;
use tonic::{Code, Status};

use super::{
    RequestBody, ResponseBody,
    attempt::{Attempt, Failure, Timer},
    attempts::{Attempts, code_of},
    head::Head,
    response,
};
use crate::{
    Error,
    endpoint::{Ending, Endpoint, stream::Incoming},
    pool::Choice,
    retry::Pushback,
};

/// A response whose head is there.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) choice: Choice,
    pub(super) attempt: AttemptSpan,
    pub(super) timer: Timer,
}

/// What a call comes to.
#[expect(
    clippy::large_enum_variant,
    reason = "the usual one, and a box would be an allocation for every call"
)]
pub(super) enum Said {
    /// The response of an attempt that is still under way.
    Open(Answer),
    /// A response that needs no attempt any more, and the code that the call ends with in the records.
    Over(Box<Response<ResponseBody>>, Code),
}

/// What an attempt came to.
#[expect(
    clippy::large_enum_variant,
    reason = "the usual one, and a box would be an allocation for every call"
)]
pub(super) enum Outcome {
    /// A response that has begun, or that ended well.
    Good(Answer),
    Bad(Bad),
    /// Another attempt would not help.
    Final(Error),
    /// There was nobody (else) to ask.
    NowhereElse,
}

/// A failed attempt.
pub(super) struct Bad {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) code: Code,
    pub(super) pushback: Pushback,
    what: What,
}

enum What {
    /// The instance answered with an error.
    Response(Box<Response<ResponseBody>>),
    /// It did not answer.
    Error(Error),
}

impl Bad {
    /// It is what the call comes to.
    pub(super) fn into_said(self) -> Result<Said, Error> {
        match self.what {
            What::Response(response) => Ok(Said::Over(response, self.code)),
            What::Error(error) => Err(error),
        }
    }

    /// In words.
    pub(super) fn to_status(&self) -> Status {
        match &self.what {
            What::Response(response) => Status::from_header_map(response.headers())
                .unwrap_or_else(|| Status::new(self.code, "the server said no more")),
            What::Error(error) => Status::new(self.code, error.to_string()),
        }
    }
}

impl Answer {
    /// The code that it has ended with, if it is not one that has begun.
    fn ended(&self) -> Option<Code> {
        let status = self.response.status();
        if status != StatusCode::OK {
            return Some(code_of_http(status));
        }
        let code = self.trailers()?.get(Status::GRPC_STATUS);
        Some(code.map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes())))
    }

    /// What it has ended with: its head, if that is all of it, or what was peeked at.
    fn trailers(&self) -> Option<&HeaderMap> {
        if self.response.body().is_end_stream() {
            return Some(self.response.headers());
        }
        self.response.body().trailers_ahead()
    }

    pub(super) fn judged(self) -> Outcome {
        match self.ended() {
            Some(code) if code != Code::Ok => Outcome::Bad(self.set_aside(code)),
            Some(_) | None => Outcome::Good(self),
        }
    }

    /// The attempt is over, and has failed.
    fn set_aside(mut self, code: Code) -> Bad {
        let trailers = self.trailers().cloned().unwrap_or_default();
        let ending = Ending::of(code);
        if matches!(ending, Ending::Failed | Ending::Overloaded) {
            self.choice.in_flight.is_pushed_back(response::pushback(&trailers));
        }
        self.choice.in_flight.ends(ending);
        self.attempt.finish(code.into());
        let endpoint = Arc::clone(self.choice.in_flight.endpoint());
        let (mut head, _) = self.response.into_parts();
        // One without a body says everything in its head.
        head.headers.extend(trailers.clone());
        if !head.headers.contains_key(Status::GRPC_STATUS) {
            head.headers.insert(Status::GRPC_STATUS, (code as i32).into());
        }
        Bad {
            endpoint,
            code,
            pushback: Pushback::of(&trailers),
            what: What::Response(Box::new(Response::from_parts(head, ResponseBody::default()))),
        }
    }
}

impl Attempt<'_> {
    /// Goes, and judges the response by its head: once that is there, and is not its end, the call is committed to it (gRFC A6).
    pub(super) async fn judged(&mut self, head: &mut Head, body: &RequestBody) -> Outcome {
        match self.go(head, body).await {
            Ok(answer) => answer.judged(),
            Err(failure) => failure.into(),
        }
    }
}

impl Attempts<'_> {
    /// Waits for the first message or the end, and judges by that. For calls with one response: a stream may be silent for long.
    pub(super) async fn settled(&self, outcome: Outcome) -> Outcome {
        let Outcome::Good(mut answer) = outcome else {
            return outcome;
        };
        let peeked = {
            let peek = std::pin::pin!(answer.response.body_mut().peek());
            self.in_time(peek, &mut answer.timer).await
        };
        let endpoint = Arc::clone(answer.choice.in_flight.endpoint());
        match peeked {
            Some(Ok(())) => answer.judged(),
            Some(Err(source)) => {
                let error = Error::broken_off(&endpoint, source);
                answer.choice.in_flight.ends(Ending::of(code_of(&error)));
                answer.attempt.finish(code_of(&error).into());
                Failure::Lost(endpoint, error).into()
            }
            None => {
                answer.choice.in_flight.ends(Ending::of(Code::DeadlineExceeded));
                answer.attempt.finish(Code::DeadlineExceeded.into());
                Outcome::Final(self.too_late(format!(
                    "the response of {} ({})",
                    endpoint.address, endpoint.instance_id
                )))
            }
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Final(error) => Self::Final(error),
            Failure::NowhereElse => Self::NowhereElse,
            Failure::Lost(endpoint, error) => Self::Bad(Bad {
                endpoint,
                code: code_of(&error),
                pushback: Pushback::Unsaid,
                what: What::Error(error),
            }),
        }
    }
}

/// gRPC over HTTP/2, "HTTP2 Status Code to gRPC Status Code": who answers so is no gRPC server, but something on the way there.
fn code_of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}
