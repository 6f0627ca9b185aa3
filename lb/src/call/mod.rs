//! The way of one call: deadline, pick, send, and elsewhere if it provably was not taken.
//!
//! It runs in the caller's task from end to end; there is no queue of ours between a caller and its connection.

mod deadline;
mod failover;
mod request;
mod response;

use std::{sync::Arc, task::Poll, time::Duration};

use http::{
    HeaderMap, HeaderValue, Request, Response, Uri, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use telemetry::{
    client::{AttemptSpan, CallSpan},
    deadline::{Deadline, GRPC_TIMEOUT, format_grpc_timeout},
};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

pub(crate) use request::{RequestBody, Streaming};
pub use response::ResponseBody;

use self::{
    failover::was_refused,
    response::{Open, Spans},
};
use crate::{
    Error, Picked,
    endpoint::{
        Endpoint,
        connection::{Closed, Connection, NotOpened, Slot},
        stream::Incoming,
    },
    pool::{Choice, Pool},
};

/// Attempts that never left this process cost nothing and each takes a dead connection out of the ready set, so the bound is
/// only there to end what cannot end well.
const MAX_UNSENT: u32 = 32;
/// gRFC A6: a call that a server has refused is transparently sent elsewhere once. More would add load to an overloaded fleet.
const MAX_REFUSED: u32 = 1;

/// What we call ourselves in the user-agent header.
const USER_AGENT: &str = concat!("tessera-lb/", env!("CARGO_PKG_VERSION"));

/// What a channel's calls have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) service: Arc<str>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) ready_timeout: Duration,
    pub(crate) call_timeout: Option<Duration>,
}

/// A request from which each attempt makes its own.
struct Outgoing {
    head: Parts,
    body: RequestBody,
}

/// Performs one call.
pub(crate) async fn run(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
    let span = CallSpan::start(request.uri().path(), &shared.service);
    let (head, body) = request.into_parts();
    let deadline = deadline::of(&head.headers, Deadline::current(), shared.call_timeout);
    let mut body = Some(body);
    let read = std::future::poll_fn(|cx| {
        // Ready at once, so this runs once; the options keep the compiler content.
        Poll::Ready(
            body.take()
                .map_or(Ok(RequestBody::Whole(None)), |body| RequestBody::read_ahead(body, cx)),
        )
    });
    let outgoing = match read.await {
        Ok(body) => Outgoing::new(head, body),
        Err(status) => {
            span.finish(status.code().into());
            return Err(status);
        }
    };
    Attempts {
        shared: &shared,
        span,
        deadline,
        started: None,
        unsent: 0,
        refused: 0,
    }
    .run(outgoing)
    .await
}

/// The attempts of one call.
struct Attempts<'a> {
    shared: &'a Shared,
    span: CallSpan,
    deadline: Option<Deadline>,
    /// When waiting for something ready began, if it ever had to: one budget over all attempts.
    started: Option<Instant>,
    unsent: u32,
    refused: u32,
}

