//! etcd fails, is slow, loses answers, forgets.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    super::{
        commit::Commit,
        value,
        wire::{Operation, TxnRequest, end_of},
    },
    fixture::{PATIENCE, Place, begin_commit, eventually, listen},
    proxy::{Passes, Proxy},
};
use crate::{
    model::Revision,
    store::{
        Etcd, News, Store as _, StoreError, Verdict,
        tests::{
            model::{Model, batch},
            suite::Shelf as _,
        },
    },
};

/// etcd takes the commit, the answer is lost, and the repetition finds another head than it expects: its own.
#[test]
fn a_commit_whose_answer_was_lost_is_not_made_twice() {
    let Some(place) = Place::shared() else { return };
    let proxy = Proxy::to(place.server().address(), &place.runtime);
    let mut store = place.over(&proxy.address());
    store.load().expect("loads");
    proxy.let_pass(Passes::Requests);
    let commit = begin_commit(store, 1);
    eventually("the commit arrives", || place.keys("log/").len() == 1);
    eventually("its answer is lost", || proxy.has_lost());
    proxy.let_pass(Passes::Everything);
    let (mut store, verdict) = commit.join().expect("no panic");
    assert_eq!(verdict, Verdict::Durable);
    assert_eq!(place.keys("log/").len(), 1);
    // The fence is known all the same.
    assert_eq!(
        store.commit(&[batch(2, 1, false)], Revision::ZERO).expect("commits"),
        Verdict::Durable
    );
    assert_eq!(place.open().load().expect("loads").revision.get(), 2);
}

/// The same, and another replica goes on from what the first try has written before it is repeated.
#[test]
fn a_commit_whose_answer_was_lost_is_known_after_others() {
    let Some(place) = Place::shared() else { return };
    let proxy = Proxy::to(place.server().address(), &place.runtime);
    let mut store = place.over(&proxy.address());
    store.load().expect("loads");
    proxy.let_pass(Passes::Requests);
    let commit = begin_commit(store, 1);
    eventually("the commit arrives", || place.keys("log/").len() == 1);
    proxy.let_pass(Passes::Nothing);
    let mut other = place.open();
    other.load().expect("loads");
    assert_eq!(
        other.commit(&[batch(2, 2, false)], Revision::ZERO).expect("commits"),
        Verdict::Durable
    );
    proxy.let_pass(Passes::Everything);
    let (mut store, verdict) = commit.join().expect("no panic");
    assert_eq!(verdict, Verdict::Durable);
    // But it is not the last one any more.
    assert_eq!(
        store.commit(&[batch(2, 1, false)], Revision::ZERO).expect("answers"),
        Verdict::Overtaken
    );
}

fn goes_away_and_comes_back(place: &mut Place, leave: fn(&mut Place), come: fn(&mut Place)) {
    let mut store = place.open();
    let mut news = listen(&mut store);
    let mut other = place.open();
    other.load().expect("loads");
    assert_eq!(
        store.commit(&[batch(1, 1, false)], Revision::ZERO).expect("commits"),
        Verdict::Durable
    );
    leave(place);
    let pending = begin_commit(store, 2);
    let News::Away { since } = news.until(|news| matches!(news, News::Away { .. })) else {
        unreachable!()
    };
    assert!(since >= Duration::from_secs(3), "{since:?}");
    assert!(!pending.is_finished(), "nobody knows what became of it");
    come(place);
    let (_store, verdict) = pending.join().expect("no panic");
    assert_eq!(verdict, Verdict::Durable);
    news.until(|news| matches!(news, News::Back));
    // It follows again.
    let mut model = Model::of(&mut other);
    let next = batch(3, 3, false);
    assert_eq!(
        other.commit(&[Arc::clone(&next)], Revision::ZERO).expect("commits"),
        Verdict::Durable
    );
    model.apply(&next);
    assert_eq!(news.batches(), [next]);
    assert_eq!(Model::of(&mut place.open()), model);
}

#[test]
fn etcd_is_killed_and_started_again() {
    let Some(mut place) = Place::alone() else { return };
    goes_away_and_comes_back(
        &mut place,
        |place| place.own_server().kill(),
        |place| place.own_server().restart(),
    );
}

#[test]
fn etcd_is_paused() {
    let Some(mut place) = Place::alone() else { return };
    goes_away_and_comes_back(
        &mut place,
        |place| place.server().pause(),
        |place| place.server().resume(),
    );
}

#[test]
fn a_member_that_says_nothing_is_passed_over() {
    let Some(place) = Place::shared() else { return };
    // Connections wait in its backlog for ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().map(|address| (address, silent)).expect("bound");
    let members = format!("{},{}", silent.0, place.server().address());
    let mut store = place.over(&members);
    store.load().expect("loads");
    assert_eq!(
        store.commit(&[batch(1, 1, false)], Revision::ZERO).expect("commits"),
        Verdict::Durable
    );
}

