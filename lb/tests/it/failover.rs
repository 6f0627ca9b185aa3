//! Calls that are repeated elsewhere: how often, where, when, and when not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use lb::{Mode, RetryBackoff, RetryBudget, RetryPolicy, RetryThrottling};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, body::Body};
use tower_service::Service as _;

use crate::support::{
    ScriptedServer, TestServer, ask, builder_for, check, client, connected, eventually, in_mode, in_time, reason,
};

const MILLI: Duration = Duration::from_millis(1);

fn failover() -> Mode {
    Mode::Failover(RetryPolicy::default())
}

/// As many attempts, with hardly a pause between them.
fn attempts(most: u32, codes: &[Code]) -> RetryPolicy {
    let backoff = RetryBackoff::try_new(MILLI, MILLI, 1.0).expect("valid");
    RetryPolicy::try_new(most, backoff, codes.iter().copied()).expect("valid")
}

fn failing(count: usize, status: &Status) -> Vec<TestServer> {
    let servers: Vec<TestServer> = (0..count).map(|_| TestServer::start()).collect();
    servers.iter().for_each(|server| server.seen.fail(status.clone()));
    servers
}

fn met(servers: &[TestServer]) -> usize {
    servers.iter().map(|server| server.seen.calls()).sum()
}

fn with_pushback(code: Code, millis: &'static str) -> Status {
    let mut status = Status::new(code, "not now");
    let value = tonic::metadata::MetadataValue::from_static(millis);
    status.metadata_mut().insert("grpc-retry-pushback-ms", value);
    status
}

#[tokio::test]
async fn a_failed_call_goes_to_the_others_one_by_one_and_they_are_told() {
    let mut servers = failing(2, &Status::unavailable("no"));
    servers.push(TestServer::start());
    let channel = in_mode(failover(), &servers).await;
    for round in 1..=6 {
        assert_eq!(check(&channel).await.expect("the third takes it"), servers[2].addr());
        let most = servers.iter().map(|server| server.seen.calls()).max();
        assert_eq!(most, Some(round), "nobody has a call twice");
    }
    // Somewhere in six rounds the call met both of the others first.
    assert!(channel.fault_counts().retries >= 6);
    let told: Vec<_> = servers
        .iter()
        .filter_map(|server| server.seen.metadata("grpc-previous-rpc-attempts"))
        .collect();
    assert!(
        told.iter().all(|count| count == "1" || count == "2") && !told.is_empty(),
        "{told:?}"
    );
    assert!(channel.endpoints().iter().all(|endpoint| endpoint.in_flight == 0));
}

#[tokio::test]
async fn when_nobody_is_left_the_last_failure_is_the_calls() {
    let servers = failing(2, &Status::unavailable("no"));
    let channel = in_mode(Mode::Failover(attempts(5, &[Code::Unavailable])), &servers).await;
    let status = check(&channel).await.expect_err("both fail");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no"));
    assert_eq!(met(&servers), 2, "once each, though five attempts were allowed");

    let again = Mode::Failover(attempts(5, &[Code::Unavailable]).revisiting());
    let channel = in_mode(again, &servers).await;
    check(&channel).await.expect_err("both fail");
    assert_eq!(met(&servers), 2 + 5);
}

#[tokio::test]
async fn errors_of_the_business_are_answers() {
    let servers = failing(3, &Status::not_found("no such ticket"));
    let channel = in_mode(failover(), &servers).await;
    let status = check(&channel).await.expect_err("not found");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such ticket"));
    assert_eq!(met(&servers), 1);
}

#[tokio::test]
async fn without_failover_nothing_that_may_have_been_processed_is_repeated() {
    let servers = failing(3, &Status::unavailable("no"));
    let channel = in_mode(Mode::Failfast, &servers).await;
    check(&channel).await.expect_err("it fails");
    assert_eq!(met(&servers), 1);
}

#[tokio::test]
async fn who_is_retried_from_outside_does_not_retry() {
    let servers = failing(3, &Status::unavailable("no"));
    let channel = in_mode(failover(), &servers).await;
    let mut request = tonic::Request::new(ask(""));
    request
        .metadata_mut()
        .insert("grpc-previous-rpc-attempts", "1".parse().expect("a value"));
    client(&channel).check(request).await.expect_err("it fails");
    assert_eq!(met(&servers), 1);
    let told = servers
        .iter()
        .find_map(|server| server.seen.metadata("grpc-previous-rpc-attempts"));
    assert_eq!(told.as_deref(), Some("1"), "it is passed on as it came");
}