impl Attempts<'_> {
    async fn run(mut self, mut outgoing: Outgoing) -> Result<Response<ResponseBody>, Status> {
        match self.attempt_all(&mut outgoing).await {
            Ok(Answer {
                response,
                choice,
                attempt,
                timer,
            }) => Ok(self.answered(response, choice, attempt, timer)),
            Err(error) => {
                let status = Status::from(error);
                self.span.finish(status.code().into());
                Err(status)
            }
        }
    }

    async fn attempt_all(&mut self, outgoing: &mut Outgoing) -> Result<Answer, Error> {
        let mut timer = None;
        let mut refused_by: Option<Choice> = None;
        loop {
            let choice = self
                .choose(refused_by.as_ref().map(|choice| choice.in_flight.endpoint()))
                .await?;
            let endpoint = choice.in_flight.endpoint();
            let Ok(slot) = self.room_on(&choice, &mut timer).await? else {
                self.give_up_on(&choice)?;
                continue;
            };
            let attempt = self
                .span
                .attempt(self.unsent + self.refused + 1, &endpoint.address, &endpoint.instance_id);
            let head = outgoing.head_for(endpoint, &attempt, self.deadline);
            let exchange = match Connection::send(slot, head, &mut outgoing.body) {
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
            attempt.finish(Code::Unavailable.into());
            if !was_refused(&error) || !outgoing.body.is_there() {
                return Err(Error::broken_off(endpoint, error));
            }
            self.refused += 1;
            if self.refused > MAX_REFUSED {
                return Err(self.not_taken(endpoint, error.to_string()));
            }
            refused_by = Some(choice);
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

    /// Room for a stream on the connection, waiting for it if the peer allows no more now.
    async fn room_on(&self, choice: &Choice, timer: &mut Timer) -> Result<Result<Slot, Closed>, Error> {
        match choice.connection.try_room() {
            Ok(Some(slot)) => Ok(Ok(slot)),
            Err(Closed) => Ok(Err(Closed)),
            Ok(None) => self
                .in_time(std::pin::pin!(choice.connection.room()), timer)
                .await
                .ok_or_else(|| {
                    let endpoint = choice.in_flight.endpoint();
                    self.too_late(format!(
                        "room for one more call on {} ({})",
                        endpoint.address, endpoint.instance_id
                    ))
                }),
        }
    }

    /// The next endpoint, waiting for one if need be: no longer than the ready timeout, and not past the deadline.
    async fn choose(&mut self, avoid: Option<&Endpoint>) -> Result<Choice, Error> {
        if let Some(choice) = self.shared.pool.pick(avoid) {
            return Ok(choice);
        }
        let started = *self.started.get_or_insert_with(Instant::now);
        let patience = started + self.shared.ready_timeout;
        let until = self
            .deadline
            .map_or(patience, |deadline| deadline.instant().min(patience));
        match self.shared.pool.pick_by(until).await {
            Some(choice) => Ok(choice),
            None => {
                let error = self
                    .shared
                    .pool
                    .scarcity()
                    .into_error(&self.shared.service, started.elapsed());
                Err(if until < patience {
                    self.too_late(format!("a ready instance: {error}"))
                } else {
                    error
                })
            }
        }
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

type Timer = Option<std::pin::Pin<Box<tokio::time::Sleep>>>;

struct Answer {
    response: Response<Incoming>,
    choice: Choice,
    attempt: AttemptSpan,
    timer: Timer,
}

impl Outgoing {
    fn new(mut head: Parts, body: RequestBody) -> Self {
        // gRPC asks that the application's own name comes first.
        let agent = match head.headers.get(header::USER_AGENT) {
            None => HeaderValue::from_static(USER_AGENT),
            Some(theirs) => [theirs.as_bytes(), b" ", USER_AGENT.as_bytes()]
                .concat()
                .try_into()
                .unwrap_or_else(|_| HeaderValue::from_static(USER_AGENT)),
        };
        head.headers.insert(header::USER_AGENT, agent);
        // They are the caller's notes to its own layers and mean nothing on the wire.
        head.extensions.clear();
        Self { head, body }
    }

    /// The head of the request for one attempt.
    fn head_for(&mut self, endpoint: &Endpoint, attempt: &AttemptSpan, deadline: Option<Deadline>) -> Request<()> {
        attempt.inject(&mut self.head.headers);
        if let Some(deadline) = deadline {
            set_timeout(&mut self.head.headers, deadline);
        }
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(endpoint.authority.clone());
        uri.path_and_query = self
            .head
            .uri
            .path_and_query()
            .cloned()
            .or_else(|| Some(PathAndQuery::from_static("/")));
        let mut head = Request::new(());
        *head.method_mut() = self.head.method.clone();
        // Scheme, authority and path are all there, so they do make a URI.
        *head.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *head.version_mut() = http::Version::HTTP_2;
        *head.headers_mut() = self.head.headers.clone();
        head
    }
}

fn set_timeout(headers: &mut HeaderMap, deadline: Deadline) {
    if let Ok(value) = HeaderValue::try_from(format_grpc_timeout(deadline.remaining())) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}
