//! Several stores over one etcd.

use std::sync::Arc;

use super::{
    super::wire::{Operation, TxnRequest},
    fixture::{Listener, Place, eventually, listen},
    proxy::{Passes, Proxy},
};
use crate::{
    catalog::Batch,
    model::Revision,
    store::{
        Etcd, News, Store as _, Verdict,
        tests::{
            model::{Model, batch, large},
            suite::Shelf as _,
        },
    },
};

/// A store that has loaded, and its news.
fn replica(mut store: Etcd) -> (Etcd, Listener) {
    let news = listen(&mut store);
    (store, news)
}

fn commit(store: &mut Etcd, batches: &[Arc<Batch>]) -> Verdict {
    store.commit(batches, Revision::ZERO).expect("commits")
}

/// Group by group, or several at once.
fn expect(news: &mut Listener, expected: &[Arc<Batch>]) {
    let mut found = Vec::new();
    while found.len() < expected.len() {
        found.extend(news.batches());
    }
    assert_eq!(found, expected);
}

#[test]
fn the_slower_of_two_is_overtaken_and_told_by_whom() {
    let Some(place) = Place::shared() else { return };
    let (mut a, mut news_a) = replica(place.open());
    let (mut b, mut news_b) = replica(place.open());
    let theirs = batch(1, 1, false);
    assert_eq!(commit(&mut a, &[Arc::clone(&theirs)]), Verdict::Durable);
    // Whether it has heard of the other or not.
    assert_eq!(commit(&mut b, &[batch(1, 2, false)]), Verdict::Overtaken);
    expect(&mut news_b, &[theirs]);
    let next = batch(2, 2, false);
    assert_eq!(commit(&mut b, &[Arc::clone(&next)]), Verdict::Durable);
    // Leases and all, and nothing of its own.
    expect(&mut news_a, &[next]);
}

/// Watchers at another replica got no trace of a change: it stayed with the replica that had taken the call.
#[test]
fn a_batch_is_told_with_the_trace_of_whoever_asked_for_it() {
    let Some(place) = Place::shared() else { return };
    let (mut a, _news) = replica(place.open());
    let (_b, mut news_b) = replica(place.open());
    let traced = |revision: u64, is_traced: bool| {
        let mut batch = batch(revision, 1, false);
        let parent = format!("00-{revision:032x}-00f067aa0ba902b7-01");
        Arc::make_mut(&mut batch).trace = is_traced.then(|| parent.parse().expect("valid"));
        batch
    };
    let group: Vec<_> = (1..=4).map(|revision| traced(revision, revision % 2 == 0)).collect();
    assert_eq!(commit(&mut a, &group), Verdict::Durable);
    expect(&mut news_b, &group);
    // Of a flood the first ones: the group does not grow without end.
    let flood: Vec<_> = (5..=104).map(|revision| traced(revision, true)).collect();
    assert_eq!(commit(&mut a, &flood), Verdict::Durable);
    let mut expected = flood;
    for batch in &mut expected[64..] {
        Arc::make_mut(batch).trace = None;
    }
    expect(&mut news_b, &expected);
}

#[test]
fn a_group_of_megabytes_is_told_as_a_whole() {
    let Some(place) = Place::shared() else { return };
    let (mut a, _news) = replica(place.open());
    let (_b, mut news_b) = replica(place.open());
    let group: Vec<_> = (1..=4).map(|revision| large(revision, 64)).collect();
    assert_eq!(commit(&mut a, &group), Verdict::Durable);
    expect(&mut news_b, &group);
    assert!(place.keys("part/").len() > 4, "it was too large for one request");
}

