//! TLS on the listener: who gets in, who is who, and what half a handshake costs.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use http::Extensions;
use service_host::{Credentials, Gate, Pass, Peer, Running};
use tls::{ClientAuth, ClientStream, Expected, Tls, issue::Purpose};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use tonic::{Code, Status};

use crate::support::{
    PATIENCE,
    client::{Client, ask},
    config, eventually, limited, serve,
    service::LET_IN,
    world::World,
};

async fn dial(tls: &Tls, address: SocketAddr) -> Result<ClientStream<TcpStream>, String> {
    let socket = TcpStream::connect(address).await.expect("listening");
    let client = tls.client().expect("a bundle");
    let connected = client.connect(socket, "127.0.0.1", &Expected::Host).await;
    connected.map_err(|error| error.to_string())
}

async fn who(tls: &Tls, running: &Running) -> String {
    let stream = dial(tls, running.local_addr()).await.expect("gets in");
    let client = Client::over(stream, running.local_addr()).await;
    client.say(ask("who", None)).await.expect("answered").into_inner().text
}

#[tokio::test]
async fn each_request_says_whom_its_connection_belongs_to() {
    let world = World::new();
    let server = world.tls("server", ClientAuth::Optional);
    let running = serve(config().tls(server.server().cloned())).await;
    let ticket = world.tls("ticket-svc", ClientAuth::None);
    assert_eq!(
        who(&ticket, &running).await,
        "spiffe://example/ns/default/svc/ticket-svc"
    );
    let nobody = world.load(None, ClientAuth::None);
    assert_eq!(who(&nobody, &running).await, "nobody");
}

/// Row 44, over a real listener: whatever is refused has run no handler.
#[tokio::test]
async fn who_is_refused_runs_no_handler() {
    let world = World::new();
    let server = world.tls("server", ClientAuth::Required);
    let running = serve(config().tls(server.server().cloned())).await;
    let stranger = World::new();
    world.write("server-only", &world.issue("server-only", Purpose::Server));
    world.write("stranger", &stranger.issue("stranger", Purpose::Both));
    for name in [None, Some("server-only"), Some("stranger")] {
        let client = world.load(name, ClientAuth::None);
        let error = dial(&client, running.local_addr()).await.expect_err("refused");
        assert!(error.contains("refused our certificate"), "{error}");
        // A client that does not wait to be told says what it wants at once.
        let connector = tokio_rustls::TlsConnector::from(world.somebody(name));
        let socket = TcpStream::connect(running.local_addr()).await.expect("listening");
        let name = "localhost".try_into().expect("a name");
        let stream = connector
            .connect(name, socket)
            .await
            .expect("TLS 1.3 tells it afterwards");
        let client = Client::over(stream, running.local_addr()).await;
        client.say(ask("let me in", None)).await.expect_err("refused");
    }
    // Plain text, as before TLS.
    let mut plain = TcpStream::connect(running.local_addr()).await.expect("listening");
    plain.write_all(crate::support::raw::PREFACE).await.expect("written");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer))
        .await
        .expect("closed");
    assert!(answer.len() < 32, "an alert at most: {answer:?}");
    assert_eq!(LET_IN.load(Ordering::SeqCst), 0);
    let stream = dial(&world.tls("good", ClientAuth::None), running.local_addr())
        .await
        .expect("gets in");
    let client = Client::over(stream, running.local_addr()).await;
    client.say(ask("let me in", None)).await.expect("answered");
    assert_eq!(LET_IN.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_admin_endpoint_has_the_certificate_and_asks_for_none() {
    let world = World::new();
    let server = world.tls("server", ClientAuth::Required);
    let running = serve(config().tls(server.server().cloned())).await;
    let admin = running.admin_addr().expect("configured");
    // A scraper: knows the authority, has no certificate, and offers HTTP/1.1 only.
    let connector = tokio_rustls::TlsConnector::from(world.somebody(None));
    let socket = TcpStream::connect(admin).await.expect("listening");
    let name = "localhost".try_into().expect("a name");
    let mut stream = connector.connect(name, socket).await.expect("gets in");
    let request = b"GET /healthz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Row 41: connections that never say hello, or say half of it, are closed in time, and others do not wait for them: a bound on
/// handshakes that counted them would be a door that 250 sockets keep shut.
#[tokio::test]
async fn hellos_that_never_end_hold_up_nobody_and_are_closed_in_time() {
    const SILENT: usize = 400;
    let world = World::new();
    let server = world.tls("server", ClientAuth::Optional);
    let preface_timeout = Duration::from_secs(3);
    let limits = |limits: &mut service_host::Limits| {
        limits.preface_timeout = preface_timeout;
        limits.max_handshakes = 2;
    };
    let running = serve(limited(limits).tls(server.server().cloned())).await;
    let started = Instant::now();
    let mut held = Vec::new();
    for n in 0..SILENT {
        let mut socket = TcpStream::connect(running.local_addr()).await.expect("listening");
        if n % 2 == 0 {
            // The head of a record that holds a ClientHello of 500 bytes, and the hello's first byte.
            socket.write_all(&[0x16, 3, 1, 1, 0xf4, 1]).await.expect("written");
        }
        held.push(socket);
    }
    let nobody = world.load(None, ClientAuth::None);
    assert_eq!(who(&nobody, &running).await, "nobody", "others are served meanwhile");
    for mut socket in held {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest))
            .await
            .expect("closed");
    }
    assert!(
        started.elapsed() >= preface_timeout,
        "and not before: they had the time that is theirs"
    );
}

