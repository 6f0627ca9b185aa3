//! A ticket service for tests: keeps holds in memory as the real one would, and fails as it is told.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use proto::{
    common::v1::Money,
    ticket::v1::{
        self, ConfirmHoldRequest, ConfirmHoldResponse, CreateEventRequest, CreateEventResponse, GetEventRequest,
        GetEventResponse, Hold, HoldSeatsRequest, HoldSeatsResponse, ListEventsRequest, ListEventsResponse,
        ListSeatsRequest, ListSeatsResponse, ReleaseHoldRequest, ReleaseHoldResponse, Seat, Ticket,
        ticket_service_server::{TicketService, TicketServiceServer},
    },
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt as _};
use uuid::Uuid;

/// What every answer says it came from.
pub(crate) const INSTANCE: &str = "fake-tickets-1";

/// What every seat costs.
pub(crate) const PRICE: i64 = 2_500;

/// What happens to one call. Without instruction it is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// Carried out.
    Obey,
    /// Refused with this code and reason.
    Refuse(Code, &'static str),
    /// Carried out; the answer is lost.
    LoseAnswer,
    /// Not carried out, and nobody can tell.
    LoseRequest,
    /// Carried out once the gate is open.
    AwaitGate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Hold,
    Confirm,
    Release,
    Refund,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HoldState {
    Held {
        token: i64,
        seats: Vec<String>,
    },
    Confirmed {
        token: i64,
        tickets: Vec<Sold>,
    },
    Released,
    /// It was sold, by these tickets, which are void.
    Refunded(Vec<Sold>),
}

/// A ticket's id and seat.
pub(crate) type Sold = (String, String);

#[derive(Debug, Default)]
struct State {
    acts: HashMap<Method, VecDeque<Act>>,
    /// Every call that arrived, with its `traceparent`.
    calls: Vec<(Method, Option<String>)>,
    /// What every call showed.
    shown: Vec<Option<String>>,
    holds: HashMap<String, HoldState>,
    next_seat: usize,
    next_token: i64,
    /// What RefundTickets was asked: the refund, and whether the buyer asks.
    refunds: Vec<(String, bool)>,
}

/// The fake and the server that it answers through.
pub(crate) struct FakeTickets {
    pub(crate) address: SocketAddr,
    service: Service,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    gate: watch::Sender<bool>,
}

impl FakeTickets {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = Service {
            state: Arc::default(),
            gate: watch::channel(false).0,
        };
        let router = tonic::transport::Server::builder().add_service(TicketServiceServer::new(service.clone()));
        let server = tokio::spawn(async move {
            router
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("it serves");
        });
        Self {
            address,
            service,
            server,
        }
    }

    /// The next calls of `method` go like this; those after them are carried out.
    pub(crate) fn next(&self, method: Method, acts: impl IntoIterator<Item = Act>) {
        self.service.state().acts.entry(method).or_default().extend(acts);
    }

    /// From here on all calls of `method` are carried out.
    pub(crate) fn obey(&self, method: Method) {
        self.service.state().acts.remove(&method);
    }

    pub(crate) fn open_gate(&self) {
        self.service.gate.send_replace(true);
    }

    /// How often `method` was called.
    pub(crate) fn called(&self, method: Method) -> usize {
        self.service
            .state()
            .calls
            .iter()
            .filter(|(called, _)| *called == method)
            .count()
    }

    /// The `traceparent` of every call.
    pub(crate) fn traceparents(&self) -> Vec<String> {
        self.service
            .state()
            .calls
            .iter()
            .filter_map(|(_, parent)| parent.clone())
            .collect()
    }

    /// What every call showed as its `authorization`.
    pub(crate) fn shown(&self) -> Vec<Option<String>> {
        self.service.state().shown.clone()
    }

    /// The refunds that were asked for, each with whether the buyer asks.
    pub(crate) fn refunds(&self) -> Vec<(String, bool)> {
        self.service.state().refunds.clone()
    }

    pub(crate) fn hold(&self, id: &str) -> Option<HoldState> {
        self.service.state().holds.get(id).cloned()
    }
}

