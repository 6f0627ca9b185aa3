//! The life of one ticket-svc process: open, bind, serve, register; then the same backwards. Decides nothing about seats.

use std::{fmt, sync::Arc, time::Duration};

use identity::KeySet;
use outbox::{Broker, Destinations, Dispatcher, Nats, Subscribers};
use registry_client::{Registrar, Registration, Registry, Removal};
use service_host::{DrainReport, Host};
use service_store::{Clock as _, OpenError, SystemClock};

use crate::{
    access::{
        Access, Gatekeeper,
        keys::{self, Follower, Keys, Source},
    },
    api::{ApiGate, SERVICE_NAME, TicketApi},
    config::Config,
    journal::Journal,
    published::Published,
    seed::{self, SeedError},
    store::{Store, StoreError},
    sweeper::Sweeper,
};

/// What it is called in the registry.
pub(crate) const SERVICE: &str = "ticket-svc";

/// Starts the ticket service.
#[derive(Debug)]
pub struct Tickets;

/// A ticket service that serves. [`Running::stop`] ends it in order; dropped, it ends at once, as a crash would.
#[derive(Debug)]
pub struct Running {
    host: service_host::Running,
    registrar: Option<Registrar>,
    keys: Option<Follower>,
    sweeper: Sweeper,
    events: Dispatcher,
    store: Store,
    drain_linger: Duration,
    drain_grace: Duration,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The first programme cannot be written.
    #[error("cannot sow the programme: {0}")]
    Seed(String),
    /// The keys that sign tickets cannot be had.
    #[error("cannot take up the keys that sign tickets: {0}")]
    TicketKeys(String),
    /// What was said of the broker cannot be used.
    #[error(transparent)]
    Events(#[from] outbox::UnusableNats),
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] service_host::BindError),
    /// Nobody to ask for the keys that tokens are signed with.
    #[error(
        "no keys to check tokens with: give a registry to find the user service in, or a file of keys, or open it to everybody"
    )]
    NoKeys,
    /// The keys that tokens are signed with cannot be read.
    #[error("cannot read the keys that tokens are signed with: {0}")]
    Keys(String),
    /// The registry's address makes no sense.
    #[error("cannot use the registry")]
    Registry(#[source] registry_client::Error),
}

/// How the end went.
#[derive(Debug, Clone, Copy)]
pub struct StopReport {
    /// How the calls in flight ended.
    pub drain: DrainReport,
}

impl Tickets {
    /// Opens the store, binds, serves, and registers last: nobody is sent here before there is someone to answer.
    ///
    /// A registry that is away does not stop it; the registrar goes on trying.
    ///
    /// # Errors
    /// [`StartError`], with what to do about it in its message.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let registry = registry(&config)?;
        let gatekeeper = gatekeeper(&config, registry.as_ref()).await?;
        let clock = Arc::new(SystemClock);
        let store = Store::open(config.store.clone(), clock.clone()).await?;
        if config.seed && seed::sow(&store, clock.now()).await? {
            tracing::info!("sowed a programme into the empty store");
        }
        let mut host = service_host::Config::new(SERVICE, config.listen)
            .admin(config.admin_listen)
            .gate(Some(Arc::new(ApiGate(gatekeeper.clone()))))
            .tls(config.tls.as_ref().and_then(|tls| tls.server()).cloned());
        if let Some(id) = &config.instance_id {
            host = host.instance_id(id);
        }
        let host = Host::bind(host).await?;
        let keys = match &gatekeeper {
            Gatekeeper::Guarded(keys) => Some(keys.follow()),
            Gatekeeper::Open => None,
        };
        let api = TicketApi::new(store.clone(), config.hold_places, host.drain_signal()).await;
        let routes = api.map_err(StartError::from)?.into_routes();
        let sweeper = Sweeper::start(store.clone(), host.drain_signal());
        let to = Destinations {
            subscribers: Subscribers::default().with(Journal),
            broker: broker(&config, host.instance_id()).await?,
        };
        let events = Dispatcher::start(
            store.database().clone(),
            to,
            store.bell().clone(),
            outbox::Settings::default(),
        );
        let host = host.serve(routes, &[proto::FILE_DESCRIPTOR_SET]);
        host.set_serving(SERVICE_NAME);
        let registrar = registry.map(|registry| registry.register(registration(&config, &host)));
        tracing::info!(address = %host.local_addr(), instance = host.instance_id(), "serving");
        Ok(Running {
            host,
            registrar,
            keys,
            sweeper,
            events,
            store,
            drain_linger: config.drain_linger,
            drain_grace: config.drain_grace,
        })
    }
}

