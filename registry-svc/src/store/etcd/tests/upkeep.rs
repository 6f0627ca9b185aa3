//! Checkpoints and trimming: etcd holds the state and the history, and not all that ever was.

use std::{sync::Arc, time::Duration};

use super::{
    super::cluster::Cluster,
    fixture::{Listener, Place, eventually},
    proxy::{Passes, Proxy},
};
use crate::{
    model::Revision,
    store::{
        Store as _, Verdict,
        tests::{
            model::{Model, batch, large},
            suite::Shelf as _,
        },
    },
};

#[test]
fn a_checkpoint_changes_nothing_but_the_log() {
    let Some(place) = Place::shared() else { return };
    let mut model = Model::default();
    let mut store = place.open();
    store.load().expect("loads");
    let cluster = place.cluster();
    let mut revision = 0;
    for round in 0..4_u64 {
        for n in 0..25 {
            revision += 1;
            // Comes, changes and leaves in one round, or in a later one.
            let next = match n {
                7 => large(revision, 3),
                _ => batch(revision, (n * 7 + u8::try_from(round).expect("small")) % 40, n % 3 == 1),
            };
            model.apply(&next);
            let compacted = Revision::new(revision.saturating_sub(10));
            model.compact(compacted);
            assert_eq!(store.commit(&[next], compacted).expect("commits"), Verdict::Durable);
        }
        // Of chunks that hold a few records each.
        let write = super::super::checkpoint::write(Arc::clone(&cluster), 700);
        place.runtime.block_on(write).expect("writes");
        assert!(place.keys("checkpoint/at/").len() > 3, "several chunks");
        assert_eq!(place.keys("log/").len(), 11, "the history, and the group before it");
        assert_eq!(Model::of(&mut place.open()), model, "round {round}");
    }
}

#[test]
fn parts_go_with_their_groups_and_with_those_that_were_overtaken() {
    let Some(place) = Place::shared() else { return };
    let mut store = place.open();
    store.load().expect("loads");
    let mut model = Model::default();
    let first = large(1, 64);
    model.apply(&first);
    assert_eq!(
        store.commit(&[first], Revision::ZERO).expect("commits"),
        Verdict::Durable
    );
    assert!(!place.keys("part/").is_empty());
    for revision in 2..=3 {
        let next = batch(revision, 2, false);
        model.apply(&next);
        model.compact(Revision::new(revision));
        assert_eq!(
            store.commit(&[next], Revision::new(revision)).expect("commits"),
            Verdict::Durable
        );
    }
    let write = super::super::checkpoint::write(place.cluster(), 1 << 19);
    place.runtime.block_on(write).expect("writes");
    assert!(place.keys("part/").is_empty());
    assert_eq!(Model::of(&mut place.open()), model);
}

#[test]
fn only_one_writes_and_what_is_left_behind_is_swept() {
    let Some(place) = Place::shared() else { return };
    let mut store = place.open();
    store.load().expect("loads");
    let group: Vec<_> = (1..=30)
        .map(|n| batch(n, u8::try_from(n).expect("small"), false))
        .collect();
    assert_eq!(store.commit(&group, Revision::ZERO).expect("commits"), Verdict::Durable);
    let cluster = place.cluster();
    let results = place.runtime.block_on(async {
        let write = || tokio::spawn(super::super::checkpoint::write(Arc::clone(&cluster), 64));
        let all = [write(), write(), write(), write()];
        let mut results = Vec::new();
        for one in all {
            results.push(one.await.expect("no panic").is_ok());
        }
        results
    });
    assert!(results.contains(&true), "the last to begin cannot be stopped");
    let folders = || {
        let keys = place.keys("checkpoint/at/");
        let folders: std::collections::BTreeSet<_> = keys
            .iter()
            .filter_map(|key| key.rsplit_once('/'))
            .map(|(f, _)| f.to_owned())
            .collect();
        folders.len()
    };
    place
        .runtime
        .block_on(super::super::checkpoint::write(Arc::clone(&cluster), 64))
        .expect("writes");
    assert_eq!(folders(), 1);
    assert_eq!(place.open().load().expect("loads").instances.len(), 30);
}

/// A million instances are some 600 writes. One that was not answered made all of them vain, and the next try began at
/// once: etcd's disk filled up, with what was written so far as often as that.
#[test]
fn a_checkpoint_goes_on_after_etcd_was_away() {
    let Some(place) = Place::shared() else { return };
    let mut store = place.open();
    store.load().expect("loads");
    let group: Vec<_> = (1..=200)
        .map(|n| batch(n, u8::try_from(n).expect("small"), false))
        .collect();
    assert_eq!(store.commit(&group, Revision::ZERO).expect("commits"), Verdict::Durable);
    let proxy = Proxy::to(place.server().address(), &place.runtime);
    let cluster = {
        let _within = place.runtime.enter();
        Arc::new(Cluster::new(&place.url(&proxy.address()), None).expect("an address"))
    };
    let writing = place.runtime.spawn(super::super::checkpoint::write(cluster, 1));
    let chunks = || place.keys("checkpoint/at/").len();
    eventually("it has begun", || chunks() > 0);
    proxy.let_pass(Passes::Nothing);
    let begun = chunks();
    eventually("it tries again", || proxy.refused() > 0 || writing.is_finished());
    assert!(!writing.is_finished(), "cut off before its end, at {begun} chunks");
    proxy.let_pass(Passes::Everything);
    place.runtime.block_on(writing).expect("no panic").expect("writes");
    assert!(chunks() > begun);
    assert_eq!(place.open().load().expect("loads").instances.len(), 200);
}

#[test]
fn the_elected_replica_writes_one_when_the_log_is_long() {
    let Some(mut place) = Place::shared() else { return };
    place.tuning.checkpoint_cost = 20_000;
    place.tuning.checkpoint_pause = Duration::from_millis(100);
    let open = || {
        let mut store = place.open();
        store.load().expect("loads");
        let _within = place.runtime.enter();
        let news = Listener(store.news().expect("it is shared"));
        (store, news)
    };
    let (mut store, _news) = open();
    let (_other, _others_news) = open();
    let mut revision = 0;
    for _ in 0..3 {
        let trimmed = || place.keys("log/").first().cloned();
        let before = trimmed();
        for _ in 0..20 {
            revision += 1;
            let next = batch(revision, 1, false);
            assert_eq!(
                store.commit(&[next], Revision::new(revision)).expect("commits"),
                Verdict::Durable
            );
        }
        eventually("the log is trimmed", || trimmed() != before);
    }
    assert_eq!(place.open().load().expect("loads").revision.get(), revision);
}
