//! `tessera.ticket.v1.TicketService`: reads requests, asks the store, writes answers. No rule lives here.

mod convert;
mod gate;
mod page;
mod read;

use proto::ticket::v1::{
    ConfirmHoldRequest, ConfirmHoldResponse, CreateEventRequest, CreateEventResponse, GetEventRequest,
    GetEventResponse, HoldSeatsRequest, HoldSeatsResponse, ListEventsRequest, ListEventsResponse, ListSeatsRequest,
    ListSeatsResponse, ReleaseHoldRequest, ReleaseHoldResponse,
    ticket_service_server::{TicketService, TicketServiceServer},
};
use service_store::failpoint;
use tonic::{Request, Response, Status, service::Routes};
use uuid::Uuid;

pub(crate) use self::gate::ApiGate;
use crate::store::Store;

/// The gRPC service's full name.
pub(crate) use proto::ticket::v1::ticket_service_server::SERVICE_NAME;

/// Answers the calls of one process.
#[derive(Debug, Clone)]
pub(crate) struct TicketApi {
    store: Store,
}

impl TicketApi {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// As the host serves it.
    pub(crate) fn into_routes(self) -> Routes {
        // The largest request, CreateEvent with texts of 200 characters and 50 sections, has some 5 KiB.
        Routes::new(TicketServiceServer::new(self).max_decoding_message_size(service_host::MAX_REQUEST_MESSAGE))
    }
}

#[tonic::async_trait]
impl TicketService for TicketApi {
    async fn create_event(
        &self,
        request: Request<CreateEventRequest>,
    ) -> Result<Response<CreateEventResponse>, Status> {
        let (request_id, event) = read::create_event(request.into_inner())?;
        // Version 7 grows with time, which keeps the index of ids compact.
        let created = self.store.create_event(request_id, Uuid::now_v7(), &event).await?;
        Ok(Response::new(CreateEventResponse {
            event: Some(convert::event(created)),
        }))
    }

    async fn get_event(&self, request: Request<GetEventRequest>) -> Result<Response<GetEventResponse>, Status> {
        let event_id = read::get_event(&request.into_inner())?;
        let event = self.store.event(event_id).await?;
        Ok(Response::new(GetEventResponse {
            event: Some(convert::event(event)),
        }))
    }

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let page = read::list_events(&request.into_inner())?;
        // One more than asked for tells whether there is a next page.
        let mut events = self.store.events(page.cursor, page.size + 1).await?;
        let next_page_token = page.cut(&mut events, |(event, _)| event.cursor().to_token());
        let events = events.into_iter().map(convert::event).collect();
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
        let hold = read::hold_seats(request.into_inner())?;
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
            tickets: tickets.into_iter().map(convert::ticket).collect(),
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
}
