//! What a hostile peer tries, and what it gets. Each of these succeeds against tonic 0.14.9's defaults.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::support::{
    PATIENCE,
    client::{Client, ask},
    eventually, limited,
    raw::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
        REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, UNKNOWN, WINDOW_UPDATE, call_headers, encode, literal, message,
    },
    serve, server_and_client,
    service::FLOODED,
};

const WATCH: &str = "/tessera.test.v1.Test/Watch";
const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

/// A `Text` message whose only field says `text`.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("short");
    message(&[&[0x0a, length][..], text.as_bytes()].concat())
}

/// Stream hoarding: 2,000 unread streams on one connection held 1.07 GB in a server without the bound.
#[tokio::test]
async fn streams_are_bounded_by_word_and_by_deed() {
    let running = serve(limited(|limits| limits.max_concurrent_streams = 20)).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    let settings = raw.next_of(SETTINGS).await.expect("settings");
    let advertised = settings
        .settings()
        .find(|(id, _)| *id == SETTINGS_MAX_CONCURRENT_STREAMS);
    assert_eq!(advertised, Some((SETTINGS_MAX_CONCURRENT_STREAMS, 20)), "by word");

    // A peer that does not listen opens more.
    for n in 0..25 {
        let stream = 1 + 2 * n;
        raw.send(HEADERS, END_HEADERS, stream, &call_headers(WATCH))
            .await
            .expect("written");
        raw.send(DATA, END_STREAM, stream, &text("hang"))
            .await
            .expect("written");
    }
    let mut refused = 0;
    while refused < 5 {
        let frame = raw.next_of(RST_STREAM).await.expect("a reset");
        assert_eq!(frame.error_code(), REFUSED_STREAM);
        assert!(frame.stream > 39, "the first twenty are served");
        refused += 1;
    }
    eventually("the first twenty run", || running.calls_in_flight() == 20).await;
}

#[tokio::test]
async fn the_default_advertises_a_bound() {
    let running = serve(limited(|_| {})).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    let settings = raw.next_of(SETTINGS).await.expect("settings");
    assert!(
        settings
            .settings()
            .any(|setting| setting == (SETTINGS_MAX_CONCURRENT_STREAMS, 100))
    );
}

/// The attack that the bound is there for: without it a peer gets as many streams as it asks for.
#[tokio::test]
async fn without_the_bound_streams_could_be_hoarded() {
    let running = serve(limited(|limits| limits.max_concurrent_streams = u32::MAX)).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    for n in 0..500 {
        raw.send(HEADERS, END_HEADERS, 1 + 2 * n, &call_headers(WATCH))
            .await
            .expect("written");
        raw.send(DATA, END_STREAM, 1 + 2 * n, &text("hang"))
            .await
            .expect("written");
    }
    eventually("all of them run", || running.calls_in_flight() == 500).await;
}

/// A reader that grants windows of a gigabyte and reads nothing: a stream stops producing when its send buffer and the
/// kernel's are full, so a hundred of them are megabytes.
#[tokio::test]
async fn a_stream_that_is_not_read_stops_producing() {
    let running = serve(limited(|_| {})).await;
    let mut raw = Raw::open(running.local_addr(), &[(SETTINGS_INITIAL_WINDOW_SIZE, (1 << 31) - 1)]).await;
    raw.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())
        .await
        .expect("written");
    raw.send(HEADERS, END_HEADERS, 1, &call_headers(WATCH))
        .await
        .expect("written");
    raw.send(DATA, END_STREAM, 1, &text("counted flood"))
        .await
        .expect("written");
    let produced = || FLOODED.load(Ordering::Relaxed);
    eventually("it produces", || produced() > 0).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = produced();
        tokio::time::sleep(Duration::from_millis(200)).await;
        if produced() == before {
            break;
        }
        assert!(Instant::now() < deadline, "it still produces: {} bytes", produced());
    }
    // The kernel's buffers on both ends of a loopback connection may hold some megabytes; the window would hold 1,024.
    assert!(produced() < 32 << 20, "{} bytes", produced());
    let client = Client::connect(running.local_addr()).await;
    client.say(ask("hello", None)).await.expect("others are served");
    drop(raw);
    eventually("the stream ends with its connection", || running.calls_in_flight() == 0).await;
}

async fn closed_after(running: &service_host::Running, bytes: &[u8]) -> Duration {
    let started = Instant::now();
    let mut raw = Raw::connect(running.local_addr()).await;
    raw.socket.write_all(bytes).await.expect("written");
    raw.closed().await;
    started.elapsed()
}

