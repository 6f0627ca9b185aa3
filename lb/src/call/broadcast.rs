//! A call that goes to every instance: what each said, and one answer for all.

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    RequestBody,
    answer::{Answer, Outcome, Said},
    attempt::Broken,
    attempts::{Attempts, code_of},
    head::Head,
    race::Race,
};
use crate::{
    Error,
    degrade::replied,
    endpoint::{Ending, Endpoint},
    pool::Place,
};

/// How many are asked at the same time: enough for the slowest not to add up, few enough for their answers not to pile up.
const AT_ONCE: usize = 16;
/// The largest answer of one instance, as tonic's clients have it by default.
const LARGEST: usize = 4 * 1024 * 1024;

/// What every instance said to a call in [`Mode::Broadcast`](crate::Mode::Broadcast), ordered by instance id: an extension of
/// its response, and in the [`Error::BroadcastFailed`] of one that failed.
#[derive(Clone, Debug)]
pub struct BroadcastResults(Arc<[BroadcastResult]>);

/// What one of them said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BroadcastResult {
    /// The instance's id; of a fixed target, its address.
    pub instance_id: Arc<str>,
    /// `host:port`.
    pub address: Arc<str>,
    /// Its message as it came, so with gRPC's frame of five bytes; or how it failed, also if it could not be asked.
    pub outcome: Result<Bytes, Status>,
}

impl std::ops::Deref for BroadcastResults {
    type Target = [BroadcastResult];

    fn deref(&self) -> &[BroadcastResult] {
        &self.0
    }
}

impl BroadcastResults {
    /// Those that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&BroadcastResult, &Status)> {
        let failure = |result: &'_ BroadcastResult| result.outcome.is_err();
        let failed = self.0.iter().filter(move |result| failure(result));
        failed.filter_map(|result| Some((result, result.outcome.as_ref().err()?)))
    }
}

