//! The store of either kind: money is entered once, balances are the sum of the ledger, orders move once.

mod people;

use std::sync::atomic::{AtomicI64, Ordering};

use service_store::{Clock, Currency, Dialect, Money, Text, Timestamp, testing::TestStore};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::domain::{
    account::{Email, NewUser, User},
    order::{ChosenSeats, Failing, Failure, Held, NewOrder, Order, OrderState, Quantity, SeatId, Selection, Trace},
    refusal::Refusal,
    saga::Step,
    wallet::{TopUp, WalletError},
};

mod books;
mod cases;
mod claims;

/// A clock that ticks once each time it is read.
#[derive(Debug, Default)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

struct Fixture {
    store: Store,
    user: User,
    place: TestStore,
}

impl Fixture {
    /// A user with so many cents.
    async fn with(place: TestStore, cents: i64) -> Self {
        let store = open(&place).await;
        let mut user = store
            .create_user(id(), &new_user("ada@example.org"), "hash")
            .await
            .expect("new")
            .user;
        if cents > 0 {
            user.balance = store.top_up(id(), user.id, euro(cents)).await.expect("topped up");
        }
        Self { store, user, place }
    }

    fn new_order(&self) -> NewOrder {
        let quantity = Quantity::try_new(2).expect("in range");
        let selection = Selection::BestAvailable {
            quantity,
            section: Some("A".into()),
        };
        NewOrder {
            id: id(),
            user_id: self.user.id,
            event_id: id(),
            selection,
        }
    }

    /// An order that holds seats for so many cents and is about to pay.
    async fn held_order(&self, cents: i64) -> Order {
        let order = recorded(self.store.record_order(&self.new_order(), &Trace::default()).await);
        let order = self
            .store
            .advance(&order, Step::Hold, None)
            .await
            .expect("the first to move it");
        let total = Money::try_new(Currency::EUR, cents).expect("not negative");
        let seats = ["A/1/1", "A/1/2"]
            .map(|seat| SeatId::try_new(seat).expect("a seat"))
            .to_vec();
        let held = Held { token: 7, seats, total };
        self.store
            .advance(&order, Step::Debit, Some(held))
            .await
            .expect("the first to move it")
    }

    async fn balance(&self) -> i64 {
        self.store.user(self.user.id).await.expect("the user").balance.minor()
    }