#[tokio::test]
async fn with_everybody_failing_attempts_stay_within_the_budget() {
    const CALLS: usize = 1000;
    let servers = failing(4, &Status::unavailable("no"));
    let channel = in_mode(Mode::Failover(attempts(4, &[Code::Unavailable])), &servers).await;
    let started = Instant::now();
    for _ in 0..CALLS / 50 {
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move { check(&channel).await })
            })
            .collect();
        for call in calls {
            call.await.expect("did not panic").expect_err("everybody fails");
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let most = 1.2 * CALLS as f64 + 10.0 * (seconds + 1.0);
    let met = met(&servers) as f64;
    assert!(met <= most, "{met} attempts, at most {most}");
    assert!(met >= 1.15 * CALLS as f64, "{met}: and the budget is used");
    let counts = channel.fault_counts();
    assert_eq!(counts.retries as usize, met as usize - CALLS);
    assert!(counts.retries_withheld > 0);
}

#[tokio::test]
async fn the_throttle_stops_retries_when_half_of_its_tokens_are_gone() {
    let servers = failing(2, &Status::unavailable("no"));
    let addresses: Vec<String> = servers.iter().map(TestServer::addr).collect();
    let builder = builder_for(&addresses)
        .retry(attempts(2, &[Code::Unavailable]))
        .retry_throttling(RetryThrottling::try_new(4, 0.1).expect("valid"));
    let channel = connected(builder, 2).await;
    for _ in 0..10 {
        check(&channel).await.expect_err("both fail");
    }
    // 4 tokens: the first failure leaves 3, which allows a retry; that leaves 2, and half is not more than half.
    assert_eq!(met(&servers), 11);
}

#[tokio::test]
async fn a_server_that_wants_no_retry_gets_none_anywhere() {
    let servers = failing(3, &with_pushback(Code::Unavailable, "-1"));
    let channel = in_mode(failover(), &servers).await;
    check(&channel).await.expect_err("it fails");
    assert_eq!(met(&servers), 1);
}

#[tokio::test]
async fn a_server_that_says_when_to_come_is_taken_at_its_word() {
    // Exhausted is retried only because it says when.
    let servers = failing(2, &with_pushback(Code::ResourceExhausted, "150"));
    let channel = in_mode(failover(), &servers).await;
    let started = Instant::now();
    let status = check(&channel).await.expect_err("both fail");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(started.elapsed() >= 150 * MILLI, "{:?}", started.elapsed());
    assert_eq!(met(&servers), 2);
}

#[tokio::test]
async fn one_deadline_spans_all_attempts() {
    let servers = failing(3, &with_pushback(Code::Unavailable, "60000"));
    let addresses: Vec<String> = servers.iter().map(TestServer::addr).collect();
    let builder = builder_for(&addresses)
        .mode(failover())
        .call_timeout(Duration::from_secs(30));
    let channel = connected(builder, 3).await;
    let status = in_time(check(&channel)).await.expect_err("it fails");
    // To wait a minute with half of one left would only bring the failure later.
    assert_eq!((status.code(), met(&servers)), (Code::Unavailable, 1));

    let (failing, hanging) = (failing(1, &Status::unavailable("no")), TestServer::start());
    hanging.seen.hang();
    let builder = builder_for(&[failing[0].addr(), hanging.addr()])
        .mode(failover())
        .call_timeout(300 * MILLI);
    let channel = connected(builder, 2).await;
    for _ in 0..2 {
        let status = in_time(check(&channel)).await.expect_err("time is up");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            "{status}"
        );
    }
    assert_eq!(hanging.seen.calls(), 2, "once first, and once after the other one");
}

/// Its head is there before it fails: nobody can take that back.
#[tokio::test]
async fn a_response_that_has_begun_is_the_calls_however_it_ends() {
    let met = Arc::new(AtomicUsize::new(0));
    let mut servers = Vec::new();
    for _ in 0..2 {
        let met = Arc::clone(&met);
        let server = ScriptedServer::start(move |_, mut connection| {
            let met = Arc::clone(&met);
            async move {
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    met.fetch_add(1, Ordering::SeqCst);
                    let mut body = respond.send_response(http::Response::new(()), false).expect("open");
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", 14.into());
                    body.send_trailers(trailers).expect("open");
                }
            }
        });
        servers.push(server.await);
    }
    let addresses: Vec<String> = servers.iter().map(ScriptedServer::addr).collect();
    let channel = connected(builder_for(&addresses).mode(failover()), 2).await;
    let status = check(&channel).await.expect_err("it fails");
    assert_eq!((status.code(), met.load(Ordering::SeqCst)), (Code::Unavailable, 1));
}

