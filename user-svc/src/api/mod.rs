//! `tessera.user.v1.UserService`: reads requests, asks accounts, purchases and the store, writes answers. No rule lives here.

mod convert;
mod read;
mod watch;

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use proto::user::v1::{
    BuyTicketRequest, BuyTicketResponse, CreateUserRequest, CreateUserResponse, GetOrderRequest, GetOrderResponse,
    GetUserRequest, GetUserResponse, ListOrdersRequest, ListOrdersResponse, SignInRequest, SignInResponse,
    TopUpRequest, TopUpResponse, WatchOrderRequest, WatchOrderResponse,
    user_service_server::{UserService, UserServiceServer},
};
use service_host::DrainSignal;
use telemetry::deadline::Deadline;
use tonic::{Request, Response, Status, service::Routes};

use crate::{accounts::Accounts, domain::order::Order, purchases::Purchases, store::Store};

/// How long BuyTicket waits for the end of a purchase when the call has no deadline.
const BUY_PATIENCE: Duration = Duration::from_secs(30);

/// What BuyTicket keeps of its deadline for the answer PROCESSING to arrive in time. A tenth, so that short deadlines leave
/// time to buy; 250 ms is a long way round the earth.
const MAX_ANSWER_MARGIN: Duration = Duration::from_millis(250);

/// The gRPC service's full name.
pub(crate) use proto::user::v1::user_service_server::SERVICE_NAME;

/// Answers the calls of one process.
#[derive(Debug, Clone)]
pub(crate) struct UserApi {
    store: Store,
    accounts: Accounts,
    purchases: Purchases,
    drain: DrainSignal,
}

impl UserApi {
    pub(crate) fn new(store: Store, accounts: Accounts, purchases: Purchases, drain: DrainSignal) -> Self {
        Self {
            store,
            accounts,
            purchases,
            drain,
        }
    }

    /// As the host serves it.
    pub(crate) fn into_routes(self) -> Routes {
        // The largest request, CreateUser with a name of 100 and a password of 128 characters, has some 2 KiB.
        Routes::new(UserServiceServer::new(self).max_decoding_message_size(service_host::MAX_REQUEST_MESSAGE))
    }

    /// The order in its final state, or as it is when the caller's patience ends.
    async fn bought(&self, request: BuyTicketRequest) -> Result<Order, Status> {
        let give_up = tokio::time::Instant::now() + patience();
        let new = read::buy_ticket(request)?;
        let (order, following) = self.purchases.buy(new).await?;
        let Some(mut following) = following else {
            return Ok(order);
        };
        // Either way the store has the answer.
        let _ = tokio::time::timeout_at(give_up, following.ended()).await;
        Ok(self.store.order(order.id).await?)
    }
}

fn patience() -> Duration {
    Deadline::current().map_or(BUY_PATIENCE, |deadline| {
        let left = deadline.remaining();
        left.saturating_sub((left / 10).min(MAX_ANSWER_MARGIN))
    })
}

#[tonic::async_trait]
impl UserService for UserApi {
    type WatchOrderStream = Pin<Box<dyn Stream<Item = Result<WatchOrderResponse, Status>> + Send>>;

    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<CreateUserResponse>, Status> {
        let (new, password) = read::create_user(request.into_inner())?;
        let user = self.accounts.create(&new, password).await?;
        Ok(Response::new(CreateUserResponse {
            user: Some(convert::user(user)),
        }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let (email, password) = read::sign_in(request.into_inner())?;
        let session = self.accounts.sign_in(&email, password).await?;
        Ok(Response::new(convert::session(session)))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let user_id = read::get_user(&request.into_inner())?;
        let user = self.store.user(user_id).await?;
        Ok(Response::new(GetUserResponse {
            user: Some(convert::user(user)),
        }))
    }

    async fn top_up(&self, request: Request<TopUpRequest>) -> Result<Response<TopUpResponse>, Status> {
        let (request_id, user_id, amount) = read::top_up(&request.into_inner())?;
        let balance = self.store.top_up(request_id, user_id, amount).await?;
        Ok(Response::new(TopUpResponse {
            balance: Some(convert::money(balance)),
        }))
    }

    async fn buy_ticket(&self, request: Request<BuyTicketRequest>) -> Result<Response<BuyTicketResponse>, Status> {
        let order = self.bought(request.into_inner()).await?;
        Ok(Response::new(BuyTicketResponse {
            order: Some(convert::order(order)),
        }))
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<GetOrderResponse>, Status> {
        let order_id = read::get_order(&request.into_inner())?;
        let order = self.store.order(order_id).await?;
        Ok(Response::new(GetOrderResponse {
            order: Some(convert::order(order)),
        }))
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        let (user_id, page) = read::list_orders(&request.into_inner())?;
        // One more than asked for tells whether there is a next page.
        let mut orders = self.store.orders(user_id, page.cursor, page.size + 1).await?;
        let next_page_token = page.cut(&mut orders, |order| order.cursor().to_token());
        let orders = orders.into_iter().map(convert::order).collect();
        Ok(Response::new(ListOrdersResponse {
            orders,
            next_page_token,
        }))
    }

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let order_id = read::watch_order(&request.into_inner())?;
        // An unknown order is an error of the call, not of its stream.
        self.store.order(order_id).await?;
        let states = watch::states(self.store.clone(), self.purchases.clone(), self.drain.clone(), order_id);
        Ok(Response::new(Box::pin(states)))
    }
}
