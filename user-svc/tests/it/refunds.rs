//! Refunds of what was bought, against a ticket service that fails at each step: the tickets are void and the money is back, once,
//! or both are as before.

use std::time::Duration;

use proto::user::v1::{
    DeleteUserRequest, ListStatementRequest, Order, OrderState, RefundOrderRequest, RefundRefusal, StatementKind, User,
};
use service_store::testing::TestStore;
use tonic::{Code, Request, Status};
use user_svc::Users;

use crate::{
    fake::{Act, HoldState, Method, PRICE},
    fixture::{Client, Fixture, PASSWORD, Watch, config, connect, fields, id, reason, two_seats, watch_to_the_end},
    purchases::wait_until,
};

const PURSE: i64 = 10_000;
const CLOSED: Act = Act::Refuse(Code::FailedPrecondition, "REFUND_CLOSED");

/// Somebody who has bought two seats.
struct Bought {
    fixture: Fixture,
    user: User,
    /// The buyer's.
    client: Client,
    order: Order,
}

impl Bought {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    async fn start_with(change: impl FnOnce(&mut user_svc::Config)) -> Self {
        let fixture = Fixture::start_with(change).await;
        let (user, client) = fixture.buyer_with(PURSE).await;
        let order = fixture.buy(two_seats(&user)).await;
        assert_eq!(order.state(), OrderState::Succeeded, "{order:?}");
        Self {
            fixture,
            user,
            client,
            order,
        }
    }

    fn request(&self) -> RefundOrderRequest {
        RefundOrderRequest {
            request_id: id(),
            order_id: self.order.id.clone(),
        }
    }

    /// The order says that it was refunded, and so do wallet, statement and ticket service: once.
    async fn assert_refunded(&self, order: &Order) {
        assert_eq!(order.state(), OrderState::Refunded, "{order:?}");
        assert_eq!(order.ticket_ids, self.order.ticket_ids, "which ones are void");
        let refund = order.refund.as_ref().expect("a refund");
        assert_eq!(
            (refund.refusal(), refund.detail.as_str()),
            (RefundRefusal::Unspecified, "")
        );
        assert_eq!(self.fixture.balance(&self.user).await, PURSE);
        let hold = self.fixture.tickets.hold(&order.id);
        assert!(matches!(hold, Some(HoldState::Refunded(_))), "{hold:?}");
        assert_eq!(
            statement(&self.client, &self.user).await,
            [
                (StatementKind::Return, 2 * PRICE, order.id.clone()),
                (StatementKind::Debit, -2 * PRICE, order.id.clone()),
            ]
        );
    }

    /// All is as it was before anybody asked.
    async fn assert_kept(&self, order: &Order) {
        assert_eq!(order.state(), OrderState::Succeeded, "{order:?}");
        assert_eq!(order.ticket_ids, self.order.ticket_ids);
        assert_eq!(self.fixture.balance(&self.user).await, PURSE - 2 * PRICE);
    }
}

async fn refund(client: &Client, request: RefundOrderRequest) -> Result<Order, Status> {
    let answer = client.clone().refund_order(request).await?;
    Ok(answer.into_inner().order.expect("the order"))
}

/// What was done to a wallet for orders, newest first.
async fn statement(client: &Client, user: &User) -> Vec<(StatementKind, i64, String)> {
    let request = ListStatementRequest {
        user_id: user.id.clone(),
        ..ListStatementRequest::default()
    };
    let answer = client.clone().list_statement(request).await.expect("a statement");
    let entries = answer.into_inner().entries.into_iter();
    entries
        .map(|entry| (entry.kind(), entry.amount_minor_units, entry.reference))
        .filter(|(kind, ..)| *kind != StatementKind::TopUp)
        .collect()
}

fn refused(result: Result<Order, Status>) -> (Code, String) {
    let status = result.expect_err("refused");
    (status.code(), reason(&status))
}

#[tokio::test]
async fn what_was_bought_is_given_back_once_and_the_trace_goes_on() {
    let bought = Bought::start().await;
    let request = bought.request();
    let mut call = Request::new(request.clone());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    call.metadata_mut()
        .insert("traceparent", parent.parse().expect("ASCII"));
    let answer = bought.client.clone().refund_order(call).await.expect("refunded");
    let order = answer.into_inner().order.expect("the order");
    bought.assert_refunded(&order).await;
    assert_eq!(order.refund.as_ref().expect("it").request_id, request.request_id);
    assert_eq!(order.trace_id, bought.order.trace_id, "the purchase's stays");
    let tickets = &bought.fixture.tickets;
    assert_eq!(tickets.refunds(), [(request.request_id.clone(), true)]);
    let last = tickets.traceparents().pop().expect("a call with a trace");
    assert!(last.contains(trace), "{last}");

    let again = refund(&bought.client, request).await.expect("the same again");
    assert_eq!(again, order);
    assert_eq!(bought.fixture.order(&order.id).await, order);
    assert_eq!(
        bought.fixture.watch_to_the_end(&order.id).await,
        std::slice::from_ref(&order)
    );
    assert_eq!(tickets.called(Method::Refund), 1);
    let other = refund(&bought.client, bought.request()).await;
    assert_eq!(
        refused(other),
        (Code::FailedPrecondition, "ORDER_NOT_REFUNDABLE".into())
    );
    bought.assert_refunded(&order).await;
    bought.fixture.stop().await;
}

