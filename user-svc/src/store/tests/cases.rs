//! The cases that try-confirm-cancel protocols trip over, each by its name, on the money's side. Trying is the debit, confirming is the
//! record that the seats are sold, and cancelling is the refund; what the seats do meanwhile is ticket-svc's.

use super::{
    claims::{LEASE, Processes, two},
    *,
};

fn too_late() -> Failing {
    Failing::new(Failure::HoldExpired, "too late")
}

/// What was refunded, in how many transfers.
async fn refunds(store: &Store) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM transfers WHERE kind = 'refund'");
    count.fetch_one(store.database.reader()).await.expect("a count")
}

/// Takes an order up that `one` still believes to be its own, and ends it as one that failed. Nothing of it is paid then.
async fn cancelled_by(other: &Store, order: &Order) -> Order {
    let mut order = other.claim_order(order.id).await.expect("an answer").expect("lapsed");
    if order.step == Step::Confirm {
        let refunding = other.advance(&order, Step::Refund(too_late()), None).await;
        order = other
            .refund(&refunding.expect("moved"), too_late())
            .await
            .expect("refunded");
    }
    let failed = other.advance(&order, Step::Failed(too_late()), None).await;
    failed.expect("moved")
}

async fn empty_cancel_gives_back_nothing(place: TestStore) {
    let fixture = Fixture::with(place, 1_000).await;
    let unpaid = fixture.held_order(600).await;
    let refunded = fixture.store.refund(&unpaid, too_late()).await;
    assert_eq!(refunded.expect("nothing was paid").step, Step::Release(too_late()));
    assert_eq!((fixture.balance().await, refunds(&fixture.store).await), (1_000, 0));
    fixture.check_ledger().await;
}

async fn late_try_takes_nothing(place: TestStore) {
    let Processes { clock, fixture, other } = two(place, 1_000).await;
    let unpaid = fixture.held_order(600).await;
    clock.pass(LEASE);
    let ended = cancelled_by(&other, &unpaid).await;
    let late = fixture.store.debit(&unpaid).await;
    assert!(matches!(late, Err(StoreError::Overtaken)), "{late:?}");
    assert_eq!(fixture.balance().await, 1_000);
    assert_eq!(fixture.store.order(unpaid.id).await.expect("the order"), ended);
    fixture.check_ledger().await;
}

async fn repeated_confirm_sells_and_tells_once(place: TestStore) {
    let Processes { clock, fixture, other } = two(place, 1_000).await;
    let unpaid = fixture.held_order(600).await;
    let paid = fixture.store.debit(&unpaid).await.expect("enough");
    clock.pass(LEASE);
    let taken = other.claim_order(paid.id).await.expect("an answer").expect("lapsed");
    let tickets = vec![id()];
    let sold = other.advance(&taken, Step::Succeeded(tickets.clone()), None).await;
    let sold = sold.expect("moved");
    // The first one has heard the same tickets by now; so has the second one, once more.
    for (store, read) in [(&fixture.store, &paid), (&other, &taken)] {
        let again = store.advance(read, Step::Succeeded(tickets.clone()), None).await;
        assert!(matches!(again, Err(StoreError::Overtaken)), "{again:?}");
    }
    assert_eq!(fixture.store.order(paid.id).await.expect("the order"), sold);
    let told: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE kind = 'order.succeeded'")
        .fetch_one(fixture.store.database.reader())
        .await
        .expect("a count");
    assert_eq!((fixture.balance().await, told), (400, 1));
    fixture.check_ledger().await;
}

async fn hold_expired_between_debit_and_confirm_is_refunded(place: TestStore) {
    let fixture = Fixture::with(place, 1_000).await;
    let unpaid = fixture.held_order(600).await;
    let paid = fixture.store.debit(&unpaid).await.expect("enough");
    assert_eq!(fixture.balance().await, 400);
    let refunding = fixture.store.advance(&paid, Step::Refund(too_late()), None).await;
    let refunding = refunding.expect("moved");
    fixture.check_ledger().await;
    let refunded = fixture.store.refund(&refunding, too_late()).await.expect("refunded");
    assert_eq!(refunded.step, Step::Release(too_late()));
    fixture.check_ledger().await;
    let failed = fixture.store.advance(&refunded, Step::Failed(too_late()), None).await;
    assert_eq!(failed.expect("moved").step, Step::Failed(too_late()));
    assert_eq!((fixture.balance().await, refunds(&fixture.store).await), (1_000, 1));
    fixture.check_ledger().await;
}

async fn repeated_cancel_gives_back_once(place: TestStore) {
    let fixture = Fixture::with(place, 1_000).await;
    let unpaid = fixture.held_order(600).await;
    let paid = fixture.store.debit(&unpaid).await.expect("enough");
    let refunding = fixture.store.advance(&paid, Step::Refund(too_late()), None).await;
    let refunding = refunding.expect("moved");
    let refunded = fixture.store.refund(&refunding, too_late()).await.expect("refunded");
    let again = fixture.store.refund(&refunding, too_late()).await;
    assert!(matches!(again, Err(StoreError::Overtaken)), "{again:?}");
    // Even if it were driven to the refund a second time, the ledger takes one.
    let again = fixture.store.advance(&refunded, Step::Refund(too_late()), None).await;
    let again = fixture.store.refund(&again.expect("moved"), too_late()).await;
    again.expect("nothing is left to give back");
    assert_eq!((fixture.balance().await, refunds(&fixture.store).await), (1_000, 1));
    fixture.check_ledger().await;
}

async fn confirm_after_cancel_sells_nothing(place: TestStore) {
    let Processes { clock, fixture, other } = two(place, 1_000).await;
    let unpaid = fixture.held_order(600).await;
    let paid = fixture.store.debit(&unpaid).await.expect("enough");
    clock.pass(LEASE);
    let ended = cancelled_by(&other, &paid).await;
    let late = fixture.store.advance(&paid, Step::Succeeded(vec![id()]), None).await;
    assert!(matches!(late, Err(StoreError::Overtaken)), "{late:?}");
    assert_eq!(fixture.store.order(paid.id).await.expect("the order"), ended);
    assert_eq!((fixture.balance().await, refunds(&fixture.store).await), (1_000, 1));
    fixture.check_ledger().await;
}

service_store::on_both_stores![
    empty_cancel_gives_back_nothing,
    late_try_takes_nothing,
    repeated_confirm_sells_and_tells_once,
    hold_expired_between_debit_and_confirm_is_refunded,
    repeated_cancel_gives_back_once,
    confirm_after_cancel_sells_nothing,
];
