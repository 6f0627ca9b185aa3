//! Fixtures: a host with a test service, a client for it, and a raw HTTP/2 peer that breaks rules.

pub(crate) mod client;
pub(crate) mod raw;
pub(crate) mod service;
pub(crate) mod world;

use std::{net::SocketAddr, time::Duration};

use service_host::{Config, Host, Limits, Running};

use self::{client::Client, service::Test};

/// Bound of every wait in these tests; reached only by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A port of our own choosing by the system.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The usual test server, with an admin endpoint.
pub(crate) fn config() -> Config {
    Config::new("test-svc", any_port())
        .admin(Some(any_port()))
        .instance_id("test-1")
}

/// [`config`] with other limits.
pub(crate) fn limited(change: impl FnOnce(&mut Limits)) -> Config {
    let mut limits = Limits::default();
    change(&mut limits);
    config().limits(limits)
}

/// A server that serves the test service and says so.
pub(crate) async fn serve(config: Config) -> Running {
    let host = Host::bind(config).await.expect("a free port");
    let routes = tonic::service::Routes::new(Test {
        drain: host.drain_signal(),
    });
    let running = host.serve(routes, &[service::descriptors()]);
    running.set_all_serving();
    running
}

/// A server and a client that is connected to it.
pub(crate) async fn server_and_client(config: Config) -> (Running, Client) {
    let running = serve(config).await;
    let client = Client::connect(running.local_addr()).await;
    (running, client)
}

/// Waits until `condition` holds; fails after [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}