/// The order stays what it was, says why, and does so again for the same request without asking anybody. An operator may still
/// do it, and the ticket service hears that it is no buyer who asks.
#[tokio::test]
async fn what_the_terms_refuse_stays_sold_until_an_operator_asks() {
    let bought = Bought::start().await;
    bought.fixture.tickets.next(Method::Refund, [CLOSED]);
    let request = bought.request();
    for _ in 0..2 {
        let order = refund(&bought.client, request.clone()).await.expect("an answer");
        bought.assert_kept(&order).await;
        let said = order.refund.expect("a refund");
        assert_eq!(
            (said.request_id.as_str(), said.refusal()),
            (request.request_id.as_str(), RefundRefusal::Closed)
        );
        assert!(said.detail.contains("the tickets stay good"), "{said:?}");
    }
    assert_eq!(bought.fixture.tickets.called(Method::Refund), 1);
    let by_operator = bought.request();
    let order = refund(&bought.fixture.client, by_operator.clone())
        .await
        .expect("refunded");
    bought.assert_refunded(&order).await;
    assert_eq!(
        bought.fixture.tickets.refunds(),
        [(request.request_id.clone(), true), (by_operator.request_id, false)]
    );
    let first = refund(&bought.client, request).await.expect("it was asked before");
    assert_eq!(first, order, "an old request starts nothing");
    bought.fixture.stop().await;
}

#[tokio::test]
async fn an_order_that_the_ticket_service_does_not_know_stays_and_says_so() {
    let bought = Bought::start().await;
    let unknown = Act::Refuse(Code::NotFound, "ORDER_UNKNOWN");
    bought.fixture.tickets.next(Method::Refund, [unknown]);
    let order = refund(&bought.client, bought.request()).await.expect("an answer");
    bought.assert_kept(&order).await;
    assert_eq!(order.refund.expect("a refund").refusal(), RefundRefusal::NoTickets);
    bought.fixture.stop().await;
}

/// Revoked or not, nobody can tell: it is asked for until somebody says, under the same id, and only then the money moves.
#[tokio::test]
async fn lost_answers_are_asked_for_again_and_the_money_comes_once() {
    let acts: [&[Act]; 3] = [
        &[Act::LoseAnswer],
        &[
            Act::LoseRequest,
            Act::LoseAnswer,
            Act::LoseRequest,
            Act::LoseAnswer,
            Act::LoseRequest,
        ],
        &[
            Act::Refuse(Code::PermissionDenied, "ROLE_MISSING"),
            Act::Refuse(Code::Unavailable, "STORE_BUSY"),
        ],
    ];
    for acts in acts {
        let bought = Bought::start().await;
        bought.fixture.tickets.next(Method::Refund, acts.iter().copied());
        let order = refund(&bought.client, bought.request()).await.expect("refunded");
        bought.assert_refunded(&order).await;
        let mut asked = bought.fixture.tickets.refunds();
        assert_eq!(asked.len(), acts.len() + 1);
        asked.dedup();
        assert_eq!(asked.len(), 1, "one id: {asked:?}");
        bought.fixture.stop().await;
    }
}

#[tokio::test]
async fn only_what_was_bought_is_refunded_and_a_request_is_one_refund() {
    let bought = Bought::start().await;
    let (poor, poors) = bought.fixture.buyer_with(0).await;
    let failed = bought.fixture.buy(two_seats(&poor)).await;
    assert_eq!(failed.state(), OrderState::Failed);
    let of = |order: &Order, request_id: String| RefundOrderRequest {
        request_id,
        order_id: order.id.clone(),
    };
    let not_refundable = (Code::FailedPrecondition, "ORDER_NOT_REFUNDABLE".to_owned());
    assert_eq!(refused(refund(&poors, of(&failed, id())).await), not_refundable);

    let request = bought.request();
    refund(&bought.client, request.clone()).await.expect("refunded");
    let second = bought.fixture.buy(two_seats(&bought.user)).await;
    let reused = refund(&bought.client, of(&second, request.request_id)).await;
    assert_eq!(refused(reused), (Code::AlreadyExists, "REQUEST_ID_REUSED".into()));
    let unknown = RefundOrderRequest {
        request_id: id(),
        order_id: id(),
    };
    let unknown = refund(&bought.client, unknown).await;
    assert_eq!(refused(unknown), (Code::NotFound, "ORDER_UNKNOWN".into()));
    let bad = RefundOrderRequest {
        request_id: "7".into(),
        order_id: String::new(),
    };
    let bad = refund(&bought.client, bad).await.expect_err("bad");
    assert_eq!(fields(&bad), ["request_id", "order_id"]);
    assert_eq!(bought.fixture.order(&second.id).await, second, "nobody touched it");
    bought.fixture.stop().await;
}

