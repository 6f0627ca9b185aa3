//! The process: what a shutdown leaves, what a start takes up, why a start fails.

use std::time::Duration;

use proto::user::v1::{OrderState, WatchOrderRequest};
use tempfile::TempDir;
use tonic::Code;
use user_svc::{Config, StartError, Users};

use crate::{
    fake::{Act, FakeTickets, Method, PRICE},
    fixture::{Fixture, config, connect, reason, two_seats, watch_to_the_end},
    purchases::wait_until,
};

/// Stops a server while a purchase stands at `method`, starts another one on its file, and follows the order to its end.
async fn interrupted_at(method: Method, acts: impl IntoIterator<Item = Act>) {
    let fixture = Fixture::start_with(|config| config.drain_grace = Duration::from_millis(50)).await;
    fixture.tickets.next(method, acts);
    let user = fixture.user_with(10_000).await;
    let request = two_seats(&user);
    let order_id = request.request_id.clone();
    let mut client = fixture.client.clone();
    let buyer = tokio::spawn(async move { client.buy_ticket(request).await });
    wait_until(|| fixture.tickets.called(method) == 1).await;
    // The buyer has gone: what is left to the shutdown is the purchase alone.
    buyer.abort();
    let order = fixture.order(&order_id).await;
    assert_eq!(order.state(), OrderState::Processing, "{order:?}");

    let Fixture {
        tickets,
        server,
        folder,
        client,
    } = fixture;
    let report = server.stop().await;
    assert_eq!(report.purchases_left, 1, "{report}");
    drop(client);
    tickets.open_gate();
    let server = Users::start(config(&folder, &tickets)).await.expect("it starts again");
    let client = connect(&server).await;
    let last = watch_to_the_end(client.clone(), &order.id)
        .await
        .pop()
        .expect("a state");
    assert_eq!((last.state(), last.trace_id), (OrderState::Succeeded, order.trace_id));
    let fixture = Fixture {
        tickets,
        server,
        folder,
        client,
    };
    assert_eq!(fixture.balance(&user).await, 10_000 - 2 * PRICE, "paid once");
    fixture.stop().await;
}

#[tokio::test]
async fn a_purchase_that_a_shutdown_cut_off_goes_on_at_the_next_start() {
    interrupted_at(Method::Hold, [Act::AwaitGate]).await;
    interrupted_at(Method::Confirm, [Act::AwaitGate]).await;
}

/// The ticket service does not answer, and the purchase is paid: waiting for it would take the whole grace for nothing.
#[tokio::test]
async fn a_purchase_that_waits_for_a_retry_does_not_hold_up_the_shutdown() {
    let grace = Duration::from_secs(60);
    let fixture = Fixture::start_with(|config| config.drain_grace = grace).await;
    fixture.tickets.next(Method::Confirm, [Act::LoseRequest; 1_000]);
    let user = fixture.user_with(10_000).await;
    let request = two_seats(&user);
    let mut client = fixture.client.clone();
    let buying = tokio::spawn(async move { client.buy_ticket(request).await });
    wait_until(|| fixture.tickets.called(Method::Confirm) >= 1).await;
    let report = fixture.server.stop().await;
    assert!(report.drain.is_clean() && report.drain.took < grace / 2, "{report}");
    assert_eq!(report.purchases_left, 1, "{report}");
    let order = buying
        .await
        .expect("no panic")
        .expect("an answer")
        .into_inner()
        .order
        .expect("the order");
    assert_eq!(
        order.state(),
        OrderState::Processing,
        "the caller learns that it goes on"
    );
}

#[tokio::test]
async fn a_watch_ends_with_a_reason_when_the_instance_drains() {
    let fixture = Fixture::start_with(|config| config.drain_grace = Duration::from_secs(5)).await;
    fixture.tickets.next(Method::Confirm, [Act::AwaitGate]);
    let user = fixture.user_with(10_000).await;
    let request = two_seats(&user);
    let watch = WatchOrderRequest {
        order_id: request.request_id.clone(),
    };
    let mut client = fixture.client.clone();
    let buying = tokio::spawn(async move { client.buy_ticket(request).await });
    wait_until(|| fixture.tickets.called(Method::Confirm) == 1).await;
    let mut states = fixture
        .client
        .clone()
        .watch_order(watch)
        .await
        .expect("the order")
        .into_inner();
    states.message().await.expect("a state").expect("the present one");

    let Fixture {
        tickets,
        server,
        folder,
        client,
    } = fixture;
    let stopping = tokio::spawn(server.stop());
    let status = states
        .message()
        .await
        .expect_err("it does not end as if there were nothing to come");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "DRAINING")
    );
    tickets.open_gate();
    let order = buying
        .await
        .expect("no panic")
        .expect("bought within the grace")
        .into_inner()
        .order
        .expect("it");
    assert_eq!(order.state(), OrderState::Succeeded);
    let report = stopping.await.expect("no panic");
    assert!(report.drain.is_clean() && report.purchases_left == 0, "{report}");
    drop((client, folder));
}

#[tokio::test]
async fn a_start_that_cannot_work_says_why() {
    let folder = TempDir::new().expect("a temporary folder");
    let tickets = FakeTickets::start().await;
    let good = || config(&folder, &tickets);
    let error = Users::start(Config {
        ticket_addresses: vec![],
        ..good()
    })
    .await
    .expect_err("nobody to buy from");
    assert!(matches!(error, StartError::NoTickets), "{error}");
    let error = Users::start(Config {
        ticket_addresses: vec!["x".into()],
        ..good()
    })
    .await
    .expect_err("no address");
    assert!(matches!(error, StartError::Tickets(_)), "{error}");
    let error = Users::start(Config {
        registry: vec!["not a url".into()],
        ..good()
    })
    .await
    .expect_err("no URL");
    assert!(matches!(error, StartError::Registry(_)), "{error}");
    let error = Users::start(Config {
        store: ":memory:".into(),
        ..good()
    })
    .await
    .expect_err("no file");
    assert!(matches!(error, StartError::Store(_)), "{error}");
    let server = Users::start(good()).await.expect("it starts");
    let error = Users::start(Config {
        listen: server.local_addr(),
        ..good()
    })
    .await
    .expect_err("taken");
    assert!(matches!(error, StartError::Bind(_)), "{error}");
    server.stop().await;
}
