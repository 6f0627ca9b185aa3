//! A peer allows only so many streams at a time: calls wait here, where they are certainly not sent yet.

use std::{sync::Arc, time::Duration};

use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;
use tonic::{Code, Request};

use crate::support::{TestServer, all_ready, ask, channel_to, check, client, eventually};

#[tokio::test]
async fn calls_beyond_the_peers_limit_wait_their_turn() {
    let server = TestServer::narrow(2);
    let channel = channel_to(&[server.addr()]).await;
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { check(&channel).await })
        })
        .collect();
    for call in calls {
        call.await.expect("did not panic").expect("answered");
    }
    assert_eq!(server.seen.calls(), 40);
}

#[tokio::test]
async fn a_call_that_waits_for_room_keeps_its_deadline() {
    let server = TestServer::narrow(1);
    let channel = channel_to(&[server.addr()]).await;
    let mut hanging = client(&channel);
    let hanging = tokio::spawn(async move { hanging.check(ask("hang")).await });
    eventually("it has arrived", || server.seen.calls() == 1).await;
    let mut request = Request::new(ask(""));
    request.set_timeout(Duration::from_millis(100));
    let status = client(&channel).check(request).await.expect_err("there is no room");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("room for one more call"), "{status}");
    hanging.abort();
    check(&channel).await.expect("the room was given back");
}

#[tokio::test]
async fn calls_that_wait_for_room_go_elsewhere_when_the_instance_dies() {
    let (mut narrow, other) = (TestServer::narrow(1), TestServer::start());
    let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(
        1,
        [Instance::new("s", "narrow", &narrow.addr())],
    )));
    let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots)).build();
    all_ready(&channel, 1).await;
    let mut hanging = client(&channel);
    let hanging = tokio::spawn(async move { hanging.check(ask("hang")).await });
    eventually("it has arrived", || narrow.seen.calls() == 1).await;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { check(&channel).await })
        })
        .collect();
    eventually("they wait", || channel.endpoints()[0].in_flight == 21).await;
    told.send(Arc::new(Snapshot::fresh(
        2,
        [
            Instance::new("s", "narrow", &narrow.addr()),
            Instance::new("s", "other", &other.addr()),
        ],
    )))
    .expect("watched");
    all_ready(&channel, 2).await;
    narrow.kill();
    for call in waiting {
        assert_eq!(call.await.expect("did not panic").expect("not lost"), other.addr());
    }
    hanging
        .await
        .expect("did not panic")
        .expect_err("this one was under way");
}
