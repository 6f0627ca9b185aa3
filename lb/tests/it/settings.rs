//! Service configs: by method, live, from a file, from the instances; and the check at the start.

use std::{path::Path, sync::Arc, time::Duration};

use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;
use tonic::Code;

use crate::support::{ScriptedServer, TestServer, all_ready, answer, ask, check, client, eventually, in_time, reason};

fn timeout(name: &str, timeout: &str) -> String {
    format!("{{\"methodConfig\": [\n {{\"name\": [{name}],\n  \"timeout\": \"{timeout}\"}}\n]}}")
}

fn config(text: &str) -> lb::ServiceConfig {
    text.parse().expect("a good config")
}

const CHECK: &str = r#"{"service": "grpc.health.v1.Health", "method": "Check"}"#;
const WATCH: &str = r#"{"service": "grpc.health.v1.Health", "method": "Watch"}"#;

/// The `grpc-timeout` that a server has seen is below `most` seconds; nothing if there was none.
fn granted(server: &TestServer) -> Option<f64> {
    let timeout = server.seen.metadata("grpc-timeout")?;
    let (number, unit) = timeout.split_at(timeout.len() - 1);
    let number: f64 = number.parse().expect("a number");
    Some(match unit {
        "S" => number,
        "m" => number / 1e3,
        "u" => number / 1e6,
        "n" => number / 1e9,
        _ => panic!("{timeout}"),
    })
}

/// A call's timeout as the server was told of it, rounded up to whole seconds.
async fn seconds(channel: &lb::Channel, server: &TestServer) -> Option<u64> {
    check(channel).await.expect("answered");
    granted(server).map(|seconds| seconds.ceil() as u64)
}

fn builder(server: &TestServer) -> lb::Builder {
    lb::Channel::builder(lb::Target::fixed([server.addr()]).expect("a good address"))
}

fn write(path: &Path, text: &str) {
    // As editors and orchestrators do: another file in its place.
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("written");
    std::fs::rename(beside, path).expect("renamed");
}

#[tokio::test]
async fn a_timeout_is_of_its_method() {
    let silent = ScriptedServer::start(|_, mut connection| async move {
        let mut unanswered = Vec::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            if request.uri().path().ends_with("Watch") {
                answer(respond);
            } else {
                unanswered.push(respond);
            }
        }
    })
    .await;
    let channel = lb::Channel::builder(lb::Target::fixed([silent.addr()]).expect("a good address"))
        .service_config(config(&timeout(CHECK, "0.2s")))
        .build();
    all_ready(&channel, 1).await;
    let status = in_time(check(&channel)).await.expect_err("nobody answers");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        "{status}"
    );
    let mut stream = in_time(client(&channel).watch(ask("")))
        .await
        .expect("answered")
        .into_inner();
    assert!(in_time(stream.message()).await.expect("no deadline").is_some());
}

#[tokio::test]
async fn what_is_said_live_counts_at_once_and_can_be_taken_back() {
    let server = TestServer::start();
    let channel = builder(&server)
        .call_timeout(Duration::from_secs(50))
        .service_config(config(&timeout("{}", "40s")))
        .build();
    assert_eq!(seconds(&channel, &server).await, Some(40));
    channel.configure(&config(&timeout(CHECK, "30s"))).expect("usable");
    assert_eq!(seconds(&channel, &server).await, Some(30));
    channel
        .clone()
        .configure(&config(&timeout(WATCH, "20s")))
        .expect("usable");
    assert_eq!(seconds(&channel, &server).await, Some(40), "another method's");
    channel.configure(&lb::ServiceConfig::default()).expect("usable");
    assert_eq!(seconds(&channel, &server).await, Some(40));
    assert_eq!(server.seen.connections(), 1, "nothing was dialled anew");
}