#[test]
fn an_etcd_that_is_not_there_is_said_so() {
    let Some(place) = Place::shared() else { return };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closed.local_addr().expect("bound").to_string();
    drop(closed);
    let url = format!("etcd://root:secret@{address}").parse().expect("an address");
    let error = Etcd::open(&url, None, place.runtime.handle(), CancellationToken::new()).expect_err("nobody there");
    let text = error.to_string();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{text}");
    assert!(
        text.contains(&address) && text.contains("--store") && !text.contains("secret"),
        "{text}"
    );
}

/// A registry that was asked to stop must not wait for an etcd that may never come back.
#[test]
fn a_registry_that_stops_does_not_wait_for_ever() {
    let Some(place) = Place::shared() else { return };
    let proxy = Proxy::to(place.server().address(), &place.runtime);
    let stop = CancellationToken::new();
    let url = place.url(&proxy.address());
    let mut store = Etcd::open(&url, None, place.runtime.handle(), stop.clone()).expect("opens");
    store.load().expect("loads");
    proxy.let_pass(Passes::Nothing);
    stop.cancel();
    let error = store
        .commit(&[batch(1, 1, false)], Revision::ZERO)
        .expect_err("etcd is away");
    assert!(error.to_string().contains("stops"), "{error}");
}

/// etcd compacts its own history by the clock, whoever still needs it. The log is no part of that history.
#[test]
fn what_etcd_has_compacted_is_read_in_the_log() {
    let Some(place) = Place::shared() else { return };
    let proxy = Proxy::to(place.server().address(), &place.runtime);
    let mut behind = place.over(&proxy.address());
    let mut news = listen(&mut behind);
    proxy.let_pass(Passes::Nothing);
    let mut other = place.open();
    other.load().expect("loads");
    let batches: Vec<_> = (1..=20).map(|revision| batch(revision, 1, false)).collect();
    for batch in &batches {
        assert_eq!(
            other.commit(&[Arc::clone(batch)], Revision::ZERO).expect("commits"),
            Verdict::Durable
        );
    }
    let cluster = place.cluster();
    let now = other.shared.fence().etcd;
    place.runtime.block_on(cluster.client.compact(now)).expect("compacts");
    proxy.let_pass(Passes::Everything);
    assert_eq!(news.batches(), batches);
    // And its fence is right.
    assert_eq!(
        behind.commit(&[batch(21, 1, false)], Revision::ZERO).expect("commits"),
        Verdict::Durable
    );
}

/// What is neither watched nor in the log any more cannot be told: guessing at it would be worse than a restart.
#[test]
fn a_replica_whose_log_was_trimmed_is_told_to_restart() {
    let Some(place) = Place::shared() else { return };
    let proxy = Proxy::to(place.server().address(), &place.runtime);
    let mut behind = place.over(&proxy.address());
    let mut news = listen(&mut behind);
    proxy.let_pass(Passes::Nothing);
    let mut other = place.open();
    other.load().expect("loads");
    for revision in 1..=20 {
        let compacted = Revision::new(revision);
        assert_eq!(
            other.commit(&[batch(revision, 1, false)], compacted).expect("commits"),
            Verdict::Durable
        );
    }
    let cluster = place.cluster();
    let now = place.runtime.block_on(async {
        super::super::checkpoint::write(Arc::clone(&cluster), 1024)
            .await
            .expect("a checkpoint");
        let now = cluster
            .client
            .txn(TxnRequest::default())
            .await
            .expect("answers")
            .revision();
        cluster.client.compact(now).await.expect("compacts");
        now
    });
    assert!(now > 20 && place.keys("log/").len() == 1);
    proxy.let_pass(Passes::Everything);
    let begun = Instant::now();
    let error = loop {
        assert!(begun.elapsed() < PATIENCE);
        if let News::Failed(error) = news.next() {
            break error;
        }
    };
    assert!(error.to_string().contains("restart"), "{error}");
    // A restart is all that it takes.
    assert_eq!(place.open().load().expect("loads").revision.get(), 20);
}

