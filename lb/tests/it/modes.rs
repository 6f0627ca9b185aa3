//! What else is done about calls that fail: swallowed, delivered later, sent to several at once, sent to everybody.

use std::time::Duration;

use lb::{BroadcastResults, FailbackPolicy, Forks, Mode, Swallowed};
use tonic::{Code, Response, Status};
use tonic_health::pb::HealthCheckResponse;
use tonic_types::StatusExt as _;

use crate::support::{TestServer, ask, builder_for, client, connected, eventually, in_mode, in_time, reason};

const MILLI: Duration = Duration::from_millis(1);

fn servers<const N: usize>() -> [TestServer; N] {
    std::array::from_fn(|_| TestServer::start())
}

async fn call(channel: &lb::Channel) -> Result<Response<HealthCheckResponse>, Status> {
    in_time(client(channel).check(ask(""))).await
}

fn swallowed(response: &Response<HealthCheckResponse>) -> &Swallowed {
    response.extensions().get::<Swallowed>().expect("it says what it hides")
}

// ------------------------------------------------------------------------------------------------------------ failsafe

#[tokio::test]
async fn a_failure_becomes_an_empty_message_that_says_so() {
    let [server] = servers();
    let channel = in_mode(Mode::Failsafe, [&server]).await;
    let response = call(&channel).await.expect("answered");
    assert_eq!(response.get_ref().status, 1);
    assert!(response.extensions().get::<Swallowed>().is_none());

    server.seen.fail(Status::unavailable("no"));
    let response = call(&channel).await.expect("its caller is not told");
    assert_eq!(response.get_ref(), &HealthCheckResponse::default());
    let hidden = swallowed(&response);
    assert_eq!(
        (hidden.status.code(), hidden.status.message()),
        (Code::Unavailable, "no")
    );
    assert!(!hidden.tried_again);
    assert_eq!((channel.fault_counts().swallowed, server.seen.calls()), (1, 2));

    server.seen.fail(Status::not_found("no such ticket"));
    let status = call(&channel).await.expect_err("an answer of the business");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(channel.fault_counts().swallowed, 1);
}

#[tokio::test]
async fn nobody_there_is_swallowed_as_well() {
    let [mut server] = servers();
    let builder = builder_for(&[server.addr()]).mode(Mode::Failsafe).ready_timeout(MILLI);
    let channel = connected(builder, 1).await;
    server.kill();
    eventually("it is gone", || crate::support::ready(&channel) == 0).await;
    let response = call(&channel).await.expect("its caller is not told");
    assert_eq!(swallowed(&response).status.code(), Code::Unavailable);
}

// ------------------------------------------------------------------------------------------------------------ failback

fn failback(every: Duration, times: u32) -> Mode {
    Mode::Failback(FailbackPolicy::try_new(every, times).expect("valid"))
}

#[tokio::test]
async fn a_failed_call_is_delivered_once_somebody_takes_it() {
    let [server] = servers();
    server.seen.fail(Status::unavailable("no"));
    let channel = in_mode(failback(50 * MILLI, 100), [&server]).await;
    let response = call(&channel).await.expect("its caller is not told");
    assert!(swallowed(&response).tried_again);
    eventually("it was tried again", || server.seen.calls() >= 2).await;
    assert_eq!(channel.fault_counts().waiting, 1);
    server.seen.recover();
    eventually("it got there", || channel.fault_counts().delivered == 1).await;
    assert_eq!(
        (channel.fault_counts().waiting, channel.fault_counts().undelivered),
        (0, 0)
    );
    let told = server.seen.metadata("grpc-previous-rpc-attempts").expect("told");
    assert_eq!(told, (server.seen.calls() - 1).to_string());
}

#[tokio::test]
async fn it_is_tried_so_often_and_no_more_and_not_where_it_failed_last() {
    let servers: [_; 2] = servers();
    servers
        .iter()
        .for_each(|server| server.seen.fail(Status::unavailable("no")));
    let channel = in_mode(failback(MILLI, 3), &servers).await;
    call(&channel).await.expect("its caller is not told");
    eventually("it was given up", || channel.fault_counts().undelivered == 1).await;
    assert_eq!((servers[0].seen.calls(), servers[1].seen.calls()), (2, 2), "in turn");
}

