//! The life of one user-svc process: open, bind, serve, register; then the same backwards. Decides nothing about purchases.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use outbox::{Broker, Destinations, Dispatcher, Nats, Subscribers};
use registry_client::{Registrar, Registration, Registry, Removal};
use service_host::{DrainReport, Host};
use service_store::{OpenError, SystemClock};
use tokio_util::sync::DropGuard;

use crate::{
    accounts::Accounts,
    api::{ApiGate, SERVICE_NAME, UserApi},
    attempts::Attempts,
    config::Config,
    domain::signing::Schedule,
    mail::Mail,
    passwords::{PasswordError, Passwords},
    purchases::Purchases,
    sessions::Sessions,
    signing::{Follower, Signing, SigningError},
    store::Store,
    tickets::Tickets,
};

/// What it is called in the registry.
const SERVICE: &str = "user-svc";

/// Whom it buys from.
const TICKET_SERVICE: &str = "ticket-svc";

/// What other services ask for once a minute: a trace of each would tell nothing.
const QUIET: &[&str] = &["tessera.user.v1.UserService/GetSigningKeys"];

/// How long a call waits for an instance of it. A second covers a reconnect; purchases try again by themselves.
const TICKETS_READY: Duration = Duration::from_secs(1);

/// Starts the user service.
#[derive(Debug)]
pub struct Users;

