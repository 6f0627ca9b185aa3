//! A call and its attempts: normally one. What is done when one is not enough is the mode's business, each in a file of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::Response;
use telemetry::{
    client::{AttemptKind, AttemptSpan, CallSpan},
    deadline::Deadline,
};
use tonic::{Code, Status};

use super::{
    RequestBody, ResponseBody, Shared,
    answer::{Answer, Said},
    attempt::{Attempt, Failure, Timer},
    broadcast, failover, failsafe, fallback, forking,
    head::Head,
    hedging,
    response::{Open, Spans},
};
use crate::{
    Error, Mode, Picked,
    endpoint::{Endpoint, Why},
    explain::note,
    pool::{Choice, Wish},
    route::Route,
    settings::MethodSettings,
};

/// What all attempts of one call have in common.
pub(crate) struct Attempts<'a> {
    pub(super) shared: &'a Shared,
    pub(super) settings: &'a MethodSettings,
    pub(super) span: CallSpan,
    pub(super) deadline: Option<Deadline>,
    /// What keeps the call together with others.
    pub(super) key: Option<u64>,
    pub(super) route: &'a Route,
    /// How many attempts were begun, so that each has its number.
    begun: AtomicU32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        settings: &'a MethodSettings,
        mut span: CallSpan,
        deadline: Option<Deadline>,
        key: Option<u64>,
        route: &'a Route,
    ) -> Self {
        span.has_deadline(deadline);
        Self {
            shared,
            settings,
            span,
            deadline,
            key,
            route,
            begun: AtomicU32::new(0),
        }
    }

    pub(crate) fn span(&self) -> &CallSpan {
        &self.span
    }

    /// For a call that shall have no attempt.
    pub(crate) fn into_span(self) -> CallSpan {
        self.span
    }

    pub(crate) async fn run(self, head: Head, body: RequestBody) -> Result<Response<ResponseBody>, Status> {
        let outcome = match &self.settings.mode {
            Mode::Failfast => self.once(head, body).await,
            // Boxed, so that the usual call need not be as large as one that may take several attempts.
            mode => Box::pin(self.in_mode(mode, head, body)).await,
        };
        match outcome {
            Ok(Said::Open(answer)) => Ok(self.answered(answer)),
            Ok(Said::Over(response, code)) => {
                if response.headers().contains_key(Status::GRPC_STATUS) {
                    fallback::note(self.settings, &self.span, code);
                }
                self.span.finish(code.into());
                Ok(*response)
            }
            Err(error) => {
                let status = Status::from(error);
                fallback::note(self.settings, &self.span, status.code());
                self.span.finish(status.code().into());
                Err(status)
            }
        }
    }

    async fn once(&self, mut head: Head, body: RequestBody) -> Result<Said, Error> {
        match Attempt::new(self).go(&mut head, &body).await {
            Ok(answer) => {
                body.commit();
                Ok(Said::Open(answer))
            }
            Err(Failure::Final(error) | Failure::Lost(_, error)) => Err(error),
            Err(Failure::NowhereElse) => Err(self.nobody()),
        }
    }

    async fn in_mode(&self, mode: &Mode, head: Head, body: RequestBody) -> Result<Said, Error> {
        // Only one layer retries: with three attempts in each of three layers the last one would have 27.
        if head.is_repeated_by_caller() {
            return self.once(head, body).await;
        }
        match mode {
            Mode::Failfast => self.once(head, body).await,
            Mode::Failover(policy) => failover::run(self, policy, head, body).await,
            Mode::Failsafe => failsafe::run(self, None, head, body).await,
            Mode::Failback(policy) => failsafe::run(self, Some(*policy), head, body).await,
            Mode::Forking(forks) => forking::run(self, *forks, head, body).await,
            Mode::Broadcast => broadcast::run(self, head, body).await,
            Mode::Hedging(policy) => hedging::run(self, policy, head, body).await,
        }
    }

    /// The span of one more attempt, which goes where `choice` says. `is_again` if the one before it provably reached no handler.
    pub(super) fn begin(&self, choice: &Choice, is_again: bool) -> AttemptSpan {
        let endpoint = choice.in_flight.endpoint();
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let mut kind = AttemptKind::First;
        if number > 1 {
            let why = match &self.settings.mode {
                _ if is_again => Why::Unprocessed,
                Mode::Hedging(_) => Why::Hedge,
                Mode::Forking(_) => Why::Fork,
                Mode::Broadcast => Why::Broadcast,
                Mode::Failfast | Mode::Failover(_) | Mode::Failsafe | Mode::Failback(_) => Why::Retry,
            };
            kind = match why {
                Why::Unprocessed => AttemptKind::Transparent,
                Why::Hedge => AttemptKind::Hedge,
                Why::Fork | Why::Broadcast => AttemptKind::Fork,
                Why::Retry => AttemptKind::Retry,
            };
            endpoint.further().arrives(why);
        }
        // Of further attempts everybody wants to know why they went there.
        if self.span.is_recorded() && (number > 1 || note::is_due()) {
            self.span.event(note::PICK, || {
                let note = self.shared.pool.note(endpoint, self.wish(&[]), choice.drawn);
                note.attributes(number)
            });
        }
        self.span.attempt(number, kind, endpoint.callee())
    }

    /// Awaits `future`; `None` if the deadline comes first.
    pub(super) async fn in_time<F: Future + Unpin>(&self, mut future: F, timer: &mut Timer) -> Option<F::Output> {
        let Some(deadline) = self.deadline else {
            return Some(future.await);
        };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.instant())));
        tokio::select! {
            biased;
            output = &mut future => Some(output),
            () = timer => None,
        }
    }

    /// There is no instance left that may have the call.
    pub(super) fn nobody(&self) -> Error {
        let scarcity = self.shared.pool.scarcity(self.wish(&[]));
        scarcity.into_error(&self.shared.service, Duration::ZERO)
    }

    /// What the call wants of an instance.
    pub(super) fn wish<'w>(&'w self, avoid: &'w [Arc<Endpoint>]) -> Wish<'w> {
        Wish {
            avoid,
            key: self.key,
            route: Some(self.route),
        }
    }

    pub(super) fn too_late(&self, waiting_for: String) -> Error {
        Error::DeadlineExceeded {
            service: Arc::clone(&self.shared.service),
            waiting_for,
        }
    }

    /// The response of an attempt becomes that of the call, and its end the call's.
    pub(super) fn answered(self, answer: Answer) -> Response<ResponseBody> {
        let Answer {
            response,
            choice,
            attempt,
            timer,
        } = answer;
        let (mut head, incoming) = response.into_parts();
        if incoming.is_end_stream()
            && let Some(status) = head.headers.get(Status::GRPC_STATUS)
        {
            fallback::note(self.settings, &self.span, Code::from_bytes(status.as_bytes()));
        }
        let endpoint = choice.in_flight.endpoint();
        head.extensions.insert(Picked {
            instance_id: Arc::clone(&endpoint.instance_id),
            address: Arc::clone(&endpoint.address),
        });
        let open = Open {
            incoming,
            timer,
            service: Arc::clone(&self.shared.service),
            in_flight: choice.in_flight,
            spans: Spans {
                call: self.span,
                attempt,
            },
            admission: None,
        };
        let body = ResponseBody::new(open, &head.headers);
        Response::from_parts(head, body)
    }
}

/// The status code of an error whose kind says it; that of the others is for [`Status`] to say.
pub(super) fn code_of(error: &Error) -> Code {
    match error {
        Error::BrokenOff { source, .. } => crate::status::code_of(source),
        Error::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        Error::Malformed { .. } => Code::Internal,
        _ => Code::Unavailable,
    }
}
