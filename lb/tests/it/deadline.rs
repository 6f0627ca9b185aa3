//! Deadlines: the earliest counts, travels, and is kept here even if the server does not.

use std::time::Duration;

use telemetry::deadline::{Deadline, parse_grpc_timeout};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

use crate::support::{
    PATIENCE, ScriptedServer, TestServer, all_ready, ask, channel_to, check, client, in_time, reason,
};

/// What the server was told, in seconds.
fn told(server: &TestServer) -> Option<f64> {
    let timeout = server.seen.metadata("grpc-timeout")?;
    Some(parse_grpc_timeout(&timeout).expect("well formed").as_secs_f64())
}

#[tokio::test]
async fn the_earliest_deadline_travels() {
    let server = TestServer::start();
    let plain = channel_to(&[server.addr()]).await;
    let limited = lb::Channel::builder(lb::Target::fixed([server.addr()]).expect("good addresses"))
        .call_timeout(Duration::from_secs(30))
        .build();
    all_ready(&limited, 1).await;
    let asking = |seconds: u64| {
        let mut request = Request::new(ask(""));
        request.set_timeout(Duration::from_secs(seconds));
        request
    };
    let within = |expected: f64| {
        let told = told(&server).expect("a timeout");
        assert!(
            told <= expected && told > expected - PATIENCE.as_secs_f64() / 2.0,
            "{told} is not {expected}"
        );
    };

    client(&plain).check(ask("")).await.expect("answered");
    assert_eq!(told(&server), None, "nobody asked for a deadline");
    client(&plain).check(asking(50)).await.expect("answered");
    within(50.0);
    client(&limited).check(ask("")).await.expect("answered");
    within(30.0);
    client(&limited).check(asking(15)).await.expect("answered");
    within(15.0);
    // The call that we are working for has less time left than we would grant.
    let ambient = Deadline::after(Duration::from_secs(20));
    ambient
        .scope(client(&limited).check(asking(50)))
        .await
        .expect("answered");
    within(20.0);
}

/// Against tonic's server this would test tonic: it has a timer of its own, and answers CANCELLED.
#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for() {
    let server = ScriptedServer::start(|_, mut connection| async move {
        let mut unanswered = Vec::new();
        while let Some(Ok(request)) = connection.accept().await {
            unanswered.push(request);
        }
    })
    .await;
    let channel = lb::Channel::builder(lb::Target::fixed([server.addr()]).expect("good addresses"))
        .call_timeout(Duration::from_millis(200))
        .build();
    all_ready(&channel, 1).await;
    let status = in_time(check(&channel)).await.expect_err("it does not answer");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        "{status}"
    );
    assert!(status.message().contains("a response of"), "{status}");
    assert_eq!(channel.endpoints()[0].in_flight, 0);
}

#[tokio::test]
async fn a_stream_has_one_deadline_from_its_first_byte_to_its_last() {
    let server = TestServer::start();
    let channel = channel_to(&[server.addr()]).await;
    let mut request = Request::new(ask(""));
    request.set_timeout(Duration::from_millis(300));
    let mut stream = client(&channel).watch(request).await.expect("opened").into_inner();
    server.seen.tell_watchers().await;
    stream.next().await.expect("a message").expect("in time");
    // tonic's server forgets the deadline once it has sent headers; nothing more will ever come.
    let status = stream.next().await.expect("an end").expect_err("time is up");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        "{status}"
    );
    assert!(status.message().contains(&server.addr()), "{status}");
    assert_eq!(channel.endpoints()[0].in_flight, 0, "the call is over");
}

#[tokio::test]
async fn a_call_whose_deadline_has_passed_is_not_even_sent() {
    let server = TestServer::start();
    let channel = channel_to(&[server.addr()]).await;
    let status = Deadline::after(Duration::ZERO)
        .scope(client(&channel).check(ask("hang")))
        .await
        .expect_err("too late");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        "{status}"
    );
    client(&channel)
        .check(ask(""))
        .await
        .expect("the next call is not touched");
    assert_eq!(server.seen.calls(), 1);
}
