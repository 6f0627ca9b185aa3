//! `tessera.ticket.v1.TicketService`: reads requests, asks the store, writes answers. No rule lives here.

mod convert;
mod gate;
mod line;
mod new_event;
mod own;
mod page;
mod read;
mod watch;

use std::{pin::Pin, sync::Arc};

use futures_util::{
    Stream,
    future::{self, BoxFuture, FutureExt as _},
};
use identity::{KeyPair, KeySet};
use outbox::EventsApi;
use proto::ticket::v1::{
    CheckTicketRequest, CheckTicketResponse, ConfirmHoldRequest, ConfirmHoldResponse, CreateEventRequest,
    CreateEventResponse, GetEventRequest, GetEventResponse, GetSalesRequest, GetSalesResponse, GetSeatMapRequest,
    GetSeatMapResponse, GetTicketKeysRequest, GetTicketKeysResponse, HoldSeatsRequest, HoldSeatsResponse,
    ListEventsRequest, ListEventsResponse, ListSeatsRequest, ListSeatsResponse, RefundTicketsRequest,
    RefundTicketsResponse, ReleaseHoldRequest, ReleaseHoldResponse, SearchEventsRequest, SearchEventsResponse,
    WaitInLineRequest, WaitInLineResponse, WatchAvailabilityRequest, WatchAvailabilityResponse,
    ticket_service_server::{TicketService, TicketServiceServer},
};
use service_host::DrainSignal;
use service_store::failpoint;
use tonic::{Extensions, Request, Response, Status, service::Routes};
use uuid::Uuid;

pub(crate) use self::gate::ApiGate;
use crate::{
    availability::{Availability, TooManyWatchers},
    domain::line::Full,
    error,
    room::Room,
    store::{Store, StoreError},
};

/// The gRPC service's full name.
pub(crate) use proto::ticket::v1::ticket_service_server::SERVICE_NAME;

/// Answers the calls of one process.
#[derive(Debug, Clone)]
pub(crate) struct TicketApi {
    store: Store,
    /// What signs ticket codes and passes.
    signer: Arc<KeyPair>,
    /// What verifies them.
    keys: Arc<KeySet>,
    availability: Availability,
    room: Room,
    drain: DrainSignal,
}

impl TicketApi {
    /// Takes up the store's keys, or makes them. `places`: so many HoldSeats calls are at the store at once.
    pub(crate) async fn new(store: Store, places: usize, drain: DrainSignal) -> Result<Self, StoreError> {
        let signer = store.signer().await?;
        Ok(Self {
            signer,
            keys: Arc::new(store.public_keys().await?),
            availability: Availability::new(store.clone()),
            room: Room::new(store.clone(), places),
            store,
            drain,
        })
    }

    /// As the host serves it.
    pub(crate) fn into_routes(self) -> Routes {
        // The largest request, CreateEvent with texts of 200 characters and 50 sections, has some 5 KiB.
        let events = EventsApi::new(self.store.database().clone(), Arc::new(who_calls));
        Routes::new(TicketServiceServer::new(self).max_decoding_message_size(service_host::MAX_REQUEST_MESSAGE))
            .add_service(events.into_service())
    }
}

/// Of events: the gate has let through operators only.
fn who_calls(extensions: &Extensions) -> BoxFuture<'static, Result<String, Status>> {
    let user = own::caller(extensions).user();
    // Without one the gate is open to everybody.
    let who = user.map_or_else(|| "anyone".to_owned(), |user| user.to_string());
    future::ready(Ok(who)).boxed()
}

#[tonic::async_trait]
impl TicketService for TicketApi {
    async fn create_event(
        &self,
        request: Request<CreateEventRequest>,
    ) -> Result<Response<CreateEventResponse>, Status> {
        let caller = own::caller(request.extensions());
        let (request_id, mut event) = read::create_event(request.into_inner())?;
        event.terms.organiser = own::organiser(&caller, event.terms.organiser.take())?;
        // Version 7 grows with time, which keeps the index of ids compact.
        let created = self.store.create_event(request_id, Uuid::now_v7(), &event).await?;
        Ok(Response::new(CreateEventResponse {
            event: Some(convert::event(created, self.store.now())),
        }))
    }

