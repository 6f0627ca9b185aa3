//! Purchases against a ticket service that fails at each step: money and seats end on the same side, once.

use std::time::Duration;

use proto::user::v1::{BuyTicketRequest, ListOrdersRequest, Order, OrderFailure, OrderState, WatchOrderRequest};
use tonic::{Code, Request};

use crate::{
    fake::{Act, HoldState, INSTANCE, Method, PRICE},
    fixture::{Fixture, PATIENCE, Watch, chosen, euro, id, reason, two_seats},
};

/// How a purchase with 100 EUR ended, and what it left.
struct Ending {
    fixture: Fixture,
    order: Order,
    balance: i64,
}

const PURSE: i64 = 10_000;

/// Buys two seats while the ticket service does this.
async fn buy_while(acts: &[(Method, &[Act])]) -> Ending {
    let fixture = Fixture::start().await;
    for (method, acts) in acts {
        fixture.tickets.next(*method, acts.iter().copied());
    }
    let user = fixture.user_with(PURSE).await;
    let order = fixture.buy(two_seats(&user)).await;
    let balance = fixture.balance(&user).await;
    Ending {
        fixture,
        order,
        balance,
    }
}

impl Ending {
    /// Bought: two tickets, paid once.
    async fn assert_bought(self) {
        assert_eq!(self.order.state(), OrderState::Succeeded, "{:?}", self.order);
        assert_eq!((self.order.ticket_ids.len(), self.balance), (2, PURSE - 2 * PRICE));
        assert!(matches!(
            self.fixture.tickets.hold(&self.order.id),
            Some(HoldState::Confirmed { .. })
        ));
        self.fixture.stop().await;
    }

    /// Not bought: no money gone, no seat sold.
    async fn assert_failed(self, failure: OrderFailure) -> Fixture {
        let order = &self.order;
        assert_eq!(
            (order.state(), order.failure()),
            (OrderState::Failed, failure),
            "{order:?}"
        );
        assert!(!order.detail.is_empty() && order.ticket_ids.is_empty(), "{order:?}");
        assert_eq!(self.balance, PURSE);
        assert!(!matches!(
            self.fixture.tickets.hold(&order.id),
            Some(HoldState::Confirmed { .. })
        ));
        self.fixture
    }
}

const EXPIRED: Act = Act::Refuse(Code::FailedPrecondition, "HOLD_EXPIRED");
const SOLD_OUT: Act = Act::Refuse(Code::FailedPrecondition, "SOLD_OUT");

#[tokio::test]
async fn all_goes_well() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(PURSE).await;
    let request = two_seats(&user);
    let mut call = Request::new(request.clone());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    call.metadata_mut().insert(
        "traceparent",
        format!("00-{trace}-00f067aa0ba902b7-01").parse().expect("ASCII"),
    );
    let order = fixture
        .client
        .clone()
        .buy_ticket(call)
        .await
        .expect("bought")
        .into_inner()
        .order
        .expect("the order");
    assert_eq!(order.state(), OrderState::Succeeded, "{order:?}");
    assert_eq!(
        (order.id.as_str(), order.event_id.as_str()),
        (request.request_id.as_str(), request.event_id.as_str())
    );
    assert_eq!(
        (order.seat_ids.as_slice(), order.total.clone()),
        (&["A/1/1".into(), "A/1/2".into()][..], euro(2 * PRICE))
    );
    assert_eq!(
        (order.ticket_instance_id.as_str(), order.trace_id.as_str()),
        (INSTANCE, trace)
    );
    assert_eq!(fixture.balance(&user).await, PURSE - 2 * PRICE);
    assert_eq!(fixture.order(&order.id).await, order);
    assert_eq!(
        (
            fixture.tickets.called(Method::Hold),
            fixture.tickets.called(Method::Confirm)
        ),
        (1, 1)
    );
    assert_eq!(fixture.tickets.called(Method::Release), 0);
    fixture.stop().await;
}

