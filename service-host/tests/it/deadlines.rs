//! Deadlines: the code, the reach, the rest that is passed on.

use std::time::{Duration, Instant};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{client::ask, config, eventually, server_and_client};

fn assert_exceeded(status: &Status) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let info = status.get_details_error_info().expect("has ErrorInfo");
    assert_eq!(
        (info.domain.as_str(), info.reason.as_str()),
        ("tessera", "DEADLINE_EXCEEDED")
    );
}

/// tonic answers CANCELLED.
#[tokio::test]
async fn a_handler_that_is_too_slow_is_deadline_exceeded() {
    let (running, client) = server_and_client(config()).await;
    let started = Instant::now();
    let timeout = Duration::from_millis(100);
    let status = client.say(ask("hang", Some(timeout))).await.expect_err("too slow");
    assert_exceeded(&status);
    assert!(
        started.elapsed() >= timeout && started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    eventually("the handler is dropped", || running.calls_in_flight() == 0).await;
}

/// tonic lets a stream run on for as long as it likes.
#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    let (running, client) = server_and_client(config()).await;
    for what in ["hang", "flood"] {
        let started = Instant::now();
        let timeout = Duration::from_millis(150);
        let mut stream = client.watch(ask(what, Some(timeout))).await.expect("started");
        let status = loop {
            match stream.message().await {
                Ok(message) => assert!(message.is_some(), "{what}: ended as if all were well"),
                Err(status) => break status,
            }
        };
        assert_exceeded(&status);
        assert!(
            started.elapsed() >= timeout && started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
    eventually("the streams are dropped", || running.calls_in_flight() == 0).await;
}

#[tokio::test]
async fn what_arrives_too_late_is_refused_without_running() {
    let (_running, client) = server_and_client(config()).await;
    let status = client
        .say(ask("panic", Some(Duration::ZERO)))
        .await
        .expect_err("refused");
    assert_exceeded(&status);
}

#[tokio::test]
async fn a_timeout_that_is_none_is_refused() {
    let (_running, client) = server_and_client(config()).await;
    for value in ["soon", "123456789m", "-1S"] {
        let mut request = ask("hello", None);
        request
            .metadata_mut()
            .insert("grpc-timeout", value.parse().expect("ASCII"));
        let status = client.say(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{value}");
        let bad = status.get_details_bad_request().expect("has BadRequest");
        assert_eq!(bad.field_violations[0].field, "grpc-timeout");
    }
}

#[tokio::test]
async fn handlers_and_streams_see_what_remains() {
    let (_running, client) = server_and_client(config()).await;
    let timeout = Duration::from_secs(30);
    let within = |text: &str| {
        let remaining: u64 = text.parse().expect("milliseconds");
        assert!((20_000..=30_000).contains(&remaining), "{remaining}");
    };
    within(
        &client
            .say(ask("remaining", Some(timeout)))
            .await
            .expect("answered")
            .into_inner()
            .text,
    );
    let mut stream = client.watch(ask("remaining", Some(timeout))).await.expect("started");
    within(&stream.message().await.expect("ok").expect("a message").text);
    assert_eq!(
        client
            .say(ask("remaining", None))
            .await
            .expect("answered")
            .into_inner()
            .text,
        "none"
    );
}

#[tokio::test]
async fn a_default_is_for_calls_that_bring_none() {
    let (_running, client) = server_and_client(config().default_deadline(Some(Duration::from_millis(100)))).await;
    assert_exceeded(&client.say(ask("hang", None)).await.expect_err("too slow"));
    let remaining = client
        .say(ask("remaining", Some(Duration::from_secs(30))))
        .await
        .expect("answered");
    assert!(
        remaining.into_inner().text.parse::<u64>().expect("milliseconds") > 1_000,
        "the caller's own wins"
    );
}

#[tokio::test]
async fn a_call_that_is_done_in_time_is_untouched() {
    let (_running, client) = server_and_client(config()).await;
    let mut stream = client
        .watch(ask("once", Some(Duration::from_secs(30))))
        .await
        .expect("started");
    assert_eq!(stream.message().await.expect("ok").expect("a message").text, "first");
    assert!(stream.message().await.expect("ends well").is_none());
}
