//! The follower by itself: what it holds for the next group, for one that it lacks, and for another log.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{
    super::{
        Tuning,
        cluster::{Cluster, Entry},
        follow::{Course, End, Follower},
        pulse::Look,
        shared::Fence,
        value::{self, Head},
        wire::KeyValue,
    },
    fixture::Place,
};
use crate::{
    model::{ReplicaId, Replicas, Revision},
    store::{News, Store as _, StoreError, Verdict, tests::model::batch, tests::suite::Shelf as _},
};

fn replicas() -> Replicas {
    let own = ReplicaId::from_bits(1);
    Replicas {
        own,
        alive: [own].into(),
        elected: false,
    }
}

/// One that has loaded up to a head, with nobody at its etcd: nothing is asked.
fn follower(loaded: Head, etcd: i64) -> (Follower, mpsc::Receiver<News>) {
    let url = "etcd://127.0.0.1:1".parse().expect("an address");
    let cluster = Arc::new(Cluster::new(&url, None).expect("dials nothing"));
    let (tell, news) = mpsc::channel(64);
    let follower = Follower::new(
        cluster,
        Arc::default(),
        Tuning::default(),
        tell,
        Arc::default(),
        replicas(),
        (Fence { head: loaded, etcd }, etcd),
    );
    (follower, news)
}

/// After the commit with this nonce.
fn head(revision: u64, nonce: u64) -> Head {
    Head {
        revision,
        nonce,
        ..Head::default()
    }
}

fn entry(revision: u64, after: u64) -> Entry {
    Entry {
        first: Revision::new(revision),
        nonce: revision,
        after,
        head: head(revision, revision),
        batches: vec![(*batch(revision, 1, false)).clone()],
    }
}

/// That finds this head at etcd's revision.
fn look(head: Head, etcd: i64) -> Look {
    Look {
        head: Some(KeyValue {
            mod_revision: etcd,
            value: value::encode(&head),
            ..KeyValue::default()
        }),
        checkpoint: None,
        sessions: Vec::new(),
    }
}

fn is_another_log<T: std::fmt::Debug>(result: Result<T, End>) -> bool {
    matches!(result, Err(End::Failed(StoreError::Unusable { what, .. })) if what.contains("replaced"))
}

/// A look at the head waits until the follower gets to it, and groups that were committed meanwhile may be taken in before
/// it. It was held for the sign of an older etcd, and under load two replicas ended each other within seconds.
#[tokio::test(start_paused = true)]
async fn a_look_from_before_the_last_group_is_not_an_older_etcd() {
    let (mut follower, _news) = follower(Head::default(), 1);
    let before = Instant::now();
    let look = look(Head::default(), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(follower.take(entry(1, 0), 2, &mut Vec::new()).is_ok());
    assert!(matches!(follower.reached(before, &look).await, Ok(Course::On)));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(is_another_log(follower.reached(Instant::now(), &look).await));
}

/// An older snapshot was restored, or the prefix emptied, and another replica has gone on from there. Revisions alone do not tell:
/// by the time a replica that was away looks again, that log may be as long as its own, or longer.
#[tokio::test(start_paused = true)]
async fn another_log_is_told_by_its_nonces() {
    let known = head(100, 7);
    let with = || follower(known, 500);
    let now = Instant::now;
    // The same revision of another commit; an earlier version writes no nonce, and is believed.
    assert!(is_another_log(with().0.reached(now(), &look(head(100, 8), 500)).await));
    for nonce in [7, 0] {
        assert!(with().0.reached(now(), &look(head(100, nonce), 500)).await.is_ok());
    }
    // A later one that etcd took earlier.
    assert!(is_another_log(with().0.reached(now(), &look(head(120, 9), 480)).await));
    assert!(with().0.reached(now(), &look(head(120, 9), 501)).await.is_ok());
    // What is told already.
    assert!(is_another_log(with().0.take(entry(100, 6), 501, &mut Vec::new())));
    // What follows upon another commit than the one that is known.
    assert!(is_another_log(with().0.take(entry(101, 8), 501, &mut Vec::new())));
    for after in [7, 0] {
        assert!(with().0.take(entry(101, after), 501, &mut Vec::new()).is_ok());
    }
}

/// A head that is ahead at every look is no sign of a dead watch while groups come in: it was opened again every few
/// seconds, which made a replica that was behind stay there.
#[tokio::test(start_paused = true)]
async fn a_watch_that_moves_is_left_alone() {
    let (mut follower, _news) = follower(Head::default(), 1);
    for revision in 1..=10 {
        tokio::time::advance(Duration::from_secs(1)).await;
        let etcd = i64::try_from(revision).expect("small") + 1;
        assert!(follower.take(entry(revision, 0), etcd, &mut Vec::new()).is_ok());
        let ahead = look(head(revision + 5, revision + 5), etcd + 5);
        let course = follower.reached(Instant::now(), &ahead).await;
        assert!(matches!(course, Ok(Course::On)), "{course:?}");
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    let course = follower.reached(Instant::now(), &look(head(15, 15), 17)).await;
    assert!(matches!(course, Ok(Course::Again)), "{course:?}");
}

/// etcd 3.4 loses events of a watch when it compacts at the wrong moment. The replica ended with "out of touch for longer than the
/// history reaches back", and the log had all of it.
#[test]
fn what_the_watch_has_lost_is_read_in_the_log() {
    let Some(place) = Place::shared() else { return };
    let mut store = place.open();
    store.load().expect("loads");
    let cluster = place.cluster();
    let (tell, mut news) = mpsc::channel(64);
    let loaded = (store.shared.fence(), 0);
    let mut follower = Follower::new(
        cluster,
        Arc::default(),
        Tuning::default(),
        tell,
        Arc::default(),
        replicas(),
        loaded,
    );
    let batches: Vec<_> = (1..=4).map(|revision| batch(revision, 1, false)).collect();
    for batch in &batches {
        let verdict = store.commit(&[Arc::clone(batch)], Revision::ZERO).expect("commits");
        assert_eq!(verdict, Verdict::Durable);
    }
    let everything = place.everything().into_iter();
    let mut groups: Vec<_> = everything
        .filter(|kv| kv.key.windows(5).any(|part| part == b"/log/"))
        .collect();
    groups.remove(1);
    let course = place.runtime.block_on(follower.puts(&groups));
    assert!(matches!(course, Ok(Course::Lacks)), "{course:?}");
    let course = place.runtime.block_on(follower.catch_up());
    assert!(matches!(course, Ok(Course::Again)), "{course:?}");
    let mut told = Vec::new();
    while let Ok(News::Batches(batches)) = news.try_recv() {
        told.extend(batches);
    }
    assert_eq!(told, batches);
}
