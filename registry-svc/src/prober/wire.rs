//! One probe: is the name's address allowed, and does grpc.health.v1 say SERVING there?
//!
//! The name is looked up once, and the address that was looked at is the one that is dialled: what it says a moment later does not
//! matter. gRPC follows no redirects, and of the answer one bit is kept.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::{Arc, LazyLock},
};

use tokio::sync::Semaphore;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{allowed::Allowed, endpoint};
use crate::model::{Instance, Probe, Protocol};

/// Names that are looked up at the same time. A look-up takes a thread that nobody can call back, and there are some hundreds of
/// these for everything that blocks: a name server that never answers must not take them all.
static LOOK_UPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(16)));
/// An answer is two bytes.
const ANSWER_BYTES: usize = 256;

/// Whether it answers, in its time.
pub(super) async fn passes(instance: &Instance, allowed: &Allowed) -> bool {
    let Some(probe) = instance.spec.probe.as_deref() else {
        return false;
    };
    let asked = tokio::time::timeout(probe.timeout(), ask(instance, probe, allowed));
    asked.await.unwrap_or(false)
}

async fn ask(instance: &Instance, probe: &Probe, allowed: &Allowed) -> bool {
    // TLS would need the authority that the instance's certificate is of; what was registered with it is not probed.
    let Some((Protocol::Grpc, host, port)) = endpoint(&instance.spec) else {
        return false;
    };
    let found = addresses(host, port).await;
    let Some(address) = found
        .into_iter()
        .find_map(|found| allowed.check(found, probe.from()).ok())
    else {
        return false;
    };
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return false;
    };
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    let service = probe.service().map(ToString::to_string).unwrap_or_default();
    let mut health = HealthClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
    let answer = health.check(HealthCheckRequest { service }).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

/// All addresses of a host; none where it has none.
pub(super) async fn addresses(host: &str, port: u16) -> Vec<SocketAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return vec![SocketAddr::new(address, port)];
    }
    let Ok(turn) = Arc::clone(&LOOK_UPS).acquire_owned().await else {
        return Vec::new();
    };
    let host = host.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        // With the thread, and not with whoever waits for it.
        let _turn = turn;
        (host.as_str(), port).to_socket_addrs().map(Iterator::collect).ok()
    });
    found.await.ok().flatten().unwrap_or_default()
}