#[tokio::test]
async fn one_purchase_is_one_trace() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(PURSE).await;
    let order = fixture.buy(two_seats(&user)).await;
    assert_eq!(
        order.trace_id.len(),
        32,
        "a trace is begun when the caller has none: {order:?}"
    );
    let parents = fixture.tickets.traceparents();
    assert_eq!(parents.len(), 2);
    assert!(
        parents.iter().all(|parent| parent.contains(&order.trace_id)),
        "{parents:?} of {}",
        order.trace_id
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_refused_hold_fails_the_order_and_touches_nothing() {
    for (act, failure) in [
        (SOLD_OUT, OrderFailure::SoldOut),
        (
            Act::Refuse(Code::FailedPrecondition, "SEAT_TAKEN"),
            OrderFailure::SeatTaken,
        ),
        (Act::Refuse(Code::NotFound, "EVENT_UNKNOWN"), OrderFailure::NotFound),
        (Act::Refuse(Code::NotFound, "SEAT_UNKNOWN"), OrderFailure::NotFound),
        (
            Act::Refuse(Code::InvalidArgument, "INVALID_ARGUMENT"),
            OrderFailure::NotFound,
        ),
        (
            Act::Refuse(Code::AlreadyExists, "REQUEST_ID_REUSED"),
            OrderFailure::Unavailable,
        ),
    ] {
        let fixture = buy_while(&[(Method::Hold, &[act])]).await.assert_failed(failure).await;
        assert_eq!(
            (
                fixture.tickets.called(Method::Hold),
                fixture.tickets.called(Method::Release)
            ),
            (1, 0),
            "{act:?}"
        );
        fixture.stop().await;
    }
}

#[tokio::test]
async fn an_empty_wallet_gives_the_seats_back() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(2 * PRICE - 1).await;
    let order = fixture.buy(two_seats(&user)).await;
    assert_eq!(
        (order.state(), order.failure()),
        (OrderState::Failed, OrderFailure::InsufficientFunds),
        "{order:?}"
    );
    assert!(order.detail.contains("top it up"), "{}", order.detail);
    assert_eq!(fixture.balance(&user).await, 2 * PRICE - 1);
    assert_eq!(fixture.tickets.hold(&order.id), Some(HoldState::Released));
    fixture.stop().await;
}

#[tokio::test]
async fn lost_answers_are_asked_for_again_and_nothing_happens_twice() {
    buy_while(&[(Method::Hold, &[Act::LoseAnswer, Act::LoseRequest])])
        .await
        .assert_bought()
        .await;
    let confirms = [
        Act::LoseRequest,
        Act::LoseAnswer,
        Act::LoseAnswer,
        Act::LoseRequest,
        Act::LoseAnswer,
    ];
    buy_while(&[(Method::Confirm, &confirms)]).await.assert_bought().await;
}

#[tokio::test]
async fn a_hold_that_ran_out_is_refunded_once() {
    for confirms in [&[EXPIRED][..], &[Act::LoseRequest, EXPIRED]] {
        let ending = buy_while(&[(Method::Confirm, confirms), (Method::Release, &[Act::LoseAnswer])]).await;
        let id = ending.order.id.clone();
        let fixture = ending.assert_failed(OrderFailure::HoldExpired).await;
        assert_eq!(fixture.tickets.hold(&id), Some(HoldState::Released));
        fixture.stop().await;
    }
}

#[tokio::test]
async fn a_ticket_service_that_never_answers_fails_the_order_and_gets_a_release() {
    let ending = buy_while(&[(Method::Hold, &[Act::LoseAnswer; 4])]).await;
    let id = ending.order.id.clone();
    let fixture = ending.assert_failed(OrderFailure::Unavailable).await;
    assert_eq!(
        fixture.tickets.hold(&id),
        Some(HoldState::Released),
        "what was held unheard is free again"
    );
    fixture.stop().await;
}

