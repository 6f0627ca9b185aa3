//! A user service over a fake ticket service, and short ways to say what is asked of it.

use std::time::Duration;

use proto::{
    common::v1::Money,
    user::v1::{
        BestAvailable, BuyTicketRequest, CreateUserRequest, GetOrderRequest, GetUserRequest, Order, SeatChoice,
        SignInRequest, SignInResponse, TopUpRequest, User, WatchOrderRequest, WatchOrderResponse, buy_ticket_request,
        user_service_client::UserServiceClient,
    },
};
use registry_client::Bearer;
use service_store::Location;
use tempfile::TempDir;
use tonic::{Status, Streaming, service::interceptor::InterceptedService, transport::Channel};
use tonic_types::StatusExt as _;
use user_svc::{Config, Running, Users};
use uuid::Uuid;

use crate::fake::FakeTickets;

/// Shows a token with each call, or none.
pub(crate) type Client = UserServiceClient<InterceptedService<Channel, Bearer>>;

/// Longer than anything here should take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const PASSWORD: &str = "correct horse battery";

/// An operator's account: what most tests do is done as this one, for any account.
pub(crate) const OPERATOR: &str = "operator@example.org";

pub(crate) struct Fixture {
    pub(crate) tickets: FakeTickets,
    pub(crate) server: Running,
    pub(crate) folder: TempDir,
    pub(crate) client: Client,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let tickets = FakeTickets::start().await;
        let folder = TempDir::new().expect("a temporary folder");
        let mut config = config(&folder, &tickets);
        change(&mut config);
        let store = config.store.clone();
        let server = Users::start(config).await.expect("it starts");
        make_operator(&server, store).await;
        let client = connect(&server).await;
        Self {
            tickets,
            server,
            folder,
            client,
        }
    }

    /// A user with so many cents.
    pub(crate) async fn user_with(&self, cents: i64) -> User {
        let mut client = self.client.clone();
        let user = client
            .create_user(new_user())
            .await
            .expect("new")
            .into_inner()
            .user
            .expect("the user");
        if cents > 0 {
            let top_up = TopUpRequest {
                request_id: id(),
                user_id: user.id.clone(),
                amount: euro(cents),
            };
            client.top_up(top_up).await.expect("topped up");
        }
        user
    }

    /// A new buyer with so many cents, and a client of theirs.
    pub(crate) async fn buyer_with(&self, cents: i64) -> (User, Client) {
        let user = self.user_with(cents).await;
        let session = sign_in(&self.server, &user.email).await;
        let client = connect_as(&self.server, Some(&session.session_token)).await;
        (user, client)
    }

    pub(crate) async fn balance(&self, user: &User) -> i64 {
        let request = GetUserRequest {
            user_id: user.id.clone(),
        };
        let user = self
            .client
            .clone()
            .get_user(request)
            .await
            .expect("the user")
            .into_inner()
            .user;
        user.expect("the user").balance.expect("a wallet").minor_units
    }

    pub(crate) async fn buy(&self, request: BuyTicketRequest) -> Order {
        let answer = self
            .client
            .clone()
            .buy_ticket(request)
            .await
            .expect("an order, good or bad");
        answer.into_inner().order.expect("the order")
    }

    pub(crate) async fn order(&self, id: &str) -> Order {
        let request = GetOrderRequest {
            order_id: id.to_owned(),
        };
        self.client
            .clone()
            .get_order(request)
            .await
            .expect("the order")
            .into_inner()
            .order
            .expect("the order")
    }

    /// Follows the order to its end; all states that were seen.
    pub(crate) async fn watch_to_the_end(&self, id: &str) -> Vec<Order> {
        watch_to_the_end(self.client.clone(), id).await
    }

    pub(crate) async fn stop(self) {
        let report = self.server.stop().await;
        assert!(report.drain.is_clean() && report.purchases_left == 0, "{report}");
    }
}

pub(crate) async fn watch_to_the_end(client: Client, id: &str) -> Vec<Order> {
    Watch::start(client, id).await.rest().await
}

/// A WatchOrder call, state by state. Each wait is bounded.
pub(crate) struct Watch(Streaming<WatchOrderResponse>);

impl Watch {
    pub(crate) async fn start(mut client: Client, id: &str) -> Self {
        let order_id = id.to_owned();
        let call = client.watch_order(WatchOrderRequest { order_id });
        let stream = tokio::time::timeout(PATIENCE, call).await.expect("it answers in time");
        Self(stream.expect("the order").into_inner())
    }

    /// The next state; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Order> {
        let state = tokio::time::timeout(PATIENCE, self.0.message())
            .await
            .expect("it moves in time");
        state.expect("a state").map(|state| state.order.expect("the order"))
    }

    /// All states that are left.
    pub(crate) async fn rest(mut self) -> Vec<Order> {
        let mut seen = Vec::new();
        while let Some(order) = self.next().await {
            seen.push(order);
        }
        seen
    }
}

/// Makes the first operator as an operator does: an account, and a word from whoever has the store.
pub(crate) async fn make_operator(server: &Running, store: Location) {
    let request = CreateUserRequest {
        email: OPERATOR.to_owned(),
        ..new_user()
    };
    connect_as(server, None).await.create_user(request).await.expect("new");
    let roles = user_svc::offline::grant(store, OPERATOR, identity::Roles::OPERATOR).await;
    assert_eq!(roles.expect("granted").to_string(), "buyer,operator");
}

/// The operator's client.
pub(crate) async fn connect(server: &Running) -> Client {
    let session = sign_in(server, OPERATOR).await;
    connect_as(server, Some(&session.session_token)).await
}

/// Opens a session of the account with this address.
pub(crate) async fn sign_in(server: &Running, email: &str) -> SignInResponse {
    let request = SignInRequest {
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let answer = connect_as(server, None).await.sign_in(request).await;
    answer.expect("right").into_inner()
}

/// A client that shows this token, or none.
pub(crate) async fn connect_as(server: &Running, token: Option<&str>) -> Client {
    let channel = Channel::from_shared(format!("http://{}", server.local_addr())).expect("an address");
    let channel = channel.connect().await.expect("it listens");
    let token = token.map(|token| token.parse().expect("a token"));
    UserServiceClient::with_interceptor(channel, Bearer::new(token))
}

pub(crate) fn store(folder: &TempDir) -> String {
    folder.path().join("users.db").display().to_string()
}

pub(crate) fn config(folder: &TempDir, tickets: &FakeTickets) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: None,
        store: store(folder).into(),
        ticket_addresses: vec![tickets.address.to_string()],
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

pub(crate) fn new_user() -> CreateUserRequest {
    CreateUserRequest {
        request_id: id(),
        email: format!("{}@example.org", id()),
        display_name: "Ada".to_owned(),
        password: PASSWORD.to_owned(),
        currency_code: String::new(),
    }
}

pub(crate) fn two_seats(user: &User) -> BuyTicketRequest {
    let best = BestAvailable {
        quantity: 2,
        section: String::new(),
    };
    buy(&user.id, buy_ticket_request::Selection::BestAvailable(best))
}

pub(crate) fn chosen(user_id: &str, seats: &[&str]) -> BuyTicketRequest {
    let seat_ids = seats.iter().map(|&seat| seat.to_owned()).collect();
    buy(user_id, buy_ticket_request::Selection::Seats(SeatChoice { seat_ids }))
}

fn buy(user_id: &str, selection: buy_ticket_request::Selection) -> BuyTicketRequest {
    BuyTicketRequest {
        request_id: id(),
        user_id: user_id.to_owned(),
        event_id: id(),
        selection: Some(selection),
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
