//! `tessera.user.v1.UserService`: reads requests, asks accounts, purchases and the store, writes answers. No rule lives here.

mod convert;
mod gate;
mod read;
mod watch;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use identity::Caller;
use outbox::{EventsApi, WhoCalls};
use proto::user::v1::{
    BuyTicketRequest, BuyTicketResponse, CreateUserRequest, CreateUserResponse, DeleteUserRequest, DeleteUserResponse,
    GetOrderRequest, GetOrderResponse, GetSigningKeysRequest, GetSigningKeysResponse, GetUserRequest, GetUserResponse,
    ListOrdersRequest, ListOrdersResponse, ListSessionsRequest, ListSessionsResponse, ListStatementRequest,
    ListStatementResponse, RefreshSessionRequest, RefreshSessionResponse, RefundOrderRequest, RefundOrderResponse,
    RevokeSessionsRequest, RevokeSessionsResponse, SetRolesRequest, SetRolesResponse, SignInRequest, SignInResponse,
    SignOutRequest, SignOutResponse, TopUpRequest, TopUpResponse, UpdateProfileRequest, UpdateProfileResponse,
    WatchOrderRequest, WatchOrderResponse,
    user_service_server::{UserService, UserServiceServer},
};
use service_host::DrainSignal;
use telemetry::deadline::Deadline;
use tonic::{Request, Response, Status, service::Routes};
use uuid::Uuid;

pub(crate) use self::gate::ApiGate;
use crate::{
    access,
    accounts::Accounts,
    domain::{
        order::{NewRefund, Order, RefundBy},
        refusal::Refusal,
    },
    purchases::Purchases,
    sessions::Sessions,
    signing::Signing,
    store::{Store, StoreError},
};

/// How long BuyTicket and RefundOrder wait for the end when the call has no deadline.
const BUY_PATIENCE: Duration = Duration::from_secs(30);

/// What BuyTicket keeps of its deadline for the answer PROCESSING to arrive in time. A tenth, so that short deadlines leave
/// time to buy; 250 ms is a long way round the earth.
const MAX_ANSWER_MARGIN: Duration = Duration::from_millis(250);

/// The gRPC service's full name.
pub(crate) use proto::user::v1::user_service_server::SERVICE_NAME;

/// Answers the calls of one process.
#[derive(Debug, Clone)]
pub(crate) struct UserApi {
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    pub(crate) sessions: Sessions,
    pub(crate) signing: Signing,
    pub(crate) purchases: Purchases,
    pub(crate) drain: DrainSignal,
}

impl UserApi {
    /// As the host serves it.
    pub(crate) fn into_routes(self) -> Routes {
        // The largest request, CreateUser with a name of 100 and a password of 128 characters, has some 2 KiB.
        let events = EventsApi::new(self.store.database().clone(), who_calls(self.store.clone()));
        Routes::new(UserServiceServer::new(self).max_decoding_message_size(service_host::MAX_REQUEST_MESSAGE))
            .add_service(events.into_service())
    }

    /// The order in its final state, or as it is when the caller's patience ends.
    async fn bought(&self, caller: &Caller, request: BuyTicketRequest) -> Result<Order, Status> {
        let give_up = tokio::time::Instant::now() + patience();
        let new = read::buy_ticket(request)?;
        own(caller, new.user_id)?;
        let order = self.purchases.buy(new).await?;
        Ok(self.purchases.settled(order, give_up).await?)
    }

    /// The order once it was decided on, or as it is when the caller's patience ends.
    async fn refunded(&self, caller: &Caller, request: &RefundOrderRequest) -> Result<Order, Status> {
        let give_up = tokio::time::Instant::now() + patience();
        let (id, order_id) = read::refund_order(request)?;
        let order = own_order(&self.store, caller, order_id).await?;
        // Also an operator's own order goes by the event's terms.
        let by = if caller.user() == Some(order.user_id) {
            RefundBy::Buyer
        } else {
            RefundBy::Operator
        };
        let order = self.purchases.refund(NewRefund { id, order_id, by }).await?;
        Ok(self.purchases.settled(order, give_up).await?)
    }
}

