//! Bodies that take their time, in both directions, larger than any window.

use std::{pin::Pin, task::Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, body::Body};
use tower_service::Service as _;

use crate::support::{ScriptedServer, channel_to, eventually, in_time};

/// Sends back what it receives, with flow control both ways, and `grpc-status: 0` at the end. Tells `reset` if the client
/// breaks off.
async fn echo(mut connection: h2::server::Connection<tokio::net::TcpStream, Bytes>, reset: mpsc::Sender<h2::Reason>) {
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let reset = reset.clone();
        streams.spawn(async move {
            let mut sending = respond
                .send_response(http::Response::new(()), false)
                .expect("the stream is open");
            let mut receiving = request.into_body();
            while let Some(data) = receiving.data().await {
                let mut data = match data {
                    Ok(data) => data,
                    Err(error) => {
                        return reset
                            .send(error.reason().expect("a reset"))
                            .await
                            .expect("the test waits");
                    }
                };
                receiving
                    .flow_control()
                    .release_capacity(data.len())
                    .expect("it was received");
                while !data.is_empty() {
                    sending.reserve_capacity(data.len());
                    let room = std::future::poll_fn(|cx| sending.poll_capacity(cx))
                        .await
                        .expect("open")
                        .expect("open");
                    sending
                        .send_data(data.split_to(room.min(data.len())), false)
                        .expect("open");
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            sending.send_trailers(trailers).expect("open");
        });
    }
}

async fn echo_server() -> (ScriptedServer, mpsc::Receiver<h2::Reason>) {
    // One reset at most is looked at.
    let (reset, resets) = mpsc::channel(1);
    let server = ScriptedServer::start(move |_, connection| echo(connection, reset.clone())).await;
    (server, resets)
}

fn request(frames: mpsc::Receiver<Result<Frame<Bytes>, Status>>) -> Request<Body> {
    Request::post("/s/m")
        .body(Body::new(StreamBody::new(ReceiverStream::new(frames))))
        .expect("a request")
}

#[tokio::test]
async fn megabytes_go_there_and_back_and_nothing_is_lost() {
    const CHUNKS: usize = 64;
    const CHUNK: usize = 100_003;
    let (server, _resets) = echo_server().await;
    let mut channel = channel_to(&[server.addr()]).await;
    let (send, frames) = mpsc::channel(4);
    let response = channel.call(request(frames)).await.expect("answered");
    let sending = tokio::spawn(async move {
        for n in 0..CHUNKS {
            send.send(Ok(Frame::data(Bytes::from(vec![n as u8; CHUNK]))))
                .await
                .expect("taken");
        }
    });
    let collected = response.into_body().collect().await.expect("no error");
    assert_eq!(
        collected.trailers().and_then(|trailers| trailers.get("grpc-status")),
        Some(&HeaderValue::from_static("0"))
    );
    let bytes = collected.to_bytes();
    assert_eq!(bytes.len(), CHUNKS * CHUNK);
    assert!(
        bytes
            .chunks(CHUNK)
            .enumerate()
            .all(|(n, chunk)| chunk.iter().all(|byte| *byte == n as u8))
    );
    sending.await.expect("did not panic");
    assert_eq!(channel.endpoints()[0].in_flight, 0);
}

#[tokio::test]
async fn each_message_is_answered_before_the_next_is_sent() {
    let (server, _resets) = echo_server().await;
    let mut channel = channel_to(&[server.addr()]).await;
    let (send, frames) = mpsc::channel(1);
    let mut response = channel
        .call(request(frames))
        .await
        .expect("answered before anything was sent")
        .into_body();
    for n in 0..20_u8 {
        send.send(Ok(Frame::data(Bytes::from(vec![n])))).await.expect("taken");
        let frame = response.frame().await.expect("an answer").expect("no error");
        assert_eq!(frame.into_data().expect("data")[..], [n]);
    }
    drop(send);
    assert!(response.frame().await.expect("an end").expect("no error").is_trailers());
}

/// Subscriptions that have each received a little and wait for more: if that stayed unacknowledged, they would hold the whole
/// connection's window between them and stall everything else on it.
#[tokio::test]
async fn thousands_of_idle_streams_leave_the_window_to_others() {
    const WINDOW: usize = 8 << 20;
    // Each below the portion that is acknowledged at once; together more than the window, or nothing is tested.
    const LITTLE: usize = 4000;
    const STREAMS: usize = 2200;
    const { assert!(LITTLE < 4096 && LITTLE * STREAMS > WINDOW) }
    // Without the acknowledgements the last streams, or what comes after them, wait for ever.
    in_time(fill_and_go_on(STREAMS, LITTLE)).await;
}

async fn fill_and_go_on(streams: usize, little: usize) {
    let (server, _resets) = echo_server().await;
    let channel = channel_to(&[server.addr()]).await;
    let mut idle = Vec::new();
    for _ in 0..streams {
        let (send, frames) = mpsc::channel(1);
        let mut body = channel
            .clone()
            .call(request(frames))
            .await
            .expect("answered")
            .into_body();
        send.send(Ok(Frame::data(Bytes::from(vec![0; little]))))
            .await
            .expect("taken");
        let mut received = 0;
        while received < little {
            let frame = body.frame().await.expect("an answer").expect("no error");
            received += frame.into_data().expect("data").len();
        }
        // It waits for more, which never comes.
        std::future::poll_fn(|cx| {
            assert!(http_body::Body::poll_frame(Pin::new(&mut body), cx).is_pending());
            Poll::Ready(())
        })
        .await;
        idle.push((send, body));
    }
    let (send, frames) = mpsc::channel(1);
    let body = channel
        .clone()
        .call(request(frames))
        .await
        .expect("answered")
        .into_body();
    tokio::spawn(async move {
        for _ in 0..10 {
            send.send(Ok(Frame::data(Bytes::from_static(&[0; 1 << 20]))))
                .await
                .expect("taken");
        }
    });
    assert_eq!(body.collect().await.expect("no error").to_bytes().len(), 10 << 20);
}

#[tokio::test]
async fn a_dropped_response_takes_the_request_with_it() {
    let (server, mut resets) = echo_server().await;
    let mut channel = channel_to(&[server.addr()]).await;
    let (send, frames) = mpsc::channel(1);
    let response = channel.call(request(frames)).await.expect("answered");
    assert!(!send.is_closed());
    drop(response);
    assert_eq!(resets.recv().await, Some(h2::Reason::CANCEL));
    eventually("nobody reads the request's stream any more", || send.is_closed()).await;
}

#[tokio::test]
async fn a_request_stream_that_fails_cancels_the_call() {
    let (server, mut resets) = echo_server().await;
    let mut channel = channel_to(&[server.addr()]).await;
    let (send, frames) = mpsc::channel(1);
    let mut response = channel.call(request(frames)).await.expect("answered").into_body();
    send.send(Err(Status::data_loss("the source dried up")))
        .await
        .expect("taken");
    assert_eq!(resets.recv().await, Some(h2::Reason::CANCEL));
    let status = response.frame().await.expect("an end").expect_err("cancelled");
    assert_eq!(status.code(), tonic::Code::Cancelled, "{status}");
}

#[tokio::test]
async fn a_request_stream_is_sent_while_nobody_polls_the_response() {
    let (received, all_received) = oneshot::channel();
    let received = std::sync::Mutex::new(Some(received));
    let server = ScriptedServer::start(move |_, mut connection| {
        let received = received.lock().expect("not poisoned").take();
        async move {
            let (request, mut respond) = connection.accept().await.expect("a request").expect("no error");
            let _sending = respond.send_response(http::Response::new(()), false).expect("open");
            let driven = tokio::spawn(async move { while connection.accept().await.is_some() {} });
            let mut stream = request.into_body();
            let mut count = 0;
            while let Some(data) = stream.data().await {
                let data = data.expect("no error");
                count += data.len();
                stream.flow_control().release_capacity(data.len()).expect("received");
            }
            received.expect("one connection").send(count).expect("the test waits");
            driven.abort();
        }
    })
    .await;
    let mut channel = channel_to(&[server.addr()]).await;
    let (send, frames) = mpsc::channel(1);
    let _response = channel.call(request(frames)).await.expect("answered");
    for _ in 0..10 {
        send.send(Ok(Frame::data(Bytes::from_static(&[7; 50_000]))))
            .await
            .expect("taken");
    }
    drop(send);
    assert_eq!(all_received.await.expect("received"), 500_000);
}

#[tokio::test]
async fn a_stream_of_messages_that_is_there_at_once_is_sent_whole() {
    let (server, _resets) = echo_server().await;
    let mut channel = channel_to(&[server.addr()]).await;
    let frames = tokio_stream::iter(["a", "b", "c"]).map(|text| Ok::<_, Status>(Frame::data(Bytes::from(text))));
    let request = Request::post("/s/m")
        .body(Body::new(StreamBody::new(frames)))
        .expect("a request");
    let body = channel.call(request).await.expect("answered").into_body();
    assert_eq!(body.collect().await.expect("no error").to_bytes(), "abc");
}