impl fmt::Display for BroadcastResults {
    /// Those that failed, a few of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let failed = self.failures().count();
        write!(f, "{failed} of {} instances failed", self.0.len())?;
        for (result, status) in self.failures().take(SHOWN) {
            write!(f, "; {} ({}): {}", result.instance_id, status.code(), status.message())?;
        }
        match failed.saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

pub(super) async fn run(call: &Attempts<'_>, head: Head, body: RequestBody) -> Result<Said, Error> {
    let service = || Arc::clone(&call.shared.service);
    if body.copy().is_none() {
        return Err(Error::NotRepeatable { service: service() });
    }
    // Whoever is not there yet is given the same time as in any other call.
    let patience = Instant::now() + call.settings.ready_timeout;
    let until = call
        .deadline
        .map_or(patience, |deadline| deadline.instant().min(patience));
    let mut everyone = call.shared.pool.everyone(call.wish(&[]));
    if everyone.is_empty() && call.shared.pool.pick_by(until).await.is_some() {
        everyone = call.shared.pool.everyone(call.wish(&[]));
    }
    if everyone.is_empty() {
        return Err(call.nobody());
    }
    let mut race = Race::new();
    let mut results = Vec::with_capacity(everyone.len());
    for endpoint in everyone {
        if race.len() == AT_ONCE {
            results.push(race.next().await);
        }
        let (mut head, body) = (head.clone(), &body);
        race.enter(async move {
            let outcome = ask(call, &endpoint, until, &mut head, body).await;
            BroadcastResult {
                instance_id: Arc::clone(&endpoint.instance_id),
                address: Arc::clone(&endpoint.address),
                outcome,
            }
        });
    }
    while !race.is_empty() {
        results.push(race.next().await);
    }
    results.sort_by(|a, b| (&a.instance_id, &a.address).cmp(&(&b.instance_id, &b.address)));
    let results = BroadcastResults(results.into());
    let first = results.iter().find_map(|result| result.outcome.clone().ok());
    let any_failed = results.failures().next().is_some();
    match first {
        Some(message) if !any_failed => {
            let mut response = replied(message);
            response.extensions_mut().insert(results);
            Ok(Said::Over(Box::new(response), Code::Ok))
        }
        _ => Err(Error::BroadcastFailed {
            service: service(),
            results,
        }),
    }
}

/// Asks that one, and nobody else.
async fn ask(
    call: &Attempts<'_>,
    endpoint: &Arc<Endpoint>,
    until: Instant,
    head: &mut Head,
    body: &RequestBody,
) -> Result<Bytes, Status> {
    let mut timer = None;
    loop {
        let place = place(call, endpoint, until).await?;
        match call.exchange(place, head, body, (0, false), &mut timer).await {
            Ok(answer) => return read(call, Answer { timer, ..answer }).await,
            // Not sent: there may be another connection.
            Err(Broken::Closed(choice)) => call.shared.pool.take_out(&choice),
            Err(Broken::Late(_)) => return Err(late("a response")),
            Err(Broken::Stream(endpoint, source)) => return Err(in_words(&Error::broken_off(&endpoint, source))),
            Err(Broken::Malformed(source)) => {
                return Err(in_words(&Error::Malformed {
                    service: Arc::clone(&call.shared.service),
                    source,
                }));
            }
        }
    }
}

async fn place(call: &Attempts<'_>, endpoint: &Arc<Endpoint>, until: Instant) -> Result<Place, Status> {
    loop {
        let Some(connection) = call.shared.pool.connection_to(endpoint, until).await else {
            let why = endpoint.last_error();
            let why = why.as_deref().unwrap_or("still connecting");
            return Err(Status::unavailable(format!("not connected: {why}")));
        };
        match tokio::time::timeout_at(until, connection.clone().room()).await {
            Err(_) => return Err(Status::unavailable("as many calls under way as it allows")),
            Ok(Ok(slot)) => {
                if let Some(place) = Place::at(endpoint, slot) {
                    return Ok(place);
                }
            }
            Ok(Err(_)) => {}
        }
        // Closed: the book is about to say so, or says so already.
        tokio::task::yield_now().await;
        if Instant::now() >= until {
            return Err(Status::unavailable("its connection takes no more calls"));
        }
    }
}

/// The whole answer.
async fn read(call: &Attempts<'_>, answer: Answer) -> Result<Bytes, Status> {
    let mut answer = match call.settled(answer.judged()).await {
        Outcome::Good(answer) => answer,
        Outcome::Bad(bad) => return Err(bad.to_status()),
        Outcome::Final(error) => return Err(in_words(&error)),
        Outcome::NowhereElse => return Err(late("a response")),
    };
    let mut message = BytesMut::new();
    let end = loop {
        let incoming = answer.response.body_mut();
        let frame = std::pin::pin!(std::future::poll_fn(|cx| incoming.poll_frame(cx)));
        match call.in_time(frame, &mut answer.timer).await {
            None => break Err(late("the rest of the response")),
            Some(Some(Err(source))) => {
                break Err(in_words(&Error::broken_off(answer.choice.in_flight.endpoint(), source)));
            }
            Some(None) => break Err(Status::unknown("the response ended without a status")),
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    answer.choice.in_flight.speaks();
                    message.extend_from_slice(&data);
                    if message.len() > LARGEST {
                        break Err(Status::resource_exhausted("an answer to a broadcast has at most 4 MiB"));
                    }
                }
                Err(frame) => {
                    let status = Status::from_header_map(frame.trailers_ref().unwrap_or(&http::HeaderMap::new()));
                    break match status {
                        Some(status) if status.code() != Code::Ok => Err(status),
                        Some(_) => Ok(message.freeze()),
                        None => Err(Status::unknown("the response ended without a status")),
                    };
                }
            },
        }
    };
    let code = end.as_ref().err().map_or(Code::Ok, Status::code);
    answer.choice.in_flight.ends(Ending::of(code));
    answer.attempt.finish(code.into());
    end
}

fn late(waiting_for: &str) -> Status {
    Status::deadline_exceeded(format!("the deadline passed while waiting for {waiting_for}"))
}

fn in_words(error: &Error) -> Status {
    Status::new(code_of(error), error.to_string())
}