/// Slow loris: a silent connection was still open after 10 s, keepalive or not.
#[tokio::test]
async fn silent_and_half_open_connections_are_closed_in_time() {
    let timeout = Duration::from_millis(300);
    let running = serve(limited(|limits| limits.preface_timeout = timeout)).await;
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("half a preface", &PREFACE[..12]),
        ("a preface without settings", PREFACE),
    ] {
        let took = closed_after(&running, bytes).await;
        assert!(took >= timeout && took < timeout * 10, "{what}: closed after {took:?}");
    }
    // A connection that has opened may be quiet for as long as it likes.
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    raw.next_of(SETTINGS).await.expect("settings");
    tokio::time::sleep(timeout * 2).await;
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &call_headers("/x.Y/Z"))
        .await
        .expect("written");
    raw.next_of(HEADERS).await.expect("an answer");
}

/// One byte at a time, each of them soon enough: the deadline is for the whole opening. This test once dripped on past the end of
/// the preface into bytes that HTTP/2 itself refuses, so that it passed without any deadline; now it counts.
#[tokio::test]
async fn a_dripping_preface_is_closed_before_it_is_complete() {
    let running = serve(limited(|limits| limits.preface_timeout = Duration::from_millis(200))).await;
    let mut raw = Raw::connect(running.local_addr()).await;
    let mut drip = PREFACE.iter();
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            read = raw.socket.read(&mut buffer) => if matches!(read, Ok(0) | Err(_)) { break },
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                let byte = *drip.next().expect("closed before the preface was complete");
                if raw.socket.write_all(&[byte]).await.is_err() { break }
            }
        }
    }
}

#[tokio::test]
async fn other_protocols_are_closed_at_once() {
    let running = serve(limited(|_| {})).await;
    for (what, bytes) in [
        ("HTTP/1", &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..]),
        (
            "TLS",
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[..],
        ),
        ("noise", &[0xa5; 256][..]),
    ] {
        let took = closed_after(&running, bytes).await;
        assert!(took < Duration::from_secs(3), "{what}: closed only after {took:?}");
    }
}

/// Sends malformed requests until GOAWAY or `most`; returns the resets answered and GOAWAY's error code.
async fn provoke_resets(bound: usize, most: u32) -> (usize, Option<u32>) {
    let running = serve(limited(|limits| limits.max_local_error_reset_streams = bound)).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    raw.next_of(SETTINGS).await.expect("settings");
    // A pseudo-header after a regular one is malformed (RFC 9113, 8.3).
    let malformed = [literal("te", "trailers"), call_headers(WATCH)].concat();
    let mut resets = 0;
    for n in 0..most {
        raw.send(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * n, &malformed)
            .await
            .expect("open until GOAWAY is read");
        loop {
            let frame = raw.next().await.expect("an answer");
            match frame.kind {
                GOAWAY => return (resets, Some(frame.error_code())),
                RST_STREAM => break resets += 1,
                _ => {}
            }
        }
    }
    (resets, None)
}

/// RUSTSEC-2024-0003: 5,000 malformed requests made a default tonic server reset 5,000 streams and go on.
#[tokio::test]
async fn a_peer_that_makes_us_reset_is_sent_away() {
    let (resets, goaway) = provoke_resets(50, 5_000).await;
    assert_eq!(goaway, Some(ENHANCE_YOUR_CALM), "after {resets} resets");
    assert!(resets <= 51, "{resets} resets");
    let unbounded = provoke_resets(usize::MAX, 500).await;
    assert_eq!(unbounded, (500, None), "what it would be without the bound");
}

#[test]
fn the_default_bound_on_resets_is_set() {
    assert_eq!(service_host::Limits::default().max_local_error_reset_streams, 1024);
}

/// CVE-2023-44487: open and reset, as fast as the wire allows.
#[tokio::test]
async fn rapid_resets_are_sent_away() {
    let (running, client) = server_and_client(limited(|_| {})).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    raw.next_of(SETTINGS).await.expect("settings");
    let mut burst = Vec::new();
    for n in 0..1_000_u32 {
        burst.extend(encode(HEADERS, END_HEADERS, 1 + 2 * n, &call_headers(WATCH)));
        burst.extend(encode(RST_STREAM, 0, 1 + 2 * n, &8_u32.to_be_bytes()));
    }
    // The server may close while this is written.
    raw.socket.write_all(&burst).await.ok();
    let goaway = raw.next_of(GOAWAY).await.expect("GOAWAY");
    assert_eq!(goaway.error_code(), ENHANCE_YOUR_CALM);
    client.say(ask("hello", None)).await.expect("others are served");
}

