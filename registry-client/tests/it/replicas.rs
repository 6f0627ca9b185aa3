//! A registry of several replicas, of which one is behind, or cut off from their store.

use std::{sync::Arc, time::Duration};

use proto::registry::v1::{self, confidence::State};
use registry_client::{Confidence, Error, RegistrarStatus, Registration, Registry, Snapshot, SnapshotState, Watcher};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    fake::{Call, Fake, Fate, OpenWatch, lease_unknown, refusal},
    soon,
    wire_cutter::WireCutter,
};

fn to(urls: &[String]) -> Registry {
    Registry::connect(urls).expect("valid endpoints").prefer_first()
}

fn ids(snapshot: &Snapshot) -> String {
    snapshot.instances.iter().map(|instance| instance.id.as_str()).collect()
}

async fn until(watcher: &mut Watcher, what: &str, condition: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
    soon(what, watcher.wait_for(condition))
        .await
        .expect("the watcher lives")
}

fn is_fresh(snapshot: &Snapshot) -> bool {
    snapshot.state == SnapshotState::Fresh && snapshot.confidence == Confidence::Fresh
}

fn renewals(calls: &[Call]) -> usize {
    calls.iter().filter(|call| matches!(call, Call::Renew)).count()
}

fn stale() -> Option<v1::Confidence> {
    Some(v1::Confidence {
        state: State::Stale.into(),
        age: None,
    })
}

fn in_future() -> Status {
    refusal(Code::OutOfRange, "REVISION_IN_FUTURE", None)
}

fn store_away() -> Status {
    refusal(Code::Unavailable, "STORE_AWAY", Some(Duration::from_millis(500)))
}

/// A watcher that knows `ab` at revision 5 of the history "h".
async fn watching(registry: &Registry, fake: &mut Fake) -> (Watcher, OpenWatch) {
    let mut watcher = registry.discover("ticket-svc").watch();
    let mut stream = fake.watch().await;
    stream.history = "h".into();
    stream.snapshot(5, &["a", "b"]).await;
    until(&mut watcher, "a snapshot", |s| is_fresh(s) && ids(s) == "ab").await;
    (watcher, stream)
}

/// It goes on where it was.
fn resumes(stream: &OpenWatch) {
    let request = &stream.request;
    assert_eq!((request.start_after_revision, &*request.history_id), (5, "h"));
}

