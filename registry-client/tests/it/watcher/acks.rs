//! What is acknowledged, and when.

use super::*;

/// What it has acknowledged so far.
fn acks(fake: &Fake) -> Vec<i64> {
    let acks = fake.calls().into_iter().filter_map(|call| match call {
        Call::Ack(request) => {
            assert_eq!(request.watch_id, "w");
            Some(request.revision)
        }
        _ => None,
    });
    acks.collect()
}

async fn until_acks(fake: &Fake, expected: &[i64]) {
    fake.until(&format!("acknowledgements of {expected:?}"), |_| acks(fake) == expected)
        .await;
}

/// Acknowledged when it was received, a drain would have been over while the balancer still picked the instance.
#[tokio::test(start_paused = true)]
async fn what_is_received_is_not_acknowledged_before_it_is_applied() {
    let mut fake = Fake::start().await;
    let (mut watcher, stream) = watching_directly(&mut fake).await;
    stream.removed(6, "a", v1::RemovalReason::Drained).await;
    until(&mut watcher, "the removal", |s| ids(s) == "b").await;
    // Long after everything that could have been said of itself.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(acks(&fake), [0; 0]);
    watcher.borrow_and_update();
    watcher.applied();
    until_acks(&fake, &[6]).await;
    watcher.applied();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(acks(&fake), [6], "once");
}

/// A fleet that grows costs no acknowledgements: only who leaves is ever waited for.
#[tokio::test(start_paused = true)]
async fn only_what_takes_an_instance_out_is_acknowledged() {
    let mut fake = Fake::start().await;
    let (mut watcher, stream) = watching_directly(&mut fake).await;
    watcher.borrow_and_update();
    watcher.applied();
    until_acks(&fake, &[5]).await;
    for revision in 6..=20 {
        stream.put(revision, "c").await;
        stream.bookmark(revision).await;
    }
    until(&mut watcher, "all of them", |s| s.revision == 20).await;
    watcher.borrow_and_update();
    watcher.applied();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(acks(&fake), [5]);
    for (revision, id) in [(21, "a"), (22, "b")] {
        stream.removed(revision, id, v1::RemovalReason::Expired).await;
    }
    until(&mut watcher, "both", |s| ids(s) == "c").await;
    watcher.borrow_and_update();
    watcher.applied();
    until_acks(&fake, &[5, 22]).await;
}

/// A registry of an earlier version refuses each of them, for ever.
#[tokio::test(start_paused = true)]
async fn a_registry_that_takes_no_acknowledgements_is_not_asked_again() {
    let mut fake = Fake::start().await;
    fake.script([Fate::Refuse(Status::unimplemented("a method of later"))]);
    let (mut watcher, stream) = watching_directly(&mut fake).await;
    watcher.borrow_and_update();
    watcher.applied();
    until_acks(&fake, &[5]).await;
    stream.removed(6, "a", v1::RemovalReason::Drained).await;
    until(&mut watcher, "the removal", |s| ids(s) == "b").await;
    watcher.borrow_and_update();
    watcher.applied();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(acks(&fake), [5]);
}

/// One that is away for a moment is told a little later: somebody may be waiting.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_fails_is_repeated() {
    let mut fake = Fake::start().await;
    fake.script([Fate::Refuse(Status::unavailable("busy"))]);
    let (mut watcher, _stream) = watching_directly(&mut fake).await;
    watcher.borrow_and_update();
    watcher.applied();
    until_acks(&fake, &[5, 5]).await;
}

/// A watch that broke between the word that an instance drains and the moment when the balancer had it resumed from after that
/// word, and was taken to have acknowledged it: the instance stopped, and was still called.
#[tokio::test(start_paused = true)]
async fn who_resumes_acknowledges_what_it_was_told_before_when_it_is_applied() {
    let mut fake = Fake::start().await;
    let (mut watcher, stream) = watching_directly(&mut fake).await;
    watcher.borrow_and_update();
    watcher.applied();
    until_acks(&fake, &[5]).await;
    stream.removed(6, "a", v1::RemovalReason::Drained).await;
    until(&mut watcher, "the removal", |s| ids(s) == "b").await;
    stream.end();
    let stream = fake.watch().await;
    assert_eq!(stream.request.start_after_revision, 6);
    stream.bookmark(6).await;
    until(&mut watcher, "fresh", is_fresh).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(acks(&fake), [5], "told, and not applied");
    watcher.borrow_and_update();
    watcher.applied();
    until_acks(&fake, &[5, 6]).await;

    // Applied before it resumed: said with the first word, for nothing is left to wait for.
    stream.end();
    until(&mut watcher, "stale", is_stale).await;
    watcher.borrow_and_update();
    watcher.applied();
    let stream = fake.watch().await;
    // What comes next waits for nobody to be woken.
    tokio::time::sleep(Duration::from_secs(10)).await;
    stream.bookmark(9).await;
    until_acks(&fake, &[5, 6, 6]).await;
}
