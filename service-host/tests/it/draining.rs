//! The end of a server: what finishes, what is refused, what is cut, and that it ends.

use std::time::{Duration, Instant};

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{
    client::{Client, ask},
    config, eventually,
    raw::{
        ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, Raw, SETTINGS, WINDOW_UPDATE, call_headers,
        encode, message,
    },
    serve, server_and_client,
    service::{LARGE, Text},
};

/// tonic's own shutdown waits for ever on an open stream.
#[tokio::test]
async fn streams_that_listen_to_the_drain_end_well() {
    let (running, client) = server_and_client(config()).await;
    let mut stream = client.watch(ask("until drain", None)).await.expect("started");
    assert_eq!(stream.message().await.expect("ok"), Some(Text::from("first")));
    let (report, ()) = tokio::join!(running.drain(Duration::from_secs(10)), async {
        assert_eq!(stream.message().await.expect("ok"), Some(Text::from("bye")));
        assert_eq!(stream.message().await.expect("ends well"), None);
    });
    assert!(report.is_clean() && report.connections_cut == 0, "{report:?}");
    assert!(report.took < Duration::from_secs(5), "{report:?}");
}

#[tokio::test]
async fn what_does_not_end_is_cut_and_counted() {
    let (running, client) = server_and_client(config()).await;
    let mut stream = client.watch(ask("hang", None)).await.expect("started");
    stream.message().await.expect("ok");
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.say(ask("hang", None)).await }
    });
    eventually("both run", || running.calls_in_flight() == 2).await;
    let grace = Duration::from_millis(200);
    let started = Instant::now();
    let report = running.drain(grace).await;
    assert_eq!((report.connections_cut, report.calls_cut), (1, 2), "{report}");
    assert!(
        started.elapsed() >= grace && started.elapsed() < Duration::from_secs(5),
        "{report}"
    );
    assert!(
        report.to_string().contains("cut 1 connections with 2 unfinished calls"),
        "{report}"
    );
    stream.message().await.expect_err("cut");
    hanging.await.expect("no panic").expect_err("cut");
}

#[tokio::test]
async fn open_calls_finish_and_new_connections_are_refused() {
    let (running, client) = server_and_client(config()).await;
    let address = running.local_addr();
    let mut stream = client.watch(ask("until drain", None)).await.expect("started");
    stream.message().await.expect("ok");
    // An idle connection hears GOAWAY and is closed.
    let mut idle = Raw::open(address, &[]).await;
    idle.next_of(SETTINGS).await.expect("served");
    let draining = tokio::spawn(running.drain(Duration::from_secs(10)));
    idle.next_of(GOAWAY).await.expect("GOAWAY");
    drop(idle);
    assert_eq!(stream.message().await.expect("ok"), Some(Text::from("bye")));
    draining.await.expect("no panic");
    tokio::net::TcpStream::connect(address)
        .await
        .expect_err("nobody listens");
}

#[tokio::test]
async fn an_idle_server_drains_at_once() {
    let running = serve(config()).await;
    let report = running.drain(Duration::from_secs(10)).await;
    assert!(report.is_clean() && report.took < Duration::from_secs(2), "{report:?}");
    assert!(report.to_string().starts_with("drained in "), "{report}");
}

/// A health watch never ends by itself; without care it would hold up every shutdown until the grace is over.
#[tokio::test]
async fn a_health_watch_hears_the_end_and_does_not_delay_it() {
    let running = serve(config()).await;
    let client = Client::connect(running.local_addr()).await;
    let mut health = HealthClient::new(client.channel);
    let request = HealthCheckRequest {
        service: "tessera.test.v1.Test".into(),
    };
    let mut watch = health.watch(request).await.expect("started").into_inner();
    assert_eq!(
        watch.message().await.expect("ok").expect("a status").status(),
        ServingStatus::Serving
    );
    let draining = tokio::spawn(running.drain(Duration::from_secs(10)));
    assert_eq!(
        watch.message().await.expect("ok").expect("a status").status(),
        ServingStatus::NotServing
    );
    assert_eq!(watch.message().await.expect_err("ended").code(), Code::Unavailable);
    let report = draining.await.expect("no panic");
    assert!(report.is_clean() && report.took < Duration::from_secs(5), "{report:?}");
}

const SAY: &str = "/tessera.test.v1.Test/Say";

/// Asks for a large answer and waits for its beginning.
async fn ask_for_a_large_answer(address: std::net::SocketAddr) -> (Raw, usize) {
    let mut raw = Raw::open(address, &[]).await;
    raw.send(HEADERS, END_HEADERS, 1, &call_headers(SAY))
        .await
        .expect("written");
    let request = message(b"\x0a\x05large");
    raw.send(DATA, END_STREAM, 1, &request).await.expect("written");
    let begun = raw.next_of(DATA).await.expect("an answer").payload.len();
    (raw, begun)
}

