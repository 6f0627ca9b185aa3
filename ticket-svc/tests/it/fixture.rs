//! Servers on a temporary file, and short ways to say what is asked of them.

use std::{
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use identity::{Claims, KeyPair, KeySet, Roles, Subject};
use proto::{
    common::v1::Money,
    ticket::v1::{
        BestAvailable, CreateEventRequest, Event, HoldSeatsRequest, SeatChoice, Section, hold_seats_request,
        ticket_service_client::TicketServiceClient,
    },
};
use tempfile::TempDir;
use ticket_svc::{Access, Config, Running, Tickets};
use tonic::{
    GrpcMethod, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt as _;
use uuid::Uuid;

pub(crate) type Client = TicketServiceClient<InterceptedService<Channel, Shown>>;

/// What is shown with each call.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    /// This, or nothing.
    One(Option<String>),
    /// What is meant to call the method: the user service where it is about holds, an operator otherwise.
    AsMeant,
}

/// What the user service alone asks for.
const OF_SERVICES: &[&str] = &["HoldSeats", "ConfirmHold", "ReleaseHold", "RefundTickets"];

impl Interceptor for Shown {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = match self {
            Self::One(token) => token.clone(),
            Self::AsMeant => {
                let method = request
                    .extensions()
                    .get::<GrpcMethod<'_>>()
                    .expect("generated")
                    .method();
                Some(if OF_SERVICES.contains(&method) {
                    service_token("user-svc")
                } else {
                    token_of(Uuid::from_u128(1), Roles::OPERATOR)
                })
            }
        };
        if let Some(token) = token {
            let header = format!("Bearer {token}").parse().expect("a header");
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

/// What the servers here believe: the user service's key, as far as they know.
pub(crate) fn key() -> &'static KeyPair {
    static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("a key"));
    &KEY
}

pub(crate) fn keys() -> KeySet {
    KeySet::new([key().public_key().clone()])
}

/// Claims that are good for an hour.
pub(crate) fn claims(subject: Subject, roles: Roles, audience: &str) -> Claims {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    Claims {
        issuer: identity::ISSUER.to_owned(),
        subject,
        roles,
        audience: audience.to_owned(),
        issued_at: now,
        expires_at: now + 3600,
    }
}

/// The token of a person.
pub(crate) fn token_of(id: Uuid, roles: Roles) -> String {
    let session = Uuid::from_u128(9);
    let claims = claims(Subject::User { id, session }, roles, identity::PLATFORM);
    claims.sign(key()).expose().to_owned()
}

/// The token of a service, for this one.
pub(crate) fn service_token(name: &str) -> String {
    let claims = claims(Subject::Service(name.to_owned()), Roles::SERVICE, "ticket-svc");
    claims.sign(key()).expose().to_owned()
}

/// Servers that share one file.
pub(crate) struct Fixture {
    pub(crate) servers: Vec<Running>,
    pub(crate) folder: TempDir,
}

impl Fixture {
    pub(crate) async fn with(servers: usize) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut running = Vec::new();
        for _ in 0..servers {
            running.push(Tickets::start(config(&folder)).await.expect("it starts"));
        }
        Self {
            servers: running,
            folder,
        }
    }

    /// One server with so many places at the store.
    pub(crate) async fn with_places(hold_places: usize) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let config = Config {
            hold_places,
            ..config(&folder)
        };
        let server = Tickets::start(config).await.expect("it starts");
        Self {
            servers: vec![server],
            folder,
        }
    }

    pub(crate) async fn client(&self, server: usize) -> Client {
        self.client_as(server, Shown::AsMeant).await
    }

    pub(crate) async fn client_as(&self, server: usize, shown: Shown) -> Client {
        connect(&self.servers[server], shown).await
    }

    pub(crate) async fn stop(self) {
        for server in self.servers {
            assert!(server.stop().await.drain.is_clean());
        }
    }
}

pub(crate) async fn connect(server: &Running, shown: Shown) -> Client {
    let address = server.local_addr();
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
    TicketServiceClient::with_interceptor(channel.connect().await.expect("it listens"), shown)
}

pub(crate) fn config(folder: &TempDir) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: None,
        store: folder.path().join("tickets.db").as_path().into(),
        access: Access::Keys(keys()),
        ..Config::default()
    }
}

pub(crate) fn id() -> String {
    Uuid::new_v4().to_string()
}

pub(crate) fn euro(minor_units: i64) -> Option<Money> {
    Some(Money {
        currency_code: "EUR".to_owned(),
        minor_units,
    })
}

pub(crate) fn section(name: &str, rows: u32, seats_per_row: u32) -> Section {
    Section {
        name: name.to_owned(),
        rows,
        seats_per_row,
        price: euro(2_500),
        capacity: 0,
    }
}

pub(crate) fn new_event(sections: Vec<Section>) -> CreateEventRequest {
    let event = Event {
        title: "Late Beethoven".to_owned(),
        venue: "Kammersaal".to_owned(),
        starts_at: Some(prost_types::Timestamp {
            seconds: 1_900_000_000,
            nanos: 5,
        }),
        sections,
        ..Event::default()
    };
    CreateEventRequest {
        request_id: id(),
        event: Some(event),
    }
}

/// An event that begins so many seconds after 1970.
pub(crate) async fn create_at(client: &mut Client, seconds: i64, sections: Vec<Section>) -> Event {
    let mut request = new_event(sections);
    if let Some(event) = &mut request.event {
        event.starts_at = Some(prost_types::Timestamp { seconds, nanos: 0 });
    }
    let created = client.create_event(request).await.expect("in limits");
    created.into_inner().event.expect("the event")
}

pub(crate) async fn create(client: &mut Client, sections: Vec<Section>) -> Event {
    let created = client.create_event(new_event(sections)).await.expect("in limits");
    created.into_inner().event.expect("the event")
}

pub(crate) fn best(event_id: &str, quantity: u32) -> HoldSeatsRequest {
    let best = BestAvailable {
        quantity,
        section: String::new(),
    };
    hold(event_id, hold_seats_request::Selection::BestAvailable(best))
}

pub(crate) fn chosen(event_id: &str, seats: &[&str]) -> HoldSeatsRequest {
    let seat_ids = seats.iter().map(|&seat| seat.to_owned()).collect();
    hold(event_id, hold_seats_request::Selection::Seats(SeatChoice { seat_ids }))
}

fn hold(event_id: &str, selection: hold_seats_request::Selection) -> HoldSeatsRequest {
    HoldSeatsRequest {
        request_id: id(),
        event_id: event_id.to_owned(),
        buyer_id: "buyer".to_owned(),
        selection: Some(selection),
        ttl: None,
        pass: String::new(),
    }
}

/// The same for somebody by name.
pub(crate) fn buyer(name: &str, request: HoldSeatsRequest) -> HoldSeatsRequest {
    HoldSeatsRequest {
        buyer_id: name.to_owned(),
        ..request
    }
}

/// The machine-readable reason of an error.
pub(crate) fn reason(status: &Status) -> String {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "tessera");
    info.reason
}

/// The fields that an INVALID_ARGUMENT complains of.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
    for violation in &violations {
        assert!(violation.description.contains("must"), "{violation:?} names no limit");
    }
    violations.into_iter().map(|violation| violation.field).collect()
}
