//! What callers hold: a [`Channel`], and the builder that makes one. The way of a call is in `call`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower_service::Service;

use crate::{
    Backoff, EndpointView, Error, Policy, ResponseBody, Target, call,
    endpoint::Dial,
    pool::{Keeper, KeeperSettings, Pool},
    settings::{MethodSettings, Settings},
};

/// Where the defaults stand.
mod defaults {
    use super::Duration;

    /// Long enough for a restart of a small service, short enough for a person in front of a screen.
    pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(3);
    /// gRPC's 20 s are made for the open internet; inside a datacentre a second is an eternity.
    pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// gRFC A105 starts with one and allows ten. Servers that allow 100 streams a connection are common, and 400 calls at a
    /// time to one instance are beyond what most callers want; each is a socket and its buffers.
    pub(super) const MAX_CONNECTIONS: usize = 4;
    /// As gRPC's channels.
    pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
}

/// A connection to all instances of a service. Any generated tonic client takes it in place of a [`tonic::transport::Channel`].
///
/// Cheap to clone; all clones share the connections. Always ready: whether anybody can be called is decided when a call is
/// made, not in `poll_ready`. When the last clone is dropped, calls that were begun still finish, also those that were not
/// polled yet.
#[derive(Clone, Debug)]
pub struct Channel {
    shared: Arc<call::Shared>,
}

/// Makes a [`Channel`]. See [`Channel::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is dialled before `build`"]
pub struct Builder {
    target: Target,
    policy: Policy,
    ready_timeout: Duration,
    connect_timeout: Duration,
    max_connections: usize,
    idle_timeout: Option<Duration>,
    call_timeout: Option<Duration>,
    backoff: Backoff,
    tls: Option<tls::Client>,
}

/// Who answered: an extension of every response, also after tonic has decoded it.
///
/// ```
/// fn served_by<T>(response: &tonic::Response<T>) -> Option<&str> {
///     Some(&response.extensions().get::<lb::Picked>()?.instance_id)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The instance's id; of a fixed target, its address.
    pub instance_id: Arc<str>,
    /// `host:port`.
    pub address: Arc<str>,
}

/// What a call on a [`Channel`] resolves to.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send>>;

impl Channel {
    /// A channel to a [`Discovery`](registry_client::Discovery) or a [`Target`].
    pub fn builder(target: impl Into<Target>) -> Builder {
        let target = target.into();
        Builder {
            tls: target.tls(),
            target,
            policy: Policy::default(),
            ready_timeout: defaults::READY_TIMEOUT,
            connect_timeout: defaults::CONNECT_TIMEOUT,
            max_connections: defaults::MAX_CONNECTIONS,
            idle_timeout: Some(defaults::IDLE_TIMEOUT),
            call_timeout: None,
            backoff: Backoff::default(),
        }
    }

    /// Waits until at least one instance can be called.
    ///
    /// # Errors
    /// [`Error::NoInstances`] or [`Error::NotReady`] when there is none within `timeout`.
    pub async fn ready(&self, timeout: Duration) -> Result<(), Error> {
        let started = Instant::now();
        match self.shared.pool.pick_by(started + timeout).await {
            Some(_) => Ok(()),
            None => Err(self
                .shared
                .pool
                .scarcity()
                .into_error(&self.shared.service, started.elapsed())),
        }
    }

    /// All endpoints as they are now, ordered by instance id, those that only finish their calls last.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.shared.pool.views()
    }

    /// The target's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.shared.service
    }

    /// Takes no more calls, on any clone, and waits until those under way have ended; put a limit on the wait. Only who wants
    /// to know needs it: dropping every clone closes as well.
    pub async fn close(&self) {
        self.shared.keeper.close().await;
    }
}

impl Builder {
    /// How the next instance is chosen. Default: [`Policy::PeakEwma`].
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Speaks TLS. Of a service, the instances that offer it (PROTOCOL_GRPCS) are called and no others; each has to show a
    /// certificate of the service, by its SPIFFE id, or where it has none, of its host. Of a fixed target it concerns those
    /// addresses that begin with `https://`. Default: as the registry was connected, so no TLS, and no instance that wants it,
    /// where the registry is without.
    pub fn tls(self, tls: impl Into<Option<tls::Client>>) -> Self {
        Self {
            tls: tls.into(),
            ..self
        }
    }

    /// How long a call waits when no instance is ready, or all that are have as many calls under way as they allow, before it
    /// fails with UNAVAILABLE. Default: 3 s; zero fails at once.
    pub fn ready_timeout(self, ready_timeout: Duration) -> Self {
        Self { ready_timeout, ..self }
    }

    /// How long one attempt to connect may take, the server's first word included. Default: 1 s.
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            ..self
        }
    }

    /// The most connections to one instance. There is one, and another one is made when calls find as many streams open as the
    /// peer allows on each (gRFC A105); what is not needed any more is let go after half a minute or two. Default: 4; at least 1.
    pub fn max_connections(self, max_connections: usize) -> Self {
        Self {
            max_connections,
            ..self
        }
    }

    /// A channel that had no call for so long, and up to twice as long, lets its connections go; the next call connects anew.
    /// Default: 30 minutes, as in gRPC; `None` or zero keeps them for ever.
    pub fn idle_timeout(self, idle_timeout: impl Into<Option<Duration>>) -> Self {
        Self {
            idle_timeout: idle_timeout.into(),
            ..self
        }
    }

    /// The longest that any call may take, its response stream included; a call's own `grpc-timeout` and the deadline of the
    /// call that is being worked for shorten it. Default: none.
    pub fn call_timeout(self, call_timeout: impl Into<Option<Duration>>) -> Self {
        Self {
            call_timeout: call_timeout.into(),
            ..self
        }
    }

    /// How long to wait between attempts to connect. Default: 100 ms to 10 s, see [`Backoff`].
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Starts to connect, in the background.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn build(self) -> Channel {
        let (service, source) = self.target.into_parts();
        let pool = Arc::new(Pool::new(self.policy));
        let keeping = KeeperSettings {
            dial: Dial {
                tls: self.tls,
                timeout: self.connect_timeout,
                most: self.max_connections.max(1),
            },
            idle_timeout: self.idle_timeout.filter(|timeout| !timeout.is_zero()),
            backoff: self.backoff,
        };
        let keeper = Keeper::spawn(Arc::clone(&pool), source, keeping);
        let settings = Settings::uniform(MethodSettings {
            ready_timeout: self.ready_timeout,
            call_timeout: self.call_timeout,
        });
        let shared = Arc::new(call::Shared {
            service,
            pool,
            keeper,
            settings: ArcSwap::from_pointee(settings),
        });
        Channel { shared }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        Box::pin(call::run(Arc::clone(&self.shared), request))
    }
}