/// A user service that serves. [`Running::stop`] ends it in order; dropped, it ends at once, as a crash would.
#[derive(Debug)]
pub struct Running {
    host: service_host::Running,
    registrar: Option<Registrar>,
    purchases: Purchases,
    /// Dropped without [`Running::stop`], purchases end with the server and not some time later.
    _cut: DropGuard,
    keys: Follower,
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
    /// What was said of the broker cannot be used.
    #[error(transparent)]
    Events(#[from] outbox::UnusableNats),
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] service_host::BindError),
    /// The registry's address makes no sense.
    #[error("cannot use the registry")]
    Registry(#[source] registry_client::Error),
    /// The ticket service's addresses make no sense.
    #[error("cannot use the ticket service's addresses")]
    Tickets(#[source] lb::InvalidTarget),
    /// What says how the ticket service is called cannot be used, or asks for a ticket service at the start that is not there.
    #[error("cannot call the ticket service")]
    ServiceConfig(#[source] lb::ConnectError),
    /// Our own descriptors are broken.
    #[error("cannot use the ticket service's descriptors")]
    Descriptors(#[from] lb::InvalidDescriptors),
    /// Nobody to buy from.
    #[error("no ticket service: give a registry to find it in, or its addresses")]
    NoTickets,
    /// The keys that tokens are signed with cannot be read or made.
    #[error("cannot read or make the keys that access tokens are signed with: {0}")]
    Keys(String),
    /// The machine cannot hash passwords.
    #[error("cannot hash passwords: {0}")]
    Passwords(String),
}

/// How the end went.
#[derive(Debug, Clone, Copy)]
pub struct StopReport {
    /// How the calls in flight ended.
    pub drain: DrainReport,
    /// Purchases of this process that are unfinished. Another process on the same store goes on with them from their recorded
    /// step, or the next start does.
    pub purchases_left: u64,
}

impl Users {
    /// Opens the store, binds, serves, takes up unfinished purchases, and registers last: nobody is sent here before there
    /// is someone to answer.
    ///
    /// A registry or ticket service that is away does not stop it, unless its service config asks for that (`check`).
    ///
    /// # Errors
    /// [`StartError`], with what to do about it in its message.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let registry = registry(&config)?;
        let channel = channel(&config, registry.as_ref()).await?;
        let store = Store::open(config.store.clone(), Arc::new(SystemClock)).await?;
        let signing = Signing::open(store.clone(), schedule(&config), TICKET_SERVICE).await?;
        let tickets = Tickets::new(channel, config.hold_ttl, signing.clone());
        let accounts = Accounts::new(store.clone(), Passwords::new().await?, Attempts::new());
        let sessions = Sessions::new(
            store.clone(),
            accounts.clone(),
            signing.clone(),
            config.session_lifetime,
        );
        let mut host = service_host::Config::new(SERVICE, config.listen)
            .admin(config.admin_listen)
            .admin_page("/lb", lb::live_page)
            .gate(Some(Arc::new(ApiGate {
                signing: signing.clone(),
            })))
            .quiet(QUIET)
            .tls(config.tls.as_ref().and_then(|tls| tls.server()).cloned());
        if let Some(id) = &config.instance_id {
            host = host.instance_id(id);
        }
        let host = Host::bind(host).await?;
        let claiming = store.clone().claiming_as(host.instance_id(), config.purchase_lease);
        let purchases = Purchases::new(claiming, tickets, config.max_purchases.max(1));
        let api = UserApi {
            store: store.clone(),
            accounts,
            sessions,
            signing: signing.clone(),
            purchases: purchases.clone(),
            drain: host.drain_signal(),
        };
        let host = host.serve(api.into_routes(), &[proto::FILE_DESCRIPTOR_SET]);
        purchases.recover();
        let to = Destinations {
            subscribers: Subscribers::default().with(Mail::new(store.clone())),
            broker: broker(&config, host.instance_id()).await?,
        };
        let events = Dispatcher::start(
            store.database().clone(),
            to,
            store.bell().clone(),
            outbox::Settings::default(),
        );
        host.set_serving(SERVICE_NAME);
        let registrar = registry.map(|registry| registry.register(registration(&config, &host)));
        tracing::info!(address = %host.local_addr(), instance = host.instance_id(), "serving");
        Ok(Running {
            host,
            registrar,
            _cut: purchases.cut_on_drop(),
            purchases,
            keys: signing.follow(),
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
    pub fn local_addr(&self) -> SocketAddr {
        self.host.local_addr()
    }

    /// Where its admin endpoint listens, if it has one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
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

    /// Ends it in the order that loses no call and no purchase: says NOT_SERVING, waits until its callers know that it drains,
    /// finishes calls and purchases, leaves the registry, closes the store.
    pub async fn stop(self) -> StopReport {
        self.host.set_not_serving();
        tracing::info!(instance = self.host.instance_id(), "NOT_SERVING says health");
        if let Some(registrar) = &self.registrar {
            registrar.drain(self.drain_linger).await;
        }
        // Together: BuyTicket calls wait for their purchases, and both have the same grace.
        let (drain, purchases_left) = tokio::join!(
            self.host.drain(self.drain_grace),
            self.purchases.finish(self.drain_grace)
        );
        // What is left of the events, another process delivers, or the next start.
        self.events.stop().await;
        if let Some(registrar) = self.registrar {
            registrar.deregister(Removal::Drained).await;
        }
        self.keys.stop().await;
        self.store.close().await;
        let purchases_left = purchases_left.unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot tell how many purchases are unfinished"
            );
            0
        });
        StopReport { drain, purchases_left }
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

async fn channel(config: &Config, registry: Option<&Registry>) -> Result<lb::Channel, StartError> {
    let target: lb::Target = match registry {
        _ if !config.ticket_addresses.is_empty() => {
            lb::Target::fixed(&config.ticket_addresses).map_err(StartError::Tickets)?
        }
        Some(registry) => registry.discover(TICKET_SERVICE).into(),
        None => return Err(StartError::NoTickets),
    };
    let mut builder = lb::Channel::builder(target)
        .tls(client(config).cloned())
        .ready_timeout(TICKETS_READY);
    if let Some(dir) = &config.discovery_cache {
        builder = builder.cache_dir(dir);
    }
    match &config.service_config {
        None => Ok(builder.build()),
        Some(file) => {
            // With them a file can say what stands in for a reply.
            let builder = builder.descriptors(proto::FILE_DESCRIPTOR_SET)?;
            let connected = builder.service_config_file(file).connect().await;
            connected.map_err(StartError::ServiceConfig)
        }
    }
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

fn schedule(config: &Config) -> Schedule {
    Schedule {
        rotation: config.key_rotation,
        token_lifetime: config.token_lifetime,
    }
}

impl From<SigningError> for StartError {
    fn from(error: SigningError) -> Self {
        Self::Keys(error.to_string())
    }
}

impl From<PasswordError> for StartError {
    fn from(error: PasswordError) -> Self {
        Self::Passwords(error.to_string())
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.drain, formatter)?;
        if self.purchases_left > 0 {
            write!(
                formatter,
                "; {} purchases go on elsewhere or at the next start",
                self.purchases_left
            )?;
        }
        Ok(())
    }
}