/// A group in parts is watched after a checkpoint has trimmed it: its parts were read as of now, were gone, and a healthy replica
/// ended with "a part is missing".
#[test]
fn a_group_of_megabytes_is_told_after_it_was_trimmed() {
    let Some(place) = Place::shared() else { return };
    let (mut a, _news) = replica(place.open());
    let proxy = Proxy::to(place.server().address(), &place.runtime);
    let (_b, mut news_b) = replica(place.over(&proxy.address()));
    proxy.let_pass(Passes::Nothing);
    let group: Vec<_> = (1..=4).map(|revision| large(revision, 64)).collect();
    assert_eq!(commit(&mut a, &group), Verdict::Durable);
    let next = batch(5, 1, false);
    let verdict = a.commit(&[Arc::clone(&next)], Revision::new(5)).expect("commits");
    assert_eq!(verdict, Verdict::Durable);
    let write = super::super::checkpoint::write(place.cluster(), 1 << 19);
    place.runtime.block_on(write).expect("writes");
    assert!(place.keys("part/").is_empty() && place.keys("log/").len() == 1);
    proxy.let_pass(Passes::Everything);
    expect(&mut news_b, &[group, vec![next]].concat());
}

/// A replica that was paused commits before it has heard what others have committed meanwhile, and what would tell it who was
/// first is trimmed already. It ended with "out of touch for longer than the history reaches back".
#[test]
fn the_slower_of_two_is_overtaken_by_what_was_trimmed() {
    let Some(place) = Place::shared() else { return };
    let (mut a, _news) = replica(place.open());
    let mut b = place.open();
    b.load().expect("loads");
    for revision in 1..=5 {
        let next = batch(revision, 1, false);
        let verdict = a.commit(&[next], Revision::new(revision)).expect("commits");
        assert_eq!(verdict, Verdict::Durable);
    }
    let write = super::super::checkpoint::write(place.cluster(), 1 << 19);
    place.runtime.block_on(write).expect("writes");
    assert_eq!(place.keys("log/").len(), 1);
    assert_eq!(commit(&mut b, &[batch(1, 2, false)]), Verdict::Overtaken);
}

#[test]
fn two_that_race_write_one_history() {
    const EACH: usize = 100;
    let Some(place) = Place::shared() else { return };
    let race = |store: Etcd, id: u8| {
        let (mut store, mut news) = replica(store);
        let mut log: Vec<Arc<Batch>> = Vec::new();
        let mut own = 0;
        while own < EACH {
            let next = batch(log.len() as u64 + 1, id, false);
            match commit(&mut store, &[Arc::clone(&next)]) {
                Verdict::Durable => {
                    log.push(next);
                    own += 1;
                }
                Verdict::Overtaken => log.extend(news.batches()),
                Verdict::NoRoom(why) => panic!("{why}"),
            }
        }
        while log.len() < 2 * EACH {
            log.extend(news.batches());
        }
        log
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| race(place.open(), 1));
        let two = scope.spawn(|| race(place.open(), 2));
        (one.join().expect("no panic"), two.join().expect("no panic"))
    });
    assert!(one.iter().map(|batch| batch.revision.get()).eq(1..=2 * EACH as u64));
    assert_eq!(one, two);
    let mut model = Model::default();
    one.iter().for_each(|batch| model.apply(batch));
    assert_eq!(Model::of(&mut place.open()), model);
}

#[test]
fn who_is_there_is_told_first_and_when_it_changes() {
    let Some(place) = Place::shared() else { return };
    let (a, mut news_a) = replica(place.open());
    let News::Replicas(alone) = news_a.next() else {
        panic!("the replicas come first")
    };
    assert!(alone.elected && alone.alive.len() == 1 && alone.alive.contains(&alone.own));

    let (b, mut news_b) = replica(place.open());
    let News::Replicas(second) = news_b.next() else {
        panic!("the replicas come first")
    };
    assert!(!second.elected && second.alive.len() == 2 && second.own != alone.own);
    let both = news_a.replicas(|replicas| replicas.alive.len() == 2);
    assert!(both.elected && both.alive == second.alive);

    // A clean end is known at once; the time to live is for the others.
    drop(a);
    let left = news_b.replicas(|replicas| replicas.alive.len() == 1);
    assert!(left.elected && left.alive.contains(&left.own));
    drop(b);
    assert!(place.keys("session/").is_empty());
}

