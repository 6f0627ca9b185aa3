//! Requests that begin and do not arrive.
//!
//! A peer sent all but the last byte of 4 MiB on each of 100 streams and answered pings: 400 MB a connection, for ever.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, uri::PathAndQuery};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, body::Body};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;
use tower::{Service as _, ServiceExt as _};

use crate::support::{
    PATIENCE,
    client::{Client, ask},
    eventually, limited,
    raw::message,
    server_and_client,
    service::Text,
};

const SAY: &str = "/tessera.test.v1.Test/Say";
const WATCH: &str = "/tessera.test.v1.Test/Watch";
const TALK: &str = "/tessera.test.v1.Test/Talk";
const HEALTH: &str = "/grpc.health.v1.Health/Watch";

/// Sends those bytes as a request body and returns the status it gets.
async fn upload(client: &Client, path: &str, bytes: impl Stream<Item = Bytes> + Send + 'static) -> Status {
    let body = StreamBody::new(bytes.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
    let request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body))
        .expect("a request");
    let mut connection = client.channel.clone();
    let call = async {
        let response = connection.ready().await.expect("open").call(request).await;
        let response = response.expect("an answer");
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        let body = response.into_body().collect().await.expect("a body");
        Status::from_header_map(body.trailers().expect("trailers")).expect("a status")
    };
    tokio::time::timeout(PATIENCE, call).await.expect("the call ends")
}

/// Those bytes, and then neither more nor the end.
fn unfinished(bytes: impl Into<Bytes>) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::iter([bytes.into()]).chain(stream::pending())
}

fn assert_too_slow(what: &str, status: &Status) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{what}: {status:?}");
    let info = status.get_details_error_info().expect("has ErrorInfo");
    assert_eq!(info.reason, "REQUEST_TOO_SLOW", "{what}");
}

#[tokio::test]
async fn a_message_that_does_not_arrive_ends_its_call() {
    let timeout = Duration::from_millis(200);
    let (running, client) = server_and_client(limited(|limits| limits.message_timeout = timeout)).await;
    let whole = message(b"\x0a\x05hello");
    let half = whole[..whole.len() - 1].to_vec();
    for (what, path, bytes) in [
        ("nothing, where one is due", SAY, vec![]),
        ("half a prefix", SAY, vec![0, 0]),
        ("half a message", SAY, half.clone()),
        ("half a message to a stream of answers", WATCH, half.clone()),
        ("a message without an end", SAY, whole.clone()),
        ("half a message on a stream", TALK, half.clone()),
        ("half a second message", TALK, [whole, half.clone()].concat()),
        ("half a message to what the host serves itself", HEALTH, half),
    ] {
        let started = Instant::now();
        assert_too_slow(what, &upload(&client, path, unfinished(bytes)).await);
        assert!(started.elapsed() >= timeout, "{what}: {:?}", started.elapsed());
    }
    client
        .say(ask("hello", None))
        .await
        .expect("the connection is unharmed");
    eventually("nothing is left open", || running.calls_in_flight() == 0).await;
}

/// A timeout between frames would be renewed by each byte.
#[tokio::test]
async fn a_dripping_message_ends_its_call() {
    let timeout = Duration::from_millis(300);
    let (_running, client) = server_and_client(limited(|limits| limits.message_timeout = timeout)).await;
    let prefix = Bytes::from_static(&[0, 0, 1, 0, 0]);
    let drip = stream::iter([prefix]).chain(stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Bytes::from_static(b"x"), ()))
    }));
    let started = Instant::now();
    assert_too_slow("dripping", &upload(&client, TALK, drip).await);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// A registrar's heartbeats are seconds apart on one stream: silence between messages is not an upload.
#[tokio::test]
async fn a_stream_may_be_idle_between_messages() {
    let timeout = Duration::from_millis(50);
    let (_running, client) = server_and_client(limited(|limits| limits.message_timeout = timeout)).await;
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.expect("ready");
    let path = PathAndQuery::from_static(TALK);
    let request = tonic::Request::new(ReceiverStream::new(receive));
    let talk = grpc.streaming(request, path, ProstCodec::<Text, Text>::default());
    let mut answers = talk.await.expect("started").into_inner();
    for text in ["one", "two", "three"] {
        let silence = tokio::time::timeout(timeout * 4, answers.message()).await;
        assert!(silence.is_err(), "nothing happens: {silence:?}");
        send.send(Text::from(text)).await.expect("open");
        assert_eq!(answers.message().await.expect("ok"), Some(Text::from(text)));
    }
    drop(send);
    assert_eq!(answers.message().await.expect("ends well"), None);
}

/// The bound is on what does not come, not on size.
#[tokio::test]
async fn a_large_message_that_keeps_coming_is_taken() {
    let timeout = Duration::from_millis(500);
    let (_running, client) = server_and_client(limited(|limits| limits.message_timeout = timeout)).await;
    let text = "x".repeat(3 << 20);
    let answer = client.say(ask(&text, None)).await.expect("taken").into_inner();
    assert_eq!(answer.text.len(), text.len());
}

/// Row 34 of the fault plan: frames that are none, and messages that do not decode. Each is one call's error; the connection, and the
/// others on it, go on.
#[tokio::test]
async fn malformed_messages_are_errors_of_their_call_alone() {
    let (_running, client) = server_and_client(limited(|_| {})).await;
    let nested = (0..100).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut outer = vec![0x12];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        [outer, inner].concat()
    });
    for (what, bytes, expected) in [
        ("a flag that does not exist", vec![7, 0, 0, 0, 0], Code::InvalidArgument),
        (
            "compressed, and not said how",
            vec![1, 0, 0, 0, 2, 0x78, 0x9c],
            // As gRPC's specification of compression has it.
            Code::Internal,
        ),
        (
            "4 GiB are to follow",
            vec![0, 0xff, 0xff, 0xff, 0xff, 0],
            Code::ResourceExhausted,
        ),
        ("cut off", vec![0, 0, 0, 0, 10, 0x0a], Code::InvalidArgument),
        ("no message at all", Vec::new(), Code::InvalidArgument),
        ("no protobuf", message(&[0xff; 64]), Code::InvalidArgument),
        (
            "text that is not UTF-8",
            message(&[0x0a, 0x02, 0xc3, 0x28]),
            Code::InvalidArgument,
        ),
        (
            "a number where there is text",
            message(&[0x08, 0x01]),
            Code::InvalidArgument,
        ),
    ] {
        let status = upload(&client, SAY, stream::iter([Bytes::from(bytes)])).await;
        assert_eq!(status.code(), expected, "{what}: {status:?}");
        client.say(ask("hello", None)).await.expect("others are served");
    }
    // Fields that nobody knows are passed over, however deep.
    let status = upload(&client, SAY, stream::iter([Bytes::from(message(&nested))])).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
}
