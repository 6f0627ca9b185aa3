//! The cases that try-confirm-cancel protocols trip over, each by its name. Here trying is HoldSeats, confirming is ConfirmHold,
//! and cancelling is ReleaseHold; what the money does meanwhile is user-svc's.

use super::*;

async fn empty_cancel_succeeds_and_is_remembered(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let never = fixture.best(1);
    let released = fixture.store.release(never.id, None).await;
    released.expect("a release of what was never held");
    let other = fixture.another_process().await;
    let repeated = other.release(never.id, None).await;
    repeated.expect("and again, also elsewhere");
    let remembered: i64 = sqlx::query_scalar("SELECT count(*) FROM empty_releases WHERE hold_id = $1")
        .bind(never.id.to_string())
        .fetch_one(fixture.store.database.reader())
        .await
        .expect("a count");
    assert_eq!(remembered, 1, "it is there for the hold that may still come, once");
    assert_eq!(fixture.counts().await, (2, 0, 0));
}

async fn late_try_is_refused_and_holds_nothing(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let other = fixture.another_process().await;
    let late = fixture.best(2);
    fixture
        .store
        .release(late.id, None)
        .await
        .expect("it overtook its hold");
    for store in [&fixture.store, &other] {
        assert_eq!(refusal(store.hold(&late).await), Refusal::HoldReleased(late.id));
    }
    assert_eq!(fixture.counts().await, (2, 0, 0));
    // Nor after a hold that was made and released.
    let request = fixture.best(2);
    let hold = fixture.store.hold(&request).await.expect("free");
    let released = fixture.store.release(hold.id, Some(hold.token)).await;
    released.expect("released");
    assert_eq!(refusal(other.hold(&request).await), Refusal::HoldReleased(hold.id));
    assert_eq!(fixture.counts().await, (2, 0, 0));
}

async fn repeated_confirm_answers_the_same_tickets(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let other = fixture.another_process().await;
    let hold = fixture.store.hold(&fixture.best(2)).await.expect("free");
    let order = id();
    let first = fixture.store.confirm(hold.id, hold.token, order, ids()).await;
    let first = first.expect("in time");
    // Long after the hold would have ended, too: it was confirmed, and time has no say any more.
    fixture.clock.advance(Duration::from_secs(3_600));
    for store in [&fixture.store, &other] {
        let again = store.confirm(hold.id, hold.token, order, ids()).await;
        assert_eq!(again.expect("the same answer"), first);
    }
    let other_order = fixture.store.confirm(hold.id, hold.token, id(), ids()).await;
    assert_eq!(refusal(other_order), Refusal::HoldConfirmed(hold.id));
    assert_eq!(fixture.counts().await, (0, 0, 2));
}

async fn repeated_cancel_frees_the_seats_once(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let hold = fixture.store.hold(&fixture.best(2)).await.expect("free");
    let wrong = FencingToken(hold.token.0 + 1);
    let released = fixture.store.release(hold.id, Some(wrong)).await;
    assert_eq!(refusal(released), Refusal::HoldTokenWrong(hold.id));
    let released = fixture.store.release(hold.id, Some(hold.token)).await;
    released.expect("released");
    // Somebody else has them now; the repeat is answered and takes nothing away.
    let next = fixture.store.hold(&fixture.best(2)).await.expect("free again");
    for token in [Some(hold.token), None] {
        fixture
            .store
            .release(hold.id, token)
            .await
            .expect("released, as before");
        assert_eq!(fixture.counts().await, (0, 2, 0));
    }
    let sold = fixture.store.confirm(next.id, next.token, id(), ids()).await;
    sold.expect("the next one's hold is whole");
}

async fn confirm_after_cancel_is_refused_and_cancel_after_confirm_too(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let hold = fixture.store.hold(&fixture.best(1)).await.expect("free");
    let released = fixture.store.release(hold.id, Some(hold.token)).await;
    released.expect("released");
    let confirmed = fixture.store.confirm(hold.id, hold.token, id(), ids()).await;
    assert_eq!(refusal(confirmed), Refusal::HoldReleased(hold.id));
    // Nor one that was released before it was ever made.
    let never = fixture.best(1);
    fixture.store.release(never.id, None).await.expect("empty");
    let confirmed = fixture.store.confirm(never.id, FencingToken(1), id(), ids()).await;
    assert_eq!(refusal(confirmed), Refusal::HoldReleased(never.id));
    assert_eq!(fixture.counts().await, (2, 0, 0));

    let sold = fixture.store.hold(&fixture.best(1)).await.expect("free");
    let confirmed = fixture.store.confirm(sold.id, sold.token, id(), ids()).await;
    confirmed.expect("in time");
    let released = fixture.store.release(sold.id, None).await;
    assert_eq!(refusal(released), Refusal::HoldConfirmed(sold.id));
    assert_eq!(fixture.counts().await, (1, 0, 1));
}

/// "Expired" was told and not recorded. The user service refunds when it hears that; had the clock stepped back then, a
/// repeated confirmation that was still under way would have found the hold good again, and sold the seats for nothing.
async fn hold_expired_between_debit_and_confirm_is_refused_for_good(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let request = fixture.best(2);
    let hold = fixture.store.hold(&request).await.expect("free");
    fixture.clock.advance(Duration::from_secs(120));
    let order = id();
    let late = fixture.store.confirm(hold.id, hold.token, order, ids()).await;
    assert_eq!(refusal(late), Refusal::HoldExpired(hold.id));
    fixture.clock.0.store(0, Ordering::SeqCst);
    assert_eq!(fixture.counts().await, (2, 0, 0), "its seats are free, not held again");
    let again = fixture.store.confirm(hold.id, hold.token, order, ids()).await;
    assert_eq!(refusal(again), Refusal::HoldExpired(hold.id));
    let held = fixture.store.hold(&request).await;
    assert_eq!(refusal(held), Refusal::HoldExpired(hold.id));
    let next = fixture.store.hold(&fixture.best(2)).await.expect("free");
    let released = fixture.store.release(hold.id, Some(hold.token)).await;
    released.expect("releasing it once more succeeds");
    let sold = fixture.store.confirm(next.id, next.token, id(), ids()).await;
    sold.expect("the next one may");
}

service_store::on_both_stores![
    empty_cancel_succeeds_and_is_remembered,
    late_try_is_refused_and_holds_nothing,
    repeated_confirm_answers_the_same_tickets,
    repeated_cancel_frees_the_seats_once,
    confirm_after_cancel_is_refused_and_cancel_after_confirm_too,
    hold_expired_between_debit_and_confirm_is_refused_for_good,
];