#[test]
fn an_emptied_etcd_is_noticed() {
    let Some(place) = Place::shared() else { return };
    let mut store = place.open();
    let mut news = listen(&mut store);
    assert_eq!(
        store.commit(&[batch(1, 1, false)], Revision::ZERO).expect("commits"),
        Verdict::Durable
    );
    let cluster = place.cluster();
    let delete = TxnRequest::of(vec![Operation::delete(cluster.keys.head(), "")]);
    place.runtime.block_on(cluster.client.txn(delete)).expect("deletes");
    let begun = Instant::now();
    while !matches!(news.next(), News::Failed(StoreError::Unusable { .. })) {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(matches!(
        store.commit(&[batch(2, 1, false)], Revision::ZERO),
        Err(StoreError::Unusable { .. })
    ));
}

/// A replica that is away while etcd is emptied and another one goes on comes back to a log that has its revision, or a later one.
/// It passed over what it held for known, and would have gone on with the next.
#[test]
fn a_log_that_begins_anew_is_not_followed() {
    for later in [3, 5, 8] {
        let Some(place) = Place::shared() else { return };
        let proxy = Proxy::to(place.server().address(), &place.runtime);
        let mut store = place.over(&proxy.address());
        let mut news = listen(&mut store);
        let fill = |store: &mut Etcd, to| {
            for revision in 1..=to {
                let verdict = store.commit(&[batch(revision, 1, false)], Revision::ZERO);
                assert_eq!(verdict.expect("commits"), Verdict::Durable);
            }
        };
        fill(&mut store, 5);
        proxy.let_pass(Passes::Nothing);
        let cluster = place.cluster();
        let all = format!("{}/", place.prefix);
        let delete = TxnRequest::of(vec![Operation::delete(all.clone(), end_of(&all))]);
        place.runtime.block_on(cluster.client.txn(delete)).expect("deletes");
        let mut other = place.open();
        other.load().expect("loads");
        fill(&mut other, later);
        proxy.let_pass(Passes::Everything);
        let begun = Instant::now();
        loop {
            match news.next() {
                News::Failed(error) => {
                    assert!(error.to_string().contains("replaced"), "{later}: {error}");
                    break;
                }
                News::Batches(batches) => panic!("{later}: {batches:?}"),
                _ => assert!(begun.elapsed() < PATIENCE),
            }
        }
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let Some(place) = Place::shared() else { return };
    place.open().load().expect("loads");
    let cluster = place.cluster();
    let meta = value::Meta {
        format: value::FORMAT + 1,
        history_id: 1,
    };
    let put = TxnRequest::of(vec![Operation::put(cluster.keys.meta(), value::encode(&meta))]);
    place.runtime.block_on(cluster.client.txn(put)).expect("puts");
    let error = place.open().load().expect_err("newer");
    assert!(error.to_string().contains("format 2"), "{error}");
}

/// A try of which nobody knows whether it arrived, and that arrives after the commit was given up for lack of room: its group
/// is in the log under our own name, and must be told as news or the replica would miss a revision.
#[test]
fn a_commit_that_was_given_up_and_arrives_late_is_news() {
    let Some(place) = Place::shared() else { return };
    let mut store = place.open();
    let mut news = listen(&mut store);
    let nonce = 7;
    store.shared.pending(nonce);
    assert!(store.shared.forget(nonce));
    let stop = CancellationToken::new();
    let late = Commit {
        cluster: &store.cluster,
        // Another one, as after the verdict.
        shared: &Default::default(),
        own: store.replicas.own,
        stop: &stop,
        fence: store.shared.fence(),
        first: Revision::new(1),
        last: Revision::new(1),
        compacted: Revision::ZERO,
        nonce,
        dead: None,
        part_bytes: 1 << 19,
    };
    let group = [batch(1, 1, false)];
    let verdict = place
        .runtime
        .block_on(late.run(crate::store::record::encode_group(&group), Vec::new()));
    assert_eq!(verdict.expect("commits"), Verdict::Durable);
    assert_eq!(news.batches(), group);
}

/// The same with a group in parts, which were taken away when it was given up: it must not count, or no replica could ever
/// load the log again.
#[test]
fn a_commit_in_parts_that_was_given_up_and_arrives_late_is_nothing() {
    let Some(place) = Place::shared() else { return };
    let mut store = place.open();
    store.load().expect("loads");
    let stop = CancellationToken::new();
    let commit = Commit {
        cluster: &store.cluster,
        shared: &store.shared,
        own: store.replicas.own,
        stop: &stop,
        fence: store.shared.fence(),
        first: Revision::new(1),
        last: Revision::new(1),
        compacted: Revision::ZERO,
        nonce: 7,
        dead: None,
        part_bytes: 16,
    };
    let group = crate::store::record::encode_group(&[batch(1, 1, false)]);
    place.runtime.block_on(async {
        let parts = commit.stage(group).await.expect("no error").expect("there is room");
        let head = value::Head {
            revision: 1,
            ..value::Head::default()
        };
        let group = value::Group {
            nonce: 7,
            head: Some(head),
            parts,
            ..value::Group::default()
        };
        assert!(parts > 1);
        let late = commit.request(&group, head);
        commit.unstage().await;
        let answer = store.cluster.client.txn(late).await.expect("answers");
        assert!(!answer.succeeded);
    });
    assert_eq!(place.open().load().expect("loads").revision, Revision::ZERO);
}
