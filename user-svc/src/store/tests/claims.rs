//! Claims: of several processes on one store exactly one moves an order on, and whoever stood still does no harm.

use std::time::Duration;

use super::*;

pub(super) const LEASE: Duration = Duration::from_secs(5);

/// A clock that is set by hand, the same for all processes of a test.
#[derive(Debug, Clone, Default)]
pub(super) struct Hand(Arc<AtomicI64>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

impl Hand {
    pub(super) fn pass(&self, time: Duration) {
        let nanos = i64::try_from(time.as_nanos()).expect("not long");
        self.0.fetch_add(nanos, Ordering::SeqCst);
    }

    /// One more process on the store.
    async fn process(&self, place: &TestStore, name: &str) -> Store {
        let store = Store::open(place.location(), Arc::new(self.clone())).await;
        store.expect("the store opens").claiming_as(name, LEASE)
    }
}

pub(super) struct Processes {
    pub(super) clock: Hand,
    /// `fixture.store` is one of them.
    pub(super) fixture: Fixture,
    pub(super) other: Store,
}

pub(super) async fn two(place: TestStore, cents: i64) -> Processes {
    let clock = Hand::default();
    clock.pass(LEASE);
    let mut fixture = Fixture::with(place, cents).await;
    fixture.store = clock.process(&fixture.place, "one").await;
    let other = clock.process(&fixture.place, "other").await;
    Processes { clock, fixture, other }
}

async fn claimed(store: &Store, order: &Order) -> Option<Order> {
    store.claim_order(order.id).await.expect("an answer")
}

async fn of_many_processes_one_gets_the_claim(place: TestStore) {
    let clock = Hand::default();
    let fixture = Fixture::with(place, 0).await;
    let order = recorded(
        fixture
            .store
            .record_order(&fixture.new_order(), &Trace::default())
            .await,
    );
    fixture.store.give_up_claims().await.expect("given up");
    let mut claiming = JoinSet::new();
    for number in 0..8 {
        let store = clock.process(&fixture.place, &number.to_string()).await;
        claiming.spawn(async move { store.claim_order(order.id).await.expect("an answer") });
    }
    let claims: Vec<Order> = claiming.join_all().await.into_iter().flatten().collect();
    assert_eq!(claims.len(), 1, "{claims:?}");
    assert_eq!(
        (claims[0].claim.number, claims[0].version),
        (order.claim.number + 1, order.version)
    );
}

async fn a_claim_holds_until_it_lapses_or_is_given_up(place: TestStore) {
    let Processes { clock, fixture, other } = two(place, 0).await;
    let order = recorded(
        fixture
            .store
            .record_order(&fixture.new_order(), &Trace::default())
            .await,
    );
    assert_eq!(claimed(&other, &order).await, None, "it is the other's from the start");
    assert!(other.lapsed_orders(9).await.expect("a list").is_empty());
    clock.pass(LEASE * 3 / 4);
    fixture.store.renew_claims(&[order.id]).await.expect("renewed");
    clock.pass(LEASE * 3 / 4);
    assert_eq!(claimed(&other, &order).await, None, "it was renewed");
    let moved = fixture.store.advance(&order, Step::Hold, None).await.expect("its own");
    clock.pass(LEASE * 3 / 4);
    assert_eq!(claimed(&other, &order).await, None, "each move renews it");
    clock.pass(LEASE / 4);
    assert_eq!(other.lapsed_orders(9).await.expect("a list"), [order.id]);
    let taken = claimed(&other, &order).await.expect("it has lapsed");
    assert_eq!((taken.version, &taken.step), (moved.version, &Step::Hold));

    assert_eq!(other.give_up_claims().await.expect("given up"), 1);
    assert_eq!(fixture.store.lapsed_orders(9).await.expect("a list"), [order.id]);
    let back = claimed(&fixture.store, &order).await.expect("it was given up");
    fixture.store.give_up_claim(&back, LEASE).await.expect("left for later");
    assert_eq!(claimed(&other, &order).await, None, "not yet");
    clock.pass(LEASE);
    let last = claimed(&other, &order).await.expect("now");
    let done = other
        .advance(&last, Step::Succeeded(vec![]), None)
        .await
        .expect("its own");
    clock.pass(LEASE * 9);
    assert_eq!(claimed(&fixture.store, &done).await, None, "nothing is left to do");
    assert!(fixture.store.lapsed_orders(9).await.expect("a list").is_empty());
}

/// A process is stopped (SIGSTOP) past the end of its claim, another one goes on, and the first one wakes up at each step.
async fn who_stood_still_past_the_end_of_its_claim_can_move_nothing(place: TestStore) {
    let Processes { clock, fixture, other } = two(place, 1_000).await;
    let before = fixture.held_order(300).await;
    clock.pass(LEASE);
    let taken = claimed(&other, &before).await.expect("it has lapsed");
    let overtaken = |result: Result<Order, StoreError>| {
        assert!(matches!(result, Err(StoreError::Overtaken)), "{result:?}");
    };
    let why = Failing::new(Failure::HoldExpired, "too late");
    // At the same version: only the claim tells them apart.
    overtaken(fixture.store.debit(&before).await);
    assert_eq!(fixture.balance().await, 1_000, "the debit went with its step");
    let paid = other.debit(&taken).await.expect("its own");
    assert_eq!(fixture.balance().await, 700);
    overtaken(fixture.store.debit(&before).await);
    overtaken(fixture.store.refund(&before, why.clone()).await);
    overtaken(fixture.store.advance(&before, Step::Failed(why.clone()), None).await);
    fixture.store.renew_claims(&[before.id]).await.expect("renews nothing");
    fixture
        .store
        .give_up_claim(&before, Duration::ZERO)
        .await
        .expect("gives nothing up");
    assert_eq!(fixture.store.give_up_claims().await.expect("a count"), 0);
    assert_eq!(claimed(&fixture.store, &before).await, None, "the other has it");
    other
        .advance(&paid, Step::Succeeded(vec![id()]), None)
        .await
        .expect("its own");
    assert_eq!(fixture.balance().await, 700);
    fixture.check_ledger().await;
}

/// Nobody took it up meanwhile: it goes on as if nothing had been.
async fn who_stood_still_and_was_not_missed_goes_on(place: TestStore) {
    let Processes { clock, fixture, other } = two(place, 1_000).await;
    let order = fixture.held_order(300).await;
    clock.pass(LEASE * 2);
    let paid = fixture.store.debit(&order).await.expect("still its own");
    assert_eq!(claimed(&other, &paid).await, None, "and claimed again");
}

/// Two drivers pay for the same orders at once, each believing itself the one.
async fn two_drivers_at_once_have_one_effect(place: TestStore) {
    let Processes { clock, fixture, other } = two(place, 1_000).await;
    for round in 1..=5 {
        let before = fixture.held_order(100).await;
        clock.pass(LEASE);
        let (one, taken) = tokio::join!(fixture.store.debit(&before), other.claim_order(before.id));
        let second = match taken.expect("an answer") {
            Some(taken) => other.debit(&taken).await,
            None => Err(StoreError::Overtaken),
        };
        // A claim that came after the payment finds the next step, where nothing is left to pay.
        let paid = [&one, &second].iter().filter(|paid| paid.is_ok()).count();
        assert!(paid >= 1, "{one:?} {second:?}");
        assert_eq!(fixture.balance().await, 1_000 - 100 * round, "once: {one:?} {second:?}");
    }
    fixture.check_ledger().await;
}

service_store::on_both_stores![
    of_many_processes_one_gets_the_claim,
    a_claim_holds_until_it_lapses_or_is_given_up,
    who_stood_still_past_the_end_of_its_claim_can_move_nothing,
    who_stood_still_and_was_not_missed_goes_on,
    two_drivers_at_once_have_one_effect,
];