/// The ticket service says that it is not for sale, which is final: nothing is asked again, and nothing was paid.
#[tokio::test]
async fn what_is_not_for_sale_is_refused_at_once() {
    for reason in ["SALE_NOT_OPEN", "SALE_CLOSED", "BUYER_CAP"] {
        let ending = buy_while(&[(Method::Hold, &[Act::Refuse(Code::FailedPrecondition, reason)])]).await;
        let fixture = ending.assert_failed(OrderFailure::NotForSale).await;
        assert_eq!(fixture.tickets.called(Method::Hold), 1, "{reason}");
        fixture.stop().await;
    }
}

/// A line at the ticket service passes: nothing was held, and the purchase asks again.
#[tokio::test]
async fn a_purchase_comes_again_where_there_is_a_line() {
    let line = Act::Refuse(Code::ResourceExhausted, "WAIT_IN_LINE");
    buy_while(&[(Method::Hold, &[line, line])]).await.assert_bought().await;
}

/// An attempt whose answer was lost may still come in after "sold out" was heard: the release makes it harmless.
#[tokio::test]
async fn sold_out_after_a_lost_request_is_released_all_the_same() {
    let ending = buy_while(&[(Method::Hold, &[Act::LoseRequest, SOLD_OUT])]).await;
    let id = ending.order.id.clone();
    let fixture = ending.assert_failed(OrderFailure::SoldOut).await;
    assert_eq!(fixture.tickets.hold(&id), Some(HoldState::Released));
    fixture.stop().await;
}

#[tokio::test]
async fn releases_are_given_up_after_the_refund() {
    let fixture = buy_while(&[(Method::Confirm, &[EXPIRED]), (Method::Release, &[Act::LoseRequest; 9])])
        .await
        .assert_failed(OrderFailure::HoldExpired)
        .await;
    assert_eq!(fixture.tickets.called(Method::Release), 4);
    fixture.stop().await;
}

#[tokio::test]
async fn without_a_ticket_service_nothing_is_bought() {
    let fixture = Fixture::start_with(|config| config.ticket_addresses = vec!["127.0.0.1:1".into()]).await;
    let user = fixture.user_with(PURSE).await;
    let order = fixture.buy(two_seats(&user)).await;
    assert_eq!(
        (order.state(), order.failure()),
        (OrderState::Failed, OrderFailure::Unavailable),
        "{order:?}"
    );
    assert_eq!(fixture.balance(&user).await, PURSE);
    fixture.stop().await;
}

#[tokio::test]
async fn the_answer_beats_the_deadline_and_the_purchase_goes_on() {
    let fixture = Fixture::start().await;
    fixture.tickets.next(Method::Hold, [Act::AwaitGate]);
    let user = fixture.user_with(PURSE).await;
    let mut call = Request::new(two_seats(&user));
    call.set_timeout(Duration::from_secs(2));
    let answer = fixture
        .client
        .clone()
        .buy_ticket(call)
        .await
        .expect("PROCESSING is an answer");
    let order = answer.into_inner().order.expect("the order");
    assert_eq!(order.state(), OrderState::Processing, "{order:?}");
    let mut watch = Watch::start(fixture.client.clone(), &order.id).await;
    let first = watch.next().await.expect("the present state");
    assert_eq!(first.state(), OrderState::Processing, "{first:?}");
    // Not before that state was seen: the purchase could be over before the watch begins.
    fixture.tickets.open_gate();
    let states: Vec<OrderState> = watch.rest().await.iter().map(Order::state).collect();
    let (last, before) = states.split_last().expect("a state after the gate");
    assert_eq!(*last, OrderState::Succeeded);
    assert!(
        before.iter().all(|state| *state == OrderState::Processing),
        "{states:?}"
    );
    assert_eq!(fixture.balance(&user).await, PURSE - 2 * PRICE);
    fixture.stop().await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_the_purchase() {
    let fixture = Fixture::start().await;
    fixture.tickets.next(Method::Confirm, [Act::AwaitGate]);
    let user = fixture.user_with(PURSE).await;
    let request = two_seats(&user);
    let order_id = request.request_id.clone();
    let mut client = fixture.client.clone();
    let call = tokio::spawn(async move { client.buy_ticket(request).await });
    wait_until(|| fixture.tickets.called(Method::Confirm) == 1).await;
    call.abort();
    fixture.tickets.open_gate();
    let last = fixture.watch_to_the_end(&order_id).await.pop().expect("a state");
    assert_eq!(last.state(), OrderState::Succeeded, "{last:?}");
    fixture.stop().await;
}

#[tokio::test]
async fn the_same_request_is_the_same_purchase_and_another_body_is_an_error() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(PURSE).await;
    let request = two_seats(&user);
    let (one, other) = tokio::join!(fixture.buy(request.clone()), fixture.buy(request.clone()));
    assert_eq!(one, other);
    assert_eq!(fixture.buy(request.clone()).await, one, "and again later");
    assert_eq!(
        (fixture.balance(&user).await, fixture.tickets.called(Method::Hold)),
        (PURSE - 2 * PRICE, 1)
    );
    let changed = BuyTicketRequest {
        event_id: id(),
        ..request
    };
    let status = fixture
        .client
        .clone()
        .buy_ticket(changed)
        .await
        .expect_err("another body");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    fixture.stop().await;
}

