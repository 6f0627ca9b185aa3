//! etcd's quota is used up, for real: its alarm is raised, and lowered again by an operator's hand.

use std::time::Duration;

use super::{
    super::wire::{Operation, TxnRequest},
    fixture::{Place, eventually, listen},
};
use crate::{
    model::Revision,
    store::{
        Etcd, News, Store as _, Verdict,
        etcd::failure::Failure,
        tests::{model::batch, suite::Shelf as _},
    },
};

const QUOTA: &str = "--quota-backend-bytes=8388608";

/// An etcd with a small quota; there must be an etcdctl, too.
fn place() -> Option<Place> {
    let mut place = Place::alone_with(&[QUOTA])?;
    if place.server().etcdctl(&["version"]).is_none() {
        eprintln!("skipped: no etcdctl on PATH (Debian: etcd-client)");
        return None;
    }
    place.tuning.election_pause = Duration::from_secs(2);
    Some(place)
}

fn commit(store: &mut Etcd, revision: u64) -> Verdict {
    store
        .commit(&[batch(revision, 1, false)], Revision::ZERO)
        .expect("no error")
}

/// By what is none of ours, until etcd takes no more.
fn fill(place: &Place) {
    let cluster = place.cluster();
    let put = TxnRequest::of(vec![Operation::put("/else", vec![0; 1 << 20])]);
    place.runtime.block_on(async {
        for _ in 0..64 {
            match cluster.client.txn(put.clone()).await {
                Ok(_) => {}
                Err(Failure::NoSpace) => return,
                Err(failure) => panic!("{failure}"),
            }
        }
        panic!("the quota holds");
    });
}

/// As docs/registry.md says.
fn make_room(place: &Place) {
    let cluster = place.cluster();
    let now = place.runtime.block_on(cluster.client.txn(TxnRequest::default()));
    let now = now.expect("answers").revision().to_string();
    for command in [&["compact", &now][..], &["defrag"], &["alarm", "disarm"]] {
        place.server().etcdctl(command);
    }
}

/// There was no test with the alarm itself. A replica that was started meanwhile ended, with a hint that sent operators to look for
/// members that do not run; so a rolling restart left nobody to read from.
#[test]
fn without_room_replicas_start_and_serve_and_go_on_when_there_is_some() {
    let Some(place) = place() else { return };
    let mut store = place.open();
    let mut news = listen(&mut store);
    assert!(matches!(news.next(), News::Replicas(replicas) if replicas.elected));
    assert_eq!(commit(&mut store, 1), Verdict::Durable);
    fill(&place);
    assert!(matches!(commit(&mut store, 2), Verdict::NoRoom(why) if why.contains("etcdctl")));
    // Nobody may end what dead replicas have left: they may live, and be unable to say so.
    news.replicas(|replicas| !replicas.elected);
    drop(store);

    let mut store = place.open();
    let mut news = listen(&mut store);
    assert!(matches!(news.next(), News::Replicas(replicas) if !replicas.elected));
    assert!(place.keys("session/").is_empty());
    assert!(matches!(commit(&mut store, 2), Verdict::NoRoom(_)));

    make_room(&place);
    eventually("its session is made", || place.keys("session/").len() == 1);
    assert_eq!(commit(&mut store, 2), Verdict::Durable);
    assert_eq!(place.open().load().expect("loads").revision.get(), 2);
    news.replicas(|replicas| replicas.elected);
}

/// A replica lost its session and could not make another one, heard the heartbeats of its leases all the while, and was held for
/// dead in the first moment in which there was room again: the elected one was quicker and ended them.
#[test]
fn nobody_is_elected_before_all_can_have_their_sessions_again() {
    let Some(place) = place() else { return };
    let mut elected = place.open();
    let mut news = listen(&mut elected);
    let mut paused = place.open();
    let _paused_news = listen(&mut paused);
    news.replicas(|replicas| replicas.elected && replicas.alive.len() == 2);
    fill(&place);
    let cluster = place.cluster();
    let session = cluster.keys.session(paused.replicas.own);
    let delete = TxnRequest::of(vec![Operation::delete(session, "")]);
    place.runtime.block_on(cluster.client.txn(delete)).expect("deletes");
    news.replicas(|replicas| replicas.elected && replicas.alive.len() == 1);
    // What it would end is not taken, and from then on it is not elected.
    assert!(matches!(commit(&mut elected, 1), Verdict::NoRoom(_)));
    news.replicas(|replicas| !replicas.elected);
    make_room(&place);
    let back = news.replicas(|replicas| replicas.elected || replicas.alive.len() == 2);
    assert!(!back.elected, "{back:?}");
    news.replicas(|replicas| replicas.elected && replicas.alive.len() == 2);
    assert_eq!(commit(&mut elected, 1), Verdict::Durable);
}

/// The hint says what to do.
#[test]
fn a_store_that_cannot_be_made_for_lack_of_room_says_so() {
    let Some(place) = place() else { return };
    fill(&place);
    let error = place.open().load().expect_err("there is nothing to load").to_string();
    assert!(error.contains("quota") && error.contains("alarm disarm"), "{error}");
}
