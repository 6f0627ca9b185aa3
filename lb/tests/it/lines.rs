//! How many connections an instance has: more when calls need them, none when nobody calls.

use std::time::Duration;

use tonic::Streaming;
use tonic_health::pb::HealthCheckResponse;

use crate::support::{TestServer, all_ready, ask, check, client, eventually, in_time};

fn builder(server: &TestServer) -> lb::Builder {
    lb::Channel::builder(lb::Target::fixed([server.addr()]).expect("an address"))
}

/// A watch: as long as it is held, it takes the room of one call.
async fn hold(channel: &lb::Channel) -> Streaming<HealthCheckResponse> {
    let response = in_time(client(channel).watch(ask(""))).await.expect("opened");
    response.into_inner()
}

/// A peer that allows 100 streams used to be an instance that 100 callers could use, and the others waited.
#[tokio::test]
async fn calls_that_find_no_room_get_another_connection_up_to_the_most() {
    let server = TestServer::narrow(1);
    let channel = builder(&server)
        .max_connections(3)
        .ready_timeout(Duration::from_millis(300))
        .build();
    all_ready(&channel, 1).await;
    let mut held = Vec::new();
    for connections in 1..=3 {
        held.push(hold(&channel).await);
        assert_eq!(server.seen.connections(), connections);
    }
    let status = in_time(check(&channel)).await.expect_err("three are the most");
    assert!(status.message().contains("room for one more call"), "{status}");
    held.pop();
    in_time(check(&channel)).await.expect("there is room again");
    assert_eq!(server.seen.connections(), 3, "the ones there are used");
}

#[tokio::test]
async fn a_channel_that_nobody_uses_lets_go_and_connects_again_for_the_next_call() {
    let server = TestServer::start();
    let channel = builder(&server).idle_timeout(Duration::from_millis(50)).build();
    all_ready(&channel, 1).await;
    let held = hold(&channel).await;
    // With a call under way it is in use, however long that lasts.
    for _ in 0..10 {
        check(&channel).await.expect("answered");
    }
    assert_eq!(channel.endpoints()[0].state, lb::EndpointState::Ready);
    drop(held);
    eventually("it rests", || channel.endpoints()[0].state == lb::EndpointState::Idle).await;
    let before = server.seen.connections();
    in_time(check(&channel)).await.expect("connected for it");
    assert!(server.seen.connections() > before);
    channel.close().await;
}
