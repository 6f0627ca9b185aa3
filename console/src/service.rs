//! The life of one monitor: open, bind, serve, register; then the same backwards. Decides nothing about series.

use std::{sync::Arc, time::Duration};

use registry_client::{Registrar, Registration, Registry, Removal};
use service_host::{DrainReport, Host};

use crate::{
    api::{ApiGate, MonitorApi, SERVICE_NAME},
    config::Config,
    driver::{self, Writer},
    monitor::Bounds,
    store::{Store, StoreError},
};

/// What it is called in the registry, where reporters look for it.
pub const SERVICE: &str = "console";

/// Series of all services: a hundred services of ten methods, each with ten peers. What comes after shares one.
const MAX_SERIES: usize = 10_000;
/// Processes within a day, restarts included.
const MAX_REPORTERS: usize = 10_000;

/// The last transaction takes milliseconds; a disk that hangs shall not hold up the end.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the monitor.
#[derive(Debug)]
pub struct Console;

/// A monitor that serves. [`Running::stop`] ends it in order; dropped, it ends at once, as a crash would.
#[derive(Debug)]
pub struct Running {
    host: service_host::Running,
    registrar: Option<Registrar>,
    writer: Writer,
    drain_linger: Duration,
    drain_grace: Duration,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error("cannot use the store {file}")]
    Store {
        /// The file.
        file: String,
        /// Why.
        source: StoreError,
    },
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] service_host::BindError),
    /// The registry's address makes no sense.
    #[error("cannot use the registry")]
    Registry(#[source] registry_client::Error),
}

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It can accept no calls.
    #[error(transparent)]
    Host(service_host::Failure),
    /// It cannot write: what is in memory may be ahead of the disk.
    #[error("the store cannot be written; start again once the disk is well")]
    Store,
}

/// How the end went.
#[derive(Debug, Clone, Copy)]
pub struct StopReport {
    /// How the calls in flight ended.
    pub drain: DrainReport,
}

impl Console {
    /// Opens the store, binds, serves, and registers last: nobody is sent here before there is someone to answer.
    ///
    /// A registry that is away does not stop it; the registrar goes on trying.
    ///
    /// # Errors
    /// [`StartError`], with what to do about it in its message.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let registry = registry(&config)?;
        let (driver, writer) = open(&config).await?;
        let gate = ApiGate {
            is_guarded: config.is_guarded,
            namespace: config.namespace.clone(),
        };
        let mut host = service_host::Config::new(SERVICE, config.listen)
            .admin(config.admin_listen)
            .gate(Some(Arc::new(gate)))
            .tls(config.tls.as_ref().and_then(|tls| tls.server()).cloned());
        if let Some(id) = &config.instance_id {
            host = host.instance_id(id);
        }
        let host = Host::bind(host).await?;
        let host = host.serve(MonitorApi::new(driver).into_routes(), &[proto::FILE_DESCRIPTOR_SET]);
        host.set_serving(SERVICE_NAME);
        let registrar = registry.map(|registry| registry.register(registration(&config, &host)));
        tracing::info!(address = %host.local_addr(), instance = host.instance_id(), "serving");
        Ok(Running {
            host,
            registrar,
            writer,
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

    /// Resolves only if it cannot go on, which should never be.
    pub async fn failed(&mut self) -> Failure {
        tokio::select! {
            failure = self.host.failed() => Failure::Host(failure),
            () = self.writer.failed() => Failure::Store,
        }
    }

    /// Ends it in order: says NOT_SERVING, waits until those who report know that it drains, finishes what is in flight, leaves
    /// the registry, and closes the store once all of it is written.
    pub async fn stop(self) -> StopReport {
        self.host.set_not_serving();
        if let Some(registrar) = &self.registrar {
            registrar.drain(self.drain_linger).await;
        }
        let drain = self.host.drain(self.drain_grace).await;
        if let Some(registrar) = self.registrar {
            registrar.deregister(Removal::Drained).await;
        }
        if tokio::time::timeout(STORE_PATIENCE, self.writer.end()).await.is_err() {
            tracing::warn!("the store was not closed in time; what was acknowledged is in it");
        }
        StopReport { drain }
    }
}

async fn open(config: &Config) -> Result<(driver::Driver, Writer), StartError> {
    let bounds = Bounds {
        series: MAX_SERIES,
        bytes: config.max_bytes,
        reporters: MAX_REPORTERS,
    };
    let file = config.store.clone();
    let opened = tokio::task::spawn_blocking(move || driver::start(Store::open(&file)?, bounds)).await;
    let failed = |source| StartError::Store {
        file: config.store.display().to_string(),
        source,
    };
    match opened {
        Ok(opened) => opened.map_err(failed),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn registry(config: &Config) -> Result<Option<Registry>, StartError> {
    if config.registry.is_empty() {
        return Ok(None);
    }
    let client = config.tls.as_ref().and_then(tls::Tls::client);
    let registry = Registry::connect_with(&config.registry, client).map_err(StartError::Registry)?;
    let registry = registry.with_namespace(config.namespace.as_str());
    Ok(Some(match config.token.clone() {
        None => registry,
        Some(token) if config.token_in_the_clear => registry.with_token_in_the_clear(token),
        Some(token) => registry.with_token(token).map_err(StartError::Registry)?,
    }))
}

fn registration(config: &Config, host: &service_host::Running) -> Registration {
    let address = config.advertise.clone();
    let registration = Registration::new(SERVICE, address.unwrap_or_else(|| host.local_addr().to_string()));
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
        .grpc_services([SERVICE_NAME])
        .heartbeat(config.heartbeat_interval, config.heartbeat_misses)
}
