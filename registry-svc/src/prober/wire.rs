//! One probe: is the name's address allowed, and does grpc.health.v1 say SERVING there?
//!
//! The name is looked up once, and the address that was looked at is the one that is dialled: what it says a moment later does not
//! matter. gRPC follows no redirects, and of the answer one bit is kept.
//!
//! With TLS it is whom a balancer would call or nobody: the service by its SPIFFE id, and without one the host as it was registered.
//! Our own certificate is shown only after that.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Semaphore};
use tonic::transport::{Endpoint, Uri};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tower_service::Service;

use super::{allowed::Allowed, endpoint};
use crate::model::{Instance, Probe, Protocol};

/// Names that are looked up at the same time. A look-up takes a thread that nobody can call back, and there are some hundreds of
/// these for everything that blocks: a name server that never answers must not take them all.
static LOOK_UPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(16)));
/// An answer is two bytes.
const ANSWER_BYTES: usize = 256;

/// Whether it answers, in its time.
pub(super) async fn passes(instance: &Instance, allowed: &Allowed, tls: Option<&tls::Client>) -> bool {
    let Some(probe) = instance.spec.probe.as_deref() else {
        return false;
    };
    let asked = tokio::time::timeout(probe.timeout(), ask(instance, probe, allowed, tls));
    asked.await.unwrap_or(false)
}

async fn ask(instance: &Instance, probe: &Probe, allowed: &Allowed, tls: Option<&tls::Client>) -> bool {
    let Some((protocol, host, port)) = endpoint(&instance.spec) else {
        return false;
    };
    let found = addresses(host, port).await;
    let Some(address) = found
        .into_iter()
        .find_map(|found| allowed.check(found, probe.from()).ok())
    else {
        return false;
    };
    let channel = match (protocol, tls) {
        (Protocol::Grpc, _) => match Endpoint::from_shared(format!("http://{address}")) {
            Ok(endpoint) => endpoint.connect().await,
            Err(error) => Err(error),
        },
        (Protocol::Grpcs, Some(tls)) => {
            let (namespace, service) = (&instance.key.namespace, &instance.key.service);
            let secured = Secured {
                tls: tls.clone(),
                expected: tls::Expected::service(namespace.as_str(), service.as_str()),
                address,
                host: host.into(),
            };
            // The address is the dialer's; this is what requests say of themselves.
            let endpoint = Endpoint::from_static("https://probed");
            endpoint.connect_with_connector(secured).await
        }
        (Protocol::Grpcs | Protocol::Http, _) => return false,
    };
    let Ok(channel) = channel else {
        return false;
    };
    let service = probe.service().map(ToString::to_string).unwrap_or_default();
    let mut health = HealthClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
    let answer = health.check(HealthCheckRequest { service }).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

/// Dials one address with TLS.
#[derive(Clone)]
struct Secured {
    tls: tls::Client,
    expected: tls::Expected,
    address: SocketAddr,
    host: Arc<str>,
}

impl Service<Uri> for Secured {
    type Response = TokioIo<tls::ClientStream<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    /// Bounded by the probe's time.
    fn call(&mut self, _: Uri) -> Self::Future {
        let Self {
            tls,
            expected,
            address,
            host,
        } = self.clone();
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            Ok(TokioIo::new(tls.connect(socket, &host, &expected).await?))
        })
    }
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