/// hyper drops a body once HTTP/2 has taken it: the call counted as finished with megabytes unsent, and a second later they
/// were cut and the drain said that all was well.
#[tokio::test]
async fn a_slow_reader_gets_its_whole_answer() {
    let running = serve(config()).await;
    let (mut raw, mut read) = ask_for_a_large_answer(running.local_addr()).await;
    let reading = async {
        // 64 KiB a time makes some three seconds.
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        let mut unread = read;
        loop {
            let frame = raw.next().await.expect("the answer goes on");
            match frame.kind {
                DATA => {
                    read += frame.payload.len();
                    unread += frame.payload.len();
                }
                HEADERS if frame.flags & END_STREAM != 0 => break,
                PING if frame.flags & ACK == 0 => {
                    raw.send(PING, ACK, 0, &frame.payload).await.expect("written");
                }
                _ => {}
            }
            if unread >= 60_000 {
                pace.tick().await;
                let granted = u32::try_from(std::mem::take(&mut unread))
                    .expect("a window")
                    .to_be_bytes();
                raw.send(WINDOW_UPDATE, 0, 0, &granted).await.expect("written");
                raw.send(WINDOW_UPDATE, 0, 1, &granted).await.expect("written");
            }
        }
        raw.closed().await;
        read
    };
    let (report, read) = tokio::join!(running.drain(Duration::from_secs(30)), reading);
    assert!(read > LARGE, "{read} bytes");
    assert!(report.is_clean() && report.connections_cut == 0, "{report:?}");
    assert!(report.took > Duration::from_millis(1500), "it was slow: {report:?}");
}

/// The same with a reader that has stopped: its call is not finished, and the report says so.
#[tokio::test]
async fn an_answer_that_is_not_read_is_an_unfinished_call() {
    let running = serve(config()).await;
    let _unread = ask_for_a_large_answer(running.local_addr()).await;
    let report = running.drain(Duration::from_millis(1500)).await;
    assert_eq!((report.connections_cut, report.calls_cut), (1, 1), "{report}");
}

/// A connection that had said nothing was dropped, although its first call may be in the socket's buffer.
#[tokio::test]
async fn a_first_call_that_nobody_has_read_yet_is_answered() {
    let running = serve(config()).await;
    let mut silent = Raw::connect(running.local_addr()).await;
    // Connections are accepted in order: when this one is served, that one is.
    let mut other = Raw::open(running.local_addr(), &[]).await;
    other.next_of(SETTINGS).await.expect("served");
    let mut opening = PREFACE.to_vec();
    opening.extend(encode(SETTINGS, 0, 0, &[]));
    opening.extend(encode(HEADERS, END_HEADERS, 1, &call_headers(SAY)));
    opening.extend(encode(DATA, END_STREAM, 1, &message(b"\x0a\x05hello")));
    // Without an await until the drain has begun: the server, on the same thread, cannot have read it.
    let written = silent.socket.try_write(&opening).expect("room in the buffer");
    assert_eq!(written, opening.len());
    let (report, answer) = tokio::join!(running.drain(Duration::from_secs(10)), silent.next_of(DATA));
    let answer = answer.expect("answered");
    assert!(answer.payload.ends_with(b"hello"), "{answer:?}");
    assert!(report.is_clean(), "{report:?}");
}

/// Neither a silent connection nor a peer that does not answer (SIGSTOP) may use up the grace.
#[tokio::test]
async fn peers_that_say_nothing_do_not_delay_the_end() {
    let running = serve(config()).await;
    let _silent = Raw::connect(running.local_addr()).await;
    let mut stopped = Raw::open(running.local_addr(), &[]).await;
    stopped.next_of(SETTINGS).await.expect("served");
    let report = running.drain(Duration::from_secs(30)).await;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.took < Duration::from_secs(5), "{report:?}");
}

#[tokio::test]
async fn a_dropped_server_stops() {
    let (running, client) = server_and_client(config()).await;
    let mut stream = client.watch(ask("hang", None)).await.expect("started");
    stream.message().await.expect("ok");
    drop(running);
    stream.message().await.expect_err("cut");
}

#[tokio::test]
async fn a_running_server_has_not_failed() {
    let mut running = serve(config()).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(50), running.failed())
            .await
            .is_err()
    );
    running.drain(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_says_so() {
    let running = serve(config()).await;
    let again = service_host::Config::new("other", running.local_addr());
    let error = service_host::Host::bind(again).await.expect_err("in use").to_string();
    assert!(
        error.contains(&running.local_addr().to_string()) && error.contains("in use by another process"),
        "{error}"
    );
}
