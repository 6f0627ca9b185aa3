//! Client-side health checking (gRFC A17), over loopback: against tonic's own health service, and against servers that have
//! none or whose streams fail.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use lb::{EndpointState, Filter};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::support::{ScriptedServer, all_ready, answer, check, eventually, in_time, reason};

/// A server whose health is told by whoever runs it.
struct Reporting {
    address: SocketAddr,
    reporter: HealthReporter,
    task: JoinHandle<()>,
}

impl Reporting {
    async fn start(status: ServingStatus) -> Self {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("shop", status).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.expect("serves") });
        Self {
            address,
            reporter,
            task,
        }
    }

    async fn says(&self, status: ServingStatus) {
        self.reporter.set_service_status("shop", status).await;
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(text: &str) -> lb::ServiceConfig {
    text.parse().expect("a good config")
}

fn asked() -> lb::ServiceConfig {
    config(r#"{"healthCheckConfig": {"serviceName": "shop"}}"#)
}

fn builder(addresses: &[String]) -> lb::Builder {
    lb::Channel::builder(lb::Target::fixed(addresses).expect("good addresses")).policy(lb::Policy::RoundRobin)
}

fn state(channel: &lb::Channel, address: SocketAddr) -> EndpointState {
    let address = address.to_string();
    let mut views = channel.endpoints().into_iter();
    views.find(|view| view.address == address).expect("known").state
}

/// Who answers six calls.
async fn answering(channel: &lb::Channel) -> Vec<String> {
    let mut who = Vec::new();
    for _ in 0..6 {
        who.push(in_time(check(channel)).await.expect("answered"));
    }
    who.sort_unstable();
    who.dedup();
    who
}

#[tokio::test]
async fn only_who_says_that_it_serves_is_called() {
    let well = Reporting::start(ServingStatus::Serving).await;
    let other = Reporting::start(ServingStatus::NotServing).await;
    let channel = builder(&[well.address.to_string(), other.address.to_string()])
        .service_config(asked())
        .build();
    all_ready(&channel, 1).await;
    eventually("the other one is asked", || {
        state(&channel, other.address) == EndpointState::Unhealthy
    })
    .await;
    assert_eq!(answering(&channel).await, [well.address.to_string()]);
    eventually("its answer is there", || {
        channel.explain().instances.iter().any(|instance| {
            let removed = instance.removed.as_ref();
            removed.is_some_and(|it| it.by == Filter::Health && it.why.contains("NOT_SERVING of \"shop\""))
        })
    })
    .await;

    other.says(ServingStatus::Serving).await;
    all_ready(&channel, 2).await;
    assert_eq!(answering(&channel).await.len(), 2);

    well.says(ServingStatus::NotServing).await;
    all_ready(&channel, 1).await;
    assert_eq!(answering(&channel).await, [other.address.to_string()]);

    // Nobody serves: connected, and still an error that says why.
    other.says(ServingStatus::NotServing).await;
    all_ready(&channel, 0).await;
    channel
        .configure(&config(
            r#"{"methodConfig": [{"name": [{}], "tessera": {"readyTimeout": "0s"}}],
                "healthCheckConfig": {"serviceName": "shop"}}"#,
        ))
        .expect("usable");
    let status = in_time(check(&channel)).await.expect_err("nobody serves");
    assert_eq!(reason(&status), "NOT_READY");
    assert!(status.message().contains("NOT_SERVING"), "{status}");

    // No more asked, all are as good as connected.
    channel
        .configure(&config(r#"{"healthCheckConfig": {}}"#))
        .expect("usable");
    all_ready(&channel, 2).await;
    assert_eq!(answering(&channel).await.len(), 2);
}

/// A server that leaves in order waits for its streams to end: one that asked for health for ever used to be thinkable.
#[tokio::test]
async fn asking_does_not_keep_a_server_from_leaving() {
    let mut server = crate::support::TestServer::start();
    let channel = builder(&[server.addr()]).service_config(asked()).build();
    eventually("it is asked", || server.seen.calls() == 1).await;
    server.seen.tell_watchers().await;
    all_ready(&channel, 1).await;
    assert_eq!(server.seen.watchers(), 1);
    server.drain();
    eventually("nobody watches it", || server.seen.watchers() == 0).await;
}

/// What a scripted server does with the n-th question, from 0.
fn asked_of(
    script: fn(usize, h2::server::SendResponse<Bytes>),
) -> (Arc<AtomicUsize>, impl Future<Output = ScriptedServer>) {
    let questions = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&questions);
    let server = ScriptedServer::start(move |_, mut connection| {
        let count = Arc::clone(&count);
        async move {
            while let Some(Ok((request, respond))) = connection.accept().await {
                if request.uri().path().ends_with("/Watch") {
                    script(count.fetch_add(1, Ordering::SeqCst), respond);
                } else {
                    answer(respond);
                }
            }
        }
    });
    (questions, server)
}

fn status(mut respond: h2::server::SendResponse<Bytes>, code: &'static str) {
    let head = http::Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .body(())
        .expect("a head");
    respond.send_response(head, true).expect("the stream is open");
}

#[tokio::test]
async fn who_has_no_health_service_is_well_and_not_asked_again() {
    let (questions, server) = asked_of(|_, respond| status(respond, "12"));
    let server = server.await;
    let channel = builder(&[server.addr()]).service_config(asked()).build();
    all_ready(&channel, 1).await;
    assert_eq!(answering(&channel).await, [server.addr()]);
    // The word travels with the next publication, not with a clock: many of those change nothing.
    for _ in 0..10 {
        channel
            .configure(&config(
                r#"{"healthCheckConfig": {"serviceName": "shop"}, "tessera": {"slowStart": false}}"#,
            ))
            .expect("usable");
        channel.configure(&asked()).expect("usable");
        assert_eq!(answering(&channel).await, [server.addr()]);
    }
    assert_eq!(questions.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_fails_is_begun_again_after_a_pause_and_nobody_is_ready_meanwhile() {
    let (questions, server) = asked_of(|number, respond| match number {
        0 => status(respond, "14"),
        // It says SERVING, and ends in order.
        _ => answer(respond),
    });
    let server = server.await;
    let channel = builder(&[server.addr()]).service_config(asked()).build();
    eventually("it has failed", || {
        channel.explain().instances.iter().any(|instance| {
            let removed = instance.removed.as_ref();
            removed.is_some_and(|it| it.by == Filter::Health && it.why.contains("Unavailable"))
        })
    })
    .await;
    assert_eq!(questions.load(Ordering::SeqCst), 1);
    assert_eq!(state(&channel, server.address), EndpointState::Unhealthy);
    eventually("it is asked again", || questions.load(Ordering::SeqCst) >= 2).await;
}

#[tokio::test]
async fn nobody_is_asked_who_need_not_be() {
    let (questions, server) = asked_of(|_, respond| status(respond, "14"));
    let server = server.await;
    let channel = builder(&[server.addr()])
        .service_config(config(r#"{"healthCheckConfig": {}}"#))
        .build();
    all_ready(&channel, 1).await;
    assert_eq!(answering(&channel).await, [server.addr()]);
    assert_eq!(questions.load(Ordering::SeqCst), 0);
}
