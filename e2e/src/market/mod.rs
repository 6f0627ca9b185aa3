//! A market to be hurt: a cluster, an event, buyers with money, and who keeps book of what they were told.
//!
//! [`Market`] makes accounts and events and buys as an impatient person would: with the same request again until somebody says
//! how it ended. [`Books`] is what the buyers know, kept on their side only. [`Market::audit`] holds it against what the services say, and
//! [`Watch`] reads seats and money all the time while things go wrong. Nothing here looks into a service's memory.

mod audit;
mod books;
mod money;
mod operator;
mod watch;

use std::{sync::Arc, time::Duration};

use proto::{
    common::v1::Money,
    ticket::v1::{
        CreateEventRequest, Event, GetEventRequest, GetSalesRequest, ListSeatsRequest, Seat, Section, SectionSales,
        ticket_service_client::TicketServiceClient,
    },
    user::v1::{
        BestAvailable, BuyTicketRequest, CreateUserRequest, GetOrderRequest, GetUserRequest, ListStatementRequest,
        Order, OrderState, RefundOrderRequest, SeatChoice, StatementEntry, TopUpRequest, buy_ticket_request::Selection,
        user_service_client::UserServiceClient,
    },
};
use registry_client::Registry;
use tokio::time::Instant;
use tonic::{Code, Request, Status};
use uuid::Uuid;

pub use self::{
    books::{Books, Ended, Entry},
    watch::{Seen, Watch},
};
use self::{
    money::PutIn,
    operator::{Line, Operator},
};
use crate::Cluster;

/// What a seat of every event here costs, in cents.
pub const PRICE: i64 = 2_500;

/// How long a buyer goes on asking for the end of a purchase: the bound of the platform's promise that every purchase has
/// ended a minute after all is well again, and what a test may do to it before.
const STUBBORN: Duration = Duration::from_secs(150);

/// One attempt of a call.
const ATTEMPT: Duration = Duration::from_secs(10);

/// A cluster that sells. Clones are the same market. What is done for its buyers is done by an operator, who signs in when that
/// is asked for: two thousand buyers that sign in would measure how passwords are hashed.
#[derive(Debug, Clone)]
pub struct Market {
    users: UserServiceClient<Line>,
    tickets: TicketServiceClient<Line>,
    operator: Arc<Operator>,
    books: Arc<Books>,
    put_in: Arc<PutIn>,
    /// How long a buyer goes on asking.
    patience: Duration,
    /// The user service's.
    store: String,
}

/// Somebody with a wallet.
#[derive(Debug, Clone)]
pub struct Buyer {
    /// The account.
    pub id: String,
    /// What was put into the wallet, in cents.
    pub funds: i64,
}

/// Which seats somebody wants.
#[derive(Debug, Clone)]
pub enum Wish {
    /// These, by their ids.
    Seats(Vec<String>),
    /// So many, wherever they are.
    Best(u32),
}

impl Market {
    /// Finds a cluster's services through its registry.
    ///
    /// # Panics
    /// When the registry's address is none.
    pub fn of(cluster: &Cluster) -> Self {
        let registry = Registry::connect([&cluster.registry]).expect("an address");
        let channel = |service: &str| lb::Channel::builder(registry.discover(service)).build();
        let operator = Operator::new(channel("user-svc"), cluster.store("user"));
        let line = |service| Line::new(channel(service), operator.bearer());
        Self {
            users: UserServiceClient::new(line("user-svc")),
            tickets: TicketServiceClient::new(line("ticket-svc")),
            operator: Arc::new(operator),
            books: Arc::default(),
            put_in: Arc::default(),
            patience: STUBBORN,
            store: cluster.store("user"),
        }
    }

    /// Buyers go on asking for so long: where thousands come at once to a small machine, the last one's turn is late.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// What its buyers were told.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Makes an event of one section `A` with these rows of seats.
    pub async fn event(&self, rows: u32, seats_per_row: u32) -> Event {
        let event = Event {
            title: "A sale".into(),
            venue: "Hall".into(),
            starts_at: Some(prost_types::Timestamp {
                // In 2096: it lies ahead of every run of this.
                seconds: 4_000_000_000,
                nanos: 0,
            }),
            sections: vec![Section {
                name: "A".into(),
                rows,
                seats_per_row,
                price: Some(euro(PRICE)),
                ..Section::default()
            }],
            ..Event::default()
        };
        let request = CreateEventRequest {
            request_id: Uuid::new_v4().to_string(),
            event: Some(event),
        };
        let answer = self.stubborn("CreateEvent", request, |request| {
            let mut tickets = self.tickets.clone();
            async move { tickets.create_event(request).await }
        });
        answer.await.event.expect("the event")
    }