#[tokio::test]
async fn beyond_the_bound_buyers_are_told_to_come_back_and_nothing_is_recorded() {
    let fixture = Fixture::start_with(|config| config.max_purchases = 1).await;
    fixture.tickets.next(Method::Hold, [Act::AwaitGate]);
    let user = fixture.user_with(PURSE).await;
    let first = two_seats(&user);
    let running = tokio::spawn({
        let (mut client, request) = (fixture.client.clone(), first.clone());
        async move { client.buy_ticket(request).await }
    });
    wait_until(|| fixture.tickets.called(Method::Hold) == 1).await;
    let repeat = tokio::spawn({
        let (mut client, request) = (fixture.client.clone(), first.clone());
        async move { client.buy_ticket(request).await }
    });
    let second = two_seats(&user);
    let status = fixture
        .client
        .clone()
        .buy_ticket(second.clone())
        .await
        .expect_err("full");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "PURCHASES_FULL")
    );
    let request = ListOrdersRequest {
        user_id: user.id.clone(),
        ..Default::default()
    };
    let orders = fixture
        .client
        .clone()
        .list_orders(request)
        .await
        .expect("orders")
        .into_inner()
        .orders;
    assert_eq!(
        orders.iter().map(|order| &order.id).collect::<Vec<_>>(),
        [&first.request_id]
    );
    fixture.tickets.open_gate();
    let bought = running.await.expect("no panic").expect("bought").into_inner();
    let repeated = repeat
        .await
        .expect("no panic")
        .expect("the same purchase needs no room");
    assert_eq!(repeated.into_inner(), bought);
    // The slot is free once the task has ended, a moment after the answer.
    let second = loop {
        match fixture.client.clone().buy_ticket(second.clone()).await {
            Ok(bought) => break bought.into_inner().order.expect("the order"),
            Err(status) => assert_eq!(reason(&status), "PURCHASES_FULL"),
        }
    };
    assert_eq!(second.state(), OrderState::Succeeded);
    fixture.stop().await;
}

#[tokio::test]
async fn a_finished_order_is_streamed_once_and_chosen_seats_are_the_seats() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(PURSE).await;
    let order = fixture.buy(chosen(&user.id, &["B/2/4", "B/2/3"])).await;
    assert_eq!(order.seat_ids, ["B/2/3", "B/2/4"]);
    assert_eq!(fixture.watch_to_the_end(&order.id).await, [order]);
    let status = fixture
        .client
        .clone()
        .watch_order(WatchOrderRequest { order_id: id() })
        .await
        .expect_err("unknown");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "ORDER_UNKNOWN")
    );
    fixture.stop().await;
}

/// Level-triggered and bounded.
pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll)
        .await
        .expect("it comes true in time");
}