impl Drop for FakeTickets {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds it")
    }

    /// Notes the call, does what was told, and perhaps what was asked.
    async fn act<T>(
        &self,
        method: Method,
        metadata: &MetadataMap,
        carry_out: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let act = {
            let mut state = self.state();
            let parent = metadata
                .get("traceparent")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            state.calls.push((method, parent));
            let shown = metadata.get("authorization").and_then(|value| value.to_str().ok());
            state.shown.push(shown.map(str::to_owned));
            state.acts.entry(method).or_default().pop_front().unwrap_or(Act::Obey)
        };
        match act {
            Act::Refuse(code, reason) => return Err(refusal(code, reason)),
            Act::LoseRequest => return Err(Status::unavailable("lost")),
            Act::AwaitGate => {
                let mut gate = self.gate.subscribe();
                gate.wait_for(|open| *open).await.expect("the gate is kept");
            }
            Act::Obey | Act::LoseAnswer => {}
        }
        let answer = carry_out(&mut self.state());
        if matches!(act, Act::LoseAnswer) {
            return Err(Status::unavailable("lost"));
        }
        let mut response = Response::new(answer?);
        response
            .metadata_mut()
            .insert("tessera-instance", INSTANCE.parse().expect("ASCII"));
        Ok(response)
    }
}

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "tessera", HashMap::new());
    let mut status = Status::with_error_details(code, format!("refused: {reason}"), details);
    status
        .metadata_mut()
        .insert("tessera-instance", INSTANCE.parse().expect("ASCII"));
    status
}

fn euro(minor_units: i64) -> Option<Money> {
    Some(Money {
        currency_code: "EUR".to_owned(),
        minor_units,
    })
}

fn hold(request: &HoldSeatsRequest, state: &mut State) -> Result<HoldSeatsResponse, Status> {
    use proto::ticket::v1::hold_seats_request::Selection;
    if !state.holds.contains_key(&request.request_id) {
        let seats = match request.selection.as_ref().expect("validated") {
            Selection::Seats(choice) => choice.seat_ids.clone(),
            Selection::BestAvailable(best) => {
                let first = state.next_seat + 1;
                state.next_seat += best.quantity as usize;
                (first..=state.next_seat).map(|seat| format!("A/1/{seat}")).collect()
            }
        };
        state.next_token += 1;
        let held = HoldState::Held {
            token: state.next_token,
            seats,
        };
        state.holds.insert(request.request_id.clone(), held);
    }
    let (token, seats) = match &state.holds[&request.request_id] {
        HoldState::Held { token, seats } => (*token, seats.clone()),
        HoldState::Confirmed { token, tickets } => (*token, tickets.iter().map(|(_, seat)| seat.clone()).collect()),
        HoldState::Released => return Err(refusal(Code::FailedPrecondition, "HOLD_RELEASED")),
        HoldState::Refunded(_) => return Err(refusal(Code::FailedPrecondition, "HOLD_REFUNDED")),
    };
    let total = euro(PRICE * i64::try_from(seats.len()).expect("few"));
    let seats = seats
        .into_iter()
        .map(|id| Seat {
            id,
            price: euro(PRICE),
            ..Seat::default()
        })
        .collect();
    let hold = Hold {
        id: request.request_id.clone(),
        token,
        event_id: request.event_id.clone(),
        buyer_id: request.buyer_id.clone(),
        seats,
        total,
        expires_at: None,
    };
    Ok(HoldSeatsResponse { hold: Some(hold) })
}

fn confirm(request: &ConfirmHoldRequest, state: &mut State) -> Result<ConfirmHoldResponse, Status> {
    let held = state.holds.get(&request.hold_id).cloned();
    let (token, tickets) = match held.ok_or_else(|| refusal(Code::NotFound, "HOLD_UNKNOWN"))? {
        HoldState::Held { token, seats } => (
            token,
            seats
                .into_iter()
                .map(|seat| (Uuid::new_v4().to_string(), seat))
                .collect(),
        ),
        HoldState::Confirmed { token, tickets } => (token, tickets),
        HoldState::Released => return Err(refusal(Code::FailedPrecondition, "HOLD_RELEASED")),
        HoldState::Refunded(_) => return Err(refusal(Code::FailedPrecondition, "HOLD_REFUNDED")),
    };
    if token != request.hold_token {
        return Err(refusal(Code::PermissionDenied, "HOLD_TOKEN_WRONG"));
    }
    state.holds.insert(
        request.hold_id.clone(),
        HoldState::Confirmed {
            token,
            tickets: tickets.clone(),
        },
    );
    let tickets = tickets
        .into_iter()
        .map(|(id, seat_id)| Ticket {
            id,
            seat_id,
            ..Ticket::default()
        })
        .collect();
    Ok(ConfirmHoldResponse { tickets })
}