    /// Makes an account with money for so many seats.
    pub async fn buyer(&self, seats: u32) -> Buyer {
        let id = Uuid::new_v4();
        let request = CreateUserRequest {
            request_id: id.to_string(),
            email: format!("{}@example.com", id.simple()),
            display_name: "Buyer".into(),
            password: id.to_string(),
            currency_code: "EUR".into(),
        };
        let answer = self.stubborn("CreateUser", request, |request| {
            let mut users = self.users.clone();
            async move { users.create_user(request).await }
        });
        let id = answer.await.user.expect("the user").id;
        let funds = i64::from(seats) * PRICE;
        self.put_in.asked(funds);
        let request = TopUpRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: id.clone(),
            amount: Some(euro(funds)),
        };
        self.stubborn("TopUp", request, |request| {
            let mut users = self.users.clone();
            async move { users.top_up(request).await }
        })
        .await;
        self.put_in.told(funds);
        Buyer { id, funds }
    }

    /// So many buyers with money for so many seats each, some at a time: hashing a password is dear on purpose.
    pub async fn buyers(&self, count: usize, seats: u32) -> Vec<Buyer> {
        use futures_util::StreamExt as _;
        futures_util::stream::iter(0..count)
            .map(|_| self.buyer(seats))
            .buffer_unordered(8)
            .collect()
            .await
    }

    /// Buys, and asks again with the same request until it has ended. Kept in the books.
    ///
    /// # Panics
    /// When there is no end in 150 s, or as long as buyers of this market have patience.
    pub async fn buy(&self, buyer: &Buyer, event: &Event, wish: Wish) -> Entry {
        let request = BuyTicketRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: buyer.id.clone(),
            event_id: event.id.clone(),
            selection: Some(match wish {
                Wish::Seats(seat_ids) => Selection::Seats(SeatChoice { seat_ids }),
                Wish::Best(quantity) => Selection::BestAvailable(BestAvailable {
                    quantity,
                    section: String::new(),
                }),
            }),
        };
        let (give_up, mut rough) = (Instant::now() + self.patience, Vec::new());
        loop {
            let mut pause = Duration::from_millis(50);
            let mut users = self.users.clone();
            match users.buy_ticket(attempt(request.clone())).await {
                Ok(answer) => {
                    let order = answer.into_inner().order.expect("an order");
                    if is_final(&order) {
                        return self.books.enter(buyer, &order, rough);
                    }
                }
                Err(status) => {
                    let may_repeat = self.may_repeat(&status).await;
                    assert!(
                        may_repeat,
                        "a purchase is answered with what another attempt cannot mend: {status:?}"
                    );
                    pause = pause.max(asked_to_wait(&status));
                    rough.push(status);
                }
            }
            assert!(
                Instant::now() < give_up,
                "order {} has not ended: {rough:?}",
                request.request_id
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Gives back what was sold, and asks again with the same request until that has ended. Kept in the books.
    ///
    /// # Panics
    /// When there is no end in 150 s, or it is refused: nothing here has begun.
    pub async fn refund(&self, sold: &Entry) -> Vec<Status> {
        let request = RefundOrderRequest {
            request_id: Uuid::new_v4().to_string(),
            order_id: sold.order_id.clone(),
        };
        self.books.asked_back(&sold.order_id);
        let (give_up, mut rough) = (Instant::now() + STUBBORN, Vec::new());
        loop {
            let mut users = self.users.clone();
            match users.refund_order(attempt(request.clone())).await {
                Ok(answer) => {
                    let order = answer.into_inner().order.expect("an order");
                    match order.state() {
                        OrderState::Refunded => {
                            self.books.refunded(&order);
                            return rough;
                        }
                        state => assert_eq!(state, OrderState::Refunding, "{order:?}"),
                    }
                }
                Err(status) => {
                    assert!(self.may_repeat(&status).await, "a refund is answered with {status:?}");
                    rough.push(status);
                }
            }
            assert!(Instant::now() < give_up, "{} is not refunded: {rough:?}", sold.order_id);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the organiser of an event sees of its sale, all sections together.
    pub async fn sales(&self, event_id: &str) -> SectionSales {
        let request = GetSalesRequest {
            event_id: event_id.to_owned(),
        };
        let answer = self.stubborn("GetSales", request, |request| {
            let mut tickets = self.tickets.clone();
            async move { tickets.get_sales(request).await }
        });
        answer.await.total.expect("a total")
    }

    /// All that was done to a wallet, newest first.
    pub async fn statement(&self, buyer: &Buyer) -> Vec<StatementEntry> {
        let (mut entries, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListStatementRequest {
                user_id: buyer.id.clone(),
                page_size: 200,
                page_token,
            };
            let page = self
                .stubborn("ListStatement", request, |request| {
                    let mut users = self.users.clone();
                    async move { users.list_statement(request).await }
                })
                .await;
            entries.extend(page.entries);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return entries;
            }
        }
    }

    /// What the ticket service says of an event now.
    pub async fn counts(&self, event_id: &str) -> Result<Event, Status> {
        let request = GetEventRequest {
            event_id: event_id.to_owned(),
        };
        let answer = self.tickets.clone().get_event(attempt(request)).await?;
        Ok(answer.into_inner().event.expect("the event"))
    }

    /// All seats of an event.
    pub async fn seats(&self, event_id: &str) -> Vec<Seat> {
        let (mut seats, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListSeatsRequest {
                event_id: event_id.to_owned(),
                page_size: 1_000,
                page_token,
                ..ListSeatsRequest::default()
            };
            let page = self
                .stubborn("ListSeats", request, |request| {
                    let mut tickets = self.tickets.clone();
                    async move { tickets.list_seats(request).await }
                })
                .await;
            seats.extend(page.seats);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return seats;
            }
        }
    }

    /// What a wallet holds, in cents.
    pub async fn balance(&self, buyer: &Buyer) -> i64 {
        let request = GetUserRequest {
            user_id: buyer.id.clone(),
        };
        let answer = self.stubborn("GetUser", request, |request| {
            let mut users = self.users.clone();
            async move { users.get_user(request).await }
        });
        let user = answer.await.user.expect("the user");
        user.balance.expect("a balance").minor_units
    }

    /// An order as it is now.
    pub async fn order(&self, order_id: &str) -> Order {
        let request = GetOrderRequest {
            order_id: order_id.to_owned(),
        };
        let answer = self.stubborn("GetOrder", request, |request| {
            let mut users = self.users.clone();
            async move { users.get_order(request).await }
        });
        answer.await.order.expect("the order")
    }

    /// Repeats a call that may be repeated until it succeeds.
    async fn stubborn<T: Clone, R, F>(&self, what: &str, message: T, mut call: impl FnMut(Request<T>) -> F) -> R
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let give_up = Instant::now() + STUBBORN;
        loop {
            match call(attempt(message.clone())).await {
                Ok(answer) => return answer.into_inner(),
                Err(status) => assert!(
                    self.may_repeat(&status).await && Instant::now() < give_up,
                    "{what}: {status:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Is it about the state of the wire or of a server, so that the same request may do better later? Or will it, now that
    /// the operator has signed in?
    async fn may_repeat(&self, status: &Status) -> bool {
        if status.code() == Code::Unauthenticated {
            self.operator.sign_in().await;
            return true;
        }
        may_repeat(status)
    }
}

/// So many cents.
pub fn euro(minor_units: i64) -> Money {
    Money {
        currency_code: "EUR".into(),
        minor_units,
    }
}

fn is_final(order: &Order) -> bool {
    matches!(order.state(), OrderState::Succeeded | OrderState::Failed)
}

fn attempt<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ATTEMPT);
    request
}

/// How long whoever is refused is told to wait, if they are: buyers do, each a little longer than the next one.
///
/// # Panics
/// When somebody is turned away for lack of room and not told when to come again.
fn asked_to_wait(status: &Status) -> Duration {
    use tonic_types::StatusExt as _;
    let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(
        told.is_some() || status.code() != Code::ResourceExhausted,
        "come again, but when? {status:?}"
    );
    told.unwrap_or_default().mul_f64(rand::random_range(1.0..1.5))
}

/// Is it about the state of the wire or of a server, so that the same request may do better later?
fn may_repeat(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
    )
}
