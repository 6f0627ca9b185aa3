//! Calls reach all instances, and the busy ones less.

use std::collections::HashMap;

use crate::support::{TestServer, all_ready, ask, channel_to, check, client, eventually};

#[tokio::test]
async fn idle_instances_share_evenly() {
    let servers: Vec<TestServer> = (0..3).map(|_| TestServer::start()).collect();
    let target = lb::Target::fixed(servers.iter().map(TestServer::addr)).expect("good addresses");
    // Not the default: that one may see differences between instances that the machine made.
    let policy = lb::Policy::LeastRequest(lb::LeastRequest::default());
    let channel = lb::Channel::builder(target).policy(policy).build();
    all_ready(&channel, 3).await;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for _ in 0..600 {
        *counts.entry(check(&channel).await.expect("answered")).or_default() += 1;
    }
    // 200 each on average; a share below 120 has a probability of less than 1e-11.
    assert!(
        counts.len() == 3 && counts.values().all(|count| *count >= 120),
        "{counts:?}"
    );
}

#[tokio::test]
async fn round_robin_takes_turns() {
    let servers: Vec<TestServer> = (0..3).map(|_| TestServer::start()).collect();
    let target = lb::Target::fixed(servers.iter().map(TestServer::addr)).expect("good addresses");
    let channel = lb::Channel::builder(target).policy(lb::Policy::RoundRobin).build();
    all_ready(&channel, 3).await;
    for _ in 0..30 {
        check(&channel).await.expect("answered");
    }
    let calls: Vec<usize> = servers.iter().map(|server| server.seen.calls()).collect();
    assert_eq!(calls, [10, 10, 10]);
}

#[tokio::test]
async fn an_instance_that_is_busy_gets_no_more_while_others_are_idle() {
    let (busy, idle) = (TestServer::start(), TestServer::start());
    let channel = channel_to(&[busy.addr(), idle.addr()]).await;
    // Calls that hang, until one of them hangs on `busy`; the other instance's are given up again.
    let mut hanging = Vec::new();
    while busy.seen.calls() == 0 {
        let mut client = client(&channel);
        let before = busy.seen.calls() + idle.seen.calls();
        hanging.push(tokio::spawn(async move { client.check(ask("hang")).await }));
        eventually("the call has arrived", || {
            busy.seen.calls() + idle.seen.calls() > before
        })
        .await;
        if busy.seen.calls() == 0 {
            hanging.pop().expect("just pushed").abort();
            eventually("the call is over", || {
                channel.endpoints().iter().all(|endpoint| endpoint.in_flight == 0)
            })
            .await;
        }
    }
    for _ in 0..50 {
        assert_eq!(check(&channel).await.expect("answered"), idle.addr());
    }
    hanging.into_iter().for_each(|call| call.abort());
}
