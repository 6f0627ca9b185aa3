//! Calls that go to one more instance when the answer is late.

use std::time::Duration;

use lb::{HedgingDelay, HedgingPolicy, Mode, RetryBudget};
use tonic::{Code, Status};

use crate::support::{TestServer, ask, builder_for, check, client, connected, eventually, in_mode, in_time};

fn after(delay: Duration, attempts: u32) -> HedgingPolicy {
    HedgingPolicy::try_new(attempts, HedgingDelay::After(delay), [Code::Unavailable]).expect("valid")
}

const SOON: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(3600);

fn addresses(servers: &[TestServer]) -> Vec<String> {
    servers.iter().map(TestServer::addr).collect()
}

#[tokio::test]
async fn a_late_call_is_answered_by_another_one_and_the_loser_is_cancelled() {
    let servers = [TestServer::start(), TestServer::start()];
    servers[0].seen.hang();
    let channel = in_mode(Mode::Hedging(after(SOON, 2)), &servers).await;
    for _ in 0..4 {
        assert_eq!(in_time(check(&channel)).await.expect("answered"), servers[1].addr());
    }
    eventually("every loser was cancelled", || {
        servers[0].seen.calls() > 0 && servers[0].seen.cancelled() == servers[0].seen.calls()
    })
    .await;
    assert_eq!(channel.fault_counts().hedges as usize, servers[0].seen.calls());
    let series = format!(
        r#"tessera_lb_further_attempts_total{{target="{}",instance="{}",why="hedge"}} "#,
        channel.service(),
        servers[1].addr()
    );
    let page = telemetry::metrics::encode();
    let counted = page.lines().find_map(|line| line.strip_prefix(&series));
    let counted: f64 = counted.expect("a series").parse().expect("a number");
    assert_eq!(
        counted as u64,
        channel.fault_counts().hedges,
        "why there was another attempt"
    );
    assert_eq!(servers[1].seen.calls(), 4);
    assert!(channel.endpoints().iter().all(|endpoint| endpoint.in_flight == 0));
    assert!(
        servers[1]
            .seen
            .metadata("grpc-previous-rpc-attempts")
            .is_none_or(|told| told == "1")
    );
}

#[tokio::test]
async fn who_is_quick_is_not_hedged() {
    let servers = [TestServer::start(), TestServer::start()];
    let channel = in_mode(Mode::Hedging(after(NEVER, 3)), &servers).await;
    for _ in 0..20 {
        check(&channel).await.expect("answered");
    }
    assert_eq!(servers[0].seen.calls() + servers[1].seen.calls(), 20);
}

#[tokio::test]
async fn a_failure_that_is_not_fatal_sends_the_next_at_once_and_a_fatal_one_ends_the_call() {
    let servers = [TestServer::start(), TestServer::start(), TestServer::start()];
    servers[0].seen.fail(Status::unavailable("no"));
    servers[1].seen.fail(Status::unavailable("no"));
    let channel = in_mode(Mode::Hedging(after(NEVER, 3)), &servers).await;
    for _ in 0..3 {
        assert_eq!(in_time(check(&channel)).await.expect("answered"), servers[2].addr());
    }
    for server in &servers {
        server.seen.fail(Status::internal("broken"));
    }
    let before: usize = servers.iter().map(|server| server.seen.calls()).sum();
    let status = in_time(check(&channel)).await.expect_err("it fails");
    assert_eq!(status.code(), Code::Internal);
    let now: usize = servers.iter().map(|server| server.seen.calls()).sum();
    assert_eq!(now - before, 1);
}

#[tokio::test]
async fn when_all_have_failed_the_last_failure_is_the_calls() {
    let servers = [TestServer::start(), TestServer::start()];
    for server in &servers {
        server.seen.fail(Status::unavailable("no"));
    }
    // More attempts than instances: nobody has it twice.
    let channel = in_mode(Mode::Hedging(after(NEVER, 5)), &servers).await;
    let status = in_time(check(&channel)).await.expect_err("both fail");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no"));
    assert_eq!((servers[0].seen.calls(), servers[1].seen.calls()), (1, 1));
}

#[tokio::test]
async fn hedges_stay_within_their_budget() {
    let servers = [TestServer::start(), TestServer::start(), TestServer::start()];
    let builder = builder_for(&addresses(&servers))
        .hedging(after(Duration::ZERO, 3))
        .hedging_budget(RetryBudget::try_new(0.1, 0).expect("valid"));
    let channel = connected(builder, 3).await;
    for _ in 0..200 {
        check(&channel).await.expect("answered");
    }
    let counts = channel.fault_counts();
    assert!(counts.hedges <= 20, "{counts:?}");
    assert!(counts.hedges_withheld > 0, "{counts:?}");
}

#[tokio::test]
async fn the_percentile_is_learnt_from_the_calls_themselves() {
    let servers = [TestServer::start(), TestServer::start()];
    let policy = HedgingPolicy::try_new(2, HedgingDelay::Percentile(0.9), []).expect("valid");
    let builder = builder_for(&addresses(&servers))
        .hedging(policy)
        .call_timeout(Duration::from_secs(300))
        .hedging_budget(RetryBudget::try_new(0.0, 1000).expect("valid"));
    let channel = connected(builder, 2).await;
    for _ in 0..32 {
        check(&channel).await.expect("answered");
        assert_eq!(channel.fault_counts().hedges, 0, "nothing is known yet");
    }
    servers[0].seen.hang();
    for _ in 0..4 {
        assert_eq!(in_time(check(&channel)).await.expect("answered"), servers[1].addr());
    }
    assert!(channel.fault_counts().hedges >= 1);
}

#[tokio::test]
async fn one_deadline_spans_all_hedges() {
    let servers = [TestServer::start(), TestServer::start()];
    servers.iter().for_each(|server| server.seen.hang());
    let channel = in_mode(Mode::Hedging(after(SOON, 2)), &servers).await;
    let mut request = tonic::Request::new(ask(""));
    request.set_timeout(Duration::from_millis(300));
    let status = in_time(client(&channel).check(request)).await.expect_err("time is up");
    // The servers know the deadline too, and tonic's say CANCELLED when it passes.
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status}"
    );
    assert_eq!((servers[0].seen.calls(), servers[1].seen.calls()), (1, 1));
}
