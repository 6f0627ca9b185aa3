//! A set of instances survives what its registry goes through.

use std::{sync::Arc, time::Duration};

use proto::registry::v1;
use registry_client::{
    Discovery, Error, Instance, RegistrarStatus, Registration, Registry, Snapshot, SnapshotState, Watcher,
};
use tokio::{sync::watch, time::Instant};
use tonic::{Code, Status};

use crate::{
    fake::{Call, Fake, Fate, refusal},
    poll, soon,
    wire_cutter::WireCutter,
};

mod acks;

fn tickets(urls: &[String]) -> Discovery {
    Registry::connect(urls)
        .expect("valid endpoints")
        .prefer_first()
        .discover("ticket-svc")
}

fn ids(snapshot: &Snapshot) -> String {
    snapshot.instances.iter().map(|instance| instance.id.as_str()).collect()
}

async fn until(watcher: &mut Watcher, what: &str, condition: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
    soon(what, watcher.wait_for(condition))
        .await
        .expect("the watcher lives")
}

fn is_stale(snapshot: &Snapshot) -> bool {
    matches!(snapshot.state, SnapshotState::Stale { .. })
}

fn is_fresh(snapshot: &Snapshot) -> bool {
    snapshot.state == SnapshotState::Fresh
}

/// A watcher that knows `ab` at revision 5.
async fn watching(fake: &mut Fake, urls: &[String]) -> (Watcher, crate::fake::OpenWatch) {
    let mut watcher = tickets(urls).watch();
    let stream = fake.watch().await;
    stream.snapshot(5, &["a", "b"]).await;
    until(&mut watcher, "a snapshot", |s| is_fresh(s) && ids(s) == "ab").await;
    (watcher, stream)
}

async fn watching_directly(fake: &mut Fake) -> (Watcher, crate::fake::OpenWatch) {
    let url = fake.url();
    watching(fake, &[url]).await
}

