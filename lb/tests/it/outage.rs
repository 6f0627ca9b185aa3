//! An instance dies under load and comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{TestServer, channel_to, check, eventually, in_time, ready};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_calls_under_way_are_lost_with_an_instance_and_traffic_returns_to_it() {
    const CALLERS: usize = 16;
    let mut servers: Vec<TestServer> = (0..3).map(|_| TestServer::start()).collect();
    let channel = channel_to(&servers.iter().map(TestServer::addr).collect::<Vec<_>>()).await;
    let (stop, failures, answers) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (channel, stop, failures, answers) = (
                channel.clone(),
                Arc::clone(&stop),
                Arc::clone(&failures),
                Arc::clone(&answers),
            );
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match check(&channel).await {
                        Ok(_) => answers.fetch_add(1, Ordering::SeqCst),
                        Err(_) => failures.fetch_add(1, Ordering::SeqCst),
                    };
                }
            })
        })
        .collect();
    eventually("there is load", || answers.load(Ordering::SeqCst) > 500).await;
    assert_eq!(failures.load(Ordering::SeqCst), 0);

    let victim = servers[1].address;
    servers[1].kill();
    let at_kill = answers.load(Ordering::SeqCst);
    eventually("calls go on", || answers.load(Ordering::SeqCst) > at_kill + 1000).await;
    // Each caller has one call under way, so that is all that one death can cost.
    let lost = failures.load(Ordering::SeqCst);
    assert!(lost <= CALLERS, "{lost} calls failed");

    servers[1] = TestServer::start_on(victim);
    let seen = Arc::clone(&servers[1].seen);
    eventually("traffic returns", || seen.calls() > 100).await;
    assert_eq!(
        failures.load(Ordering::SeqCst),
        lost,
        "nothing more was lost, neither while it was away nor on its return"
    );
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("did not panic");
    }
}

#[tokio::test]
async fn a_dead_instance_is_not_picked_and_says_why_it_is_not() {
    let (mut dead, alive) = (TestServer::start(), TestServer::start());
    let channel = channel_to(&[dead.addr(), alive.addr()]).await;
    dead.kill();
    eventually("the loss is noticed", || {
        channel
            .endpoints()
            .iter()
            .any(|endpoint| endpoint.state != lb::EndpointState::Ready && endpoint.last_error.is_some())
    })
    .await;
    for _ in 0..50 {
        assert_eq!(check(&channel).await.expect("answered"), alive.addr());
    }
    eventually("it was dialled again", || {
        channel.endpoints().iter().any(|endpoint| {
            endpoint
                .last_error
                .as_deref()
                .is_some_and(|error| error.contains("refused"))
        })
    })
    .await;
}

/// After some seconds of outage the next dial was seconds away, and every call that came meanwhile waited for it, or failed,
/// with the instance back in its place: 4.7 s after an outage of 6 s.
#[tokio::test]
async fn a_call_that_waits_does_not_wait_for_the_back_off() {
    let mut server = TestServer::start();
    // Longer than this test is patient.
    let backoff = lb::Backoff::try_new(Duration::from_secs(600), Duration::from_secs(600), 0.0).expect("valid");
    let channel = lb::Channel::builder(lb::Target::fixed([server.addr()]).expect("an address"))
        .backoff(backoff)
        .ready_timeout(Duration::from_secs(60))
        .build();
    in_time(check(&channel)).await.expect("answered");
    let address = server.address;
    server.kill();
    let backing_off = || channel.endpoints()[0].state == lb::EndpointState::BackingOff;
    eventually("it is left alone", backing_off).await;
    assert_eq!(ready(&channel), 0);
    let waiting = {
        let channel = channel.clone();
        tokio::spawn(async move { check(&channel).await })
    };
    let _server = TestServer::start_on(address);
    in_time(waiting).await.expect("did not panic").expect("answered");
}
