//! Nothing is ready: calls wait a bounded time and fail with the reason.

use std::{sync::Arc, time::Duration};

use registry_client::{Discovery, Instance, InstanceStatus, Snapshot};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{TestServer, ask, check, client, reason};

fn unreachable() -> String {
    // Bound and dropped: nobody listens there any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[tokio::test]
async fn all_instances_dead_is_a_bounded_error_that_says_why() {
    let addresses = [unreachable(), unreachable()];
    let channel = lb::Channel::builder(lb::Target::fixed(&addresses).expect("good addresses"))
        .ready_timeout(Duration::from_millis(300))
        .build();
    let started = Instant::now();
    let status = check(&channel).await.expect_err("nobody listens");
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_millis(300) && waited < Duration::from_secs(5),
        "{waited:?}"
    );
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "NOT_READY"),
        "{status}"
    );
    assert!(status.get_details_retry_info().is_some());
    for text in ["2 known", &addresses[0], &addresses[1], "refused", "a fixed list"] {
        assert!(
            status.message().contains(text),
            "{text:?} is not in {:?}",
            status.message()
        );
    }
    let error = channel.ready(Duration::ZERO).await.expect_err("nobody listens");
    assert!(
        matches!(error, lb::Error::NotReady { .. }) && error.never_processed(),
        "{error}"
    );
}

#[tokio::test]
async fn an_empty_set_is_an_error_of_its_own() {
    let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(5, [])));
    let channel = lb::Channel::builder(Discovery::fed_by("ticket-svc", snapshots))
        .ready_timeout(Duration::from_millis(50))
        .build();
    let status = check(&channel).await.expect_err("nobody is there");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "NO_INSTANCES"),
        "{status}"
    );
    assert!(
        status.message().contains("ticket-svc") && status.message().contains("0 known"),
        "{status}"
    );
    assert!(status.message().contains("revision 5"), "{status}");

    // Known, but none of them takes calls.
    let draining = Instance {
        status: InstanceStatus::Draining,
        ..Instance::new("ticket-svc", "a", "127.0.0.1:1")
    };
    told.send(Arc::new(Snapshot::fresh(6, [draining]))).expect("watched");
    let status = check(&channel).await.expect_err("nobody takes calls");
    assert_eq!(reason(&status), "NO_INSTANCES");
    assert!(status.message().contains("1 known, none takes calls"), "{status}");
}

#[tokio::test]
async fn a_deadline_that_comes_first_wins_and_says_what_was_waited_for() {
    let channel = lb::Channel::builder(lb::Target::fixed([unreachable()]).expect("good addresses"))
        .ready_timeout(Duration::from_secs(60))
        .build();
    let mut request = tonic::Request::new(ask(""));
    request.set_timeout(Duration::from_millis(200));
    let status = client(&channel).check(request).await.expect_err("nobody listens");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        "{status}"
    );
    assert!(status.message().contains("a ready instance"), "{status}");
}

/// A stopped process still accepts TCP connections. If that alone made an endpoint ready, every call to it would hang.
#[tokio::test]
async fn a_port_that_accepts_and_says_nothing_is_not_ready() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let channel = lb::Channel::builder(lb::Target::fixed([&address]).expect("good addresses"))
        .connect_timeout(Duration::from_millis(100))
        .ready_timeout(Duration::from_millis(400))
        .build();
    let status = check(&channel).await.expect_err("it never speaks");
    assert_eq!(reason(&status), "NOT_READY");
    assert!(status.message().contains("no answer within 100ms"), "{status}");
}

#[tokio::test]
async fn calls_that_wait_go_through_as_soon_as_somebody_is_ready() {
    let (told, snapshots) = watch::channel(Arc::new(Snapshot::connecting()));
    let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots))
        .ready_timeout(Duration::from_secs(20))
        .build();
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    let server = TestServer::start();
    told.send(Arc::new(Snapshot::fresh(1, [Instance::new("s", "a", &server.addr())])))
        .expect("watched");
    assert_eq!(waiting.await.expect("did not panic").expect("answered"), server.addr());
    channel.ready(Duration::ZERO).await.expect("ready by now");
}
