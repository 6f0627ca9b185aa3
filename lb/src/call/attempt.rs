//! One attempt of a call: an instance, room there, an exchange. It is begun anew, elsewhere and unseen, as long as it was
//! certainly not processed.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use telemetry::deadline::Deadline;
use tokio::time::{Instant, Sleep};
use tonic::Code;

use super::{RequestBody, answer::Answer, attempts::Attempts, head::Head, refused::was_refused};
use crate::{
    Error,
    endpoint::{
        Ending, Endpoint, RetryReason,
        connection::{Closed, Connection, NotOpened},
    },
    explain::metrics,
    pool::{Choice, Place, Wish},
    status::code_of,
};

/// Attempts that never left this process cost nothing and each takes a dead connection out of the ready set, so the bound is
/// only there to end what cannot end well.
const MAX_UNSENT: u32 = 32;
/// gRFC A6: a call that a server has refused is transparently sent elsewhere once. More would add load to an overloaded fleet.
const MAX_REFUSED: u32 = 1;

/// Made when first needed, then kept for the response.
pub(super) type Timer = Option<Pin<Box<Sleep>>>;

/// Instances that attempts of one call are on, or were: others keep away from them.
pub(super) type Taken = Mutex<Vec<Arc<Endpoint>>>;

/// One attempt; of a call that is repeated, one after the other.
pub(super) struct Attempt<'c> {
    call: &'c Attempts<'c>,
    /// Instances that had the call before.
    tried: Vec<Arc<Endpoint>>,
    /// How many of those, from the first, must not have it again, even if there is nobody else.
    barred: usize,
    /// Where the attempts that are under way at the same time are.
    taken: Option<&'c Taken>,
    /// Attempts of the call that failed before, as servers are told.
    previous: u32,
    /// When waiting for something ready with room began, if it ever had to: one budget over all attempts.
    started: Option<Instant>,
    unsent: u32,
    refused: u32,
}

/// Why there was no response.
pub(super) enum Failure {
    /// No instance had the request, or time is up: another attempt would not help.
    Final(Error),
    /// It failed at that instance.
    Lost(Arc<Endpoint>, Error),
    /// Whoever could have it must not have it again.
    NowhereElse,
}

/// Why an exchange brought no response.
pub(super) enum Broken {
    /// Not sent: the connection takes no more calls.
    Closed(Choice),
    Malformed(h2::Error),
    Late(Arc<Endpoint>),
    Stream(Arc<Endpoint>, h2::Error),
}

impl<'c> Attempt<'c> {
    pub(super) fn new(call: &'c Attempts<'c>) -> Self {
        Self {
            call,
            tried: Vec::new(),
            barred: 0,
            taken: None,
            previous: 0,
            started: None,
            unsent: 0,
            refused: 0,
        }
    }

    /// One of several at the same time, each on an instance of its own.
    pub(super) fn beside(self, taken: &'c Taken) -> Self {
        Self {
            taken: Some(taken),
            ..self
        }
    }

    /// So many attempts of the call failed before this one.
    pub(super) fn after(self, previous: u32) -> Self {
        Self { previous, ..self }
    }

    /// The next attempt goes elsewhere; if `barred`, or nowhere.
    pub(super) fn avoid(&mut self, endpoint: &Arc<Endpoint>, barred: bool) {
        self.tried.push(Arc::clone(endpoint));
        self.previous += 1;
        if barred {
            self.barred = self.tried.len();
        }
    }

