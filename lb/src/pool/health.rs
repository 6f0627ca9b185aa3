//! Client-side health checking (gRFC A17): instances that are connected are asked whether they serve, and only those that say so
//! are picked. Only where a service config asks for it.
//!
//! One `grpc.health.v1.Health/Watch` stream for each endpoint, on a connection that calls use, for as long as that takes calls:
//! a server that goes away in order waits for its streams to end. What an answer means for the endpoint is decided by [`Health`];
//! who is ready by it is the book's knowledge (`care`).

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use rand::rngs::StdRng;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep},
};
use tonic::{Code, Status};

use super::{Pool, Slot};
use crate::{
    call::{Head, RequestBody},
    endpoint::{Backoff, Endpoint, connection::Connection},
    protobuf::fields,
};

/// Between two streams that fail: gRPC's connection back-off, as A17 asks for.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(120), 0.2);

/// A stream that has answered and lived for so long is begun again at once; A17 knows no such bound, and without one a server that
/// answers and hangs up is asked as fast as it can answer.
const LIVED: Duration = Duration::from_secs(1);

/// A `HealthCheckResponse` is two bytes.
const LONGEST: usize = 4096;

/// What is known of whether an endpoint serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Health {
    /// Nobody asks.
    #[default]
    Unasked,
    /// Asked, and not answered yet.
    Awaited,
    Serving,
    /// It has no health service; it is taken for well, and not asked again on this connection.
    Unimplemented,
    /// Why it is taken for not well.
    Unwell(Arc<str>),
}

impl Health {
    pub(super) fn is_well(&self) -> bool {
        !matches!(self, Self::Awaited | Self::Unwell(_))
    }

    /// Why it is not well, if it is not.
    pub(super) fn why_not(&self) -> Option<String> {
        match self {
            Self::Awaited => Some("it has not said yet whether it serves".to_owned()),
            Self::Unwell(why) => Some(why.to_string()),
            _ => None,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unasked => "not asked",
            Self::Awaited => "not answered yet",
            Self::Serving => "serving",
            Self::Unimplemented => "without a health service",
            Self::Unwell(why) => why,
        })
    }
}

/// An endpoint that is to be asked: on the first of its connections, unless it is being asked on another one of them.
pub(super) struct Patient {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) connections: Vec<Connection>,
    pub(super) service: Arc<str>,
}

impl Patient {
    /// Tells it from the others while somebody holds its endpoint, as its task does.
    fn key(&self) -> usize {
        Arc::as_ptr(&self.endpoint) as usize
    }
}

/// Who is being asked, or need not be asked again.
struct Asked {
    connection: u64,
    service: Arc<str>,
    task: AbortHandle,
}

/// How a stream has ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Unimplemented,
    /// The connection takes no more streams.
    Closed,
    Failed(String),
}

/// Asks for as long as it is polled. Never resolves.
pub(super) async fn watch(pool: &Arc<Pool>) {
    // Dropped, and the streams with it, when this is.
    let mut under_way = JoinSet::new();
    let mut asked: HashMap<usize, Asked> = HashMap::new();
    loop {
        let changed = pool.changed.notified();
        tokio::pin!(changed);
        // Listening before looking: a change in between is not missed.
        changed.as_mut().enable();
        let patients = pool.patients();
        let of: HashMap<usize, &Patient> = patients.iter().map(|patient| (patient.key(), patient)).collect();
        asked.retain(|endpoint, asked| {
            let stays = of.get(endpoint).is_some_and(|patient| {
                let mut connections = patient.connections.iter();
                patient.service == asked.service && connections.any(|connection| connection.id() == asked.connection)
            });
            if !stays {
                asked.task.abort();
            }
            stays
        });
        for patient in &patients {
            let key = patient.key();
            let Some(connection) = patient.connections.first().filter(|_| !asked.contains_key(&key)) else {
                continue;
            };
            let (pool, endpoint) = (Arc::clone(pool), Arc::clone(&patient.endpoint));
            let (on, service) = (connection.clone(), Arc::clone(&patient.service));
            let task = under_way.spawn(async move { ask_on(&pool, &endpoint, &on, &service).await });
            let (connection, service) = (connection.id(), Arc::clone(&patient.service));
            asked.insert(
                key,
                Asked {
                    connection,
                    service,
                    task,
                },
            );
        }
        loop {
            tokio::select! {
                () = changed.as_mut() => break,
                // It has nothing more to ask, or was told to stop.
                Some(_) = under_way.join_next() => {}
            }
        }
    }
}