/// Fails the first stream that any of them gets once it has had `after` bytes of it; echoes all others.
async fn fails_once(failed: Arc<AtomicBool>, after: usize) -> ScriptedServer {
    ScriptedServer::start(move |_, mut connection| {
        let failed = Arc::clone(&failed);
        async move {
            let mut streams = tokio::task::JoinSet::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let failed = Arc::clone(&failed);
                streams.spawn(async move {
                    let mut incoming = request.into_body();
                    let fails = !failed.swap(true, Ordering::SeqCst);
                    let mut received = 0;
                    while let Some(Ok(data)) = incoming.data().await {
                        received += data.len();
                        incoming.flow_control().release_capacity(data.len()).expect("received");
                        if fails && received >= after {
                            let head = http::Response::builder().header("grpc-status", "14");
                            respond
                                .send_response(head.body(()).expect("a head"), true)
                                .expect("open");
                            return;
                        }
                    }
                    let head = http::Response::builder()
                        .header("grpc-status", "0")
                        .header("received", received.to_string());
                    respond
                        .send_response(head.body(()).expect("a head"), true)
                        .expect("open");
                });
            }
        }
    })
    .await
}

async fn upload(channel: &lb::Channel, chunks: usize, chunk: usize) -> Result<http::HeaderMap, Status> {
    let (send, frames) = mpsc::channel(1);
    tokio::spawn(async move {
        for _ in 0..chunks {
            let frame: Result<_, Status> = Ok(Frame::data(Bytes::from(vec![7; chunk])));
            // Nobody takes it any more once the call has failed.
            if send.send(frame).await.is_err() {
                return;
            }
        }
    });
    let body = Body::new(StreamBody::new(ReceiverStream::new(frames)));
    let request = Request::post("/s/m").body(body).expect("a request");
    let response = in_time(channel.clone().call(request)).await?;
    let (head, body) = response.into_parts();
    in_time(body.collect()).await?;
    Ok(head.headers)
}

#[tokio::test]
async fn a_stream_is_repeated_as_long_as_it_is_kept_and_not_beyond() {
    for (chunks, after, repeated) in [(60, 20_000, true), (200, 80_000, false)] {
        let failed = Arc::new(AtomicBool::new(false));
        let servers = [
            fails_once(Arc::clone(&failed), after).await,
            fails_once(Arc::clone(&failed), after).await,
        ];
        let addresses: Vec<String> = servers.iter().map(ScriptedServer::addr).collect();
        let channel = connected(builder_for(&addresses).mode(failover()), 2).await;
        let headers = upload(&channel, chunks, 1000).await.expect("answered");
        let status = headers.get("grpc-status").expect("a status");
        if repeated {
            assert_eq!(status, "0");
            assert_eq!(
                headers.get("received").expect("told"),
                "60000",
                "all of it, from the beginning"
            );
        } else {
            assert_eq!(status, "14", "more than 64 KiB were sent: not kept, not repeated");
        }
        assert_eq!(channel.fault_counts().retries, u64::from(repeated));
    }
}

/// A stream that was refused used to fail, since what had been sent of it was gone.
#[tokio::test]
async fn a_stream_that_was_refused_goes_elsewhere_in_any_mode() {
    let refuser = ScriptedServer::start(|_, mut connection| async move {
        while let Some(Ok((mut request, mut respond))) = connection.accept().await {
            // Not before something of it has come.
            let first = std::future::poll_fn(|cx| {
                let _ = connection.poll_closed(cx);
                request.body_mut().poll_data(cx)
            });
            first.await.expect("a message").expect("no error");
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    })
    .await;
    let taker = fails_once(Arc::new(AtomicBool::new(true)), 0).await;
    let channel = connected(builder_for(&[refuser.addr(), taker.addr()]), 2).await;
    for _ in 0..2 {
        let headers = upload(&channel, 10, 1000).await.expect("answered");
        assert_eq!(headers.get("received").expect("told"), "10000");
    }
}

/// The goal: a SIGKILL of one of five under load, and no call fails. Without failover those fail that were under way there.
#[tokio::test]
async fn one_of_five_is_killed_under_load_and_nobody_notices() {
    let mut servers: Vec<TestServer> = (0..5).map(|_| TestServer::start()).collect();
    // Calls on the first never end, so some are under way there for certain when it dies.
    servers[0].seen.hang();
    let addresses: Vec<String> = servers.iter().map(TestServer::addr).collect();
    let budget = RetryBudget::try_new(0.2, 100).expect("valid");
    let builder = builder_for(&addresses).mode(failover()).retry_budget(budget);
    let channel = connected(builder, 5).await;
    let (calling, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (channel, calling, stop) = (channel.clone(), Arc::clone(&calling), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    calling.fetch_add(1, Ordering::SeqCst);
                    failed.extend(check(&channel).await.err());
                }
                failed
            })
        })
        .collect();
    eventually("calls are under way there", || servers[0].seen.calls() >= 10).await;
    servers[0].kill();
    let then = calling.load(Ordering::SeqCst);
    eventually("calls go on", || calling.load(Ordering::SeqCst) > then + 1000).await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        let failed = in_time(caller).await.expect("did not panic");
        assert!(failed.is_empty(), "{failed:?}");
    }
    assert!(channel.fault_counts().retries >= 10, "{:?}", channel.fault_counts());
}