    /// The books are right.
    async fn check_ledger(&self) {
        let wrong = self.store.audit().await.expect("audited").wrong;
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

async fn open(place: &TestStore) -> Store {
    Store::open(place.location(), Arc::new(Ticking::default()))
        .await
        .expect("the store opens")
}

fn id() -> Uuid {
    Uuid::new_v4()
}

fn new_user(email: &str) -> NewUser {
    NewUser {
        request_id: id(),
        email: Email::try_new(email).expect("an address"),
        display_name: Text::try_new("Ada").expect("in limits"),
        currency: Currency::EUR,
    }
}

fn euro(minor: i64) -> TopUp {
    TopUp::try_new(Currency::EUR, minor).expect("in range")
}

fn recorded(result: Result<Recorded, StoreError>) -> Order {
    match result.expect("recorded") {
        Recorded::New(order) => order,
        Recorded::Before(order) => panic!("{order:?} is not new"),
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Refusal {
    match result {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn an_address_has_one_account_and_a_request_makes_one(store: TestStore) {
    let fixture = Fixture::with(store, 0).await;
    let taken = fixture
        .store
        .create_user(id(), &new_user("ADA@example.org"), "hash")
        .await;
    assert_eq!(refusal(taken), Refusal::EmailTaken);
    let bob = new_user("bob@example.org");
    let first = fixture.store.create_user(id(), &bob, "hash").await.expect("new");
    let again = fixture
        .store
        .create_user(id(), &bob, "another hash")
        .await
        .expect("a repeat");
    assert_eq!((again.user, again.password_hash), (first.user, first.password_hash));
}

async fn money_is_added_once_for_each_request(store: TestStore) {
    let fixture = Fixture::with(store, 0).await;
    let request = id();
    for _ in 0..3 {
        let balance = fixture
            .store
            .top_up(request, fixture.user.id, euro(500))
            .await
            .expect("topped up");
        assert_eq!(balance.minor(), 500);
    }
    fixture
        .store
        .top_up(id(), fixture.user.id, euro(70))
        .await
        .expect("topped up");
    let repeated = fixture
        .store
        .top_up(request, fixture.user.id, euro(500))
        .await
        .expect("a repeat");
    assert_eq!(repeated.minor(), 500, "what it held right after that top-up");
    assert_eq!(fixture.balance().await, 570);

    let reused = Refusal::RequestIdReused(request);
    assert_eq!(
        refusal(fixture.store.top_up(request, fixture.user.id, euro(501)).await),
        reused
    );
    let bob = fixture
        .store
        .create_user(id(), &new_user("bob@example.org"), "hash")
        .await
        .expect("new")
        .user;
    assert_eq!(refusal(fixture.store.top_up(request, bob.id, euro(500)).await), reused);
    let nobody = id();
    assert_eq!(
        refusal(fixture.store.top_up(id(), nobody, euro(1)).await),
        Refusal::UserUnknown(nobody)
    );
    let dollars = TopUp::try_new(Currency::try_new("USD").expect("a code"), 1).expect("in range");
    let mixed = refusal(fixture.store.top_up(id(), fixture.user.id, dollars).await);
    assert!(
        matches!(mixed, Refusal::Wallet(WalletError::Currency { .. })),
        "{mixed}"
    );
    fixture.check_ledger().await;
}

async fn a_debit_and_its_step_are_one(store: TestStore) {
    let fixture = Fixture::with(store, 1_000).await;
    let order = fixture.held_order(600).await;
    let paid = fixture.store.debit(&order).await.expect("enough money");
    assert_eq!((paid.step, fixture.balance().await), (Step::Confirm, 400));
    // The same again, by someone who saw the order before: nothing is taken, nothing is moved.
    assert!(matches!(fixture.store.debit(&order).await, Err(StoreError::Overtaken)));
    assert_eq!(fixture.balance().await, 400);

    let poor = fixture.held_order(401).await;
    let refused = fixture.store.debit(&poor).await.expect("an outcome");
    assert!(
        matches!(&refused.step, Step::Release(why) if why.failure == Failure::InsufficientFunds),
        "{refused:?}"
    );
    assert_eq!(fixture.balance().await, 400);
    fixture.check_ledger().await;
}

/// 30 orders of one user pay at once from a wallet that is enough for 10, over two processes on one file.
async fn a_wallet_is_never_overdrawn_by_a_rush(store: TestStore) {
    let fixture = Fixture::with(store, 1_000).await;
    let other = open(&fixture.place).await;
    let mut paying = JoinSet::new();
    for buyer in 0..30 {
        let order = fixture.held_order(100).await;
        let store = if buyer % 2 == 0 {
            fixture.store.clone()
        } else {
            other.clone()
        };
        paying.spawn(async move { store.debit(&order).await.expect("an outcome") });
    }
    let paid = paying
        .join_all()
        .await
        .into_iter()
        .filter(|order| order.step == Step::Confirm)
        .count();
    assert_eq!((paid, fixture.balance().await), (10, 0));
    fixture.check_ledger().await;
}

/// Another process keeps the file: the call gives up and says that a retry may help. When it does is `service-store`'s.
#[tokio::test]
async fn a_locked_file_is_busy_while_it_is_locked_and_free_again_after() {
    let store = TestStore::new(Dialect::Sqlite).expect("a file");
    let fixture = Fixture::with(store, 0).await;
    let lock = open(&fixture.place).await.begin().await.expect("the lock");
    let deadline = Deadline::after(std::time::Duration::from_millis(400));
    let top_up = fixture.store.top_up(id(), fixture.user.id, euro(1));
    let refused = deadline.scope(top_up).await;
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    drop(lock);
    fixture
        .store
        .top_up(id(), fixture.user.id, euro(1))
        .await
        .expect("the lock is free");
}

async fn an_order_is_recorded_once_and_reads_back_as_written(store: TestStore) {
    let fixture = Fixture::with(store, 0).await;
    let new = fixture.new_order();
    let trace = Trace {
        id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        parent: "00-x".into(),
    };
    let order = recorded(fixture.store.record_order(&new, &trace).await);
    assert_eq!(
        (order.state(), &order.selection, &order.trace),
        (OrderState::Pending, &new.selection, &trace)
    );
    let before = fixture
        .store
        .record_order(&new, &Trace::default())
        .await
        .expect("a repeat");
    assert_eq!(before, Recorded::Before(order.clone()));
    let reused = NewOrder {
        event_id: id(),
        ..new.clone()
    };
    assert_eq!(
        refusal(fixture.store.record_order(&reused, &trace).await),
        Refusal::RequestIdReused(new.id)
    );
    let nobody = NewOrder {
        id: id(),
        user_id: id(),
        ..new
    };
    let unknown = refusal(fixture.store.record_order(&nobody, &trace).await);
    assert_eq!(unknown, Refusal::UserUnknown(nobody.user_id));

    let seats = ChosenSeats::try_new(vec![SeatId::try_new("B/2/3").expect("a seat")]).expect("in limits");
    let chosen = NewOrder {
        id: id(),
        selection: Selection::Seats(seats),
        ..fixture.new_order()
    };
    let order = recorded(fixture.store.record_order(&chosen, &trace).await);
    assert_eq!(order.selection, chosen.selection);
    let why = Failing::new(Failure::SoldOut, "none left");
    for step in [
        Step::Hold,
        Step::Debit,
        Step::Confirm,
        Step::Refund(why.clone()),
        Step::Release(why.clone()),
        Step::Failed(why.clone()),
        Step::Succeeded(vec![id(), id()]),
    ] {
        let order = fixture.store.order(order.id).await.expect("the order");
        let moved = fixture
            .store
            .advance(&order, step.clone(), None)
            .await
            .expect("the first to move it");
        assert_eq!((&moved.step, moved.version), (&step, order.version + 1));
        assert_eq!(fixture.store.order(order.id).await.expect("the order"), moved);
        assert!(matches!(
            fixture.store.advance(&order, step, None).await,
            Err(StoreError::Overtaken)
        ));
    }
}

async fn orders_page_newest_first(store: TestStore) {
    let fixture = Fixture::with(store, 0).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(
            recorded(
                fixture
                    .store
                    .record_order(&fixture.new_order(), &Trace::default())
                    .await,
            )
            .id,
        );
    }
    let done = fixture.store.order(ids[2]).await.expect("the order");
    fixture
        .store
        .advance(&done, Step::Succeeded(vec![]), None)
        .await
        .expect("moved");

    let (mut newest, mut cursor) = (Vec::new(), None);
    loop {
        let page = fixture.store.orders(fixture.user.id, cursor, 2).await.expect("a page");
        let Some(last) = page.last() else { break };
        cursor = Some(last.cursor());
        newest.extend(page.into_iter().map(|order| order.id));
    }
    assert_eq!(newest, ids.iter().rev().copied().collect::<Vec<_>>());
}

service_store::on_both_stores![
    an_address_has_one_account_and_a_request_makes_one,
    money_is_added_once_for_each_request,
    a_debit_and_its_step_are_one,
    a_wallet_is_never_overdrawn_by_a_rush,
    an_order_is_recorded_once_and_reads_back_as_written,
    orders_page_newest_first,
];
