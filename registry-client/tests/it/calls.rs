//! Lists, single instances, the raw watch, and how unary calls fail.

use std::time::Duration;

use futures_util::StreamExt as _;
use proto::registry::v1;
use registry_client::{Error, InstanceEvent, Registration, Registry, RemovalReason, SnapshotCause, WatchStep};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    fake::{Call, Fake, Fate, instance, refusal},
    soon,
    wire_cutter::WireCutter,
};

fn to(urls: &[String]) -> Registry {
    Registry::connect(urls).expect("valid endpoints").prefer_first()
}

fn service_page(names: &[&str], next: &str) -> v1::ListServicesResponse {
    v1::ListServicesResponse {
        services: names
            .iter()
            .map(|name| v1::ServiceSummary {
                service: (*name).into(),
                instances: 3,
                callable: 2,
                versions: vec!["1.0.0".into()],
            })
            .collect(),
        next_page_token: next.into(),
        ..v1::ListServicesResponse::default()
    }
}

fn instance_page(ids: &[&str], next: &str) -> v1::ListInstancesResponse {
    v1::ListInstancesResponse {
        instances: ids.iter().map(|id| instance(id)).collect(),
        next_page_token: next.into(),
        ..v1::ListInstancesResponse::default()
    }
}

/// Handles travel between threads and into tasks.
#[test]
fn a_handle_needs_no_runtime_and_its_futures_are_send() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let registry = Registry::connect(["127.0.0.1:7000"]).expect("valid");
    drop(send(registry.list_services()));
    drop(send(registry.list_instances(None)));
    drop(send(registry.get_instance("s", "i")));
    drop(send(registry.watch("s", 0)));
    drop(send(Registration::new("s", "127.0.0.1:1")));
    drop(send(registry.discover("s")));
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_to_their_end() {
    let fake = Fake::start().await;
    let registry = to(&[fake.url()]).with_namespace("blue");
    fake.serve_service_pages([service_page(&["a", "b"], "p2"), service_page(&["c"], "")]);
    let services = registry.list_services().await.expect("answers");
    assert_eq!(services.iter().map(|s| s.service.as_str()).collect::<String>(), "abc");

    fake.serve_instance_pages([
        instance_page(&["x"], "p2"),
        instance_page(&["y"], "p3"),
        instance_page(&["z"], ""),
    ]);
    let instances = registry.list_instances(Some("ticket-svc")).await.expect("answers");
    assert_eq!(instances.iter().map(|i| i.id.as_str()).collect::<String>(), "xyz");

    let tokens: Vec<String> = fake
        .calls()
        .into_iter()
        .map(|call| match call {
            Call::ListServices(r) => format!("{}//{}", r.namespace, r.page_token),
            Call::ListInstances(r) => format!("{}/{}/{}", r.namespace, r.service, r.page_token),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        tokens,
        [
            "blue//",
            "blue//p2",
            "blue/ticket-svc/",
            "blue/ticket-svc/p2",
            "blue/ticket-svc/p3"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn pages_that_go_in_circles_are_an_error() {
    let fake = Fake::start().await;
    fake.serve_instance_pages([instance_page(&["x"], "p2"), instance_page(&["x"], "p2")]);
    let error = to(&[fake.url()]).list_instances(None).await.expect_err("circles");
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_instance_or_none() {
    let fake = Fake::start().await;
    let registry = to(&[fake.url()]);
    assert_eq!(registry.get_instance("ticket-svc", "a").await, Ok(None));
    fake.serve_instance(instance("a"));
    let found = registry.get_instance("ticket-svc", "a").await.expect("answers");
    assert_eq!(
        found.and_then(|instance| instance.grpc_address()).as_deref(),
        Some("127.0.0.1:7101")
    );
}

#[tokio::test(start_paused = true)]
async fn every_call_has_a_deadline() {
    let fake = Fake::start().await;
    fake.script([Fate::Hang, Fate::Hang]);
    let registry = to(&[fake.url()]);
    let begin = Instant::now();
    let error = registry.list_services().await.expect_err("hangs");
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert!(error.is_retryable());

    let begin = Instant::now();
    let registry = registry.with_call_timeout(Duration::from_millis(200));
    registry.list_services().await.expect_err("hangs");
    assert!(begin.elapsed() < Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_to_the_endpoint_that_lives() {
    let (one, two, three) = (Fake::start().await, Fake::start().await, Fake::start().await);
    let wire = WireCutter::before(one.address).await;
    wire.cut();
    two.script([Fate::Refuse(refusal(Code::Unavailable, "STORE_AWAY", None))]);
    three.serve_service_pages([service_page(&["a"], "")]);
    let registry = to(&[wire.url(), two.url(), three.url()]);
    assert_eq!(registry.list_services().await.expect("the third").len(), 1);
    registry.list_services().await.expect("the third");
    assert_eq!(
        (two.calls().len(), three.calls().len()),
        (1, 2),
        "and the next begins there"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_an_error_that_names_somebody() {
    let fake = Fake::start().await;
    let wire = WireCutter::before(fake.address).await;
    wire.cut();
    let error = to(&[wire.url()]).list_services().await.expect_err("cut");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&wire.url()), "{error}");
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_raw_watch_tells_every_step_and_its_end() {
    let mut fake = Fake::start().await;
    let mut steps = to(&[fake.url()]).resume_watch("ticket-svc", 4, "h1");
    assert_eq!(steps.history_id(), "h1");
    let ((), server) = tokio::join!(
        async {
            let first = soon("a step", steps.next()).await.expect("a step").expect("no error");
            assert!(
                matches!(&first, WatchStep::Snapshot { revision: 5, instances, cause: SnapshotCause::Initial, .. }
                    if instances.len() == 1),
                "{first:?}"
            );
        },
        async {
            let mut server = fake.watch().await;
            assert_eq!(server.request.start_after_revision, 4);
            assert_eq!(server.request.history_id, "h1");
            server.history = "h2".into();
            server.snapshot(5, &["a"]).await;
            server
        }
    );
    assert_eq!(steps.history_id(), "h2");
    server.put(6, "b").await;
    server.removed(7, "a", v1::RemovalReason::Expired).await;
    server.bookmark(9).await;
    let mut next = async || soon("a step", steps.next()).await;
    let step = next().await.expect("a step").expect("no error");
    assert!(
        matches!(&step, WatchStep::Delta { revision: 6, events, .. }
            if matches!(&events[..], [InstanceEvent::Put(instance)] if instance.id == "b")),
        "{step:?}"
    );
    let step = next().await.expect("a step").expect("no error");
    assert!(
        matches!(&step, WatchStep::Delta { revision: 7, events, .. }
            if matches!(&events[..], [InstanceEvent::Removed { id, reason: RemovalReason::Expired, detail, .. }]
                if id == "a" && detail == "because")),
        "{step:?}"
    );
    let step = next().await.expect("a step").expect("no error");
    assert_eq!(step.revision(), 9);

    server.fail(refusal(Code::OutOfRange, "REVISION_IN_FUTURE", None)).await;
    let error = next().await.expect("an error").expect_err("an error");
    assert_eq!(error.reason(), "REVISION_IN_FUTURE");
    assert!(next().await.is_none(), "and nothing after it");
}

/// A person who watches in a terminal held up everybody who drained, for as long as they were willing to wait.
#[tokio::test(start_paused = true)]
async fn a_raw_watch_acknowledges_what_it_has_dealt_with() {
    let mut fake = Fake::start().await;
    let mut steps = to(&[fake.url()]).watch("ticket-svc", 0);
    let (first, stream) = tokio::join!(steps.next(), async {
        let stream = fake.watch().await;
        stream.snapshot(5, &["a"]).await;
        stream
    });
    assert_eq!(first.expect("one").expect("a snapshot").revision(), 5);
    let acks = |calls: &[Call]| -> Vec<i64> {
        let acks = calls.iter().filter_map(|call| match call {
            Call::Ack(request) => Some(request.revision),
            _ => None,
        });
        acks.collect()
    };
    assert_eq!(acks(&fake.calls()), [0; 0], "it has not come back for more");
    let next = async {
        fake.until("the acknowledgement", |calls| acks(calls) == [5]).await;
        stream.put(6, "b").await;
    };
    let (second, ()) = tokio::join!(steps.next(), next);
    assert_eq!(second.expect("one").expect("a delta").revision(), 6);
    let next = async {
        stream.removed(7, "a", v1::RemovalReason::Drained).await;
    };
    let (third, ()) = tokio::join!(steps.next(), next);
    assert_eq!(third.expect("one").expect("a delta").revision(), 7);
    assert_eq!(acks(&fake.calls()), [5], "what is new owes nothing");

    // Who resumes says that it has dealt with what it resumes from, when the watch has a name.
    let mut steps = to(&[fake.url()]).watch("ticket-svc", 7);
    let (first, stream) = tokio::join!(steps.next(), async {
        let stream = fake.watch().await;
        stream.bookmark(8).await;
        stream
    });
    assert_eq!(first.expect("one").expect("a bookmark").revision(), 8);
    let next = async {
        fake.until("the acknowledgement", |calls| acks(calls) == [5, 7]).await;
        stream.put(9, "b").await;
    };
    let (second, ()) = tokio::join!(steps.next(), next);
    assert_eq!(second.expect("one").expect("a delta").revision(), 9);
}
