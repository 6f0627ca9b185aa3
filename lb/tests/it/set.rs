//! The set of instances changes while calls are under way.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use registry_client::{Discovery, Instance, InstanceStatus, Snapshot, SnapshotState};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tower_service::Service as _;

use crate::support::{TestServer, all_ready, ask, check, client, eventually, ready};

struct Fed {
    told: watch::Sender<Arc<Snapshot>>,
    revision: i64,
}

impl Fed {
    fn channel(instances: impl IntoIterator<Item = Instance>) -> (Self, lb::Channel) {
        let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, instances)));
        (
            Self { told, revision: 1 },
            lb::Channel::builder(Discovery::fed_by("s", snapshots)).build(),
        )
    }

    fn tell(&mut self, instances: impl IntoIterator<Item = Instance>) {
        self.revision += 1;
        self.told
            .send(Arc::new(Snapshot::fresh(self.revision, instances)))
            .expect("watched");
    }
}

fn instance(id: &str, server: &TestServer) -> Instance {
    Instance::new("s", id, &server.addr())
}

#[tokio::test]
async fn a_removed_instance_finishes_its_calls_and_gets_no_new_ones() {
    let (leaving, staying) = (TestServer::start(), TestServer::start());
    let (mut fed, channel) = Fed::channel([instance("leaving", &leaving)]);
    all_ready(&channel, 1).await;
    let mut stream = client(&channel).watch(ask("")).await.expect("opened").into_inner();

    fed.tell([instance("staying", &staying)]);
    eventually("the other one is ready", || {
        ready(&channel) == 1 && channel.endpoints().len() == 2
    })
    .await;
    let views = channel.endpoints();
    assert_eq!(
        (&*views[0].instance_id, views[0].state),
        ("staying", lb::EndpointState::Ready)
    );
    eventually("it drains", || {
        channel.endpoints()[1].state == lb::EndpointState::Draining
    })
    .await;
    assert_eq!((&*views[1].instance_id, views[1].in_flight), ("leaving", 1));
    for _ in 0..50 {
        assert_eq!(check(&channel).await.expect("answered"), staying.addr());
    }
    assert_eq!(leaving.seen.calls(), 1, "no new calls");

    leaving.seen.tell_watchers().await;
    stream.next().await.expect("the stream goes on").expect("not an error");
    leaving.seen.end_watches();
    assert!(stream.next().await.is_none(), "and ends as it should");
    eventually("nothing is left of it", || channel.endpoints().len() == 1).await;
}

#[tokio::test]
async fn an_instance_that_stays_keeps_its_connection() {
    let (a, b) = (TestServer::start(), TestServer::start());
    let (mut fed, channel) = Fed::channel([instance("a", &a)]);
    all_ready(&channel, 1).await;
    fed.tell([instance("a", &a), instance("b", &b)]);
    all_ready(&channel, 2).await;
    // Another weight, another revision: still the same connection.
    fed.tell([Instance {
        weight: 7,
        revision: 9,
        epoch: 2,
        ..instance("a", &a)
    }]);
    eventually("b is gone", || channel.endpoints().len() == 1).await;
    check(&channel).await.expect("answered");
    assert_eq!((a.seen.connections(), b.seen.connections()), (1, 1));
}

#[tokio::test]
async fn only_callable_instances_are_called() {
    let servers: Vec<TestServer> = (0..4).map(|_| TestServer::start()).collect();
    let (mut fed, channel) = Fed::channel([
        instance("up", &servers[0]),
        Instance {
            weight: 0,
            ..instance("weightless", &servers[1])
        },
        Instance {
            drained: true,
            ..instance("drained", &servers[2])
        },
        Instance {
            status: InstanceStatus::Starting,
            ..instance("starting", &servers[3])
        },
    ]);
    all_ready(&channel, 1).await;
    for _ in 0..20 {
        assert_eq!(check(&channel).await.expect("answered"), servers[0].addr());
    }
    fed.tell([
        Instance {
            drained: true,
            ..instance("up", &servers[0])
        },
        instance("starting", &servers[3]),
    ]);
    eventually("the other one takes over", || {
        channel
            .endpoints()
            .iter()
            .any(|view| view.instance_id == "starting" && view.state == lb::EndpointState::Ready)
    })
    .await;
    for _ in 0..20 {
        assert_eq!(check(&channel).await.expect("answered"), servers[3].addr());
    }
}