#[tokio::test(start_paused = true)]
async fn it_follows_the_registry() {
    let mut fake = Fake::start().await;
    let mut watcher = tickets(&[fake.url()]).watch();
    assert_eq!(*watcher.borrow(), Snapshot::connecting());

    let stream = fake.watch().await;
    assert_eq!(
        stream.request,
        v1::WatchRequest {
            namespace: "default".into(),
            service: "ticket-svc".into(),
            selector: None,
            start_after_revision: 0,
            history_id: String::new()
        }
    );
    stream.snapshot(5, &["a", "b"]).await;
    until(&mut watcher, "a snapshot", |s| ids(s) == "ab" && s.revision == 5).await;
    stream.put(6, "c").await;
    until(&mut watcher, "a put", |s| ids(s) == "abc").await;
    stream.removed(7, "a", v1::RemovalReason::Expired).await;
    let snapshot = until(&mut watcher, "a removal", |s| ids(s) == "bc").await;
    assert!(is_fresh(&snapshot));
    assert_eq!(snapshot.callable().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_selection_is_the_registrys_to_make() {
    let mut fake = Fake::start().await;
    let registry = Registry::connect([fake.url()]).expect("valid").with_namespace("blue");
    let selector = registry_client::Selector {
        zone: "eu-1a".into(),
        ..registry_client::Selector::default()
    };
    let _watcher = registry.discover("ticket-svc").with_selector(selector).watch();
    let stream = fake.watch().await;
    assert_eq!(stream.request.namespace, "blue");
    assert_eq!(stream.request.selector.map(|s| s.zone).as_deref(), Some("eu-1a"));
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_keeps_the_last_good_set_and_resumes() {
    let mut fake = Fake::start().await;
    let wire = WireCutter::before(fake.address).await;
    let (mut watcher, stream) = watching(&mut fake, &[wire.url()]).await;
    stream.bookmark(9).await;
    let bookmarked = watcher.subscribe();
    poll("the bookmark", || bookmarked.borrow().revision == 9).await;

    wire.cut();
    let snapshot = until(&mut watcher, "stale", is_stale).await;
    assert_eq!((ids(&snapshot).as_str(), snapshot.revision), ("ab", 9));
    // An hour of attempts, not one leap: the back-off is to grow.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(ids(&watcher.borrow()), "ab");

    wire.mend();
    let stream = fake.watch().await;
    assert_eq!(stream.request.start_after_revision, 9);
    stream.put(10, "c").await;
    until(&mut watcher, "fresh again", |s| is_fresh(s) && ids(s) == "abc").await;

    // The back-off of the long outage is forgotten.
    stream.end();
    let begin = Instant::now();
    let _stream = fake.watch().await;
    assert!(begin.elapsed() < Duration::from_millis(250), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_resumed_watch_without_news_is_fresh_after_a_second() {
    let mut fake = Fake::start().await;
    let (mut watcher, stream) = watching_directly(&mut fake).await;
    stream.end();
    let stale = until(&mut watcher, "stale", is_stale).await;
    assert!(
        matches!(&stale.state, SnapshotState::Stale { reason, .. } if reason.contains("ended the watch")),
        "{stale:?}"
    );
    let _stream = fake.watch().await;
    let begin = Instant::now();
    until(&mut watcher, "fresh", is_fresh).await;
    let took = begin.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_other_endpoint_is_asked_to_resume() {
    let (mut one, mut two) = (Fake::start().await, Fake::start().await);
    let wire = WireCutter::before(one.address).await;
    let (mut watcher, _stream) = watching(&mut one, &[wire.url(), two.url()]).await;
    wire.cut();
    let stream = two.watch().await;
    assert_eq!(stream.request.start_after_revision, 5);
    stream.removed(6, "b", v1::RemovalReason::Drained).await;
    until(&mut watcher, "the removal", |s| is_fresh(s) && ids(s) == "a").await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_away_from_the_beginning_is_passed_over() {
    let (one, mut two) = (Fake::start().await, Fake::start().await);
    let wire = WireCutter::before(one.address).await;
    wire.cut();
    let mut watcher = tickets(&[wire.url(), two.url()]).watch();
    let stream = two.watch().await;
    stream.snapshot(3, &["a"]).await;
    until(&mut watcher, "a snapshot", |s| is_fresh(s) && ids(s) == "a").await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_says_why_nothing_is_known() {
    let fake = Fake::start().await;
    let wire = WireCutter::before(fake.address).await;
    wire.cut();
    let mut watcher = tickets(&[wire.url()]).watch();
    let snapshot = until(&mut watcher, "a reason", is_stale).await;
    let SnapshotState::Stale { reason, .. } = &snapshot.state else {
        panic!("{snapshot:?}")
    };
    assert!(reason.contains(&wire.url()), "{reason}");
    assert!(!snapshot.is_known());
}

/// A half-open connection: nothing but the HTTP/2 PING can tell it from a registry without news.
#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_noticed() {
    let (mut one, mut two) = (Fake::start().await, Fake::start().await);
    let wire = WireCutter::before(one.address).await;
    let (mut watcher, _stream) = watching(&mut one, &[wire.url(), two.url()]).await;
    wire.freeze();
    let begin = Instant::now();
    until(&mut watcher, "stale", is_stale).await;
    let took = begin.elapsed();
    assert!(
        took < Duration::from_secs(14),
        "10 s to the PING, 3 s for its answer: {took:?}"
    );
    assert_eq!(two.watch().await.request.start_after_revision, 5);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_never_tells_its_snapshot_is_given_up() {
    let (mut one, mut two) = (Fake::start().await, Fake::start().await);
    let mut watcher = tickets(&[one.url(), two.url()]).watch();
    let mute = one.watch().await;
    let begin = Instant::now();
    let stream = two.watch().await;
    assert!((5..7).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    mute.abandoned().await;
    stream.snapshot(1, &["a"]).await;
    until(&mut watcher, "a snapshot", |s| ids(s) == "a").await;
}

/// Nothing of a snapshot counts before its last part, and while parts come the registry is not mute.
#[tokio::test(start_paused = true)]
async fn a_snapshot_in_parts_counts_when_it_is_complete() {
    let mut fake = Fake::start().await;
    let mut watcher = tickets(&[fake.url()]).watch();
    let stream = fake.watch().await;
    for id in ["a", "b", "c"] {
        stream.part(7, &[id], true).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert!(watcher.borrow().instances.is_empty());
    stream.part(7, &["d"], false).await;
    let snapshot = until(&mut watcher, "all of it", is_fresh).await;
    assert_eq!((ids(&snapshot).as_str(), snapshot.revision), ("abcd", 7));

    stream.part(9, &["e"], true).await;
    stream.end();
    let stream = fake.watch().await;
    assert_eq!(
        stream.request.start_after_revision, 7,
        "from before the one that broke off"
    );
    stream.bookmark(9).await;
    let snapshot = until(&mut watcher, "fresh again", |s| is_fresh(s) && s.revision == 9).await;
    assert_eq!(ids(&snapshot), "abcd");
}

/// Only a watch from nothing owed its snapshot: one that resumed, was told a part of a snapshot and then nothing more, was waited
/// for until the connection ended. And a second after it had been opened its old set was called fresh.
#[tokio::test(start_paused = true)]
async fn a_resumed_watch_that_falls_silent_within_a_snapshot_is_given_up() {
    let mut fake = Fake::start().await;
    let (mut watcher, stream) = watching_directly(&mut fake).await;
    stream.end();
    until(&mut watcher, "stale", is_stale).await;
    let stream = fake.watch().await;
    stream.part(9, &["a"], true).await;
    let begin = Instant::now();
    stream.abandoned().await;
    assert!((5..7).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert!(is_stale(&watcher.borrow()));
    let stream = fake.watch().await;
    assert_eq!(stream.request.start_after_revision, 5);
    stream.part(9, &["a"], true).await;
    stream.part(9, &["c"], false).await;
    until(&mut watcher, "all of it", |s| is_fresh(s) && ids(s) == "ac").await;
}

/// The bound was 5 s at every attempt: a snapshot that took longer over a slow link was cut off in its middle, for ever.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_takes_long_arrives_in_the_end() {
    const NEEDS: Duration = Duration::from_secs(31);
    let mut fake = Fake::start().await;
    let mut watcher = tickets(&[fake.url()]).watch();
    let mut attempts = 1;
    let stream = loop {
        let stream = fake.watch().await;
        match tokio::time::timeout(NEEDS, stream.abandoned()).await {
            Ok(()) => attempts += 1,
            Err(_) => break stream,
        }
    };
    stream.snapshot(1, &["a"]).await;
    until(&mut watcher, "a snapshot", |s| is_fresh(s) && ids(s) == "a").await;
    assert_eq!(attempts, 4, "5 s, 10 s, 20 s, 40 s");
}

/// tonic says OUT_OF_RANGE of a message beyond the limit, as the registry does of a revision that it does not know: the watcher
/// took its registry for another one, and asked for the same snapshot again and again.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_too_large_is_named_so_and_not_asked_for_in_a_hurry() {
    let mut fake = Fake::start().await;
    let (mut watcher, mut stream) = watching_directly(&mut fake).await;
    let mut huge = crate::fake::instance("c");
    huge.version = "x".repeat(65 << 20);
    let huge = v1::watch_response::Change::Snapshot(v1::Snapshot {
        instances: vec![huge],
        cause: v1::snapshot::Cause::Coalesced.into(),
        more: false,
    });
    let mut pauses = Vec::new();
    for _ in 0..3 {
        stream.send(9, huge.clone()).await;
        let stale = until(&mut watcher, "stale", is_stale).await;
        assert!(
            matches!(&stale.state, SnapshotState::Stale { reason, .. }
                if reason.contains("too large") && reason.contains("limit is: 67108864 bytes")),
            "{:?}",
            stale.state
        );
        assert_eq!((ids(&stale).as_str(), stale.revision, stale.unconfirmed), ("ab", 5, 0));
        let begin = Instant::now();
        stream = fake.watch().await;
        pauses.push(begin.elapsed());
        assert_eq!(stream.request.start_after_revision, 5);
        until(&mut watcher, "fresh", is_fresh).await;
    }
    let seconds = Duration::from_secs(9)..Duration::from_secs(16);
    assert!(pauses.iter().all(|pause| seconds.contains(pause)), "{pauses:?}");
    // It was ten seconds for everybody, who thus asked together for what is largest.
    let together = Duration::from_millis(10_020);
    assert!(pauses.iter().any(|pause| *pause > together), "{pauses:?}");
}

/// A registry that came back on an empty disk used to be, in other systems, an empty list for every consumer.
#[tokio::test(start_paused = true)]
async fn a_registry_that_lost_its_state_empties_nothing() {
    let mut fake = Fake::start().await;
    let (mut watcher, stream) = watching_directly(&mut fake).await;
    stream.fail(Status::unavailable("going down")).await;

    let stream = fake.watch().await;
    assert_eq!(stream.request.start_after_revision, 5);
    stream.fail(refusal(Code::OutOfRange, "REVISION_IN_FUTURE", None)).await;

    let stream = fake.watch().await;
    assert_eq!(stream.request.start_after_revision, 0);
    stream.snapshot(1, &[]).await;
    let kept = until(&mut watcher, "fresh again", is_fresh).await;
    assert_eq!((ids(&kept).as_str(), kept.unconfirmed, kept.revision), ("ab", 2, 1));

    stream.put(2, "b").await;
    until(&mut watcher, "one is back", |s| s.unconfirmed == 1).await;
    let begin = Instant::now();
    let left = until(&mut watcher, "the end of the grace", |s| s.unconfirmed == 0).await;
    assert_eq!(ids(&left), "b");
    let took = begin.elapsed();
    assert!((29..31).contains(&took.as_secs()), "{took:?}");
}

/// The same, but found again only when the new history had grown beyond the old revision: the watch resumed as if nothing had
/// happened, and showed for ever what the new registry had never known.
#[tokio::test(start_paused = true)]
async fn a_registry_that_lost_its_state_and_grew_on_is_not_taken_for_the_old_one() {
    let mut fake = Fake::start().await;
    let mut watcher = tickets(&[fake.url()]).watch();
    let mut stream = fake.watch().await;
    assert_eq!(stream.request.history_id, "");
    stream.history = "first".into();
    stream.snapshot(5, &["a", "b"]).await;
    until(&mut watcher, "a snapshot", |s| ids(s) == "ab").await;
    stream.end();

    let mut stream = fake.watch().await;
    let request = &stream.request;
    assert_eq!((request.start_after_revision, &*request.history_id), (5, "first"));
    stream.history = "second".into();
    stream
        .snapshot_because(v1::snapshot::Cause::HistoryChanged, 70, &["b", "c"])
        .await;
    let kept = until(&mut watcher, "fresh again", |s| is_fresh(s) && s.revision == 70).await;
    assert_eq!((ids(&kept).as_str(), kept.unconfirmed), ("abc", 1));
    stream.end();

    let stream = fake.watch().await;
    let request = &stream.request;
    assert_eq!((request.start_after_revision, &*request.history_id), (70, "second"));
    let left = until(&mut watcher, "the end of the grace", |s| s.unconfirmed == 0).await;
    assert_eq!(ids(&left), "bc");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_goes_over_to_another_history_begins_anew() {
    let mut fake = Fake::start().await;
    let mut watcher = tickets(&[fake.url()]).watch();
    let mut stream = fake.watch().await;
    stream.history = "first".into();
    stream.snapshot(5, &["a"]).await;
    stream.history = "second".into();
    stream.removed(6, "a", v1::RemovalReason::Expired).await;
    let stale = until(&mut watcher, "stale", is_stale).await;
    assert_eq!((ids(&stale).as_str(), stale.revision), ("a", 5));
    let stream = fake.watch().await;
    let request = &stream.request;
    assert_eq!((request.start_after_revision, &*request.history_id), (0, ""));
}

#[tokio::test(start_paused = true)]
async fn the_reason_to_break_is_not_told_twice() {
    let fake = Fake::start().await;
    let wire = WireCutter::before(fake.address).await;
    wire.cut();
    let mut watcher = tickets(&[wire.url()]).watch();
    until(&mut watcher, "stale", is_stale).await;
    watcher.borrow_and_update();
    let changed = tokio::time::timeout(Duration::from_secs(300), watcher.changed()).await;
    assert!(
        changed.is_err(),
        "an hour of attempts is one outage: {:?}",
        watcher.borrow()
    );
}

/// All calls of a handle shared one connection, of which a server gives 100 streams, and a request that waits for a stream
/// keeps all others waiting: a gateway that watched its hundredth service lost its own registration. Here with a server that
/// gives three.
#[tokio::test(start_paused = true)]
async fn watches_that_fill_a_connection_silence_neither_calls_nor_each_other() {
    let mut fake = Fake::start_with_streams(3).await;
    let registry = Registry::connect([fake.url()]).expect("valid");
    let registrar = registry.register(Registration::new("gateway", "127.0.0.1:8080"));
    registrar.registered(crate::PATIENCE).await.expect("registered");

    let mut watchers: Vec<Watcher> = (0..8)
        .map(|n| registry.discover(format!("service-{n}")).watch())
        .collect();
    let mut streams = Vec::new();
    for n in 1..=8 {
        let stream = fake.watch().await;
        stream.snapshot(n, &["a"]).await;
        streams.push(stream);
    }
    for watcher in &mut watchers {
        until(watcher, "a snapshot", |s| is_fresh(s) && ids(s) == "a").await;
    }
    let calls = fake.calls().len();
    fake.until("heartbeats", |all| all.len() > calls + 3).await;
    registry.list_services().await.expect("answers at once");
    assert!(matches!(
        registrar.status(),
        RegistrarStatus::Registered { epoch: 1, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn more_watches_than_a_connection_has_streams_are_open_at_once() {
    let mut fake = Fake::start().await;
    let registry = Registry::connect([fake.url()]).expect("valid");
    let begin = Instant::now();
    let _watchers: Vec<Watcher> = (0..230)
        .map(|n| registry.discover(format!("service-{n}")).watch())
        .collect();
    let mut streams = Vec::new();
    for _ in 0..230 {
        streams.push(fake.watch().await);
    }
    registry.list_services().await.expect("answers");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_watch_ends_when_nobody_looks() {
    let mut fake = Fake::start().await;
    let (watcher, stream) = watching_directly(&mut fake).await;
    let receiver = watcher.subscribe();
    drop(watcher);
    stream.put(6, "c").await;
    poll("a receiver keeps the watch", || ids(&receiver.borrow()) == "abc").await;
    drop(receiver);
    stream.abandoned().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(fake.no_watch_waits());
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_it_for_all() {
    let mut fake = Fake::start().await;
    let (watcher, stream) = watching_directly(&mut fake).await;
    let mut receiver = watcher.subscribe();
    watcher.stop().await;
    stream.abandoned().await;
    receiver.borrow_and_update();
    assert!(receiver.changed().await.is_err());
}

#[tokio::test]
async fn snapshots_can_be_fed_by_hand() {
    let (feed, snapshots) = watch::channel(Arc::new(Snapshot::connecting()));
    let mut watcher = Discovery::fed_by("ticket-svc", snapshots).watch();
    let instance = Instance::new("ticket-svc", "a", "127.0.0.1:7101");
    feed.send_replace(Arc::new(Snapshot::fresh(1, [instance])));
    watcher.changed().await.expect("the feed lives");
    assert_eq!(ids(&watcher.borrow_and_update()), "a");
    drop(feed);
    assert_eq!(watcher.changed().await, Err(Error::Closed));
}