/// Of events: an operator whose session is still open.
fn who_calls(store: Store) -> WhoCalls {
    Arc::new(move |extensions| {
        let (store, caller) = (store.clone(), extensions.get::<Caller>().cloned());
        Box::pin(async move {
            let caller = caller.unwrap_or(Caller::Nobody);
            gate::check(&store, &caller).await?;
            Ok(caller
                .user()
                .map_or_else(|| "a service".to_owned(), |user| user.to_string()))
        })
    })
}

/// Refuses whoever is neither that account nor an operator.
fn own(caller: &Caller, account: Uuid) -> Result<(), Status> {
    Ok(access::own(caller, account).map_err(StoreError::from)?)
}

/// An order, for those who may see it. That of another account is answered like one that there is not.
async fn own_order(store: &Store, caller: &Caller, order_id: Uuid) -> Result<Order, Status> {
    let order = store.order(order_id).await?;
    if caller.may_act_for(order.user_id) {
        Ok(order)
    } else {
        Err(StoreError::from(Refusal::OrderUnknown(order_id)).into())
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
        let peer = gate::peer(&request);
        let (new, password) = read::create_user(request.into_inner())?;
        let user = self.accounts.create(&new, password, peer).await?;
        Ok(Response::new(CreateUserResponse {
            user: Some(convert::user(user)),
        }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let (peer, user_agent) = (gate::peer(&request), gate::user_agent(&request));
        let (email, password) = read::sign_in(request.into_inner())?;
        let granted = self.sessions.sign_in(&email, password, peer, user_agent).await?;
        Ok(Response::new(convert::signed_in(granted)))
    }

    async fn refresh_session(
        &self,
        request: Request<RefreshSessionRequest>,
    ) -> Result<Response<RefreshSessionResponse>, Status> {
        let shown = read::refresh_session(&request.into_inner())?;
        let granted = self.sessions.refresh(&shown).await?;
        Ok(Response::new(convert::refreshed(granted)))
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        if let (Some(user_id), Some(session)) = (caller.user(), caller.session()) {
            self.sessions.revoke(user_id, &[session]).await?;
        }
        Ok(Response::new(SignOutResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let user_id = read::list_sessions(&request.into_inner())?;
        own(&caller, user_id)?;
        let sessions = self.sessions.list(user_id).await?.into_iter();
        Ok(Response::new(ListSessionsResponse {
            sessions: sessions
                .map(|session| convert::session(session, caller.session()))
                .collect(),
        }))
    }

    async fn revoke_sessions(
        &self,
        request: Request<RevokeSessionsRequest>,
    ) -> Result<Response<RevokeSessionsResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let (user_id, ids) = read::revoke_sessions(&request.into_inner())?;
        own(&caller, user_id)?;
        let revoked = self.sessions.revoke(user_id, &ids).await?;
        Ok(Response::new(RevokeSessionsResponse {
            revoked: u32::try_from(revoked).unwrap_or(u32::MAX),
        }))
    }

    async fn get_signing_keys(
        &self,
        _: Request<GetSigningKeysRequest>,
    ) -> Result<Response<GetSigningKeysResponse>, Status> {
        Ok(Response::new(convert::signing_keys(self.signing.published())))
    }

    async fn set_roles(&self, request: Request<SetRolesRequest>) -> Result<Response<SetRolesResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let (user_id, roles) = read::set_roles(&request.into_inner())?;
        if caller.user() == Some(user_id) {
            return Err(StoreError::from(Refusal::NotYourOwn).into());
        }
        let user = self.accounts.set_roles(user_id, roles).await?;
        Ok(Response::new(SetRolesResponse {
            user: Some(convert::user(user)),
        }))
    }

    async fn update_profile(
        &self,
        request: Request<UpdateProfileRequest>,
    ) -> Result<Response<UpdateProfileResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let peer = gate::peer(&request);
        let (user_id, change, password) = read::update_profile(request.into_inner())?;
        own(&caller, user_id)?;
        let keep = caller.session();
        let user = self.accounts.change(user_id, change, password, keep, peer).await?;
        Ok(Response::new(UpdateProfileResponse {
            user: Some(convert::user(user)),
        }))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let peer = gate::peer(&request);
        let (user_id, password, forfeits) = read::delete_user(request.into_inner())?;
        own(&caller, user_id)?;
        // An operator deletes other accounts without their passwords, which they do not know, and their own with it.
        let password = (caller.user() == Some(user_id)).then_some(password);
        self.accounts.delete(user_id, password, forfeits, peer).await?;
        Ok(Response::new(DeleteUserResponse {}))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let user_id = read::get_user(&request.into_inner())?;
        own(&caller, user_id)?;
        let user = self.store.user(user_id).await?;
        Ok(Response::new(GetUserResponse {
            user: Some(convert::user(user)),
        }))
    }

    async fn top_up(&self, request: Request<TopUpRequest>) -> Result<Response<TopUpResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let (request_id, user_id, amount) = read::top_up(&request.into_inner())?;
        own(&caller, user_id)?;
        self.store.user(user_id).await?;
        let balance = self.store.top_up(request_id, user_id, amount).await?;
        Ok(Response::new(TopUpResponse {
            balance: Some(convert::money(balance)),
        }))
    }

    async fn buy_ticket(&self, request: Request<BuyTicketRequest>) -> Result<Response<BuyTicketResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let order = self.bought(&caller, request.into_inner()).await?;
        Ok(Response::new(BuyTicketResponse {
            order: Some(convert::order(order)),
        }))
    }

    async fn refund_order(
        &self,
        request: Request<RefundOrderRequest>,
    ) -> Result<Response<RefundOrderResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let order = self.refunded(&caller, &request.into_inner()).await?;
        Ok(Response::new(RefundOrderResponse {
            order: Some(convert::order(order)),
        }))
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<GetOrderResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let order_id = read::get_order(&request.into_inner())?;
        let order = own_order(&self.store, &caller, order_id).await?;
        Ok(Response::new(GetOrderResponse {
            order: Some(convert::order(order)),
        }))
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let (user_id, page) = read::list_orders(&request.into_inner())?;
        own(&caller, user_id)?;
        // One more than asked for tells whether there is a next page.
        let mut orders = self.store.orders(user_id, page.cursor, page.size + 1).await?;
        let next_page_token = page.cut(&mut orders, |order| order.cursor().to_token());
        let orders = orders.into_iter().map(convert::order).collect();
        Ok(Response::new(ListOrdersResponse {
            orders,
            next_page_token,
        }))
    }

    async fn list_statement(
        &self,
        request: Request<ListStatementRequest>,
    ) -> Result<Response<ListStatementResponse>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let (user_id, page) = read::list_statement(&request.into_inner())?;
        own(&caller, user_id)?;
        let mut entries = self.store.statement(user_id, page.cursor, page.size + 1).await?;
        let next_page_token = page.cut(&mut entries, |entry| entry.number.to_string());
        let entries = entries.into_iter().map(convert::entry).collect();
        Ok(Response::new(ListStatementResponse {
            entries,
            next_page_token,
        }))
    }

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let caller = gate::caller(&self.store, &request).await?;
        let order_id = read::watch_order(&request.into_inner())?;
        // An unknown order is an error of the call, not of its stream.
        own_order(&self.store, &caller, order_id).await?;
        let states = watch::states(
            self.store.clone(),
            self.purchases.clone(),
            self.drain.clone(),
            caller,
            order_id,
        );
        Ok(Response::new(Box::pin(states)))
    }
}