#[tokio::test]
async fn losing_the_registry_changes_nothing() {
    let server = TestServer::start();
    let (fed, channel) = Fed::channel([instance("a", &server)]);
    all_ready(&channel, 1).await;
    let last = Snapshot {
        state: SnapshotState::Stale {
            since: std::time::Instant::now(),
            reason: "gone".to_owned(),
        },
        ..Snapshot::fresh(1, [instance("a", &server)])
    };
    fed.told.send(Arc::new(last)).expect("watched");
    check(&channel).await.expect("answered");
    // Not even when nobody will ever feed us again.
    drop(fed);
    for _ in 0..20 {
        check(&channel).await.expect("answered");
    }
    assert_eq!(server.seen.connections(), 1);
}

/// A restarted instance is dialled when the registry tells of it, and not when the back-off of its dead predecessor ends.
#[tokio::test]
async fn news_of_a_rebirth_cuts_the_back_off_short() {
    let mut server = TestServer::start();
    let address = server.address;
    let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, [instance("a", &server)])));
    // Without the news it would take half an hour.
    let half_an_hour = std::time::Duration::from_secs(1800);
    let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots))
        .backoff(lb::Backoff::try_new(half_an_hour, half_an_hour, 0.0).expect("valid"))
        .build();
    all_ready(&channel, 1).await;
    server.kill();
    eventually("it backs off", || {
        channel.endpoints()[0].state == lb::EndpointState::BackingOff
    })
    .await;
    let server = TestServer::start_on(address);
    told.send(Arc::new(Snapshot::fresh(
        2,
        [Instance {
            epoch: 2,
            ..instance("a", &server)
        }],
    )))
    .expect("watched");
    check(&channel).await.expect("answered");
}

#[tokio::test]
async fn closing_waits_for_the_last_call() {
    let server = TestServer::start();
    let channel = lb::Channel::builder(lb::Target::fixed([server.addr()]).expect("good addresses"))
        .ready_timeout(std::time::Duration::ZERO)
        .build();
    all_ready(&channel, 1).await;
    let mut stream = client(&channel).watch(ask("")).await.expect("opened").into_inner();
    let closing = tokio::spawn({
        let channel = channel.clone();
        async move { channel.close().await }
    });
    eventually("no new calls are taken", || ready(&channel) == 0).await;
    let status = check(&channel).await.expect_err("closed");
    assert!(status.message().contains("the channel is closed"), "{status}");
    assert!(!closing.is_finished());
    server.seen.end_watches();
    assert!(stream.next().await.is_none());
    closing.await.expect("closes");
}

#[tokio::test]
async fn a_stream_outlives_the_last_handle_of_its_channel() {
    let server = TestServer::start();
    let (_fed, channel) = Fed::channel([instance("a", &server)]);
    all_ready(&channel, 1).await;
    let mut stream = client(&channel).watch(ask("")).await.expect("opened").into_inner();
    drop(channel);
    server.seen.tell_watchers().await;
    stream.next().await.expect("the stream goes on").expect("not an error");
}

/// What `channel.oneshot(request)` of tower does: the service is gone before its future is polled for the first time. The pool
/// was cleared by then, and the call failed for want of instances.
#[tokio::test]
async fn a_call_outlives_the_last_handle_of_its_channel() {
    let server = TestServer::start();
    let (_fed, mut channel) = Fed::channel([instance("a", &server)]);
    all_ready(&channel, 1).await;
    let request = http::Request::post("/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(http_body_util::Full::new(
            bytes::Bytes::from_static(&[0; 5]),
        )))
        .expect("a request");
    let call = channel.call(request);
    drop(channel);
    // Whatever the drop has set in motion happens now: nothing else has anything to do.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let response = call.await.expect("answered");
    let body = response.into_body().collect().await.expect("all of it");
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    assert_eq!(status, Some(&http::HeaderValue::from_static("0")));
    assert_eq!(server.seen.calls(), 1);
}
