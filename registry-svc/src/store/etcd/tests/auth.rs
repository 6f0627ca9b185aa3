//! etcd asks who we are.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::fixture::{Place, begin_commit, eventually, listen};
use crate::{
    model::Revision,
    store::{Etcd, News, Store as _, StoreError, Verdict, tests::model::batch},
};

const ROOT: &str = "root:s@cret";

/// An etcd that asks; there must be an etcdctl, too.
fn place(arguments: &[&str]) -> Option<Place> {
    let place = Place::alone_with(arguments)?;
    let server = place.server();
    if server.etcdctl(&["version"]).is_none() {
        eprintln!("skipped: no etcdctl on PATH (Debian: etcd-client)");
        return None;
    }
    server.etcdctl(&["user", "add", ROOT]);
    server.etcdctl(&["user", "grant-role", "root", "root"]);
    server.etcdctl(&["auth", "enable"]);
    Some(place)
}

fn open(place: &Place, credentials: &str) -> Result<Etcd, StoreError> {
    let url = place.url(&format!("{credentials}{}", place.server().address()));
    Etcd::open(&url, None, place.runtime.handle(), CancellationToken::new())
}

fn commit(store: &mut Etcd, revision: u64) -> Verdict {
    let verdict = store.commit(&[batch(revision, 1, false)], Revision::ZERO);
    verdict.expect("no error")
}

#[test]
fn a_user_and_a_password_are_needed_where_etcd_asks_for_them() {
    let Some(place) = place(&[]) else { return };
    for (credentials, refused) in [("", true), ("root:wrong@", true), ("root:s%40cret@", false)] {
        match open(&place, credentials) {
            Err(error) => assert!(refused && error.to_string().contains("USER:PASSWORD"), "{error}"),
            Ok(mut store) => {
                assert!(!refused);
                let mut news = listen(&mut store);
                assert_eq!(commit(&mut store, 1), Verdict::Durable);
                // The watch is allowed too.
                let mut other = open(&place, credentials).expect("opens");
                other.load().expect("loads");
                assert_eq!(commit(&mut other, 2), Verdict::Durable);
                assert_eq!(news.batches(), [batch(2, 1, false)]);
            }
        }
    }
}

#[test]
fn a_token_that_has_expired_is_made_anew() {
    let Some(mut place) = place(&["--auth-token-ttl", "1"]) else {
        return;
    };
    let credentials = "root:s%40cret@";
    let mut store = open(&place, credentials).expect("opens");
    store.load().expect("loads");
    // Nobody looks: what goes on is the session, whose calls need no token.
    let begun = Instant::now();
    eventually("the token's time has passed", || {
        begun.elapsed() > Duration::from_secs(4)
    });
    assert_eq!(commit(&mut store, 1), Verdict::Durable);
    let mut follower = open(&place, credentials).expect("opens");
    let mut news = listen(&mut follower);
    // A member forgets all tokens when it is started again.
    place.own_server().kill();
    place.own_server().restart();
    assert_eq!(commit(&mut store, 2), Verdict::Durable);
    assert_eq!(news.batches(), [batch(2, 1, false)]);
}

/// The right to write is taken away from a registry that runs: looks succeed, commits are refused and repeated. Callers ran into
/// their deadlines, and nothing said why. The role is the one that docs/registry.md gives.
#[test]
fn a_role_for_the_prefix_is_enough_and_less_is_an_absence() {
    let Some(place) = place(&[]) else { return };
    let prefix = format!("{}/", place.prefix);
    let grant = |what: &str| {
        let grant = [
            "--user",
            ROOT,
            "role",
            "grant-permission",
            "tessera",
            "--prefix=true",
            what,
            &prefix,
        ];
        place.server().etcdctl(&grant);
    };
    place.server().etcdctl(&["--user", ROOT, "role", "add", "tessera"]);
    place
        .server()
        .etcdctl(&["--user", ROOT, "user", "add", "tessera:secret"]);
    place
        .server()
        .etcdctl(&["--user", ROOT, "user", "grant-role", "tessera", "tessera"]);
    grant("readwrite");
    let mut store = open(&place, "tessera:secret@").expect("opens");
    let mut news = listen(&mut store);
    assert_eq!(commit(&mut store, 1), Verdict::Durable);
    let write = super::super::checkpoint::write(Arc::clone(&store.cluster), 1 << 19);
    place.runtime.block_on(write).expect("a checkpoint, too");

    grant("read");
    let pending = begin_commit(store, 2);
    news.until(|news| matches!(news, News::Away { .. }));
    assert!(!pending.is_finished());
    grant("readwrite");
    let (_store, verdict) = pending.join().expect("no panic");
    assert_eq!(verdict, Verdict::Durable);
    news.until(|news| matches!(news, News::Back));
    let mut other = open(&place, "root:s%40cret@").expect("opens");
    assert_eq!(other.load().expect("loads").revision.get(), 2);
}
