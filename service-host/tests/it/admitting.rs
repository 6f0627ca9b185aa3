//! A gate decides about every call before any routing, by the path alone, and about streams for as long as they last.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::Extensions;
use service_host::{Credentials, Gate, Host, Pass, Revocation, Running};
use tonic::{Code, Status, body::Body, server::NamedService};
use tonic_types::StatusExt as _;
use tower::Service;

use crate::support::{
    PATIENCE,
    client::{Client, ask},
    config, eventually,
    raw::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, SETTINGS, call_headers, literal, message},
    service::{Test, descriptors},
};

const SAY: &str = "/tessera.test.v1.Test/Say";
const WATCH: &str = "/tessera.test.v1.Test/Watch";

/// Lets whoever says "good" call the two methods it knows; keeps what it was asked.
#[derive(Debug, Default)]
struct OnlyGood {
    revocation: Revocation,
    asked: AtomicUsize,
}

impl Gate for OnlyGood {
    fn admit(&self, path: &str, credentials: Credentials<'_>, extensions: &mut Extensions) -> Result<Pass, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if credentials != Credentials::Bearer("good") {
            return Err(Status::unauthenticated("who are you?"));
        }
        extensions.insert(Principal);
        match path {
            SAY => Ok(Pass::ToItsEnd),
            WATCH => Ok(Pass::Until(self.revocation.clone())),
            _ => Err(Status::permission_denied("not you")),
        }
    }
}

#[derive(Debug, Clone)]
struct Principal;

/// The test service, and how often anything of it was reached.
#[derive(Debug, Clone)]
struct Counted {
    inner: Test,
    reached: Arc<AtomicUsize>,
}

impl NamedService for Counted {
    const NAME: &'static str = Test::NAME;
}

impl Service<http::Request<Body>> for Counted {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // When it starts the host asks each described service for a method that none has.
        if !request.uri().path().ends_with("/no-such-method") {
            self.reached.fetch_add(1, Ordering::Relaxed);
            assert!(request.extensions().get::<Principal>().is_some(), "the gate's word");
            assert!(!request.headers().contains_key("authorization"), "it went too far");
        }
        self.inner.call(request)
    }
}

struct Fixture {
    running: Running,
    gate: Arc<OnlyGood>,
    reached: Arc<AtomicUsize>,
}

async fn gated() -> Fixture {
    let gate = Arc::new(OnlyGood::default());
    let host = Host::bind(config().gate(Some(gate.clone())))
        .await
        .expect("a free port");
    let reached = Arc::new(AtomicUsize::new(0));
    let routes = tonic::service::Routes::new(Counted {
        inner: Test {
            drain: host.drain_signal(),
        },
        reached: reached.clone(),
    });
    let running = host.serve(routes, &[descriptors()]);
    running.set_all_serving();
    Fixture { running, gate, reached }
}

fn with(token: &'static str, text: &str) -> tonic::Request<crate::support::service::Text> {
    let mut request = ask(text, None);
    let value = format!("Bearer {token}").parse().expect("a header");
    request.metadata_mut().insert("authorization", value);
    request
}

#[tokio::test]
async fn whoever_is_not_admitted_reaches_nothing() {
    let fixture = gated().await;
    let client = Client::connect(fixture.running.local_addr()).await;
    let status = client.say(ask("hello", None)).await.expect_err("no token");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "who are you?")
    );
    assert_eq!(status.metadata().get("www-authenticate").expect("a hint"), "Bearer");
    let status = client.say(with("bad", "hello")).await.expect_err("a bad token");
    assert_eq!(status.code(), Code::Unauthenticated);
    // What the host adds by itself is no exception.
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let answered = client.unary::<_, crate::support::service::Text>(path, ask("", None));
        assert_eq!(answered.await.expect_err(path).code(), Code::Unauthenticated, "{path}");
    }
    assert_eq!(fixture.reached.load(Ordering::Relaxed), 0);
    let said = client.say(with("good", "hello")).await.expect("admitted");
    assert_eq!(said.get_ref().text, "hello");
    assert_eq!(fixture.reached.load(Ordering::Relaxed), 1);
}