/// Sends a flood of so many of these frames, and returns what the server answered to it before it closed the connection.
async fn answers_to_a_flood(
    running: &service_host::Running,
    (kind, flags): (u8, u8),
    payload: &[u8],
    frames: usize,
) -> usize {
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    raw.next_of(SETTINGS).await.expect("settings");
    let flood = encode(kind, flags, 0, payload).repeat(frames);
    let (mut read, mut write) = raw.socket.into_split();
    // The server closes while this is written.
    let writing = tokio::spawn(async move { write.write_all(&flood).await.is_ok() });
    let mut answered = 0;
    let mut buffer = vec![0; 64 << 10];
    let reading = async {
        while let Ok(bytes @ 1..) = read.read(&mut buffer).await {
            answered += bytes;
        }
    };
    timeout(PATIENCE, reading).await.expect("the server closes");
    writing.await.expect("has ended");
    answered
}

/// h2 answers every ping and acknowledges all settings, as fast as they come.
#[tokio::test]
async fn floods_of_frames_that_ask_for_nothing_are_cut_off() {
    let (running, client) = server_and_client(limited(|_| {})).await;
    const FRAMES: usize = 50_000;
    let pongs = answers_to_a_flood(&running, (PING, 0), &[7; 8], FRAMES).await / 17;
    assert!(pongs < FRAMES / 10, "{pongs} pings were answered");
    let acks = answers_to_a_flood(&running, (SETTINGS, 0), &[], FRAMES).await / 9;
    assert!(acks < FRAMES / 10, "{acks} settings were acknowledged");
    // h2 writes a line to the log for each pong that it has not asked for.
    answers_to_a_flood(&running, (PING, ACK), &[7; 8], FRAMES).await;
    answers_to_a_flood(&running, (PRIORITY, 0), &[0; 5], FRAMES).await;
    answers_to_a_flood(&running, (UNKNOWN, 0), &[0; 5], FRAMES).await;
    client.say(ask("hello", None)).await.expect("others are served");
}

/// RUSTSEC-2026-0258: DATA without data on an open stream, which no flow control bounds.
#[tokio::test]
async fn a_flood_of_empty_data_is_cut_off() {
    let (running, client) = server_and_client(limited(|_| {})).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    raw.next_of(SETTINGS).await.expect("settings");
    raw.send(HEADERS, END_HEADERS, 1, &call_headers(WATCH))
        .await
        .expect("written");
    let flood = encode(DATA, 0, 1, &[]).repeat(50_000);
    raw.socket.write_all(&flood).await.ok();
    raw.closed().await;
    client.say(ask("hello", None)).await.expect("others are served");
}

/// RUSTSEC-2024-0332: headers that never end.
#[tokio::test]
async fn a_flood_of_continuations_is_cut_off() {
    let (running, client) = server_and_client(limited(|_| {})).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    raw.next_of(SETTINGS).await.expect("settings");
    raw.send(HEADERS, 0, 1, &call_headers(WATCH)).await.expect("written");
    let piece = literal("x-more", &"y".repeat(1_000));
    let flood = encode(CONTINUATION, 0, 1, &piece).repeat(5_000);
    raw.socket.write_all(&flood).await.ok();
    raw.closed().await;
    client.say(ask("hello", None)).await.expect("others are served");
}

/// A client that measures its bandwidth pings with each flight of data: as often as it likes, as long as it is sent some.
#[tokio::test]
async fn who_pings_with_each_answer_is_not_cut_off() {
    let (running, client) = server_and_client(limited(|_| {})).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    raw.next_of(SETTINGS).await.expect("settings");
    for n in 0..3_000_u32 {
        let stream = 1 + 2 * n;
        // No such method: an answer of a few dozen bytes.
        let mut call = encode(HEADERS, END_HEADERS | END_STREAM, stream, &call_headers("/no/Such"));
        call.extend(encode(PING, 0, 0, &[1; 8]));
        raw.socket.write_all(&call).await.expect("written");
        while raw.next_of(PING).await.expect("not cut off").flags & ACK == 0 {}
    }
    client.say(ask("hello", None)).await.expect("others are served");
}