/// Clients whose hello is whole and who then fall silent used to hold a permit each until their time was up, and everybody else
/// queued behind them: 65 replayed hellos a second locked every client out. Now they lose their own places, and nobody waits.
#[tokio::test]
async fn clients_that_fall_silent_after_their_hello_hold_up_nobody() {
    const SILENT: usize = 300;
    const UNDER_WAY: usize = 20;
    let world = World::new();
    let server = world.tls("server", ClientAuth::Optional);
    let limits = |limits: &mut service_host::Limits| {
        // Their time is not up before the test is.
        limits.preface_timeout = PATIENCE * 10;
        limits.max_handshakes = UNDER_WAY;
    };
    let running = serve(limited(limits).tls(server.server().cloned())).await;
    let hello = hello();
    let mut held = Vec::new();
    for _ in 0..SILENT {
        let mut socket = TcpStream::connect(running.local_addr()).await.expect("listening");
        socket.write_all(&hello).await.expect("written");
        held.push(socket);
    }
    let nobody = world.load(None, ClientAuth::None);
    let answered = tokio::time::timeout(PATIENCE, who(&nobody, &running)).await;
    assert_eq!(answered.expect("nobody stands in the way"), "nobody");
    // What is held of them stays bounded: all but so many are sent away, long before their time is up.
    let mut ends = tokio::task::JoinSet::new();
    for mut socket in held {
        ends.spawn(async move {
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest).await;
            assert!(!rest.is_empty(), "each was answered");
        });
    }
    for _ in UNDER_WAY..SILENT {
        let ended = tokio::time::timeout(PATIENCE, ends.join_next()).await;
        ended.expect("closed").expect("one more").expect("answered");
    }
}

/// The first flight of a real client.
fn hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let mut connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("written");
    bytes
}

/// Admits everybody for as long as their certificate is good.
#[derive(Debug)]
struct WhileGood;

impl Gate for WhileGood {
    fn admit(&self, _: &str, _: Credentials<'_>, extensions: &mut Extensions) -> Result<Pass, Status> {
        let peer = extensions.get::<Peer>().expect("always there");
        Ok(Pass::Until(peer.ended.clone()))
    }
}

/// A connection that was opened with a certificate of an hour was good for ever.
#[tokio::test]
async fn a_certificate_that_ends_ends_its_connection() {
    let world = World::new();
    let server = world.tls("server", ClientAuth::Required);
    let gated = serve(
        config()
            .tls(server.server().cloned())
            .gate(Some(std::sync::Arc::new(WhileGood))),
    )
    .await;
    let open = serve(config().tls(server.server().cloned())).await;
    world.write(
        "short",
        &world.issue_for("short", Purpose::Both, Duration::from_secs(5)),
    );
    let short = world.load(Some("short"), ClientAuth::None);
    let long = world.tls("long", ClientAuth::None);
    let mut watches = Vec::new();
    for (tls, running) in [(&short, &gated), (&short, &open), (&long, &gated)] {
        let stream = dial(tls, running.local_addr()).await.expect("gets in");
        let client = Client::over(stream, running.local_addr()).await;
        let mut watch = client.watch(ask("until drain", None)).await.expect("open");
        assert_eq!(watch.message().await.expect("open").expect("one").text, "first");
        watches.push((client, watch));
    }
    let [told, cut, mut lives] = <[_; 3]>::try_from(watches).map_err(|_| ()).expect("three");
    let mut codes = Vec::new();
    for (client, mut watch) in [told, cut] {
        let ended = tokio::time::timeout(PATIENCE * 3, watch.message()).await;
        codes.push(ended.expect("its end").expect_err("an error").code());
        eventually("the connection takes no more calls", || client.is_closed()).await;
    }
    assert_eq!(codes[0], Code::Unauthenticated, "whoever is behind a gate is told why");
    lives.0.say(ask("hello", None)).await.expect("others go on");
    let silent = tokio::time::timeout(Duration::from_millis(100), lives.1.message()).await;
    assert!(silent.is_err(), "{silent:?}");
}

