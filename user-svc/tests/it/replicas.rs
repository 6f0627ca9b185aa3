//! Several user services on one store, of either kind: each order is driven by one of them, and by another one when that is gone.

use std::time::Duration;

use proto::user::v1::{BuyTicketRequest, Order, OrderState, User};
use service_store::testing::TestStore;
use sqlx::Connection as _;
use user_svc::{Config, Running, Users};

use crate::{
    fake::{Act, FakeTickets, Method, PRICE},
    fixture::{Client, Fixture, PATIENCE, config, connect, two_seats, watch_to_the_end},
    purchases::wait_until,
};

const PURSE: i64 = 10_000;

/// Two of them, whose claims hold for longer than any test: what is taken up was given up, or its claim was made to lapse.
struct Replicas {
    one: Fixture,
    other: Running,
    other_client: Client,
    user: User,
    store: TestStore,
}

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(3_600);

async fn replicas(store: TestStore, lease: Duration) -> Replicas {
    let one = Fixture::start_with(|config| {
        config.store = store.location();
        config.purchase_lease = lease;
        config.drain_grace = Duration::from_millis(200);
    })
    .await;
    let config = Config {
        store: store.location(),
        purchase_lease: lease,
        ..config(&one.folder, &one.tickets)
    };
    let other = Users::start(config).await.expect("it starts");
    let other_client = connect(&other).await;
    let user = one.user_with(PURSE).await;
    Replicas {
        one,
        other,
        other_client,
        user,
        store,
    }
}

impl Replicas {
    /// A purchase that the first one drives, and that is about to be confirmed.
    async fn confirming(&self) -> BuyTicketRequest {
        self.one.tickets.next(Method::Confirm, [Act::AwaitGate]);
        let request = two_seats(&self.user);
        let (mut client, asked) = (self.one.client.clone(), request.clone());
        // Its answer is nobody's: the process is about to go.
        drop(tokio::spawn(async move { client.buy_ticket(asked).await }));
        wait_until(|| self.one.tickets.called(Method::Confirm) == 1).await;
        request
    }
}

async fn bought(client: &Client, request: BuyTicketRequest) -> Order {
    let answer = client.clone().buy_ticket(request).await.expect("an order");
    answer.into_inner().order.expect("the order")
}

/// How often mails were written of that order.
async fn mails(store: &TestStore, order_id: &str) -> i64 {
    sqlx::any::install_default_drivers();
    let url = match store.folder() {
        Some(_) => format!("sqlite:{}", store.url()),
        None => store.url(),
    };
    let mut connection = sqlx::AnyConnection::connect(&url).await.expect("it opens");
    let count = sqlx::query_scalar("SELECT count(*) FROM mails WHERE order_id = $1").bind(order_id.to_owned());
    count.fetch_one(&mut connection).await.expect("a count")
}

async fn mailed_once(store: &TestStore, order_id: &str) {
    let mailed = async {
        while mails(store, order_id).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, mailed).await.expect("a mail in time");
    assert_eq!(mails(store, order_id).await, 1);
}

/// The end that every one of these comes to: bought once, paid once, told once.
async fn bought_once(client: &Client, tickets: &FakeTickets, user: &User, store: &TestStore, order_id: &str) {
    let last = watch_to_the_end(client.clone(), order_id).await.pop().expect("a state");
    assert_eq!(last.state(), OrderState::Succeeded, "{last:?}");
    let request = proto::user::v1::GetUserRequest {
        user_id: user.id.clone(),
    };
    let user = client
        .clone()
        .get_user(request)
        .await
        .expect("the user")
        .into_inner()
        .user;
    let balance = user.expect("the user").balance.expect("a wallet").minor_units;
    assert_eq!(balance, PURSE - 2 * PRICE);
    assert_eq!(tickets.called(Method::Hold), 1);
    mailed_once(store, order_id).await;
}

async fn a_replica_that_stops_leaves_its_purchases_to_the_other_at_once(store: TestStore) {
    let replicas = replicas(store, FOR_EVER).await;
    let order_id = replicas.confirming().await.request_id;
    let Replicas {
        one,
        other,
        other_client,
        user,
        store,
    } = replicas;
    let report = one.server.stop().await;
    assert_eq!(report.purchases_left, 1, "{report}");
    one.tickets.open_gate();
    bought_once(&other_client, &one.tickets, &user, &store, &order_id).await;
    other.stop().await;
}

async fn a_replica_that_dies_is_replaced_when_its_claims_lapse(store: TestStore) {
    let replicas = replicas(store, Duration::from_secs(1)).await;
    let order_id = replicas.confirming().await.request_id;
    let Replicas {
        one,
        other,
        other_client,
        user,
        store,
    } = replicas;
    // As a crash would end it.
    drop(one.server);
    one.tickets.open_gate();
    bought_once(&other_client, &one.tickets, &user, &store, &order_id).await;
    other.stop().await;
}

/// The same request goes to both: one drives, the other follows it by looking, and both answer the same order.
async fn a_repeat_at_the_other_replica_answers_the_same_order(store: TestStore) {
    let replicas = replicas(store, FOR_EVER).await;
    let request = replicas.confirming().await;
    let order_id = request.request_id.clone();
    let watching = tokio::spawn({
        let (client, order_id) = (replicas.other_client.clone(), order_id.clone());
        async move { watch_to_the_end(client, &order_id).await }
    });
    let repeat = tokio::spawn({
        let (client, request) = (replicas.other_client.clone(), request.clone());
        async move { bought(&client, request).await }
    });
    replicas.one.tickets.open_gate();
    let repeated = repeat.await.expect("no panic");
    assert_eq!(repeated.state(), OrderState::Succeeded, "{repeated:?}");
    assert_eq!(bought(&replicas.one.client, request).await, repeated);
    let seen = watching.await.expect("no panic");
    assert_eq!(seen.last(), Some(&repeated), "a watch at the other one sees the end");
    let Replicas {
        one,
        other,
        other_client,
        user,
        store,
    } = replicas;
    bought_once(&other_client, &one.tickets, &user, &store, &order_id).await;
    other.stop().await;
    one.stop().await;
}

service_store::on_both_stores![
    a_replica_that_stops_leaves_its_purchases_to_the_other_at_once,
    a_replica_that_dies_is_replaced_when_its_claims_lapse,
    a_repeat_at_the_other_replica_answers_the_same_order,
];