#[tokio::test]
async fn a_file_is_followed_and_a_bad_one_changes_nothing() {
    let server = TestServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("service-config.json");
    write(&path, &timeout("{}", "40s"));
    let channel = builder(&server)
        .service_config(config(&timeout("{}", "50s")))
        .service_config_file(&path)
        .connect()
        .await
        .expect("a good file");
    assert_eq!(
        seconds(&channel, &server).await,
        Some(40),
        "a file counts more than code"
    );

    let until = async |expected| {
        let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
        while seconds(&channel, &server).await != Some(expected) {
            assert!(tokio::time::Instant::now() < deadline, "never {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    write(&path, &timeout("{}", "30s"));
    until(30).await;

    let refused = || {
        telemetry::metrics::encode().lines().any(|line| {
            line.starts_with("tessera_lb_service_config_changes_total{outcome=\"refused\"}") && !line.ends_with(" 0")
        })
    };
    write(&path, "{\n\"methodConfig\": 7}");
    eventually("the bad file is seen", refused).await;
    assert_eq!(seconds(&channel, &server).await, Some(30), "what held before stays");
    write(&path, &timeout("{}", "20s"));
    until(20).await;
    channel.configure(&config(&timeout("{}", "10s"))).expect("usable");
    assert_eq!(
        seconds(&channel, &server).await,
        Some(10),
        "live counts more than a file"
    );
}

/// Whether anything of an error, its sources included, says so.
fn says(error: &dyn std::error::Error, text: &str) -> bool {
    error.to_string().contains(text) || error.source().is_some_and(|source| says(source, text))
}

#[tokio::test]
async fn a_start_with_a_bad_file_says_where_it_is_bad() {
    let server = TestServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("service-config.json");
    let error = builder(&server).service_config_file(&path).connect().await;
    let error = error.expect_err("there is no file");
    assert!(matches!(error, lb::ConnectError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("service-config.json"), "{error}");

    write(&path, "{\"methodConfig\": [\n{\"name\": [{}],\n\"timeOut\": \"1s\"}]}");
    let error = builder(&server).service_config_file(&path).connect().await;
    let error = error.expect_err("it is bad");
    assert!(
        says(&error, "line 3, column 1: methodConfig[0].timeOut") && says(&error, "did you mean timeout?"),
        "{error:?}"
    );
    // Whoever does not ask goes by what is left.
    let channel = builder(&server).service_config_file(&path).build();
    assert_eq!(seconds(&channel, &server).await, None);
}

#[tokio::test]
async fn a_caller_starts_without_its_provider_unless_it_is_to_check() {
    let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(3, [])));
    let builder = || {
        lb::Channel::builder(Discovery::fed_by("ticket-svc", snapshots.clone()))
            .ready_timeout(Duration::from_millis(50))
    };
    let channel = builder().connect().await.expect("no check by default");
    assert_eq!(
        reason(&check(&channel).await.expect_err("nobody is there")),
        "NO_INSTANCES"
    );

    let asks = config(r#"{"tessera": {"check": true}}"#);
    for builder in [builder().check(true), builder().service_config(asks.clone())] {
        let error = builder.connect().await.expect_err("nobody is there");
        assert!(matches!(error, lb::ConnectError::NotReady(_)), "{error}");
        assert!(
            says(&error, "no instance of ticket-svc") && says(&error, "revision 3"),
            "{error:?}"
        );
    }
    builder()
        .service_config(asks.clone())
        .check(false)
        .connect()
        .await
        .expect("the code counts more");

    let server = TestServer::start();
    told.send(Arc::new(Snapshot::fresh(
        4,
        [Instance::new("ticket-svc", "a", &server.addr())],
    )))
    .expect("watched");
    builder()
        .ready_timeout(crate::support::PATIENCE)
        .check(true)
        .connect()
        .await
        .expect("somebody is there");
}

#[tokio::test]
async fn instances_say_how_they_want_to_be_called_where_the_caller_says_nothing() {
    let server = TestServer::start();
    let announcing = |revision, text: Option<String>| {
        let mut instance = Instance::new("s", "a", &server.addr());
        instance.metadata = text
            .into_iter()
            .map(|text| ("tessera.service-config".to_owned(), text))
            .collect();
        Arc::new(Snapshot::fresh(revision, [instance]))
    };
    let (told, snapshots) = watch::channel(announcing(1, Some(timeout("{}", "40s"))));
    let discovery = || Discovery::fed_by("s", snapshots.clone());
    let channel = lb::Channel::builder(discovery()).build();
    // A call that begins before anything is known of the instances cannot know what they want.
    all_ready(&channel, 1).await;
    assert_eq!(seconds(&channel, &server).await, Some(40));
    let stubborn = lb::Channel::builder(discovery()).provider_config(false).build();
    all_ready(&stubborn, 1).await;
    assert_eq!(seconds(&stubborn, &server).await, None);
    let caller = lb::Channel::builder(discovery())
        .call_timeout(Duration::from_secs(50))
        .build();
    all_ready(&caller, 1).await;
    assert_eq!(seconds(&caller, &server).await, Some(50));

    // Of a method an instance knows more than who speaks of all of them.
    told.send(announcing(2, Some(timeout(CHECK, "30s")))).expect("watched");
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    for channel in [&channel, &caller] {
        while seconds(channel, &server).await != Some(30) {
            assert!(tokio::time::Instant::now() < deadline, "never heard");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_call_that_waits_for_ready_waits_until_its_deadline() {
    let (told, snapshots) = watch::channel(Arc::new(Snapshot::connecting()));
    let waits = r#"{"methodConfig": [{"name": [{}], "waitForReady": true, "timeout": "60s"}]}"#;
    let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots))
        .ready_timeout(Duration::ZERO)
        .service_config(config(waits))
        .build();
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    let server = TestServer::start();
    tokio::task::yield_now().await;
    told.send(Arc::new(Snapshot::fresh(1, [Instance::new("s", "a", &server.addr())])))
        .expect("watched");
    assert_eq!(
        in_time(waiting).await.expect("did not panic").expect("answered"),
        server.addr()
    );
}

/// The first policy of the list that is known counts, and the more weighty config's.
#[tokio::test]
async fn the_balancing_policy_is_the_configs() {
    let servers = [TestServer::start(), TestServer::start()];
    let addresses: Vec<String> = servers.iter().map(TestServer::addr).collect();
    for (policy, expected) in [("round_robin", [5, 5]), ("ring_hash", [0, 10])] {
        let text = format!(r#"{{"loadBalancingConfig": [{{"grpclb": {{}}}}, {{"{policy}": {{}}}}]}}"#);
        let channel = lb::Channel::builder(lb::Target::fixed(&addresses).expect("good addresses"))
            .policy(lb::Policy::Random)
            .service_config(config(&text))
            .build();
        all_ready(&channel, 2).await;
        let before = servers.each_ref().map(|server| server.seen.calls());
        for _ in 0..10 {
            let mut request = tonic::Request::new(ask(""));
            request
                .metadata_mut()
                .insert("request-hash-key", "one".parse().expect("a value"));
            client(&channel).check(request).await.expect("answered");
        }
        let mut calls = [0, 1].map(|n| servers[n].seen.calls() - before[n]);
        calls.sort_unstable();
        assert_eq!(calls, expected, "{policy}");
    }
}

#[tokio::test]
async fn what_holds_for_a_method_can_be_asked() {
    let server = TestServer::start();
    let text = r#"{"methodConfig": [
        {"name": [{}], "timeout": "4s", "hedgingPolicy": {"maxAttempts": 2}},
        {"name": [{"service": "p.S"}], "waitForReady": true, "tessera": {"mode": "failover", "inherit": true,
            "fallback": {"when": "fail", "reply": {}}}}
    ]}"#;
    let channel = builder(&server).service_config(config(text)).build();
    let of_service = channel.settings_of("/p.S/M");
    assert_eq!(of_service.timeout, Some(Duration::from_secs(4)));
    assert_eq!(of_service.ready_timeout, None);
    assert_eq!(of_service.mode, lb::Mode::Failover(lb::RetryPolicy::default()));
    assert_eq!(of_service.fallback.as_deref(), Some("fail: reply"));
    let of_others = channel.settings_of("/p.T/M");
    assert_eq!(of_others.ready_timeout, Some(Duration::from_secs(3)));
    assert!(matches!(of_others.mode, lb::Mode::Hedging(_)), "{:?}", of_others.mode);
}

/// gRPC's own words make attempts: a refused connection is no answer, an answered UNAVAILABLE is repeated.
#[tokio::test]
async fn a_retry_policy_out_of_a_config_retries() {
    let attempts = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&attempts);
    let server = ScriptedServer::start(move |_, mut connection| {
        let count = Arc::clone(&count);
        async move {
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2 {
                    let head = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "14")
                        .body(())
                        .expect("a head");
                    respond.send_response(head, true).expect("the stream is open");
                } else {
                    answer(respond);
                }
            }
        }
    })
    .await;
    let text = r#"{"methodConfig": [{"name": [{"service": "grpc.health.v1.Health"}], "retryPolicy": {
        "maxAttempts": 3, "initialBackoff": "0.001s", "maxBackoff": "0.01s", "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;
    let channel = lb::Channel::builder(lb::Target::fixed([server.addr()]).expect("a good address"))
        .service_config(config(text))
        .build();
    in_time(check(&channel)).await.expect("the third attempt");
    assert_eq!(attempts.load(std::sync::atomic::Ordering::SeqCst), 3);
}