/// Twenty ask at once, half of them with one request: it is one refund, and nobody hears of two.
#[tokio::test]
async fn twenty_at_once_are_one_refund() {
    let bought = Bought::start().await;
    let same = bought.request();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..20 {
        let client = bought.client.clone();
        let request = if number % 2 == 0 {
            same.clone()
        } else {
            bought.request()
        };
        calls.spawn(async move { refund(&client, request).await });
    }
    let mut refunded = 0;
    for answer in calls.join_all().await {
        match answer {
            Ok(order) => {
                assert_eq!(order.state(), OrderState::Refunded, "{order:?}");
                refunded += 1;
            }
            Err(status) => assert_eq!(reason(&status), "ORDER_NOT_REFUNDABLE"),
        }
    }
    assert!(refunded >= 1);
    let order = bought.fixture.order(&bought.order.id).await;
    bought.assert_refunded(&order).await;
    assert_eq!(bought.fixture.tickets.called(Method::Refund), 1);
    bought.fixture.stop().await;
}

/// The states can be seen, by those who wait and by those who watch, and an account is not deleted under its refund.
#[tokio::test]
async fn a_refund_under_way_is_seen_and_goes_on_when_its_caller_does_not_wait() {
    let bought = Bought::start().await;
    bought.fixture.tickets.next(Method::Refund, [Act::AwaitGate]);
    let mut call = Request::new(bought.request());
    call.set_timeout(Duration::from_secs(2));
    let answer = bought.client.clone().refund_order(call).await.expect("an answer");
    let order = answer.into_inner().order.expect("the order");
    assert_eq!(order.state(), OrderState::Refunding, "{order:?}");
    assert!(!order.detail.is_empty());
    let other = refund(&bought.client, bought.request()).await;
    assert_eq!(
        refused(other),
        (Code::FailedPrecondition, "ORDER_NOT_REFUNDABLE".into())
    );
    let delete = DeleteUserRequest {
        user_id: bought.user.id.clone(),
        password: PASSWORD.into(),
        forfeit_balance: true,
    };
    let status = bought.client.clone().delete_user(delete.clone()).await;
    assert_eq!(reason(&status.expect_err("not now")), "ORDERS_UNFINISHED");
    let mut watch = Watch::start(bought.client.clone(), &order.id).await;
    let first = watch.next().await.expect("the present state");
    assert_eq!(first.state(), OrderState::Refunding, "{first:?}");
    bought.fixture.tickets.open_gate();
    let states: Vec<OrderState> = watch.rest().await.iter().map(Order::state).collect();
    let (last, before) = states.split_last().expect("a state after the gate");
    assert_eq!(*last, OrderState::Refunded);
    assert!(before.iter().all(|state| *state == OrderState::Refunding), "{states:?}");
    let order = bought.fixture.order(&order.id).await;
    bought.assert_refunded(&order).await;
    // It said that orders were unfinished: refunded ones were none of those that have ended.
    bought
        .client
        .clone()
        .delete_user(delete)
        .await
        .expect("nothing is under way");
    bought.fixture.stop().await;
}

/// A process is stopped while it waits for the ticket service; the next one goes on, under the same id.
async fn a_refund_that_a_shutdown_cut_off_goes_on_at_the_next_start(store: TestStore) {
    let bought = Bought::start_with(|config| {
        config.store = store.location();
        config.drain_grace = Duration::from_millis(50);
    })
    .await;
    bought.fixture.tickets.next(Method::Refund, [Act::AwaitGate]);
    let request = bought.request();
    let (client, asked) = (bought.client.clone(), request.clone());
    let asking = tokio::spawn(async move { refund(&client, asked).await });
    wait_until(|| bought.fixture.tickets.called(Method::Refund) == 1).await;
    // Who asked has gone: what is left to the shutdown is the refund alone.
    asking.abort();
    let Bought {
        fixture,
        user,
        client,
        order,
    } = bought;
    let Fixture {
        tickets,
        server,
        folder,
        client: operator,
    } = fixture;
    let report = server.stop().await;
    assert_eq!(report.purchases_left, 1, "{report}");
    drop((client, operator));
    tickets.open_gate();
    let again = user_svc::Config {
        store: store.location(),
        ..config(&folder, &tickets)
    };
    let server = Users::start(again).await.expect("it starts again");
    let client = connect(&server).await;
    let last = watch_to_the_end(client.clone(), &order.id).await.pop();
    let last = last.expect("a state");
    let bought = Bought {
        fixture: Fixture {
            tickets,
            server,
            folder,
            client: client.clone(),
        },
        user,
        client,
        order,
    };
    bought.assert_refunded(&last).await;
    let mut asked = bought.fixture.tickets.refunds();
    asked.dedup();
    assert_eq!(asked, [(request.request_id, true)], "one id, and still the buyer's");
    let wrong = user_svc::audit(store.location()).await.expect("audited");
    assert!(wrong.is_empty(), "{wrong:#?}");
    bought.fixture.stop().await;
}

service_store::on_both_stores!(a_refund_that_a_shutdown_cut_off_goes_on_at_the_next_start);
