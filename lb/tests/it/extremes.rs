//! Durations that nobody can wait for are as good as for ever, and no instant overflows by them.

use std::time::Duration;

use lb::{
    Backoff, CircuitBreaker, HedgingDelay, HedgingPolicy, OutlierDetection, RetryBackoff, RetryPolicy, Throttling,
};
use tonic::{Code, Status};

use crate::support::{TestServer, check, eventually, in_time, ready};

const MAX: Duration = Duration::MAX;

fn builder(server: &TestServer) -> lb::Builder {
    let outlier = OutlierDetection::default()
        .interval(MAX)
        .and_then(|it| it.base_ejection(MAX))
        .and_then(|it| it.consecutive_failures(1))
        .expect("valid")
        .max_ejection(MAX);
    let backoff = Backoff::try_new(Duration::from_nanos(1), MAX, 1.0).expect("valid");
    let breaker = CircuitBreaker::default()
        .window(MAX)
        .and_then(|it| it.minimum_calls(1))
        .and_then(|it| it.slow_calls(MAX, 1.0))
        .expect("valid")
        .open(Backoff::try_new(MAX, MAX, 0.0).expect("valid"));
    lb::Channel::builder(lb::Target::fixed([server.addr()]).expect("a good address"))
        .ready_timeout(MAX)
        .call_timeout(MAX)
        .connect_timeout(MAX)
        .idle_timeout(MAX)
        .backoff(backoff)
        .outlier_detection(outlier)
        .service_breaker(breaker)
        .throttling(Throttling::default().window(MAX).expect("valid"))
}

/// `Instant::now() + Duration::MAX` panics, and a ready timeout of that length is what somebody writes who means "until it is there".
#[tokio::test]
async fn the_longest_durations_are_for_ever() {
    let server = TestServer::start();
    let late = HedgingPolicy::try_new(2, HedgingDelay::After(MAX), [Code::Unavailable]).expect("valid");
    let channel = builder(&server).hedging(late).build();
    in_time(channel.ready(MAX)).await.expect("ready");
    in_time(check(&channel)).await.expect("answered");

    let pause = RetryBackoff::try_new(Duration::from_nanos(1), MAX, 1000.0).expect("valid");
    let retry = RetryPolicy::try_new(5, pause, [Code::Unavailable]).expect("valid");
    let channel = builder(&server).retry(retry.revisiting()).build();
    in_time(channel.ready(MAX)).await.expect("ready");
    server.seen.fail(Status::unavailable("no"));
    in_time(check(&channel)).await.expect_err("it fails each time");
    eventually("it stays connected", || {
        ready(&channel) + usize::from(channel.endpoints()[0].ejection.is_some()) > 0
    })
    .await;
    let status = in_time(check(&channel)).await.expect_err("the breaker is open");
    assert_eq!(crate::support::reason(&status), "CIRCUIT_OPEN");
}
