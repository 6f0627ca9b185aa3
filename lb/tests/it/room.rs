//! A peer allows only so many streams at a time: calls wait here, where they are certainly not sent yet.

use std::{collections::HashMap, pin::Pin, sync::Arc, task::Poll, time::Duration};

use registry_client::{Discovery, Instance, Snapshot};
use tokio::{sync::watch, time::Instant};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckResponse;

use crate::support::{TestServer, all_ready, ask, channel_to, check, client, eventually, in_time, ready, reason};

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

type Call = Pin<Box<dyn Future<Output = Result<String, Status>> + Send>>;

/// A call that is under way as far as it gets at once: here, to the queue for room.
async fn waiting(channel: &lb::Channel) -> Call {
    let channel = channel.clone();
    let mut call: Call = Box::pin(async move { check(&channel).await });
    std::future::poll_fn(|cx| {
        assert!(call.as_mut().poll(cx).is_pending(), "there is no room");
        Poll::Ready(())
    })
    .await;
    call
}

/// A watch, and where it is: as long as it is held, a narrow instance has no room.
async fn hold(channel: &lb::Channel) -> (String, Streaming<HealthCheckResponse>) {
    let response = client(channel).watch(ask("")).await.expect("opened");
    let picked = response.extensions().get::<lb::Picked>().expect("on every response");
    (picked.address.to_string(), response.into_inner())
}

/// A watch on each of two: the least busy is picked, so the second goes to the other one.
async fn hold_both(channel: &lb::Channel) -> HashMap<String, Streaming<HealthCheckResponse>> {
    let held = HashMap::from([hold(channel).await, hold(channel).await]);
    assert_eq!(held.len(), 2);
    held
}

fn instances(servers: &[(&str, &TestServer)]) -> Arc<Snapshot> {
    let instances = servers
        .iter()
        .map(|(id, server)| Instance::new("s", *id, &server.addr()));
    Arc::new(Snapshot::fresh(1, instances))
}

fn fed(first: Arc<Snapshot>) -> (watch::Sender<Arc<Snapshot>>, lb::Builder) {
    let (told, snapshots) = watch::channel(first);
    // One connection each: there is room or there is none.
    (
        told,
        lb::Channel::builder(Discovery::fed_by("s", snapshots)).max_connections(1),
    )
}

/// A call used to wait for room on the one endpoint it had picked, whatever the others did: with one of three full of
/// subscriptions, every third call of a round robin hung until one of those ended, without a deadline for ever.
#[tokio::test]
async fn a_full_instance_is_passed_over_while_others_have_room() {
    let (full, others) = (TestServer::narrow(1), [TestServer::start(), TestServer::start()]);
    for policy in [
        lb::Policy::RoundRobin,
        lb::Policy::LeastRequest(lb::LeastRequest::default()),
    ] {
        let (told, builder) = fed(instances(&[("full", &full)]));
        let channel = builder.policy(policy.clone()).build();
        all_ready(&channel, 1).await;
        let _held = hold(&channel).await;
        told.send(instances(&[("full", &full), ("b", &others[0]), ("c", &others[1])]))
            .expect("watched");
        all_ready(&channel, 3).await;
        let mut met = HashMap::new();
        for _ in 0..60 {
            *met.entry(in_time(check(&channel)).await.expect("answered"))
                .or_insert(0) += 1;
        }
        // 30 each on average; below 8 has a probability of less than 1e-8.
        assert!(
            met.len() == 2 && met.values().all(|count| *count >= 8) && !met.contains_key(&full.addr()),
            "{policy:?}: {met:?}"
        );
    }
}

#[tokio::test]
async fn without_room_anywhere_a_call_fails_after_the_ready_timeout_and_says_so() {
    let server = TestServer::narrow(1);
    let (_told, builder) = fed(instances(&[("full", &server)]));
    let patience = Duration::from_millis(200);
    let channel = builder.ready_timeout(patience).build();
    all_ready(&channel, 1).await;
    let held = hold(&channel).await;
    let started = Instant::now();
    let call = waiting(&channel).await;
    assert_eq!(channel.endpoints()[0].in_flight, 1, "who waits is no load");
    let status = in_time(call).await.expect_err("no room");
    assert!(started.elapsed() >= patience);
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "NO_ROOM"),
        "{status}"
    );
    assert!(status.message().contains("1 connected"), "{status}");
    assert_eq!(server.seen.calls(), 1, "it was never sent");
    drop(held);
    in_time(check(&channel)).await.expect("the room was given back");
}

#[tokio::test]
async fn whoever_waits_for_room_goes_wherever_it_is_first() {
    let (a, b) = (TestServer::narrow(1), TestServer::narrow(1));
    let channel = channel_to(&[a.addr(), b.addr()]).await;
    let mut held = hold_both(&channel).await;
    let calls = [waiting(&channel).await, waiting(&channel).await];
    held.remove(&b.addr()).expect("one on each");
    for call in calls {
        assert_eq!(in_time(call).await.expect("answered"), b.addr());
    }
}

#[tokio::test]
async fn calls_that_wait_for_room_take_that_of_a_newcomer() {
    let (narrow, newcomer) = (TestServer::narrow(1), TestServer::start());
    let (told, builder) = fed(instances(&[("narrow", &narrow)]));
    let channel = builder.build();
    all_ready(&channel, 1).await;
    let _held = hold(&channel).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(waiting(&channel).await);
    }
    told.send(instances(&[("narrow", &narrow), ("newcomer", &newcomer)]))
        .expect("watched");
    for call in calls {
        assert_eq!(in_time(call).await.expect("not lost"), newcomer.addr());
    }
}

#[tokio::test]
async fn calls_that_wait_for_room_go_elsewhere_when_the_instance_dies() {
    let (mut dying, other) = (TestServer::narrow(1), TestServer::narrow(1));
    let channel = channel_to(&[dying.addr(), other.addr()]).await;
    let mut held = hold_both(&channel).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(tokio::spawn(waiting(&channel).await));
    }
    dying.kill();
    eventually("the loss is noticed", || ready(&channel) == 1).await;
    held.remove(&other.addr()).expect("one on each");
    for call in calls {
        assert_eq!(
            in_time(call).await.expect("did not panic").expect("not lost"),
            other.addr()
        );
    }
    let mut cut = held.remove(&dying.addr()).expect("one on each");
    cut.next().await.expect("an end").expect_err("this one was under way");
}

/// Waiters used to be sent to the instance that was just removed, as soon as it had room; and counting there as in flight,
/// they kept it from being let go.
#[tokio::test]
async fn calls_that_wait_for_room_do_not_go_to_an_instance_that_was_removed() {
    let (leaving, staying) = (TestServer::narrow(1), TestServer::start());
    let (told, builder) = fed(instances(&[("leaving", &leaving)]));
    let channel = builder.build();
    all_ready(&channel, 1).await;
    let (_, held) = hold(&channel).await;
    let call = tokio::spawn(waiting(&channel).await);
    told.send(instances(&[])).expect("watched");
    eventually("it is removed", || {
        channel
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.state == lb::EndpointState::Draining)
    })
    .await;
    assert_eq!(channel.endpoints()[0].in_flight, 1, "the watch alone");
    drop(held);
    eventually("nothing is left of it", || channel.endpoints().is_empty()).await;
    told.send(instances(&[("staying", &staying)])).expect("watched");
    assert_eq!(
        in_time(call).await.expect("did not panic").expect("not lost"),
        staying.addr()
    );
    assert_eq!(leaving.seen.calls(), 1, "the watch alone");
}