/// A watch over TLS that is not read ends like any other, and a drain ends all of them.
#[tokio::test]
async fn a_drain_finishes_calls_over_tls() {
    let world = World::new();
    let server = world.tls("server", ClientAuth::Optional);
    let running = serve(config().tls(server.server().cloned())).await;
    let stream = dial(&world.load(None, ClientAuth::None), running.local_addr())
        .await
        .expect("gets in");
    let client = Client::over(stream, running.local_addr()).await;
    let mut watch = client.watch(ask("until drain", None)).await.expect("open");
    assert_eq!(watch.message().await.expect("open").expect("one").text, "first");
    let large = client
        .say(ask("large", None))
        .await
        .expect("answered")
        .into_inner()
        .text;
    assert_eq!(large.len(), crate::support::service::LARGE);
    let draining = tokio::spawn(running.drain(PATIENCE));
    assert_eq!(watch.message().await.expect("open").expect("one").text, "bye");
    assert!(draining.await.expect("ends").is_clean());
}

/// Row 54: the map of all methods was handed to whoever reached the port, certificate or not.
#[tokio::test]
async fn over_tls_a_server_describes_itself_to_the_known_alone() {
    use tonic_reflection::pb::{v1, v1alpha};

    async fn answers(client: &Client) -> [Code; 2] {
        let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = v1::ServerReflectionRequest {
            message_request: Some(list),
            ..Default::default()
        };
        let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(client.channel.clone());
        let now = reflection.server_reflection_info(tokio_stream::once(request)).await;
        let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = v1alpha::ServerReflectionRequest {
            message_request: Some(list),
            ..Default::default()
        };
        let mut reflection = v1alpha::server_reflection_client::ServerReflectionClient::new(client.channel.clone());
        let formerly = reflection.server_reflection_info(tokio_stream::once(request)).await;
        let formerly = formerly.map(drop);
        [now.map(drop), formerly].map(|answer| answer.map_or_else(|status| status.code(), |()| Code::Ok))
    }
    let world = World::new();
    let somebody = world.tls("ticket-svc", ClientAuth::None);
    let nobody = world.load(None, ClientAuth::None);
    let (told, refused) = ([Code::Ok; 2], [Code::Unauthenticated; 2]);
    // Where certificates are required nobody else gets in at all: `who_is_refused_runs_no_handler`.
    for (asks, caller, expected) in [
        (ClientAuth::Required, &somebody, told),
        (ClientAuth::Optional, &somebody, told),
        (ClientAuth::Optional, &nobody, refused),
        (ClientAuth::None, &somebody, refused),
        (ClientAuth::None, &nobody, refused),
    ] {
        let server = world.tls("server", asks);
        let running = serve(config().tls(server.server().cloned())).await;
        let stream = dial(caller, running.local_addr()).await.expect("gets in");
        let client = Client::over(stream, running.local_addr()).await;
        assert_eq!(answers(&client).await, expected, "{asks:?}");
        // What it is there for goes on, and so does health: probes have no secrets.
        client.say(ask("who", None)).await.expect("answered");
        let mut health = tonic_health::pb::health_client::HealthClient::new(client.channel.clone());
        let request = tonic_health::pb::HealthCheckRequest::default();
        health.check(request).await.expect("answered");
    }

    /// Lets everybody in.
    #[derive(Debug)]
    struct Everybody;

    impl Gate for Everybody {
        fn admit(&self, _: &str, _: Credentials<'_>, _: &mut Extensions) -> Result<Pass, Status> {
            Ok(Pass::ToItsEnd)
        }
    }

    // A gate has the only word: it may know callers by other means.
    let server = world.tls("server", ClientAuth::None);
    let gate = std::sync::Arc::new(Everybody);
    let running = serve(config().tls(server.server().cloned()).gate(Some(gate))).await;
    let stream = dial(&nobody, running.local_addr()).await.expect("gets in");
    let client = Client::over(stream, running.local_addr()).await;
    assert_eq!(answers(&client).await, told);
}
