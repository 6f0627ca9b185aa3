//! `tessera.events.v1.EventsService`: dead letters for operators, over the store of whichever service serves it. Who is an operator
//! is for that service's gate to say.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use proto::events::v1::{
    self as wire, DropDeadLetterRequest, DropDeadLetterResponse, GetDeadLetterRequest, GetDeadLetterResponse,
    ListDeadLettersRequest, ListDeadLettersResponse, ReplayDeadLettersRequest, ReplayDeadLettersResponse,
    events_service_server::{EventsService, EventsServiceServer},
};
use service_host::status;
use service_store::{Database, Page, PageSizes, Text, Timestamp, Violations, is_busy, is_conflict};
use tonic::{Code, Extensions, Request, Response, Status};
use uuid::Uuid;

use crate::dead::{self, DeadLetter, DeadLetterError};

/// The gRPC service's full name.
pub use proto::events::v1::events_service_server::SERVICE_NAME;

const PAGES: PageSizes = PageSizes { default: 50, max: 200 };

/// Ids of one request.
const MOST_IDS: usize = 100;

/// When to try again what was refused for a moment's load.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Says who calls, for the log, of those whom the gate has let through; or why they may not after all.
pub type WhoCalls = Arc<dyn Fn(&Extensions) -> BoxFuture<'static, Result<String, Status>> + Send + Sync>;

/// Answers the calls of one process.
#[derive(Clone)]
pub struct EventsApi {
    database: Database,
    who_calls: WhoCalls,
}

impl EventsApi {
    /// Over the outbox in `database`.
    #[must_use]
    pub fn new(database: Database, who_calls: WhoCalls) -> Self {
        Self { database, who_calls }
    }

    /// As a host serves it.
    #[must_use]
    pub fn into_service(self) -> EventsServiceServer<Self> {
        // The largest request, ReplayDeadLetters with 100 ids, has some 4 KiB.
        EventsServiceServer::new(self).max_decoding_message_size(service_host::MAX_REQUEST_MESSAGE)
    }

    async fn let_in<T>(&self, request: Request<T>) -> Result<(String, T), Status> {
        let who = (self.who_calls)(request.extensions()).await?;
        Ok((who, request.into_inner()))
    }
}

#[tonic::async_trait]
impl EventsService for EventsApi {
    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let (_, request) = self.let_in(request).await?;
        let mut violations = Violations::default();
        let parse = |token: &str| token.parse::<i64>().ok();
        let page = Page::read(&mut violations, PAGES, request.page_size, &request.page_token, parse);
        let page = page.ok_or_else(|| status::invalid(violations))?;
        // One more than asked for tells whether there is a next page.
        let found = dead::dead_letters(&self.database, page.cursor, page.size + 1).await;
        let mut letters = found.map_err(|error| failed(&error))?;
        let next_page_token = page.cut(&mut letters, |(place, _)| place.to_string());
        Ok(Response::new(ListDeadLettersResponse {
            dead_letters: letters.into_iter().map(|(_, letter)| written(letter)).collect(),
            next_page_token,
        }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<GetDeadLetterRequest>,
    ) -> Result<Response<GetDeadLetterResponse>, Status> {
        let (_, request) = self.let_in(request).await?;
        let mut violations = Violations::default();
        let id = violations.uuid("event_id", &request.event_id);
        let id = id.ok_or_else(|| status::invalid(violations))?;
        let letter = dead::dead_letter(&self.database, id).await?;
        Ok(Response::new(GetDeadLetterResponse {
            dead_letter: Some(written(letter)),
        }))
    }

    async fn replay_dead_letters(
        &self,
        request: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersResponse>, Status> {
        let (who, request) = self.let_in(request).await?;
        let replayed = match ids(&request)? {
            None => dead::replay_all(&self.database).await.map_err(|error| failed(&error))?,
            Some(ids) => {
                dead::replay(&self.database, &ids).await?;
                ids.len() as u64
            }
        };
        tracing::info!(who, replayed, "dead letters are replayed");
        Ok(Response::new(ReplayDeadLettersResponse {
            replayed: i64::try_from(replayed).unwrap_or(i64::MAX),
        }))
    }

    async fn drop_dead_letter(
        &self,
        request: Request<DropDeadLetterRequest>,
    ) -> Result<Response<DropDeadLetterResponse>, Status> {
        let (who, request) = self.let_in(request).await?;
        let mut violations = Violations::default();
        let id = violations.uuid("event_id", &request.event_id);
        let reason = violations.check("reason", Text::<200>::try_new(&request.reason));
        let (id, reason) = id.zip(reason).ok_or_else(|| status::invalid(violations))?;
        let note = format!("dropped by {who}: {}", reason.as_str());
        dead::drop_letter(&self.database, id, &note).await?;
        tracing::warn!(event = %id, who, reason = reason.as_str(), "a dead letter is dropped");
        Ok(Response::new(DropDeadLetterResponse {}))
    }
}

/// `None`: all of them.
fn ids(request: &ReplayDeadLettersRequest) -> Result<Option<Vec<Uuid>>, Status> {
    let must = match (request.all, request.event_ids.len()) {
        (true, 0) => return Ok(None),
        (false, 1..=MOST_IDS) => None,
        (true, _) => Some("must be empty with all".to_owned()),
        (false, _) => Some(format!("must be 1 to {MOST_IDS}, or none with all")),
    };
    let mut violations = Violations::default();
    if let Some(must) = must {
        violations.add("event_ids", must);
        return Err(status::invalid(violations));
    }
    let mut ids = BTreeSet::new();
    for (index, text) in request.event_ids.iter().enumerate() {
        match violations.uuid(&format!("event_ids[{index}]"), text) {
            Some(id) => ids.insert(id),
            None => continue,
        };
    }
    let mut violations = violations.into_iter().peekable();
    match violations.peek() {
        None => Ok(Some(ids.into_iter().collect())),
        Some(_) => Err(status::invalid(violations)),
    }
}

fn written(letter: DeadLetter) -> wire::DeadLetter {
    let event = letter.event;
    wire::DeadLetter {
        event_id: event.id.to_string(),
        kind: event.kind,
        key: event.key,
        body: event.body.to_string(),
        created_at: Some(instant(event.created_at)),
        attempts: event.attempts,
        error: letter.error,
        held_back: i64::try_from(letter.holds_back).unwrap_or(i64::MAX),
        traceparent: event.trace.map(|trace| trace.to_string()).unwrap_or_default(),
    }
}

fn instant(at: Timestamp) -> prost_types::Timestamp {
    const SECOND: i64 = 1_000_000_000;
    prost_types::Timestamp {
        seconds: at.as_nanos().div_euclid(SECOND),
        nanos: i32::try_from(at.as_nanos().rem_euclid(SECOND)).unwrap_or_default(),
    }
}

impl From<DeadLetterError> for Status {
    fn from(error: DeadLetterError) -> Self {
        match error {
            DeadLetterError::Unknown(_) => status::error(Code::NotFound, "DEAD_LETTER_UNKNOWN", error.to_string()),
            DeadLetterError::Store(error) => failed(&error),
        }
    }
}

fn failed(error: &sqlx::Error) -> Status {
    if is_busy(error) || is_conflict(error) {
        let text = "the store is busy; try again";
        return status::retryable(Code::Unavailable, "STORE_BUSY", text, RETRY_AFTER);
    }
    tracing::error!(error = error as &dyn std::error::Error, "the store failed");
    let text = "the store failed; the service's log says why";
    status::error(Code::Internal, "STORE_FAILED", text)
}

impl std::fmt::Debug for EventsApi {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EventsApi").finish_non_exhaustive()
    }
}