impl Running {
    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.host.local_addr()
    }

    /// Where its admin endpoint listens, if it has one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<std::net::SocketAddr> {
        self.host.admin_addr()
    }

    /// Its name in the registry, traces and the `tessera-instance` header.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        self.host.instance_id()
    }

    /// Its registration, if it has one: for those who want to wait for it.
    #[must_use]
    pub fn registrar(&self) -> Option<&Registrar> {
        self.registrar.as_ref()
    }

    /// Resolves only if it can no longer accept calls, which it never should.
    pub async fn failed(&mut self) -> service_host::Failure {
        self.host.failed().await
    }

    /// Ends it in the order that loses no call: says NOT_SERVING, waits until its callers know that it drains, finishes what is in
    /// flight, leaves the registry, closes the store.
    pub async fn stop(self) -> StopReport {
        self.host.set_not_serving();
        tracing::info!(instance = self.host.instance_id(), "NOT_SERVING says health");
        if let Some(registrar) = &self.registrar {
            registrar.drain(self.drain_linger).await;
        }
        let drain = self.host.drain(self.drain_grace).await;
        if let Some(registrar) = self.registrar {
            registrar.deregister(Removal::Drained).await;
        }
        if let Some(keys) = self.keys {
            keys.stop().await;
        }
        self.sweeper.stopped().await;
        // What is left of the events, another process delivers, or the next start.
        self.events.stop().await;
        self.store.close().await;
        StopReport { drain }
    }
}

fn registry(config: &Config) -> Result<Option<Registry>, StartError> {
    if config.registry.is_empty() {
        return Ok(None);
    }
    let registry = Registry::connect_with(&config.registry, client(config)).map_err(StartError::Registry)?;
    let registry = registry.with_namespace(config.namespace.as_str());
    Ok(Some(match config.token.clone() {
        None => registry,
        Some(token) if config.token_in_the_clear => registry.with_token_in_the_clear(token),
        Some(token) => registry.with_token(token).map_err(StartError::Registry)?,
    }))
}

async fn gatekeeper(config: &Config, registry: Option<&Registry>) -> Result<Gatekeeper, StartError> {
    let keys = match &config.access {
        Access::Open => {
            tracing::warn!("nobody is asked who they are: whoever reaches this service may do everything");
            return Ok(Gatekeeper::Open);
        }
        Access::Discovered => {
            let registry = registry.ok_or(StartError::NoKeys)?;
            let published = Published::new(registry, client(config).cloned(), config.discovery_cache.as_deref());
            Keys::new(Source::Published(Box::new(published)), KeySet::default())
        }
        // A file that is wrong at the start is told now; later what was read before goes on being good.
        Access::KeyFile(file) => {
            let keys = keys::read(file.clone()).await.map_err(StartError::Keys)?;
            Keys::new(Source::File(file.clone()), keys)
        }
        Access::Keys(keys) => Keys::new(Source::Fixed, keys.clone()),
    };
    Ok(Gatekeeper::Guarded(keys))
}

async fn broker(config: &Config, instance: &str) -> Result<Option<Arc<dyn Broker>>, StartError> {
    Ok(match config.events.clone() {
        Some(url) => Some(Arc::new(Nats::connect(url, SERVICE, instance).await?)),
        None => None,
    })
}

fn client(config: &Config) -> Option<&tls::Client> {
    config.tls.as_ref().and_then(tls::Tls::client)
}

fn registration(config: &Config, host: &service_host::Running) -> Registration {
    let address = config
        .advertise
        .clone()
        .unwrap_or_else(|| host.local_addr().to_string());
    let registration = Registration::new(SERVICE, address);
    let is_secured = config.tls.as_ref().is_some_and(|tls| tls.server().is_some());
    let registration = if is_secured {
        registration.secured()
    } else {
        registration
    };
    registration
        .id(host.instance_id())
        .version(env!("CARGO_PKG_VERSION"))
        .zone(config.zone.as_str())
        .grpc_services([SERVICE_NAME, outbox::SERVICE_NAME])
        .heartbeat(config.heartbeat_interval, config.heartbeat_misses)
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::TicketKeys(error.to_string())
    }
}

impl From<SeedError> for StartError {
    fn from(error: SeedError) -> Self {
        Self::Seed(error.to_string())
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.drain, formatter)
    }
}