    async fn get_event(&self, request: Request<GetEventRequest>) -> Result<Response<GetEventResponse>, Status> {
        let event_id = read::only_id("event_id", &request.into_inner().event_id)?;
        let event = self.store.event(event_id).await?;
        Ok(Response::new(GetEventResponse {
            event: Some(convert::event(event, self.store.now())),
        }))
    }

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let page = read::list_events(&request.into_inner())?;
        // One more than asked for tells whether there is a next page.
        let mut events = self.store.events(page.cursor, page.size + 1).await?;
        let next_page_token = page.cut(&mut events, |(event, _)| event.cursor().to_token());
        let now = self.store.now();
        let events = events.into_iter().map(|event| convert::event(event, now)).collect();
        Ok(Response::new(ListEventsResponse {
            events,
            next_page_token,
        }))
    }

    async fn list_seats(&self, request: Request<ListSeatsRequest>) -> Result<Response<ListSeatsResponse>, Status> {
        let (event_id, state, page) = read::list_seats(&request.into_inner())?;
        let mut seats = self.store.seats(event_id, state, page.cursor, page.size + 1).await?;
        let next_page_token = page.cut(&mut seats, |seat| page::seat_token(seat.place));
        let seats = seats.into_iter().map(convert::seat).collect();
        Ok(Response::new(ListSeatsResponse { seats, next_page_token }))
    }

    async fn hold_seats(&self, request: Request<HoldSeatsRequest>) -> Result<Response<HoldSeatsResponse>, Status> {
        let mut request = request.into_inner();
        let pass = std::mem::take(&mut request.pass);
        let hold = read::hold_seats(request)?;
        let (visitor, has_pass) = read::visitor(&hold, &pass, &self.keys, self.store.now())?;
        let inside = self.room.enter(visitor, has_pass).await;
        let _inside = inside.map_err(|again| error::come_again(again.0))?;
        failpoint("ticket.hold.commit.before").await;
        let hold = self.store.hold(&hold).await?;
        failpoint("ticket.hold.commit.after").await;
        Ok(Response::new(HoldSeatsResponse {
            hold: Some(convert::hold(hold)),
        }))
    }

    async fn confirm_hold(
        &self,
        request: Request<ConfirmHoldRequest>,
    ) -> Result<Response<ConfirmHoldResponse>, Status> {
        let (hold_id, token, order_id) = read::confirm_hold(&request.into_inner())?;
        let ids = std::array::from_fn(|_| Uuid::now_v7());
        failpoint("ticket.confirm.commit.before").await;
        let tickets = self.store.confirm(hold_id, token, order_id, ids).await?;
        failpoint("ticket.confirm.commit.after").await;
        Ok(Response::new(ConfirmHoldResponse {
            tickets: tickets
                .into_iter()
                .map(|ticket| convert::ticket(ticket, &self.signer))
                .collect(),
        }))
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseHoldRequest>,
    ) -> Result<Response<ReleaseHoldResponse>, Status> {
        let (hold_id, token) = read::release_hold(&request.into_inner())?;
        failpoint("ticket.release.commit.before").await;
        self.store.release(hold_id, token).await?;
        failpoint("ticket.release.commit.after").await;
        Ok(Response::new(ReleaseHoldResponse {}))
    }

    async fn search_events(
        &self,
        request: Request<SearchEventsRequest>,
    ) -> Result<Response<SearchEventsResponse>, Status> {
        let (query, page) = read::search(&request.into_inner())?;
        let mut found = self.store.search(&query, page.cursor, page.size + 1).await?;
        let next_page_token = page.cut(&mut found, |(standing, _)| standing.to_token());
        let now = self.store.now();
        let events = found.into_iter().map(|(_, event)| convert::event(event, now)).collect();
        Ok(Response::new(SearchEventsResponse {
            events,
            next_page_token,
        }))
    }

    async fn get_seat_map(&self, request: Request<GetSeatMapRequest>) -> Result<Response<GetSeatMapResponse>, Status> {
        let event_id = read::only_id("event_id", &request.into_inner().event_id)?;
        let (seq, event) = self.store.event_and_key(event_id).await?;
        let map = self.store.map_of(seq, &event).await?;
        Ok(Response::new(GetSeatMapResponse {
            map: Some(convert::seat_map(&event, &map)),
        }))
    }

    async fn refund_tickets(
        &self,
        request: Request<RefundTicketsRequest>,
    ) -> Result<Response<RefundTicketsResponse>, Status> {
        let refund = read::refund(&request.into_inner())?;
        failpoint("ticket.revoke.commit.before").await;
        let tickets = self.store.refund(&refund).await?;
        failpoint("ticket.revoke.commit.after").await;
        let total = convert::total(&tickets)?;
        Ok(Response::new(RefundTicketsResponse {
            tickets: tickets
                .into_iter()
                .map(|ticket| convert::ticket(ticket, &self.signer))
                .collect(),
            total,
        }))
    }

    async fn get_sales(&self, request: Request<GetSalesRequest>) -> Result<Response<GetSalesResponse>, Status> {
        let caller = own::caller(request.extensions());
        let event_id = read::only_id("event_id", &request.into_inner().event_id)?;
        let (event, sales) = self.store.sales(event_id).await?;
        own::event(&caller, &event)?;
        Ok(Response::new(convert::sales(&event, &sales)?))
    }

    async fn get_ticket_keys(
        &self,
        _: Request<GetTicketKeysRequest>,
    ) -> Result<Response<GetTicketKeysResponse>, Status> {
        Ok(Response::new(GetTicketKeysResponse {
            jwks: self.keys.to_jwks(),
        }))
    }

    async fn check_ticket(
        &self,
        request: Request<CheckTicketRequest>,
    ) -> Result<Response<CheckTicketResponse>, Status> {
        let caller = own::caller(request.extensions());
        let admission = read::ticket_code(&self.keys, &request.into_inner().code)?;
        let (_, event) = self.store.event_and_key(admission.event_id).await?;
        own::event(&caller, &event)?;
        let ticket = self.store.check_ticket(admission.ticket_id).await?;
        Ok(Response::new(convert::checked(admission, ticket)))
    }

    type WatchAvailabilityStream = Answers<WatchAvailabilityResponse>;

    async fn watch_availability(
        &self,
        request: Request<WatchAvailabilityRequest>,
    ) -> Result<Response<Self::WatchAvailabilityStream>, Status> {
        let request = request.into_inner();
        let event_id = read::only_id("event_id", &request.event_id)?;
        let watcher = self.availability.watch(event_id).await?;
        let watcher = watcher.map_err(|TooManyWatchers| error::too_many_watchers())?;
        let updates = watch::updates(watcher, self.drain.clone(), request.revision);
        Ok(Response::new(Box::pin(updates)))
    }

    type WaitInLineStream = Answers<WaitInLineResponse>;

    async fn wait_in_line(
        &self,
        request: Request<WaitInLineRequest>,
    ) -> Result<Response<Self::WaitInLineStream>, Status> {
        let caller = own::caller(request.extensions());
        let visitor = read::wait_in_line(&request.into_inner())?;
        own::buyer(&caller, &visitor.buyer)?;
        let (event, _) = self.store.event(visitor.event).await?;
        event.terms.window.check(self.store.now()).map_err(Status::from)?;
        let in_line = self.room.wait(visitor.clone());
        let in_line = in_line.map_err(|Full(wait)| error::line_full(wait))?;
        let words = line::words(in_line, visitor, self.signer.clone(), self.drain.clone());
        Ok(Response::new(Box::pin(words)))
    }
}

/// The answers of a stream.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
