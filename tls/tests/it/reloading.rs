//! Files that change while they are used.

use std::time::Duration;

use tls::{ClientAuth, Expected, Tls};

use crate::support::{TICKET, World, meet, uri};

/// Whom `server` shows a new client.
async fn shown(server: &Tls, client: &Tls) -> Vec<u8> {
    let met = meet(server, client, "localhost", &Expected::Host).await;
    met.client.expect("connects");
    met.shown.expect("a certificate")
}

/// Bounded, since the files are looked at by the clock.
async fn until_shown(server: &Tls, client: &Tls, other_than: &[u8]) -> Vec<u8> {
    for _ in 0..200 {
        let now = shown(server, client).await;
        if now != other_than {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new certificate was never used");
}

#[tokio::test]
async fn new_files_are_used_for_new_connections_and_broken_ones_are_not() {
    let world = World::new();
    let server = world.tls(Some(&world.issue("server", |_| {})), ClientAuth::None);
    let client = world.tls(None, ClientAuth::None);
    let _watching = server.watch().expect("a signal handler");
    let first = shown(&server, &client).await;

    world.issue("server", |params| params.subject_alt_names.push(uri(TICKET)));
    let second = until_shown(&server, &client, &first).await;

    let other = world.issue("other", |_| {});
    std::fs::copy(&other.certificate, world.path("server.crt")).expect("copied");
    assert_eq!(shown(&server, &client).await, second, "half a pair is not used");
    std::fs::copy(&other.key, world.path("server.key")).expect("copied");
    let third = until_shown(&server, &client, &second).await;
    assert_ne!(third, first);
}

/// An authority that is taken out of the bundle is believed no more, by a client as by a server.
#[tokio::test]
async fn the_bundle_is_followed_too() {
    let (world, stranger) = (World::new(), World::new());
    let server = world.tls(Some(&world.issue("server", |_| {})), ClientAuth::None);
    let client = world.tls(None, ClientAuth::None);
    let _watching = client.watch().expect("a signal handler");
    shown(&server, &client).await;
    std::fs::copy(stranger.path("ca.crt"), world.path("ca.crt")).expect("copied");
    for _ in 0..200 {
        let met = meet(&server, &client, "localhost", &Expected::Host).await;
        if let Err(error) = met.client {
            assert!(error.contains("none of the authorities"), "{error}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the authority is still believed");
}
