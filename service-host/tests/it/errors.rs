//! What callers are told when they, or a handler, get it wrong.

use bytes::{Buf as _, BufMut as _};
use http::uri::PathAndQuery;
use tonic::{
    Code, Request, Response, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_types::{ErrorInfo, StatusExt as _};
use tower::Service as _;

use crate::support::{
    client::{Client, ask},
    config, eventually, server_and_client,
    service::Text,
};

/// Sends bytes as they are.
#[derive(Clone, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

async fn send(client: &Client, path: &'static str, bytes: Vec<u8>) -> Result<Response<Vec<u8>>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.expect("ready");
    grpc.unary(Request::new(bytes), PathAndQuery::from_static(path), Bytes)
        .await
}

fn info(status: &Status) -> ErrorInfo {
    let info = status.get_details_error_info().expect("every error has ErrorInfo");
    assert_eq!(info.domain, "tessera");
    info
}

/// tonic answers INTERNAL, which is the server's fault by definition.
#[tokio::test]
async fn garbage_is_the_callers_fault() {
    let (_running, client) = server_and_client(config()).await;
    for garbage in [
        &b"\xff\xff\xff\xff"[..],
        b"\x0a\x7fshort",
        b"\x08\x01\x0a\x02\xff\xfe",
        b"\x00",
    ] {
        for path in ["/tessera.test.v1.Test/Say", "/tessera.test.v1.Test/Watch"] {
            let status = send(&client, path, garbage.to_vec()).await.expect_err("garbage");
            assert_eq!(status.code(), Code::InvalidArgument, "{garbage:?}: {status:?}");
            assert_eq!(info(&status).reason, "MALFORMED_MESSAGE");
            assert!(
                status.message().contains("tessera.test.v1.Test/"),
                "{}",
                status.message()
            );
        }
    }
    client
        .say(ask("hello", None))
        .await
        .expect("the connection is unharmed");
}

/// A handler that passes on what its own client met had its caller blamed: the words are tonic's, on either side.
#[tokio::test]
async fn what_a_handler_met_elsewhere_is_not_the_callers_fault() {
    let (_running, client) = server_and_client(config()).await;
    for (text, code) in [("pass on garbage", Code::Internal), ("pass on size", Code::OutOfRange)] {
        let status = client.say(ask(text, None)).await.expect_err("passed on");
        assert_eq!((status.code(), status.details()), (code, &b""[..]), "{status:?}");
    }
}

#[tokio::test]
async fn oversized_messages_are_told_the_limit() {
    let (_running, client) = server_and_client(config()).await;
    let status = client
        .say(ask(&"x".repeat(5 << 20), None))
        .await
        .expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = info(&status);
    assert_eq!(info.reason, "MESSAGE_TOO_LARGE");
    assert_eq!(info.metadata.get("limit").map(String::as_str), Some("4194304"));
    assert!(status.message().contains("4194304"), "{}", status.message());
}

#[tokio::test]
async fn unknown_names_are_told_what_there_is() {
    let (_running, client) = server_and_client(config()).await;
    for (path, reason, named) in [
        ("/tessera.test.v1.Test/Nothing", "UNKNOWN_METHOD", "Say, Watch"),
        (
            "/tessera.test.v1.Elsewhere/Say",
            "UNKNOWN_SERVICE",
            "tessera.test.v1.Test",
        ),
        ("/", "UNKNOWN_SERVICE", "tessera.test.v1.Test"),
        ("/a/b/c", "UNKNOWN_SERVICE", "tessera.test.v1.Test"),
    ] {
        let status = send(&client, path, vec![]).await.expect_err("unknown");
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert_eq!(info(&status).reason, reason, "{path}");
        assert!(status.message().contains(named), "{}", status.message());
        assert!(status.message().contains("reflection"), "{}", status.message());
    }
}

/// Repeated whole, a long path made an answer whose headers the caller's own limit refused.
#[tokio::test]
async fn long_names_are_not_repeated() {
    let (_running, client) = server_and_client(config()).await;
    let path: &'static str = Box::leak(format!("/{}/x", "y".repeat(8_000)).into_boxed_str());
    let status = send(&client, path, vec![]).await.expect_err("unknown");
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(
        status.message().len() < 1_000 && status.details().len() < 1_000,
        "{status:?}"
    );
}

#[tokio::test]
async fn a_services_own_errors_are_untouched() {
    let (_running, client) = server_and_client(config()).await;
    let status = client.say(ask("not found", None)).await.expect_err("not found");
    assert_eq!(
        (status.code(), status.message(), status.details()),
        (Code::NotFound, "nothing here", &b""[..])
    );
}

/// Without the layer the caller sees a reset without a reason.
#[tokio::test]
async fn a_panic_ends_its_call_and_no_more() {
    let (running, client) = server_and_client(config()).await;
    let status = client.say(ask("panic", None)).await.expect_err("panicked");
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(info(&status).reason, "PANIC");
    assert!(!status.message().contains("secret"), "a panic's words stay in the log");

    let mut stream = client.watch(ask("panic", None)).await.expect("started");
    assert_eq!(stream.message().await.expect("ok"), Some(Text::from("first")));
    let status = stream.message().await.expect_err("panicked");
    assert_eq!(
        (status.code(), info(&status).reason.as_str()),
        (Code::Internal, "PANIC")
    );

    client
        .say(ask("hello", None))
        .await
        .expect("same connection, still served");
    eventually("nothing is left open", || running.calls_in_flight() == 0).await;
}

#[tokio::test]
async fn every_response_names_the_instance() {
    let (_running, client) = server_and_client(config()).await;
    let response = client.say(ask("hello", None)).await.expect("answered");
    assert_eq!(
        response.metadata().get(service_host::INSTANCE_HEADER).expect("named"),
        "test-1"
    );
    for text in ["not found", "panic"] {
        let status = client.say(ask(text, None)).await.expect_err("an error");
        assert_eq!(
            status.metadata().get(service_host::INSTANCE_HEADER).expect("named"),
            "test-1",
            "{text}"
        );
    }
}

#[tokio::test]
async fn handlers_know_who_calls() {
    let (_running, client) = server_and_client(config()).await;
    let peer = client.say(ask("peer", None)).await.expect("answered").into_inner().text;
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
}

/// A browser, a probe or a client of another protocol was served as if it spoke gRPC.
#[tokio::test]
async fn what_is_no_grpc_is_told_so_in_http() {
    let (_running, mut client) = server_and_client(config()).await;
    for (method, content, expected) in [
        ("POST", Some("application/grpc"), 200),
        ("POST", Some("application/grpc+proto"), 200),
        ("POST", Some("application/grpc;v=1"), 200),
        ("POST", Some("application/grpc-web+proto"), 415),
        ("POST", Some("application/json"), 415),
        ("POST", None, 415),
        ("GET", Some("application/grpc"), 405),
    ] {
        let mut request = http::Request::builder().method(method).uri("/a.A/Do");
        if let Some(content) = content {
            request = request.header("content-type", content);
        }
        let request = request.body(tonic::body::Body::empty()).expect("a request");
        let response = client.channel.call(request).await.expect("answers");
        assert_eq!(response.status(), expected, "{method} {content:?}");
    }
}
