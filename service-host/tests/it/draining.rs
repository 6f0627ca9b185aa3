//! The end of a server: what finishes, what is refused, what is cut, and that it ends.

use std::time::{Duration, Instant};

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{
    client::{Client, ask},
    config, eventually,
    raw::{GOAWAY, Raw, SETTINGS},
    serve, server_and_client,
    service::Text,
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