/// Asks until there is no more to ask, or the connection takes no more calls.
async fn ask_on(pool: &Arc<Pool>, endpoint: &Arc<Endpoint>, connection: &Connection, service: &str) {
    let mut rng: StdRng = rand::make_rng();
    let mut failures = 0;
    loop {
        let (began, mut has_answered) = (Instant::now(), false);
        let end = stream(endpoint, connection, service, |health| {
            has_answered = true;
            pool.hears_health(endpoint, connection.id(), health);
        })
        .await;
        match end {
            End::Closed => return,
            End::Unimplemented => {
                // A17: with a word in the log, since somebody has asked for what is not there.
                tracing::warn!(address = %endpoint.address, "has no health service, and is taken for healthy");
                return pool.hears_health(endpoint, connection.id(), Health::Unimplemented);
            }
            End::Failed(why) => {
                let why = format!("it could not be asked whether it serves: {why}");
                pool.hears_health(endpoint, connection.id(), Health::Unwell(why.into()));
            }
        }
        if has_answered && began.elapsed() >= LIVED {
            failures = 0;
            continue;
        }
        failures += 1;
        sleep(BACKOFF.delay(failures, &mut rng)).await;
    }
}

impl Pool {
    /// From here on the instances are asked whether they serve `service`, or nobody is asked. Who is connected stays as it is until
    /// it has answered: to be asked is no reason to be out of service.
    pub(crate) fn set_health_check(&self, service: Option<Arc<str>>) {
        let mut book = self.book();
        if service.is_none() {
            let now = Instant::now();
            for slot in book.slots.values_mut() {
                slot.is_well(Health::Unasked, now);
            }
        }
        book.health_of = service;
        self.publish(&book);
        self.attention.notify_one();
    }

    /// Those that are to be asked.
    fn patients(&self) -> Vec<Patient> {
        let book = self.book();
        let Some(service) = &book.health_of else {
            return Vec::new();
        };
        let connected = book.slots.values().filter(|slot| slot.is_connected());
        let patients = connected.map(|slot| Patient {
            endpoint: Arc::clone(&slot.endpoint),
            connections: slot.connections.clone(),
            service: Arc::clone(service),
        });
        patients.collect()
    }

    /// What was heard on that connection of that endpoint.
    fn hears_health(&self, endpoint: &Arc<Endpoint>, connection: u64, health: Health) {
        let mut book = self.book();
        let is_asked = book.health_of.is_some();
        let mut slots = book.slots.values_mut();
        let Some(slot) = slots.find(|slot| Arc::ptr_eq(&slot.endpoint, endpoint)) else {
            return;
        };
        // What comes late from a connection that is gone says nothing of the one that has taken its place.
        let is_present = slot.connections.iter().any(|it| it.id() == connection);
        if is_asked && is_present && slot.health != health {
            tracing::info!(address = %endpoint.address, instance = %endpoint.instance_id, %health, "health has changed");
            slot.is_well(health, Instant::now());
            self.publish(&book);
            self.attention.notify_one();
        }
    }
}

impl Slot {
    fn is_well(&mut self, health: Health, now: Instant) {
        let was_callable = self.is_callable();
        self.health = health;
        if !was_callable && self.is_callable() {
            self.ready(now);
        }
    }
}

