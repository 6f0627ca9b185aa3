//! Fallbacks: by force, on failure, never on a business error; counted and seen in the trace.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckResponse;

use crate::support::{ScriptedServer, TestServer, all_ready, ask, client, in_time, reason};

/// NOT_SERVING, which no server here says.
const STANDIN: i32 = 2;

fn rule(rule: &str) -> lb::ServiceConfig {
    let name = r#"{"service": "grpc.health.v1.Health", "method": "Check"}"#;
    format!("{{\"methodConfig\": [{{\"name\": [{name}],\n\"tessera\": {{\"fallback\": {rule}}}}}]}}")
        .parse()
        .expect("a good rule")
}

fn nobody() -> lb::Builder {
    let (_, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, [])));
    lb::Channel::builder(Discovery::fed_by("s", snapshots)).ready_timeout(std::time::Duration::ZERO)
}

fn to(address: String) -> lb::Builder {
    lb::Channel::builder(lb::Target::fixed([address]).expect("a good address"))
}

async fn status_of(channel: &lb::Channel) -> Result<(i32, Option<lb::Degraded>), Status> {
    let response = in_time(client(channel).check(ask("x"))).await?;
    let degraded = response.extensions().get::<lb::Degraded>().cloned();
    Ok((response.into_inner().status, degraded))
}

/// A server that ends every call with that status.
async fn answering(code: Code) -> ScriptedServer {
    ScriptedServer::start(move |_, mut connection| async move {
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let head = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", (code as i32).to_string())
                .header("grpc-message", "on%20purpose")
                .body(())
                .expect("a head");
            respond.send_response(head, true).expect("the stream is open");
        }
    })
    .await
}

/// `HealthCheckResponse`, encoded: field 1, a varint.
fn encoded(status: i32) -> Bytes {
    Bytes::from(vec![8, u8::try_from(status).expect("small")])
}