#[test]
fn a_replica_that_dies_is_missed_when_its_session_lapses() {
    let Some(place) = Place::shared() else { return };
    let (_a, mut news) = replica(place.open());
    let mut other = Place::shared().expect("there is one");
    other.prefix = place.prefix;
    let dying = other.open();
    news.replicas(|replicas| replicas.alive.len() == 2);
    // Its tasks end without a farewell.
    other.runtime.shutdown_background();
    std::mem::forget(dying);
    news.replicas(|replicas| replicas.alive.len() == 1);
}

/// A session can be lost without its replica: by a pause longer than its time to live, or by an operator's hand.
#[test]
fn a_lost_session_is_made_again() {
    let Some(place) = Place::shared() else { return };
    let (_a, mut news) = replica(place.open());
    assert!(matches!(news.next(), News::Replicas(replicas) if replicas.elected));
    let session = place.keys("session/").pop().expect("it has one");
    let cluster = place.cluster();
    let delete = TxnRequest::of(vec![Operation::delete(session.clone(), "")]);
    place.runtime.block_on(cluster.client.txn(delete)).expect("deletes");
    eventually("the session is back", || place.keys("session/") == [session.clone()]);
}

/// A replica that was told "unknown lease" by one that was behind gave up a lease that had just been granted elsewhere.
#[test]
fn who_is_behind_learns_it_before_the_news() {
    let Some(place) = Place::shared() else { return };
    let (mut a, _news) = replica(place.open());
    let (mut b, mut news_b) = replica(place.open());
    let confirm = |store: &mut Etcd, base| store.confirm(Revision::new(base)).expect("answers");
    assert_eq!(confirm(&mut b, 0), Verdict::Durable);
    let theirs = batch(1, 1, false);
    assert_eq!(commit(&mut a, &[Arc::clone(&theirs)]), Verdict::Durable);
    assert_eq!(confirm(&mut b, 0), Verdict::Overtaken);
    expect(&mut news_b, &[theirs]);
    assert_eq!(
        confirm(&mut b, 0),
        Verdict::Overtaken,
        "its driver has not followed yet"
    );
    assert_eq!(confirm(&mut b, 1), Verdict::Durable);
    assert_eq!(confirm(&mut a, 1), Verdict::Durable);
}

/// The end of what a dead replica left was on its way while that one came back and heard its providers: heartbeats write
/// nothing, so nothing was in the way of it, and leases ended that had been renewed all the time.
#[test]
fn nothing_is_ended_of_a_replica_that_is_back() {
    let Some(place) = Place::shared() else { return };
    let (mut a, _news) = replica(place.open());
    eventually("it knows its session", || a.shared.session().is_some());
    let dead = crate::model::ReplicaId::from_bits(7);
    let back = a.cluster.keys.session(dead);
    let end = |store: &mut Etcd, revision: u64| {
        let batches = [batch(revision, 1, false)];
        store
            .commit_if_dead(&batches, Revision::ZERO, &[dead])
            .expect("answers")
    };
    let txn = |operation| {
        let request = super::super::wire::TxnRequest {
            success: vec![operation],
            ..Default::default()
        };
        place
            .runtime
            .block_on(place.cluster().client.txn(request))
            .expect("is done");
    };
    assert_eq!(end(&mut a, 1), Verdict::Durable);
    txn(super::super::wire::Operation::put(back.clone(), ""));
    assert_eq!(end(&mut a, 2), Verdict::Overtaken);
    txn(super::super::wire::Operation::delete(back, ""));
    assert_eq!(end(&mut a, 2), Verdict::Durable);
    // Nor by one that was held for dead itself, for it may have missed that the other was back.
    let own = a.cluster.keys.session(a.replicas.own);
    a.follower = None;
    txn(super::super::wire::Operation::put(own, ""));
    assert_eq!(end(&mut a, 3), Verdict::Overtaken);
}