/// One stream, from its beginning to its end.
async fn stream(endpoint: &Endpoint, connection: &Connection, service: &str, mut says: impl FnMut(Health)) -> End {
    let Ok(slot) = connection.clone().room().await else {
        return End::Closed;
    };
    let head = Request::builder()
        .method(Method::POST)
        .uri("/grpc.health.v1.Health/Watch")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(());
    let Ok(head) = head else {
        return End::Failed("no request".to_owned());
    };
    let head = Head::new(head.into_parts().0);
    let body = RequestBody::Whole(Some(request(service)));
    let addressed = || head.addressed_to(endpoint.scheme(), &endpoint.authority);
    let Ok(exchange) = Connection::send(slot, addressed, &body) else {
        return End::Closed;
    };
    let (head, mut incoming) = match exchange.await {
        Ok(response) => response.into_parts(),
        Err(error) => return End::Failed(error.to_string()),
    };
    if incoming.is_end_stream() || head.status != StatusCode::OK {
        return ended(&head.headers, head.status);
    }
    let mut read = BytesMut::new();
    loop {
        match std::future::poll_fn(|cx| incoming.poll_frame(cx)).await {
            None => return End::Failed("the stream has ended without a status".to_owned()),
            Some(Err(error)) => return End::Failed(error.to_string()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    read.extend_from_slice(&data);
                    while let Some(message) = message(&mut read) {
                        says(health_of(&message, service));
                    }
                    if read.len() > LONGEST {
                        return End::Failed("its answer is no HealthCheckResponse".to_owned());
                    }
                }
                Err(frame) => return ended(&frame.into_trailers().unwrap_or_default(), StatusCode::OK),
            },
        }
    }
}

fn ended(trailers: &HeaderMap, http: StatusCode) -> End {
    match Status::from_header_map(trailers) {
        Some(status) if status.code() == Code::Unimplemented => End::Unimplemented,
        Some(status) => End::Failed(format!("{:?}: {}", status.code(), status.message())),
        // By gRPC's table of HTTP statuses; a proxy that knows no gRPC does not know the method either.
        None if http == StatusCode::NOT_FOUND => End::Unimplemented,
        None => End::Failed(format!("HTTP status {http} without a gRPC status")),
    }
}

/// A framed `HealthCheckRequest`.
fn request(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 16);
    if !service.is_empty() {
        // Field 1, with a length.
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// Takes the first whole message; of a compressed one it is nobody's guess what it says.
fn message(read: &mut BytesMut) -> Option<Bytes> {
    let [_, a, b, c, d, ..] = read[..] else { return None };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if read.len() - 5 < length {
        return None;
    }
    read.advance(5);
    Some(read.split_to(length).freeze())
}

/// What a `HealthCheckResponse` says.
fn health_of(message: &[u8], service: &str) -> Health {
    let status = fields(message).filter(|(number, _)| *number == 1).last();
    let says = match status.map(|(_, value)| value) {
        Some([1]) => return Health::Serving,
        Some([2]) => "NOT_SERVING",
        Some([3]) => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    };
    Health::Unwell(format!("it says {says} of {service:?}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_however_they_come() {
        let mut read = BytesMut::new();
        let mut found = Vec::new();
        for byte in [0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 8, 2, 0, 0] {
            read.extend_from_slice(&[byte]);
            while let Some(message) = message(&mut read) {
                found.push(health_of(&message, "s").to_string());
            }
        }
        assert_eq!(
            found,
            ["serving", "it says UNKNOWN of \"s\"", "it says NOT_SERVING of \"s\""]
        );
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn a_request_is_what_the_generated_types_write() {
        use tonic_health::pb::HealthCheckRequest;

        for service in ["", "s", &"long".repeat(100)] {
            let message = HealthCheckRequest {
                service: service.to_owned(),
            };
            let expected = prost_reflect::prost::Message::encode_to_vec(&message);
            assert_eq!(request(service)[5..], expected, "{}", service.len());
        }
    }

    #[test]
    fn only_a_missing_health_service_is_as_good_as_a_well_one() {
        let trailers = |code: &'static str| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static(code));
            trailers
        };
        assert_eq!(ended(&trailers("12"), StatusCode::OK), End::Unimplemented);
        assert_eq!(ended(&HeaderMap::new(), StatusCode::NOT_FOUND), End::Unimplemented);
        for (headers, http) in [
            (trailers("0"), StatusCode::OK),
            (trailers("14"), StatusCode::OK),
            (HeaderMap::new(), StatusCode::BAD_GATEWAY),
        ] {
            assert!(matches!(ended(&headers, http), End::Failed(_)));
        }
        for (health, is_well) in [
            (Health::Unasked, true),
            (Health::Serving, true),
            (Health::Unimplemented, true),
            (Health::Awaited, false),
            (Health::Unwell("x".into()), false),
        ] {
            assert_eq!((health.is_well(), health.why_not().is_none()), (is_well, is_well));
        }
    }
}