/// One that opens all connections there may be locked everybody else out.
#[tokio::test]
async fn connections_of_one_peer_are_bounded() {
    let running = serve(limited(|limits| limits.max_connections_per_peer = 2)).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::open(running.local_addr(), &[]).await;
        raw.next_of(SETTINGS).await.expect("served");
        open.push(raw);
    }
    Raw::connect(running.local_addr()).await.closed().await;
    // Another address of this machine is another peer.
    let other = tokio::net::TcpSocket::new_v4().expect("a socket");
    other.bind("127.0.0.2:0".parse().expect("an address")).expect("ours");
    let mut other = Raw {
        socket: other.connect(running.local_addr()).await.expect("listening"),
    };
    other.socket.write_all(PREFACE).await.expect("written");
    other.send(SETTINGS, 0, 0, &[]).await.expect("written");
    other.next_of(SETTINGS).await.expect("served");
}

#[tokio::test]
async fn large_headers_are_refused() {
    let running = serve(limited(|_| {})).await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    let headers = [
        call_headers("/tessera.test.v1.Test/Say"),
        literal("x-large", &"x".repeat(20_000)),
    ]
    .concat();
    // A frame holds 16 KiB; the rest goes in CONTINUATION (type 9).
    let (first, rest) = headers.split_at(16_000);
    raw.send(HEADERS, END_STREAM, 1, first).await.expect("written");
    raw.send(9, END_HEADERS, 1, rest).await.expect("written");
    // h2 answers 431 or resets the stream; either way no handler has run.
    let answer = loop {
        let frame = raw.next().await.expect("an answer");
        if frame.stream == 1 {
            break frame;
        }
    };
    match answer.kind {
        HEADERS => assert!(!answer.payload.windows(3).any(|window| window == b"200"), "{answer:?}"),
        kind => assert_eq!(kind, RST_STREAM),
    }
    assert_eq!(running.calls_in_flight(), 0);
}

/// A peer that has gone without a word (a stopped process, a cable) does not answer pings.
#[tokio::test]
async fn a_peer_that_answers_no_ping_is_closed() {
    let running = serve(limited(|limits| {
        limits.keepalive_interval = Duration::from_millis(100);
        limits.keepalive_timeout = Duration::from_millis(200);
    }))
    .await;
    let mut raw = Raw::open(running.local_addr(), &[]).await;
    let mut pings = 0;
    while let Some(frame) = raw.next().await {
        pings += usize::from(frame.kind == PING && frame.flags & ACK == 0);
    }
    assert!(pings >= 1, "closed without asking");
}

/// A stopped reader whose socket is full is not reached by pings, and GOAWAY waits behind what it does not take: such a
/// connection stayed for ever.
#[tokio::test]
async fn a_peer_that_takes_nothing_is_closed() {
    let running = serve(limited(|limits| {
        limits.keepalive_interval = Duration::from_millis(100);
        limits.keepalive_timeout = Duration::from_millis(200);
        limits.max_connections = 1;
    }))
    .await;
    let mut raw = Raw::open(running.local_addr(), &[(SETTINGS_INITIAL_WINDOW_SIZE, (1 << 31) - 1)]).await;
    raw.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())
        .await
        .expect("written");
    raw.send(HEADERS, END_HEADERS, 1, &call_headers(WATCH))
        .await
        .expect("written");
    raw.send(DATA, END_STREAM, 1, &text("flood")).await.expect("written");
    eventually("it runs", || running.calls_in_flight() == 1).await;
    eventually("its stream is over", || running.calls_in_flight() == 0).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "its place is free again");
        let mut next = Raw::open(running.local_addr(), &[]).await;
        if next.next_of(SETTINGS).await.is_some() {
            break;
        }
    }
    drop(raw);
}

/// Above the bound a connection is closed at once, and its place is free again when another one ends.
#[tokio::test]
async fn connections_are_bounded() {
    let running = serve(limited(|limits| limits.max_connections = 3)).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::open(running.local_addr(), &[]).await;
        raw.next_of(SETTINGS).await.expect("served");
        open.push(raw);
    }
    let mut over = Raw::connect(running.local_addr()).await;
    let started = Instant::now();
    over.closed().await;
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "closed at once, not after a timeout"
    );

    open.pop();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "a place is free again");
        let mut raw = Raw::open(running.local_addr(), &[]).await;
        if raw.next_of(SETTINGS).await.is_some() {
            break;
        }
    }
    for mut raw in open {
        raw.send(PING, 0, 0, &[7; 8]).await.expect("written");
        raw.next_of(PING).await.expect("the first ones are served all along");
    }
}