    pub(super) async fn go(&mut self, head: &mut Head, body: &RequestBody) -> Result<Answer, Failure> {
        let call = self.call;
        if let Some(taken) = self.taken {
            self.tried
                .clone_from(&taken.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let mut timer = None;
        let mut is_again = false;
        loop {
            if call.deadline.is_some_and(Deadline::is_expired) {
                return Err(Failure::Final(call.too_late("its turn: nothing was sent".to_owned())));
            }
            let place = self.place().await?;
            if !self.may_go_to(place.choice.in_flight.endpoint()) {
                return Err(Failure::NowhereElse);
            }
            let broken = match call
                .exchange(place, head, body, (self.previous, is_again), &mut timer)
                .await
            {
                Ok(answer) => return Ok(Answer { timer, ..answer }),
                Err(broken) => broken,
            };
            is_again = true;
            match broken {
                Broken::Closed(choice) => self.give_up_on(&choice)?,
                Broken::Stream(endpoint, error) if was_refused(&error) && body.is_there() => {
                    self.refused += 1;
                    if self.refused > MAX_REFUSED {
                        let error = self.not_taken(&endpoint, error.to_string());
                        return Err(Failure::Lost(endpoint, error));
                    }
                    self.gives_back(&endpoint);
                    endpoint.further().is_retried(RetryReason::Refused);
                    self.tried.push(endpoint);
                }
                Broken::Stream(endpoint, error) => {
                    let error = Error::broken_off(&endpoint, error);
                    return Err(Failure::Lost(endpoint, error));
                }
                Broken::Late(endpoint) => {
                    let waiting_for = format!("a response of {} ({})", endpoint.address, endpoint.instance_id);
                    return Err(Failure::Final(call.too_late(waiting_for)));
                }
                Broken::Malformed(source) => {
                    return Err(Failure::Final(Error::Malformed {
                        service: Arc::clone(&call.shared.service),
                        source,
                    }));
                }
            }
        }
    }

    /// Whether the instance may have it; from then on nobody beside this attempt may.
    fn may_go_to(&self, endpoint: &Arc<Endpoint>) -> bool {
        let is_it = |other: &Arc<Endpoint>| Arc::ptr_eq(other, endpoint);
        if let Some(taken) = self.taken {
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            if taken.iter().any(is_it) {
                return false;
            }
            taken.push(Arc::clone(endpoint));
        }
        !self.tried[..self.barred].iter().any(is_it)
    }

    /// The instance did not have the call, so that any attempt may still go there.
    fn gives_back(&self, endpoint: &Arc<Endpoint>) {
        if let Some(taken) = self.taken {
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.retain(|other| !Arc::ptr_eq(other, endpoint));
        }
    }

    fn wish(&self) -> Wish<'_> {
        self.call.wish(&self.tried)
    }

    /// The next endpoint, and room for a stream there.
    async fn place(&mut self) -> Result<Place, Failure> {
        while let Some(choice) = self.call.shared.pool.pick(self.wish()) {
            match choice.connection.try_room() {
                Ok(Some(slot)) => return Ok(Place { choice, slot }),
                Ok(None) => break,
                Err(Closed) => self.give_up_on(&choice)?,
            }
        }
        // Boxed, so that the usual call need not be as large as one that waits.
        Box::pin(self.wait_for_place()).await.map_err(Failure::Final)
    }

    /// As [`Attempt::place`], anywhere: waiting no longer than the ready timeout, and not past the deadline.
    async fn wait_for_place(&mut self) -> Result<Place, Error> {
        let call = self.call;
        let (pool, service) = (&call.shared.pool, &call.shared.service);
        let started = *self.started.get_or_insert_with(Instant::now);
        let patience = started + call.settings.ready_timeout;
        let until = call
            .deadline
            .map_or(patience, |deadline| deadline.instant().min(patience));
        let began = Instant::now();
        let place = pool.place_by(until, self.wish()).await;
        metrics::waited(service, began.elapsed());
        if let Some(place) = place {
            return Ok(place);
        }
        let (error, wanted) = match pool.ready_count(self.wish()) {
            0 => (
                pool.scarcity(self.wish()).into_error(service, started.elapsed()),
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
            call.too_late(format!("{wanted}: {error}"))
        } else {
            error
        })
    }

    /// A connection took no more calls: nobody shall pick it again, and the call may go on elsewhere.
    fn give_up_on(&mut self, choice: &Choice) -> Result<(), Failure> {
        self.call.shared.pool.take_out(choice);
        self.unsent += 1;
        self.gives_back(choice.in_flight.endpoint());
        if self.unsent < MAX_UNSENT {
            choice.in_flight.endpoint().further().is_retried(RetryReason::Unsent);
            return Ok(());
        }
        let endpoint = choice.in_flight.endpoint();
        let error = self.not_taken(endpoint, "its connection takes no more calls".to_owned());
        Err(Failure::Lost(Arc::clone(endpoint), error))
    }

    fn not_taken(&self, endpoint: &Endpoint, reason: String) -> Error {
        Error::NotTaken {
            service: Arc::clone(&self.call.shared.service),
            attempts: self.unsent + self.refused,
            address: Arc::clone(&endpoint.address),
            reason,
        }
    }
}

impl Attempts<'_> {
    /// Sends the request to that place, and awaits the head of the response. `previous` attempts of the call have failed; it goes out
    /// `is_again` since the last one provably reached no handler.
    pub(super) async fn exchange(
        &self,
        place: Place,
        head: &mut Head,
        body: &RequestBody,
        (previous, is_again): (u32, bool),
        timer: &mut Timer,
    ) -> Result<Answer, Broken> {
        let Place { mut choice, slot } = place;
        let endpoint = &Arc::clone(choice.in_flight.endpoint());
        let attempt = self.begin(&choice, is_again);
        head.prepare(&attempt, self.deadline, previous);
        let addressed = || head.addressed_to(endpoint.scheme(), &endpoint.authority);
        let exchange = match Connection::send(slot, addressed, body) {
            Ok(exchange) => exchange,
            Err(NotOpened::Closed) => {
                attempt.finish(Code::Unavailable.into());
                return Err(Broken::Closed(choice));
            }
            Err(NotOpened::Malformed(source)) => {
                attempt.finish(Code::Internal.into());
                return Err(Broken::Malformed(source));
            }
        };
        let Some(answer) = self.in_time(exchange, timer).await else {
            attempt.finish(Code::DeadlineExceeded.into());
            choice.in_flight.ends(Ending::of(Code::DeadlineExceeded));
            return Err(Broken::Late(Arc::clone(endpoint)));
        };
        match answer {
            Ok(response) => Ok(Answer {
                response,
                choice,
                attempt,
                timer: None,
            }),
            Err(error) => {
                attempt.finish(code_of(&error).into());
                choice.in_flight.ends(Ending::of(code_of(&error)));
                Err(Broken::Stream(Arc::clone(endpoint), error))
            }
        }
    }
}
