//! NATS JetStream as the [`Broker`]: each event is a message of one stream, named by the event's id.
//!
//! `Ok` means that JetStream has acknowledged the message. One that was sent and not acknowledged is sent again under the same
//! `Nats-Msg-Id`, and JetStream drops it if the first one has arrived within the stream's window of duplicates. Everything is
//! sent over one connection, and a batch has one event of a key at the most, so the order within a key is the stream's.
//!
//! The connection is the client's business: it connects again by itself, and nothing is given to it meanwhile, since it would keep that
//! in memory and send it when others have sent later events.

mod address;

use std::{
    error::Error as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions, Event as Happened, HeaderMap,
    connection::State,
    header::HeaderValue,
    jetstream::{
        self, Context, ErrorCode,
        context::{CreateStreamErrorKind, PublishError, PublishErrorKind},
        message::PublishMessage,
        stream,
    },
};
use futures_util::future::{self, BoxFuture};

pub use self::address::{InvalidNatsUrl, NatsUrl};
use crate::{
    event::Recorded,
    sink::{Broker, NotTaken},
};

/// The stream that is made where none takes the subjects.
pub const STREAM: &str = "TESSERA_EVENTS";

/// What subjects begin with; the rest is the event's kind.
pub const SUBJECTS: &str = "tessera.events";

/// How long a message is kept. As long as delivered events are in the outbox.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A message with the id of one that is no older is not stored again. The server keeps the ids in memory: some 100 bytes each.
const DUPLICATES: Duration = Duration::from_secs(10 * 60);

/// How long an acknowledgement may take: a disk that syncs, or a majority that votes.
const ANSWER: Duration = Duration::from_secs(5);

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A peer that has stopped without a word is noticed after two of these.
const PING: Duration = Duration::from_secs(10);

/// A connection to JetStream.
pub struct Nats {
    url: NatsUrl,
    service: &'static str,
    client: Client,
    jetstream: Context,
    /// The stream is there, as far as we know.
    has_stream: AtomicBool,
    /// What the connection failed of last.
    trouble: Arc<Mutex<Option<String>>>,
}

/// It cannot be connected to, ever: what was configured cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the NATS server's address")]
pub struct UnusableNats(#[source] async_nats::ConnectError);

impl Nats {
    /// Begins to connect, and does not wait for it: events wait instead. `service` is the source that messages name, `instance`
    /// what the server's monitor shows.
    ///
    /// # Errors
    /// [`UnusableNats`].
    pub async fn connect(url: NatsUrl, service: &'static str, instance: &str) -> Result<Self, UnusableNats> {
        let trouble = Arc::<Mutex<Option<String>>>::default();
        let noted = trouble.clone();
        let options = ConnectOptions::new()
            .name(format!("{service} {instance}"))
            .retry_on_initial_connect()
            .connection_timeout(CONNECT)
            .ping_interval(PING)
            .event_callback(move |happened| {
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                match happened {
                    Happened::Connected => *noted = None,
                    Happened::ClientError(error) => *noted = Some(error.to_string()),
                    Happened::ServerError(error) => *noted = Some(error.to_string()),
                    _ => {}
                }
                future::ready(())
            });
        let client = url
            .applied_to(options)
            .connect(url.servers())
            .await
            .map_err(UnusableNats)?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ANSWER);
        Ok(Self {
            url,
            service,
            client,
            jetstream,
            has_stream: AtomicBool::new(false),
            trouble,
        })
    }

    async fn publish(&self, events: &[&Recorded]) -> Vec<Result<(), NotTaken>> {
        if let Err(error) = self.prepare().await {
            return vec![Err(NotTaken::Away(error)); events.len()];
        }
        let sent = future::join_all(events.iter().map(|event| self.send(event))).await;
        sent.into_iter()
            .map(|sent| sent.map_err(|error| self.not_taken(&error)))
            .collect()
    }

    /// The connection, and the stream.
    async fn prepare(&self) -> Result<(), String> {
        if self.client.connection_state() != State::Connected {
            let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            let why = trouble.as_deref().unwrap_or("not connected");
            return Err(format!("{}: {why}", self.url));
        }
        if self.has_stream.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.jetstream.get_or_create_stream(stream()).await {
            Ok(_) => {}
            // Whoever runs the server has a stream of their own for them, with settings of their own.
            Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(told) if told.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP) =>
                {}
            Err(error) => return Err(format!("{}: there is no stream {STREAM}: {error}", self.url)),
        }
        self.has_stream.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn send(&self, event: &Recorded) -> Result<(), PublishError> {
        let subject = format!("{SUBJECTS}.{}", event.kind);
        let message = PublishMessage::build()
            .payload(event.to_cloud_event(self.service).to_string().into())
            .headers(headers(event))
            .message_id(event.id.to_string());
        let ack = self.jetstream.send_publish(subject, message).await?;
        ack.await.map(drop)
    }

    fn not_taken(&self, error: &PublishError) -> NotTaken {
        let code = error
            .source()
            .and_then(|source| source.downcast_ref::<jetstream::Error>())
            .map(jetstream::Error::error_code);
        let is_too_large = error.kind() == PublishErrorKind::MaxPayloadExceeded
            || code == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
            || code == Some(ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM);
        let text = format!("{}: {error}", self.url);
        if is_too_large {
            return NotTaken::Refused(text);
        }
        // Nobody listened: the stream was taken away, or the server has lost it.
        self.has_stream.store(false, Ordering::Relaxed);
        NotTaken::Away(text)
    }
}

/// What is made where nothing takes the subjects: kept on disk, by age alone, for as many readers as there are.
fn stream() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        description: Some("What happened in Tessera's services".to_owned()),
        subjects: vec![format!("{SUBJECTS}.>")],
        retention: stream::RetentionPolicy::Limits,
        storage: stream::StorageType::File,
        discard: stream::DiscardPolicy::Old,
        max_age: KEPT,
        duplicate_window: DUPLICATES,
        ..stream::Config::default()
    }
}

/// What consumers can go by without reading the body.
fn headers(event: &Recorded) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let schema = event.body.get("schema").map(ToString::to_string);
    let fields = [
        ("Content-Type", Some("application/cloudevents+json".to_owned())),
        ("Tessera-Event-Kind", Some(event.kind.clone())),
        ("Tessera-Event-Key", Some(event.key.clone())),
        ("Tessera-Event-Schema", schema),
        ("traceparent", event.trace.map(|trace| trace.to_string())),
    ];
    for (name, text) in fields {
        // What is no header value is in the body all the same.
        if let Some(value) = text.and_then(|text| text.parse::<HeaderValue>().ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

impl Broker for Nats {
    fn take_over<'a>(&'a self, events: &'a [&'a Recorded]) -> BoxFuture<'a, Vec<Result<(), NotTaken>>> {
        Box::pin(self.publish(events))
    }
}

impl std::fmt::Debug for Nats {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Nats")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