fn release(request: &ReleaseHoldRequest, state: &mut State) -> Result<ReleaseHoldResponse, Status> {
    if let Some(HoldState::Confirmed { .. }) = state.holds.get(&request.hold_id) {
        return Err(refusal(Code::FailedPrecondition, "HOLD_CONFIRMED"));
    }
    state.holds.insert(request.hold_id.clone(), HoldState::Released);
    Ok(ReleaseHoldResponse {})
}

fn refund(request: &v1::RefundTicketsRequest, state: &mut State) -> Result<v1::RefundTicketsResponse, Status> {
    // Orders and holds have one id here.
    let unknown = || refusal(Code::NotFound, "ORDER_UNKNOWN");
    let sold = match state.holds.get(&request.order_id).ok_or_else(unknown)? {
        HoldState::Confirmed { token, tickets } => {
            assert_eq!(request.hold_token, *token, "the token of its hold");
            tickets.clone()
        }
        HoldState::Refunded(tickets) => tickets.clone(),
        HoldState::Held { .. } | HoldState::Released => return Err(unknown()),
    };
    state
        .holds
        .insert(request.order_id.clone(), HoldState::Refunded(sold.clone()));
    let total = euro(PRICE * i64::try_from(sold.len()).expect("few"));
    let tickets = sold.into_iter().map(|(id, seat_id)| Ticket {
        id,
        seat_id,
        ..Ticket::default()
    });
    Ok(v1::RefundTicketsResponse {
        tickets: tickets.collect(),
        total,
    })
}

#[tonic::async_trait]
impl TicketService for Service {
    async fn hold_seats(&self, request: Request<HoldSeatsRequest>) -> Result<Response<HoldSeatsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.act(Method::Hold, &metadata, |state| hold(&request, state)).await
    }

    async fn confirm_hold(
        &self,
        request: Request<ConfirmHoldRequest>,
    ) -> Result<Response<ConfirmHoldResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.act(Method::Confirm, &metadata, |state| confirm(&request, state))
            .await
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseHoldRequest>,
    ) -> Result<Response<ReleaseHoldResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.act(Method::Release, &metadata, |state| release(&request, state))
            .await
    }

    async fn create_event(&self, _: Request<CreateEventRequest>) -> Result<Response<CreateEventResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    async fn get_event(&self, _: Request<GetEventRequest>) -> Result<Response<GetEventResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    async fn list_events(&self, _: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    async fn list_seats(&self, _: Request<ListSeatsRequest>) -> Result<Response<ListSeatsResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    async fn search_events(
        &self,
        _: Request<v1::SearchEventsRequest>,
    ) -> Result<Response<v1::SearchEventsResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    async fn get_seat_map(
        &self,
        _: Request<v1::GetSeatMapRequest>,
    ) -> Result<Response<v1::GetSeatMapResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    async fn refund_tickets(
        &self,
        request: Request<v1::RefundTicketsRequest>,
    ) -> Result<Response<v1::RefundTicketsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.state()
            .refunds
            .push((request.request_id.clone(), request.by_buyer));
        self.act(Method::Refund, &metadata, |state| refund(&request, state))
            .await
    }

    async fn get_sales(&self, _: Request<v1::GetSalesRequest>) -> Result<Response<v1::GetSalesResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    async fn get_ticket_keys(
        &self,
        _: Request<v1::GetTicketKeysRequest>,
    ) -> Result<Response<v1::GetTicketKeysResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    async fn check_ticket(
        &self,
        _: Request<v1::CheckTicketRequest>,
    ) -> Result<Response<v1::CheckTicketResponse>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    type WatchAvailabilityStream = tokio_stream::Empty<Result<v1::WatchAvailabilityResponse, Status>>;

    async fn watch_availability(
        &self,
        _: Request<v1::WatchAvailabilityRequest>,
    ) -> Result<Response<Self::WatchAvailabilityStream>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }

    type WaitInLineStream = tokio_stream::Empty<Result<v1::WaitInLineResponse, Status>>;

    async fn wait_in_line(
        &self,
        _: Request<v1::WaitInLineRequest>,
    ) -> Result<Response<Self::WaitInLineStream>, Status> {
        Err(Status::unimplemented("no purchase asks for it"))
    }
}
