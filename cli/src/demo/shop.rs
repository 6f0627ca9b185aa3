//! The two services as the demo uses them: typed calls through the balancer, each bounded and patient (`patience`). What
//! the answers mean is not decided here.

use std::time::Duration;

use proto::{
    common::v1::Money,
    ticket::v1::{
        Event, GetEventRequest, ListEventsRequest, ListSeatsRequest, Seat, SeatState,
        ticket_service_client::TicketServiceClient,
    },
    user::v1::{
        BestAvailable, BuyTicketRequest, CreateUserRequest, GetOrderRequest, Order, SignInRequest, TopUpRequest, User,
        buy_ticket_request::Selection, user_service_client::UserServiceClient,
    },
};
use registry_client::{Bearer, Registry, Token};
use tonic::{Code, Status};
use uuid::Uuid;

use super::patience;
use crate::channel::{self, Line};

/// How often an order that is still being worked on is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The deadline of a purchase is that of its call; what goes on after it is compensation, and that is quick.
const SETTLED: Duration = Duration::from_secs(15);
/// The most that one page of each list holds.
const EVENTS_A_PAGE: i32 = 200;
const SEATS_A_PAGE: i32 = 1_000;

/// What a made-up person signs in with. Not printed.
pub(crate) struct Credentials {
    email: String,
    password: String,
}

/// The services of a cluster.
#[derive(Clone)]
pub(crate) struct Shop {
    users: UserServiceClient<lb::Channel>,
    tickets: TicketServiceClient<lb::Channel>,
    channels: [lb::Channel; 2],
}

impl Shop {
    /// Finds the services by discovery; dials when first used.
    pub(crate) fn find(registry: &Registry) -> Self {
        let users = channel::to_service(registry, "user-svc");
        let tickets = channel::to_service(registry, "ticket-svc");
        Self {
            users: UserServiceClient::new(users.clone()),
            tickets: TicketServiceClient::new(tickets.clone()),
            channels: [users, tickets],
        }
    }

    /// The user service as somebody who has signed in calls it.
    fn shown(&self, token: &Token) -> UserServiceClient<Line> {
        let [users, _] = &self.channels;
        UserServiceClient::new(Line::new(users.clone(), Bearer::new(Some(token.clone()))))
    }

    /// Waits until both services can be called.
    pub(crate) async fn ready(&self) -> Result<(), lb::Error> {
        for channel in &self.channels {
            channel.ready(channel::READY).await?;
        }
        Ok(())
    }

    /// All events, by start time.
    pub(crate) async fn events(&self) -> Result<Vec<Event>, Status> {
        let mut events = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListEventsRequest {
                page_size: EVENTS_A_PAGE,
                page_token,
            };
            let page = patience::call(request, |request| {
                let mut tickets = self.tickets.clone();
                async move { tickets.list_events(request).await }
            })
            .await?;
            events.extend(page.events);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(events);
            }
        }
    }

    /// One event with its counts.
    pub(crate) async fn event(&self, event_id: &str) -> Result<Event, Status> {
        let request = GetEventRequest {
            event_id: event_id.to_owned(),
        };
        let answer = patience::call(request, |request| {
            let mut tickets = self.tickets.clone();
            async move { tickets.get_event(request).await }
        })
        .await?;
        answer.event.ok_or_else(|| nothing("GetEvent", "event"))
    }

    /// All seats of an event, as they are now. An event has at most 20,000: 20 pages.
    pub(crate) async fn seats(&self, event_id: &str) -> Result<Vec<Seat>, Status> {
        let mut seats = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListSeatsRequest {
                event_id: event_id.to_owned(),
                state: SeatState::Unspecified.into(),
                page_size: SEATS_A_PAGE,
                page_token,
            };
            let page = patience::call(request, |request| {
                let mut tickets = self.tickets.clone();
                async move { tickets.list_seats(request).await }
            })
            .await?;
            seats.extend(page.seats);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(seats);
            }
        }
    }

    /// Creates an account of a made-up person, who is not signed in yet.
    pub(crate) async fn create_user(&self, name: &str, currency_code: &str) -> Result<(User, Credentials), Status> {
        let id = Uuid::new_v4();
        let credentials = Credentials {
            // RFC 2606: nobody owns this domain, now or ever.
            email: format!("demo-{}@example.com", id.simple()),
            password: Uuid::new_v4().to_string(),
        };
        let request = CreateUserRequest {
            request_id: id.to_string(),
            email: credentials.email.clone(),
            display_name: name.to_owned(),
            password: credentials.password.clone(),
            currency_code: currency_code.to_owned(),
        };
        let answer = patience::call(request, |request| {
            let mut users = self.users.clone();
            async move { users.create_user(request).await }
        })
        .await?;
        let user = answer.user.ok_or_else(|| nothing("CreateUser", "user"))?;
        Ok((user, credentials))
    }

    /// Opens a session, which ends a quarter of an hour later: what the demo does with an account takes less, but for the
    /// wait until it is its turn. So it is opened again where it has ended.
    pub(crate) async fn sign_in(&self, credentials: &Credentials) -> Result<Token, Status> {
        let request = SignInRequest {
            email: credentials.email.clone(),
            password: credentials.password.clone(),
        };
        let answer = patience::call(request, |request| {
            let mut users = self.users.clone();
            async move { users.sign_in(request).await }
        })
        .await?;
        answer.session_token.parse().map_err(|_| nothing("SignIn", "token"))
    }

    /// Puts money into a wallet; answers what it holds then.
    pub(crate) async fn top_up(&self, token: &Token, user_id: &str, amount: Money) -> Result<Option<Money>, Status> {
        let request = TopUpRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: user_id.to_owned(),
            amount: Some(amount),
        };
        Ok(patience::call(request, |request| {
            let mut users = self.shown(token);
            async move { users.top_up(request).await }
        })
        .await?
        .balance)
    }

    /// Buys the best free seats.
    pub(crate) async fn buy(&self, token: &Token, user_id: &str, event_id: &str, seats: u32) -> Result<Order, Status> {
        let request = BuyTicketRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: user_id.to_owned(),
            event_id: event_id.to_owned(),
            selection: Some(Selection::BestAvailable(BestAvailable {
                quantity: seats,
                section: String::new(),
            })),
        };
        let answer = patience::call(request, |request| {
            let mut users = self.shown(token);
            async move { users.buy_ticket(request).await }
        })
        .await?;
        answer.order.ok_or_else(|| nothing("BuyTicket", "order"))
    }

    /// The order once it is final, or as it is after a while.
    pub(crate) async fn settled(&self, token: &Token, order: Order) -> Result<Order, Status> {
        let id = order.id.clone();
        let mut latest = order;
        let settle = async {
            while !is_final(&latest) {
                tokio::time::sleep(LOOK_AGAIN).await;
                let request = GetOrderRequest { order_id: id.clone() };
                let answer = patience::call(request, |request| {
                    let mut users = self.shown(token);
                    async move { users.get_order(request).await }
                })
                .await?;
                latest = answer.order.ok_or_else(|| nothing("GetOrder", "order"))?;
            }
            Ok::<(), Status>(())
        };
        match tokio::time::timeout(SETTLED, settle).await {
            Ok(Err(status)) => Err(status),
            Ok(Ok(())) | Err(_) => Ok(latest),
        }
    }
}

fn is_final(order: &Order) -> bool {
    use proto::user::v1::OrderState;
    matches!(order.state(), OrderState::Succeeded | OrderState::Failed)
}

fn nothing(method: &str, what: &str) -> Status {
    Status::new(Code::Internal, format!("{method} answered without an {what}"))
}
