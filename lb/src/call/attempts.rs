//! The attempts of one call: normally one. A further one is made only when the last was certainly not processed.

use std::{pin::Pin, sync::Arc};

use http::Response;
use telemetry::{
    client::{AttemptSpan, CallSpan},
    deadline::Deadline,
};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status};

use super::{
    RequestBody, ResponseBody, Shared,
    failover::was_refused,
    fallback,
    head::Head,
    response::{Open, Spans},
};
use crate::{
    Error, Picked,
    endpoint::{
        Ending, Endpoint,
        connection::{Closed, Connection, NotOpened},
        stream::Incoming,
    },
    pool::{Choice, Place, Wish},
    route::Route,
    settings::MethodSettings,
    status::code_of,
};

/// Attempts that never left this process cost nothing and each takes a dead connection out of the ready set, so the bound is
/// only there to end what cannot end well.
const MAX_UNSENT: u32 = 32;
/// gRFC A6: a call that a server has refused is transparently sent elsewhere once. More would add load to an overloaded fleet.
const MAX_REFUSED: u32 = 1;

/// The attempts of one call.
pub(crate) struct Attempts<'a> {
    shared: &'a Shared,
    settings: &'a MethodSettings,
    span: CallSpan,
    deadline: Option<Deadline>,
    /// What keeps the call together with others.
    key: Option<u64>,
    route: &'a Route,
    /// When waiting for something ready with room began, if it ever had to: one budget over all attempts.
    started: Option<Instant>,
    unsent: u32,
    refused: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        settings: &'a MethodSettings,
        span: CallSpan,
        deadline: Option<Deadline>,
        key: Option<u64>,
        route: &'a Route,
    ) -> Self {
        Self {
            shared,
            settings,
            span,
            deadline,
            key,
            route,
            started: None,
            unsent: 0,
            refused: 0,
        }
    }

    pub(crate) fn span(&self) -> &CallSpan {
        &self.span
    }

    /// For a call that shall have no attempt.
    pub(crate) fn into_span(self) -> CallSpan {
        self.span
    }

    pub(crate) async fn run(mut self, head: Head, body: RequestBody) -> Result<Response<ResponseBody>, Status> {
        match self.attempt_all(head, body).await {
            Ok(Answer {
                response,
                choice,
                attempt,
                timer,
            }) => Ok(self.answered(response, choice, attempt, timer)),
            Err(error) => {
                let status = Status::from(error);
                fallback::note(self.settings, &self.span, status.code());
                self.span.finish(status.code().into());
                Err(status)
            }
        }
    }

    async fn attempt_all(&mut self, mut head: Head, mut body: RequestBody) -> Result<Answer, Error> {
        let mut timer = None;
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        loop {
            if self.deadline.is_some_and(Deadline::is_expired) {
                return Err(self.too_late("its turn: nothing was sent".to_owned()));
            }
            let Place { mut choice, slot } = self.place(self.wish(&tried)).await?;
            let endpoint = &Arc::clone(choice.in_flight.endpoint());
            let attempt = self
                .span
                .attempt(self.unsent + self.refused + 1, &endpoint.address, &endpoint.instance_id);
            head.prepare(&attempt, self.deadline);
            let exchange = match Connection::send(
                slot,
                || head.addressed_to(endpoint.scheme(), &endpoint.authority),
                &mut body,
            ) {
                Ok(exchange) => exchange,
                Err(NotOpened::Closed) => {
                    attempt.finish(Code::Unavailable.into());
                    self.give_up_on(&choice)?;
                    continue;
                }
                Err(NotOpened::Malformed(source)) => {
                    attempt.finish(Code::Internal.into());
                    return Err(Error::Malformed {
                        service: Arc::clone(&self.shared.service),
                        source,
                    });
                }
            };
            let Some(answer) = self.in_time(exchange, &mut timer).await else {
                attempt.finish(Code::DeadlineExceeded.into());
                choice.in_flight.ends(Ending::of(Code::DeadlineExceeded));
                return Err(self.too_late(format!("a response of {} ({})", endpoint.address, endpoint.instance_id)));
            };
            let error = match answer {
                Ok(response) => {
                    return Ok(Answer {
                        response,
                        choice,
                        attempt,
                        timer,
                    });
                }
                Err(error) => error,
            };
            attempt.finish(code_of(&error).into());
            choice.in_flight.ends(Ending::of(code_of(&error)));
            if !was_refused(&error) || !body.is_there() {
                return Err(Error::broken_off(endpoint, error));
            }
            self.refused += 1;
            if self.refused > MAX_REFUSED {
                return Err(self.not_taken(endpoint, error.to_string()));
            }
            tried.push(Arc::clone(endpoint));
        }
    }

    /// Awaits `future`; `None` if the deadline comes first.
    async fn in_time<F: Future + Unpin>(&self, mut future: F, timer: &mut Timer) -> Option<F::Output> {
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

    fn wish<'w>(&self, avoid: &'w [Arc<Endpoint>]) -> Wish<'w>
    where
        'a: 'w,
    {
        Wish {
            avoid,
            key: self.key,
            route: Some(self.route),
        }
    }

    /// The next endpoint, and room for a stream there.
    async fn place(&mut self, wish: Wish<'_>) -> Result<Place, Error> {
        while let Some(choice) = self.shared.pool.pick(wish) {
            match choice.connection.try_room() {
                Ok(Some(slot)) => return Ok(Place { choice, slot }),
                Ok(None) => break,
                Err(Closed) => self.give_up_on(&choice)?,
            }
        }
        // Boxed, so that the usual call need not be as large as one that waits.
        Box::pin(self.wait_for_place(wish)).await
    }

    /// As [`Attempts::place`], anywhere: waiting no longer than the ready timeout, and not past the deadline.
    async fn wait_for_place(&mut self, wish: Wish<'_>) -> Result<Place, Error> {
        let (pool, service) = (&self.shared.pool, &self.shared.service);
        let started = *self.started.get_or_insert_with(Instant::now);
        let patience = started + self.settings.ready_timeout;
        let until = self
            .deadline
            .map_or(patience, |deadline| deadline.instant().min(patience));
        if let Some(place) = pool.place_by(until, wish).await {
            return Ok(place);
        }
        let (error, wanted) = match pool.ready_count(wish) {
            0 => (
                pool.scarcity(wish).into_error(service, started.elapsed()),
                "a ready instance",
            ),
            ready => {
                let error = Error::NoRoom {
                    service: Arc::clone(service),
                    waited: started.elapsed(),
                    ready,
                };
                (error, "room for one more call")
            }
        };
        Err(if until < patience {
            self.too_late(format!("{wanted}: {error}"))
        } else {
            error
        })
    }

    /// A connection took no more calls: nobody shall pick it again, and the call may go on elsewhere.
    fn give_up_on(&mut self, choice: &Choice) -> Result<(), Error> {
        self.shared.pool.take_out(choice);
        self.unsent += 1;
        if self.unsent < MAX_UNSENT {
            Ok(())
        } else {
            Err(self.not_taken(
                choice.in_flight.endpoint(),
                "its connection takes no more calls".to_owned(),
            ))
        }
    }

    fn not_taken(&self, endpoint: &Endpoint, reason: String) -> Error {
        Error::NotTaken {
            service: Arc::clone(&self.shared.service),
            attempts: self.unsent + self.refused,
            address: Arc::clone(&endpoint.address),
            reason,
        }
    }

    fn too_late(&self, waiting_for: String) -> Error {
        Error::DeadlineExceeded {
            service: Arc::clone(&self.shared.service),
            waiting_for,
        }
    }

    fn answered(
        self,
        response: Response<Incoming>,
        choice: Choice,
        attempt: AttemptSpan,
        timer: Timer,
    ) -> Response<ResponseBody> {
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
        };
        let body = ResponseBody::new(open, &head.headers);
        Response::from_parts(head, body)
    }
}

/// Made when first needed, then kept for the response.
type Timer = Option<Pin<Box<Sleep>>>;

struct Answer {
    response: Response<Incoming>,
    choice: Choice,
    attempt: AttemptSpan,
    timer: Timer,
}