/// CVE-2026-33186 and its kin: a gate that compares another text than the router, or a router that tidies paths up.
#[tokio::test]
async fn tricks_with_the_path_are_decided_as_what_they_call_or_refused() {
    let fixture = gated().await;
    let tricks = [
        // To the router these are `Say`; so they are to the gate.
        (SAY.to_owned() + "?x", true),
        (SAY.to_owned() + "?/../Watch", true),
        (SAY.to_owned() + "#x", true),
        (SAY.to_owned() + "/", false),
        ("/".to_owned() + SAY, false),
        (SAY.to_owned() + "//", false),
        (SAY.replace("Say", "%53ay"), false),
        (SAY.replace("Test/", "Test%2f"), false),
        (SAY.replace("/Say", "/Watch/../Say"), false),
        (SAY.replace("/Say", "/./Say"), false),
        (SAY.to_lowercase(), false),
        (SAY.to_owned() + "\u{0}", false),
        (SAY.to_owned() + ";x=1", false),
        (SAY.to_owned() + " ", false),
        (SAY.trim_start_matches('/').to_owned(), false),
        ("http://elsewhere".to_owned() + SAY, false),
        ("*".to_owned(), false),
        (String::new(), false),
        ("/".to_owned(), false),
    ];
    for (path, is_say) in tricks {
        for token in ["good", "bad", ""] {
            let before = fixture.reached.load(Ordering::Relaxed);
            let answered = raw_call(&fixture, &path, token).await;
            let reached = fixture.reached.load(Ordering::Relaxed) - before;
            let admitted = is_say && token == "good";
            assert_eq!(reached, usize::from(admitted), "{path:?} as {token:?}");
            assert_eq!(answered, admitted, "{path:?} as {token:?}");
        }
    }
    assert!(fixture.gate.asked.load(Ordering::Relaxed) > 0);
}

/// Whether a call with this path, byte for byte, was answered with a message; HTTP/2 itself refuses some of them.
async fn raw_call(fixture: &Fixture, path: &str, token: &str) -> bool {
    let mut raw = Raw::open(fixture.running.local_addr(), &[]).await;
    raw.next_of(SETTINGS).await.expect("settings");
    let mut headers = call_headers(path);
    if !token.is_empty() {
        headers.extend(literal("authorization", &format!("Bearer {token}")));
    }
    raw.send(HEADERS, END_HEADERS, 1, &headers).await.expect("written");
    // The server may have closed by now: then there is no answer.
    let _ = raw.send(DATA, END_STREAM, 1, &message(&[0x0a, 1, b'a'])).await;
    let mut answered = false;
    while let Some(frame) = raw.next().await {
        answered |= frame.kind == DATA && !frame.payload.is_empty();
        if frame.kind == RST_STREAM || (frame.kind == HEADERS && frame.flags & END_STREAM != 0) {
            break;
        }
    }
    answered
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked() {
    let fixture = gated().await;
    let client = Client::connect(fixture.running.local_addr()).await;
    let mut watch = client.watch(with("good", "hang")).await.expect("admitted");
    assert_eq!(watch.message().await.expect("open").expect("first").text, "first");
    fixture.gate.revocation.revoke();
    let ended = tokio::time::timeout(PATIENCE, watch.message()).await;
    let status = ended.expect("soon").expect_err("ended");
    assert_eq!(status.code(), Code::Unauthenticated);
    let info = status.get_details_error_info().expect("a reason");
    assert_eq!(info.reason, "TOKEN_REVOKED");
    eventually("its call is over", || fixture.running.calls_in_flight() == 0).await;
}

/// What a stream has ready is endless here: the revocation is looked at before each message.
#[tokio::test]
async fn a_stream_that_always_has_something_to_say_ends_as_well() {
    let fixture = gated().await;
    let client = Client::connect(fixture.running.local_addr()).await;
    let mut watch = client.watch(with("good", "flood")).await.expect("admitted");
    fixture.gate.revocation.revoke();
    let ended = async {
        loop {
            if let Err(status) = watch.message().await.map(|message| message.expect("no end but this")) {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    assert_eq!(status.code(), Code::Unauthenticated);
}

/// `{:?}` of a request printed the token.
#[tokio::test]
async fn without_a_gate_the_header_is_the_services_and_is_not_shown() {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let host = Host::bind(config()).await.expect("a free port");
    let shown = seen.clone();
    let routes = tonic::service::Routes::new(Showing(shown));
    let running = host.serve(routes, &[]);
    let client = Client::connect(running.local_addr()).await;
    let _ = client.say(with("canary", "hello")).await;
    let shown = seen.lock().expect("whole").clone();
    assert!(shown.contains("Sensitive"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[derive(Debug, Clone)]
struct Showing(Arc<std::sync::Mutex<String>>);

impl NamedService for Showing {
    const NAME: &'static str = Test::NAME;
}

impl Service<http::Request<Body>> for Showing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        *self.0.lock().expect("whole") = format!("{:?}", request.headers());
        std::future::ready(Ok(Status::ok("").into_http()))
    }
}