/// Any error of a watch made the whole handle go to the next endpoint: one watcher with a name that no registry takes sent all
/// heartbeats of its process to another replica every few seconds, and each time that one had to take the leases over.
#[tokio::test(start_paused = true)]
async fn a_watch_that_every_registry_refuses_moves_nobody() {
    let (one, two) = (Fake::start().await, Fake::start().await);
    let registry = to(&[one.url(), two.url()]);
    let registrar = registry.register(Registration::new("ticket-svc", "127.0.0.1:7101"));
    registrar.registered(crate::PATIENCE).await.expect("registered");
    let invalid = refusal(Code::InvalidArgument, "INVALID_ARGUMENT", None);
    one.refuse_watches(vec![(Duration::ZERO, invalid); 1_000]);
    let _watcher = registry.discover("No Service").watch();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((11..=15).contains(&renewals(&one.calls())), "{:?}", one.calls());
    assert_eq!(two.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_without_a_word_is_opened_elsewhere() {
    let (mut one, mut two) = (Fake::start().await, Fake::start().await);
    for error in [None, Some(Status::internal("a bug"))] {
        let (_watcher, stream) = watching(&to(&[one.url(), two.url()]), &mut one).await;
        match error {
            Some(error) => stream.fail(error).await,
            None => stream.end(),
        }
        resumes(&two.watch().await);
    }
}

/// A replica that was behind was taken for a registry that had lost its state: its past came back as the present, with
/// instances that had left long ago, and the watcher stayed there.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_is_no_other_history() {
    let (mut one, mut two) = (Fake::start().await, Fake::start().await);
    let (mut watcher, stream) = watching(&to(&[one.url(), two.url()]), &mut one).await;
    two.refuse_watches([(Duration::from_secs(5), in_future())]);
    stream.end();
    let mut stream = one.watch().await;
    resumes(&stream);
    assert!(two.no_watch_waits());
    stream.history = "h".into();
    stream.bookmark(6).await;
    let kept = until(&mut watcher, "fresh again", |s| is_fresh(s) && s.revision == 6).await;
    assert_eq!((ids(&kept).as_str(), kept.unconfirmed), ("ab", 0));
}

#[tokio::test(start_paused = true)]
async fn a_history_that_every_replica_denies_has_gone_back() {
    let (mut one, mut two) = (Fake::start().await, Fake::start().await);
    let (mut watcher, stream) = watching(&to(&[one.url(), two.url()]), &mut one).await;
    one.refuse_watches([(Duration::from_secs(5), in_future())]);
    two.refuse_watches([(Duration::from_secs(5), in_future())]);
    stream.end();
    let stream = tokio::select! {
        stream = one.watch() => stream,
        stream = two.watch() => stream,
    };
    assert_eq!(stream.request.start_after_revision, 0);
    stream.snapshot(3, &["b"]).await;
    let kept = until(&mut watcher, "fresh again", is_fresh).await;
    assert_eq!((ids(&kept).as_str(), kept.unconfirmed, kept.revision), ("ab", 1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_history_that_is_denied_for_long_has_gone_back_though_a_replica_is_dead() {
    let (mut one, dead) = (Fake::start().await, Fake::start().await);
    let wire = WireCutter::before(dead.address).await;
    wire.cut();
    let (mut watcher, stream) = watching(&to(&[one.url(), wire.url()]), &mut one).await;
    one.refuse_watches(vec![(Duration::from_secs(5), in_future()); 3]);
    let begin = Instant::now();
    stream.end();
    loop {
        let stream = one.watch().await;
        if stream.request.start_after_revision == 0 {
            stream.snapshot(3, &["b"]).await;
            break;
        }
        resumes(&stream);
        stream.fail(in_future()).await;
    }
    until(&mut watcher, "fresh again", is_fresh).await;
    assert!((30..120).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

/// It stayed with the first replica that it had found for as long as that one answered, also when it was cut off from the store
/// and others were not.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_cut_off_is_left_for_one_that_is_not() {
    let (mut one, mut two) = (Fake::start().await, Fake::start().await);
    let registry = to(&[one.url(), two.url()]);
    let (mut watcher, mut stream) = watching(&registry, &mut one).await;
    stream.confidence = stale();
    stream.bookmark(5).await;
    let begin = Instant::now();
    let mut better = two.watch().await;
    assert!((5..=8).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    resumes(&better);
    stream.abandoned().await;
    registry.list_services().await.expect("answers");
    assert_eq!((one.calls().len(), two.calls().len()), (1, 0), "nothing is proven yet");
    better.history = "h".into();
    better.bookmark(6).await;
    until(&mut watcher, "fresh", is_fresh).await;
    registry.list_services().await.expect("answers");
    assert_eq!(
        (one.calls().len(), two.calls().len()),
        (1, 1),
        "the better one is for all"
    );
    better.put(7, "c").await;
    until(&mut watcher, "news", |s| ids(s) == "abc").await;
}

/// Between one that was cut off and one that was behind it went to and fro, and never asked the third.
#[tokio::test(start_paused = true)]
async fn on_the_way_to_a_better_replica_a_bad_one_is_passed() {
    let (mut one, mut two, mut three) = (Fake::start().await, Fake::start().await, Fake::start().await);
    let registry = to(&[one.url(), two.url(), three.url()]);
    let (mut watcher, mut stream) = watching(&registry, &mut one).await;
    stream.confidence = stale();
    stream.bookmark(5).await;
    let behind = two.watch().await;
    resumes(&behind);
    behind.fail(in_future()).await;
    let mut better = three.watch().await;
    resumes(&better);
    better.history = "h".into();
    better.bookmark(6).await;
    until(&mut watcher, "fresh", is_fresh).await;
}

#[tokio::test(start_paused = true)]
async fn where_every_replica_is_cut_off_watchers_do_not_go_round_and_round() {
    let (mut one, mut two) = (Fake::start().await, Fake::start().await);
    let registry = to(&[one.url(), two.url()]);
    let (mut watcher, mut stream) = watching(&registry, &mut one).await;
    let begin = Instant::now();
    let mut moves = 0;
    while begin.elapsed() < Duration::from_secs(3_600) {
        stream.history = "h".into();
        stream.confidence = stale();
        stream.bookmark(5).await;
        stream = tokio::select! {
            stream = one.watch() => stream,
            stream = two.watch() => stream,
        };
        resumes(&stream);
        moves += 1;
    }
    assert!((12..=18).contains(&moves), "{moves} in an hour");
    registry.list_services().await.expect("answers");
    assert_eq!(
        (one.calls().len(), two.calls().len()),
        (1, 0),
        "and others stay where they are"
    );

    stream.confidence = None;
    stream.history = "h".into();
    stream.bookmark(6).await;
    let kept = until(&mut watcher, "fresh", is_fresh).await;
    assert_eq!((ids(&kept).as_str(), kept.unconfirmed), ("ab", 0));
}

/// A replica that is cut off from the store that all of them share says so, for what it could grant would be counted by nobody.
#[tokio::test(start_paused = true)]
async fn heartbeats_leave_a_replica_that_is_cut_off_and_keep_their_lease() {
    let one = Fake::start().await;
    let two = one.replica().await;
    let registrar = to(&[one.url(), two.url()]).register(Registration::new("ticket-svc", "127.0.0.1:7101"));
    registrar.registered(crate::PATIENCE).await.expect("registered");
    one.refuse(Some(store_away()));
    let begin = Instant::now();
    two.until("heartbeats", |calls| renewals(calls) >= 4).await;
    assert!(begin.elapsed() < Duration::from_secs(21), "{:?}", begin.elapsed());
    assert_eq!(renewals(&one.calls()), 1, "it is asked once");
    assert!(matches!(
        registrar.status(),
        RegistrarStatus::Registered { epoch: 1, .. }
    ));
    // Changes go the same way.
    registrar.set_weight(7);
    two.until("the weight", |calls| matches!(calls.last(), Some(Call::Update(_))))
        .await;
    assert_eq!((one.registrations().len(), two.registrations().len()), (1, 0));
    assert_eq!(two.leases(), ["lease-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_lone_registry_that_is_cut_off_is_asked_again_and_again_for_the_same_lease() {
    let fake = Fake::start().await;
    let registrar = to(&[fake.url()]).register(Registration::new("ticket-svc", "127.0.0.1:7101"));
    registrar.registered(crate::PATIENCE).await.expect("registered");
    let mut status = registrar.subscribe();
    // Shorter than the 15 s that the lease lives, so that it is there when the store is.
    fake.refuse(Some(store_away()));
    tokio::time::sleep(Duration::from_secs(12)).await;
    let RegistrarStatus::Retrying { reason, .. } = registrar.status() else {
        panic!("{:?}", registrar.status())
    };
    assert_eq!(reason.reason(), "STORE_AWAY");
    fake.refuse(None);
    soon(
        "registered again",
        status.wait_for(|status| matches!(status, RegistrarStatus::Registered { epoch: 1, .. })),
    )
    .await
    .expect("the registrar lives");

    // Nor does it give the lease up when that must have lapsed: the lease clock of such a registry stands.
    fake.refuse(Some(store_away()));
    let calls = fake.calls().len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(fake.registrations().len(), 1);
    let asked = fake.calls().len() - calls;
    assert!(
        (100..300).contains(&asked),
        "{asked} in ten minutes, of an interval of 5 s"
    );
    drop(registrar);
}

/// A registrar that changed its replica directly after it had registered was told by the next one, which had not heard of it
/// yet, that its lease was unknown: it gave up a good lease and registered anew, and watchers saw its instance REPLACED.
#[tokio::test(start_paused = true)]
async fn a_lease_that_one_replica_does_not_know_is_not_given_up_before_another_has_been_asked() {
    let one = Fake::start().await;
    let two = one.replica().await;
    let registry = to(&[one.url(), two.url()]);
    let registrar = registry.register(Registration::new("ticket-svc", "127.0.0.1:7101"));
    registrar.registered(crate::PATIENCE).await.expect("registered");
    one.script([Fate::Refuse(lease_unknown())]);
    let begin = Instant::now();
    two.until("the second opinion", |calls| renewals(calls) == 1).await;
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
    two.until("heartbeats", |calls| renewals(calls) >= 4).await;
    assert!(matches!(
        registrar.status(),
        RegistrarStatus::Registered { epoch: 1, .. }
    ));
    assert_eq!((one.registrations().len(), two.registrations().len()), (1, 0));
    assert_eq!(renewals(&one.calls()), 1, "it has been shown to be behind");
}

/// The same, and the one that knows the lease has gone: the one that is behind gets the time to hear of it.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_is_asked_twice_when_nobody_else_answers() {
    let one = Fake::start().await;
    let two = one.replica().await;
    let wire = WireCutter::before(one.address).await;
    let registrar = to(&[wire.url(), two.url()]).register(Registration::new("ticket-svc", "127.0.0.1:7101"));
    registrar.registered(crate::PATIENCE).await.expect("registered");
    wire.cut();
    two.script([Fate::Refuse(lease_unknown())]);
    two.until("heartbeats", |calls| renewals(calls) >= 4).await;
    assert!(matches!(
        registrar.status(),
        RegistrarStatus::Registered { epoch: 1, .. }
    ));
    assert_eq!(two.registrations().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_no_replica_knows_is_registered_again() {
    let one = Fake::start().await;
    let two = one.replica().await;
    let registrar = to(&[one.url(), two.url()]).register(Registration::new("ticket-svc", "127.0.0.1:7101"));
    registrar.registered(crate::PATIENCE).await.expect("registered");
    one.until("a heartbeat", |calls| renewals(calls) == 1).await;
    one.forget_leases();
    let begin = Instant::now();
    let mut status = registrar.subscribe();
    soon(
        "a second registration",
        status.wait_for(|status| matches!(status, RegistrarStatus::Registered { epoch: 2, .. })),
    )
    .await
    .expect("the registrar lives");
    let took = begin.elapsed();
    assert!(
        took < Duration::from_secs(12),
        "5 s to the heartbeat, then twice what RetryInfo says: {took:?}"
    );
    assert_eq!(two.calls().len(), 1, "{:?}", two.calls());
}

/// What cannot be cured by asking somebody else is told at once.
#[tokio::test(start_paused = true)]
async fn a_lease_that_was_taken_needs_no_second_opinion() {
    let one = Fake::start().await;
    let two = one.replica().await;
    let registrar = to(&[one.url(), two.url()]).register(Registration::new("ticket-svc", "127.0.0.1:7101"));
    registrar.registered(crate::PATIENCE).await.expect("registered");
    one.script([Fate::Refuse(refusal(Code::FailedPrecondition, "STALE_EPOCH", None))]);
    one.until("a second registration", |_| one.registrations().len() == 2)
        .await;
    assert_eq!(two.calls().len(), 0);
    drop::<Result<(), Error>>(registrar.registered(crate::PATIENCE).await);
}
