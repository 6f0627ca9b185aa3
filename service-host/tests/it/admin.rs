//! The admin endpoint, spoken to in plain HTTP/1.1.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{PATIENCE, client::ask, config, limited, serve, server_and_client};

async fn get(address: SocketAddr, path: &str) -> String {
    get_as(address, path, "*/*").await
}

async fn get_as(address: SocketAddr, path: &str, accept: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("listening");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn health_follows_what_is_served() {
    let running = serve(config()).await;
    let admin = running.admin_addr().expect("configured");
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200"));
    running.set_not_serving();
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 503"));
    running.set_serving("tessera.test.v1.Test");
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(admin, "/nothing").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn metrics_are_open_metrics_text() {
    let (running, client) = server_and_client(config()).await;
    client.say(ask("hello", None)).await.expect("answered");
    let admin = running.admin_addr().expect("configured");
    // As people and old scrapers ask.
    let plain = get(admin, "/metrics").await;
    assert!(plain.contains("content-type: text/plain; version=0.0.4"), "{plain}");
    assert!(!plain.contains("# EOF"), "{plain}");
    assert!(
        plain.contains("# TYPE tessera_server_connections_accepted_total counter"),
        "{plain}"
    );
    // As Prometheus 3 asks.
    let accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let answer = get_as(admin, "/metrics", accept).await;
    assert!(
        answer.contains("content-type: application/openmetrics-text"),
        "{answer}"
    );
    for series in [
        "rpc_server_call_duration_seconds_count{rpc_method=\"tessera.test.v1.Test/Say\",rpc_response_status_code=\"OK\"}",
        "tessera_server_connections{listener=\"grpc\"}",
        "tessera_server_streams{} ",
        "# EOF",
    ] {
        assert!(answer.contains(series), "{series} is missing");
    }
}

#[tokio::test]
async fn without_an_address_there_is_none() {
    let running = serve(config().admin(None)).await;
    assert_eq!(running.admin_addr(), None);
    running.drain(Duration::from_secs(1)).await;
}

/// A probe must be able to see that the server drains, until it is over.
#[tokio::test]
async fn the_admin_endpoint_stops_last() {
    let (running, client) = server_and_client(config()).await;
    let admin = running.admin_addr().expect("configured");
    let mut stream = client.watch(ask("hang", None)).await.expect("started");
    stream.message().await.expect("ok");
    let draining = tokio::spawn(running.drain(Duration::from_millis(500)));
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 "));
    draining.await.expect("no panic");
    TcpStream::connect(admin).await.expect_err("stopped");
}

/// Slow loris, on the other listener.
#[tokio::test]
async fn a_silent_admin_connection_is_closed_in_time() {
    let running = serve(limited(|limits| limits.preface_timeout = Duration::from_millis(200))).await;
    for half in ["", "GET /healthz HT"] {
        let mut socket = TcpStream::connect(running.admin_addr().expect("configured"))
            .await
            .expect("listening");
        socket.write_all(half.as_bytes()).await.expect("written");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {half:?}");
    }
}