#[tokio::test]
async fn a_hundred_wait_and_the_next_one_fails() {
    let [server] = servers();
    server.seen.fail(Status::unavailable("no"));
    let channel = in_mode(failback(Duration::from_secs(3600), 3), [&server]).await;
    for _ in 0..100 {
        call(&channel).await.expect("its caller is not told");
    }
    let status = call(&channel).await.expect_err("nobody will try this one again");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no"));
    assert_eq!(channel.fault_counts().waiting, 100);
}

#[tokio::test]
async fn closing_tries_each_once_more_and_counts_what_was_not_delivered() {
    let servers: [_; 2] = servers();
    servers
        .iter()
        .for_each(|server| server.seen.fail(Status::unavailable("no")));
    let channel = in_mode(failback(Duration::from_secs(3600), 3), &servers).await;
    for _ in 0..6 {
        call(&channel).await.expect("its caller is not told");
    }
    // Three failed at each, and go to the other one.
    servers[1].seen.recover();
    in_time(channel.close()).await;
    let counts = channel.fault_counts();
    assert_eq!(
        (counts.waiting, counts.delivered, counts.undelivered),
        (0, 3, 3),
        "{counts:?}"
    );
}

// ------------------------------------------------------------------------------------------------------------- forking

fn forks(instances: u32) -> Mode {
    Mode::Forking(Forks::try_new(instances).expect("valid"))
}

#[tokio::test]
async fn the_first_success_wins_and_the_others_are_cancelled() {
    let servers: [_; 3] = servers();
    servers[0].seen.hang();
    servers[1].seen.fail(Status::unavailable("no"));
    let channel = in_mode(forks(3), &servers).await;
    let response = call(&channel).await.expect("the third answers");
    let picked = response.extensions().get::<lb::Picked>().expect("who answered");
    assert_eq!(*picked.address, *servers[2].addr());
    eventually("the loser was cancelled", || servers[0].seen.cancelled() == 1).await;
    assert!(servers.iter().all(|server| server.seen.calls() == 1));
    assert!(channel.endpoints().iter().all(|endpoint| endpoint.in_flight == 0));
}

#[tokio::test]
async fn an_answer_of_the_business_counts_when_there_is_no_success() {
    let servers: [_; 2] = servers();
    servers[0].seen.fail(Status::not_found("no such ticket"));
    servers[1].seen.fail(Status::unavailable("no"));
    // More forks than instances: each has it once.
    let channel = in_mode(forks(4), &servers).await;
    let status = call(&channel).await.expect_err("not found");
    assert_eq!(status.code(), Code::NotFound);
    assert!(servers.iter().all(|server| server.seen.calls() == 1));
}

// ----------------------------------------------------------------------------------------------------------- broadcast

#[tokio::test]
async fn everybody_gets_it_and_each_result_is_there() {
    let servers: [_; 20] = servers();
    let channel = in_mode(Mode::Broadcast, &servers).await;
    let response = call(&channel).await.expect("all answer");
    assert_eq!(response.get_ref().status, 1);
    let results = response.extensions().get::<BroadcastResults>().expect("of each");
    assert_eq!(results.len(), 20);
    assert_eq!(results.failures().count(), 0, "{results}");
    assert_eq!(results[0].outcome.as_deref().expect("an answer"), [0, 0, 0, 0, 2, 8, 1]);
    assert!(servers.iter().all(|server| server.seen.calls() == 1));
    assert!(channel.endpoints().iter().all(|endpoint| endpoint.in_flight == 0));
}

#[tokio::test]
async fn one_that_fails_or_is_away_fails_the_broadcast_and_the_others_still_get_it() {
    let mut servers: [_; 4] = servers();
    let addresses: Vec<String> = servers.iter().map(TestServer::addr).collect();
    let builder = builder_for(&addresses).mode(Mode::Broadcast).ready_timeout(100 * MILLI);
    let channel = connected(builder, 4).await;
    servers[1].seen.fail(Status::internal("broken"));
    servers[2].kill();
    eventually("it is gone", || crate::support::ready(&channel) == 3).await;
    let status = call(&channel).await.expect_err("two fail");
    assert_eq!(reason(&status), "BROADCAST_FAILED", "{status}");
    assert!(status.message().contains("2 of 4 instances failed"), "{status}");
    let info = status.get_details_error_info().expect("details");
    assert_eq!(info.metadata.get(&addresses[1]).map(String::as_str), Some("Internal"));
    assert_eq!(
        info.metadata.get(&addresses[2]).map(String::as_str),
        Some("Unavailable")
    );
    assert_eq!((servers[0].seen.calls(), servers[3].seen.calls()), (1, 1));
}