#[tokio::test]
async fn force_never_calls_and_tells_so() {
    let server = TestServer::start();
    let channel = to(server.addr())
        .descriptors(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .expect("descriptors")
        .build();
    all_ready(&channel, 1).await;
    assert_eq!(status_of(&channel).await.expect("answered"), (1, None));
    channel
        .configure(&rule(r#"{"when": "force", "reply": {"status": "NOT_SERVING"}}"#))
        .expect("usable");
    let (status, degraded) = status_of(&channel).await.expect("answered");
    let degraded = degraded.expect("it is told");
    assert_eq!(status, STANDIN);
    assert_eq!(
        (degraded.when, degraded.failure, &*degraded.by),
        (lb::FallbackWhen::Force, None, "reply")
    );
    assert_eq!(server.seen.calls(), 1, "not called a second time");
    // Other methods are called.
    in_time(client(&channel).watch(ask(""))).await.expect("a stream");
    assert_eq!(server.seen.calls(), 2);
    channel.configure(&lb::ServiceConfig::default()).expect("usable");
    assert_eq!(status_of(&channel).await.expect("answered"), (1, None));
}

#[tokio::test]
async fn a_failure_is_answered_by_a_function_that_knows_of_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let channel = nobody()
        .fallback_handler("from-code", {
            let asked = Arc::clone(&asked);
            move |request: &lb::FallbackRequest<'_>| {
                asked.fetch_add(1, Ordering::SeqCst);
                assert_eq!(request.path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.message().as_deref(), Some(&b"\x0a\x01x"[..]), "service = \"x\"");
                assert_eq!(request.failure().map(Status::code), Some(Code::Unavailable));
                Ok(encoded(STANDIN))
            }
        })
        .service_config(rule(r#"{"when": "fail", "handler": "from-code"}"#))
        .build();
    let (status, degraded) = status_of(&channel).await.expect("answered");
    let degraded = degraded.expect("it is told");
    assert_eq!((status, degraded.failure), (STANDIN, Some(Code::Unavailable)));
    assert_eq!(&*degraded.by, "handler from-code");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let metrics = telemetry::metrics::encode();
    let counted = "tessera_lb_fallbacks_total{service=\"s\",when=\"fail\",outcome=\"answered\"}";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn what_the_business_has_decided_stands() {
    for (code, degrades) in [
        (Code::NotFound, false),
        (Code::Unavailable, true),
        (Code::Internal, true),
    ] {
        let server = answering(code).await;
        let channel = to(server.addr())
            .fallback_handler("h", |_: &lb::FallbackRequest<'_>| Ok(encoded(STANDIN)))
            .service_config(rule(r#"{"when": "fail", "handler": "h"}"#))
            .build();
        match status_of(&channel).await {
            Ok((status, degraded)) => {
                assert!(degrades, "{code:?} is the answer");
                assert_eq!(
                    (status, degraded.and_then(|degraded| degraded.failure)),
                    (STANDIN, Some(code))
                );
            }
            Err(status) => {
                assert!(!degrades, "{status}");
                assert_eq!((status.code(), status.message()), (code, "on purpose"));
            }
        }
    }
}

#[tokio::test]
async fn a_fallback_that_cannot_help_does_not_hide_the_failure() {
    let channel = nobody()
        .fallback_handler("h", |_: &lb::FallbackRequest<'_>| {
            Err(Status::data_loss("nothing here either"))
        })
        .service_config(rule(r#"{"when": "fail", "handler": "h"}"#))
        .build();
    let status = status_of(&channel).await.expect_err("nobody helps");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "NO_INSTANCES")
    );
}

#[tokio::test]
async fn another_service_answers_and_two_do_not_go_in_circles() {
    let server = TestServer::start();
    let standby = to(server.addr()).build();
    let channel = nobody()
        .fallback_channel("standby", standby)
        .service_config(rule(r#"{"when": "fail", "handler": "standby"}"#))
        .build();
    let (status, degraded) = status_of(&channel).await.expect("answered");
    assert_eq!((status, &*degraded.expect("told").by), (1, "handler standby"));
    assert_eq!(server.seen.calls(), 1);

    let other = nobody()
        .fallback_channel("first", channel.clone())
        .service_config(rule(r#"{"when": "fail", "handler": "first"}"#))
        .build();
    let status = status_of(&other).await.expect_err("it stood in for itself otherwise");
    assert_eq!(reason(&status), "NO_INSTANCES");

    // The same by name, out of the same registry.
    let instance = Instance::new("s", "a", &server.addr());
    let (_told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, [instance])));
    let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots))
        .service_config(rule(r#"{"when": "force", "service": "s-old", "version": "1.0.0"}"#))
        .build();
    let (status, degraded) = status_of(&channel).await.expect("answered");
    assert_eq!((status, &*degraded.expect("told").by), (1, "service s-old 1.0.0"));
}

#[tokio::test]
async fn a_rule_that_names_nothing_is_an_error_with_its_line() {
    let server = TestServer::start();
    let channel = to(server.addr())
        .fallback_handler("known", |_: &lb::FallbackRequest<'_>| Ok(Bytes::new()))
        .build();
    for (text, expected) in [
        (r#"{"when": "fail", "handler": "unknown"}"#, "was given known"),
        (r#"{"when": "fail", "service": "other"}"#, "needs a registry"),
        (r#"{"when": "fail", "reply": {"status": 1}}"#, "Builder::descriptors"),
    ] {
        let error = channel
            .configure(&rule(text))
            .expect_err("it leads nowhere")
            .to_string();
        assert!(error.starts_with("line 2, ") && error.contains(expected), "{error}");
        assert_eq!(status_of(&channel).await.expect("answered").1, None);
    }
    let error = to(server.addr())
        .service_config(rule(r#"{"when": "fail", "handler": "unknown"}"#))
        .connect()
        .await
        .expect_err("it leads nowhere");
    assert!(matches!(error, lb::ConnectError::ServiceConfig(_)), "{error}");
}

#[tokio::test]
async fn a_stream_of_replies_can_be_stood_in_for_by_one() {
    let name = r#"{"service": "grpc.health.v1.Health"}"#;
    let config = format!(
        r#"{{"methodConfig": [{{"name": [{name}], "tessera": {{"fallback": {{"when": "force", "reply": {{}}}}}}}}]}}"#
    );
    let channel = nobody().service_config(config.parse().expect("good")).build();
    let mut stream = in_time(client(&channel).watch(ask("")))
        .await
        .expect("answered")
        .into_inner();
    let message = in_time(stream.message()).await.expect("no error");
    assert_eq!(message, Some(HealthCheckResponse { status: 0 }));
    assert_eq!(in_time(stream.message()).await.expect("OK at the end"), None);
}

#[tokio::test]
async fn the_trace_shows_it() {
    use telemetry::testing::install_in_memory;

    let spans = install_in_memory();
    let server = TestServer::start();
    let channel = nobody()
        .fallback_channel("standby", to(server.addr()).build())
        .service_config(rule(r#"{"when": "fail", "handler": "standby"}"#))
        .build();
    status_of(&channel).await.expect("answered");
    let parent = server.seen.metadata("traceparent").expect("every call is traced");
    let trace = spans.of_trace(parent.split('-').nth(1).expect("a trace id"));
    let degraded = trace
        .iter()
        .find(|span| {
            span.attributes
                .iter()
                .any(|attribute| attribute.key.as_str() == "tessera.fallback")
        })
        .expect("the call that failed says what took over");
    assert!(degraded.events.iter().any(|event| event.name == "fallback"));
    let standby = trace
        .iter()
        .find(|span| span.parent_span_id == degraded.span_context.span_id() && span.name.ends_with("Health/Check"))
        .expect("the call of the fallback is a child of it");
    assert!(
        standby
            .attributes
            .iter()
            .all(|attribute| attribute.key.as_str() != "tessera.fallback")
    );
}
