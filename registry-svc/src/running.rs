//! The life of a registry: open the store, bind, serve, drain, close.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use service_host::{BindError, DrainReport, Host, Limits};
use thiserror::Error;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::{
    api::{self, Api, ApiGate, Backlog, Lanes},
    catalog::{Batch, Catalog},
    config::{Config, StoreLocation},
    driver::{self, Clock, Driver, DriverError},
    gatekeeper::Gatekeeper,
    history::HistoryLimits,
    hub::{Hub, Restored, Trust},
    metrics::Metrics,
    model::{Confidence, ReplicaId},
    prober::{Allowed, Prober},
    store::{Embedded, Etcd, Loaded, Store, StoreError},
    tokens::TokensError,
};

/// What a stream may have waiting to be sent before it is asked for more, in bytes: most of a part of a snapshot, of which an
/// unread watch holds two besides.
pub(crate) const SEND_BUFFER: usize = 16 * 1_024;

/// How often the hub is tidied: often enough for what it lets go after 30 s.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// The registry role.
#[derive(Debug)]
pub struct Registry;

/// A registry that serves. Dropped without [`Running::stop`] it cuts its connections at once; what it
/// acknowledged is on disk.
#[derive(Debug)]
pub struct Running {
    host: service_host::Running,
    driver: JoinHandle<Result<(), DriverError>>,
    /// The driver has been awaited; its handle must not be polled again.
    driver_ended: bool,
    tidying: JoinHandle<()>,
    probing: JoinHandle<()>,
    /// Follows the file of tokens, where there is one.
    guarding: Option<JoinHandle<()>>,
    /// Stops the driver, the tidying, the probing and the guarding, also when this is merely dropped.
    stop: DropGuard,
    drain_grace: Duration,
}

/// How a stop went.
#[derive(Debug)]
pub struct StopReport {
    /// Of the server.
    pub drain: DrainReport,
    /// Why the last changes could not be made durable, if so; none of them was acknowledged.
    pub failure: Option<Error>,
}

impl StopReport {
    /// Whether every call was finished and every change is durable.
    pub fn is_clean(&self) -> bool {
        self.drain.is_clean() && self.failure.is_none()
    }
}

/// Why a registry could not start. One line, with what to do.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store: a data directory that is unwritable, in use by another registry, damaged, or of a newer version; an etcd
    /// cluster that is not reached, or refuses us.
    #[error("{0}")]
    Store(String),
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The file of tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// A bug: something is served and nobody has said who may call it.
    #[error("{method} is served, and the table of `access/rules` does not say who may call it")]
    Unruled {
        /// Its path.
        method: String,
    },
    /// A setting is not usable.
    #[error("{setting} must be {rule}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// The operating system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Why a registry cannot go on. The process is to exit with 1: only a restart finds out what the disk holds.
#[derive(Debug, Error)]
pub enum Error {
    /// A change could not be made durable.
    #[error("the registry cannot make changes durable: {0}")]
    Store(String),
    /// The listener is gone.
    #[error("the registry's listener has failed: {0}")]
    Listener(String),
    /// A bug: the task that owns the state has panicked.
    #[error("the registry's driver has panicked")]
    Panicked,
}

impl Registry {
    /// Opens the store, binds, and serves.
    ///
    /// # Errors
    /// [`StartError`], with nothing left running.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let history = history_limits(&config)?;
        if config.bookmark_interval.is_zero() {
            return Err(StartError::Setting {
                setting: "bookmark_interval",
                rule: "above 0",
            });
        }
        // Before the store is touched, which is what gives this replica its name.
        config.leases(ReplicaId::ALONE)?;
        Gatekeeper::open(&config.access)?;
        let stop = CancellationToken::new();
        match config.store.clone() {
            StoreLocation::Embedded => {
                let directory = config.data_dir.clone();
                let (store, loaded, past) = open(move || Embedded::open(&directory)).await?;
                Self::serve(config, history, stop, store, loaded, past).await
            }
            StoreLocation::Etcd(url) => {
                let (runtime, stopped, tls) = (Handle::current(), stop.clone(), config.store_tls.clone());
                let open_etcd = move || Etcd::open(&url, tls.as_ref(), &runtime, stopped);
                let (store, loaded, past) = open(open_etcd).await?;
                Self::serve(config, history, stop, store, loaded, past).await
            }
        }
    }

    /// Serves what a store has loaded.
    pub(crate) async fn serve(
        config: Config,
        history: HistoryLimits,
        stop: CancellationToken,
        store: impl Store,
        loaded: Loaded,
        past: Vec<Batch>,
    ) -> Result<Running, StartError> {
        let leases_settings = config.leases(store.replica())?;
        let gatekeeper = Gatekeeper::open(&config.access)?;
        if gatekeeper.is_some() {
            api::every_method_has_a_rule()?;
        }
        let mut limits = Limits::default();
        limits.max_send_buffer = SEND_BUFFER;
        let mut settings = service_host::Config::new("registry", config.listen)
            .admin(config.admin_listen)
            .tls(config.tls)
            .quiet(&[
                "tessera.registry.v1.RegistryService/Renew",
                "tessera.registry.v1.RegistryService/KeepAlive",
            ])
            .limits(limits);
        if let Some(gatekeeper) = &gatekeeper {
            settings = settings.gate(Some(Arc::new(ApiGate(Arc::clone(gatekeeper)))));
        }
        if let Some(id) = config.instance_id {
            settings = settings.instance_id(id);
        }
        let host = Host::bind(settings).await?;

        let store_name = match &config.store {
            StoreLocation::Embedded => config.data_dir.display().to_string(),
            StoreLocation::Etcd(url) => url.to_string(),
        };

        // From here the leases' time runs: their owners can reach us.
        let clock = Clock::start();
        let Loaded {
            history_id,
            revision,
            compacted,
            instances,
            leases,
            overrides,
        } = loaded;
        let leases_count = leases.len();
        let catalog = Catalog::restore(leases_settings, revision, leases, &instances, clock.now().moment)
            .with_overrides(overrides.clone());
        let hub = Arc::new(Hub::restore(Restored {
            limits: history,
            history_id,
            revision,
            compacted,
            instances: &instances,
            overrides,
            history: past,
            trust: Trust {
                recovering: catalog.confidence() == Confidence::Recovering,
                protecting: catalog.protecting(),
                stale_since: None,
            },
            is_replicated: config.store != StoreLocation::Embedded,
        }));
        let metrics = Metrics::new();
        let backup = store.backup();
        let (driver, handle) = Driver::new(
            catalog,
            Arc::clone(&hub),
            store,
            clock,
            metrics.clone(),
            driver::Settings {
                suspect_after: config.suspect_after,
                ..driver::Settings::default()
            },
            stop.clone(),
        )
        .map_err(StartError::Thread)?;
        let own = [Some(host.local_addr()), host.admin_addr()].into_iter().flatten();
        let allowed = Arc::new(Allowed::new(config.probe_allow, own));
        let prober = Prober {
            hub: Arc::clone(&hub),
            driver: handle.clone(),
            clock,
            allowed: Arc::clone(&allowed),
            tls: config.probe_tls,
        };
        let api = Api {
            allowed,
            probes: prober.speaks(),
            driver: handle,
            hub: Arc::clone(&hub),
            clock,
            drain: host.drain_signal(),
            bookmark_interval: config.bookmark_interval,
            backlog: Backlog::default(),
            lanes: Lanes::new(Handle::current().metrics().num_workers(), metrics.clone()),
            metrics,
            backup,
            is_guarded: gatekeeper.is_some(),
        };
        let host = host.serve(api::routes(api), &[api::DESCRIPTORS]);
        let driver = tokio::spawn(driver.run());
        let probing = tokio::spawn(prober.run(stop.clone()));
        let tidying = tokio::spawn(tidy(hub, clock, stop.clone()));
        let guarding = gatekeeper.map(|gatekeeper| tokio::spawn(gatekeeper.follow(stop.clone())));
        host.set_all_serving();
        info!(
            address = %host.local_addr(),
            store = %store_name,
            instances = instances.len(),
            leases = leases_count,
            revision = revision.get(),
            %history_id,
            "registry serves"
        );
        Ok(Running {
            host,
            driver,
            driver_ended: false,
            tidying,
            probing,
            guarding,
            stop: stop.drop_guard(),
            drain_grace: config.drain_grace,
        })
    }
}

impl Running {
    /// The address served, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.host.local_addr()
    }

    /// The admin address, with the real port.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.host.admin_addr()
    }

    /// The id that responses carry.
    pub fn instance_id(&self) -> &str {
        self.host.instance_id()
    }

    /// Resolves only if the registry cannot go on. Cancel safe.
    pub async fn failed(&mut self) -> Error {
        let error = tokio::select! {
            ended = &mut self.driver, if !self.driver_ended => {
                self.driver_ended = true;
                why(ended).unwrap_or(Error::Panicked)
            }
            failure = self.host.failed() => Error::Listener(failure.to_string()),
        };
        // Callers go elsewhere at once, not only when the process is gone.
        self.host.set_not_serving();
        error
    }

    /// Stops: health says NOT_SERVING, watches end with UNAVAILABLE so that clients resume elsewhere, open calls finish within
    /// the grace, and then the store is closed with all that was accepted in it.
    pub async fn stop(self) -> StopReport {
        let Self {
            host,
            driver,
            driver_ended,
            tidying,
            probing,
            guarding,
            stop,
            drain_grace,
        } = self;
        let drain = host.drain(drain_grace).await;
        // After the server: calls that finish during the drain still need the driver.
        stop.disarm().cancel();
        let failure = if driver_ended { None } else { why(driver.await) };
        // It has nothing to tell but a panic, which is in the log.
        let _ = tidying.await;
        let _ = probing.await;
        if let Some(guarding) = guarding {
            let _ = guarding.await;
        }
        if let Some(error) = &failure {
            warn!(%error, "the registry did not close cleanly");
        }
        StopReport { drain, failure }
    }
}

/// Lets go of what stalled watches have left, now and then.
async fn tidy(hub: Arc<Hub>, clock: Clock, stop: CancellationToken) {
    let mut pause = tokio::time::interval(TIDY_EVERY);
    while stop.run_until_cancelled(pause.tick()).await.is_some() {
        hub.tidy(clock.now().moment);
    }
}

fn why(ended: Result<Result<(), DriverError>, tokio::task::JoinError>) -> Option<Error> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Error::Store(error.to_string())),
        Err(_) => Some(Error::Panicked),
    }
}

pub(crate) fn history_limits(config: &Config) -> Result<HistoryLimits, StartError> {
    if config.history_len == 0 {
        return Err(StartError::Setting {
            setting: "history_len",
            rule: "at least 1",
        });
    }
    Ok(HistoryLimits {
        revisions: config.history_len,
        bytes: config.history_bytes,
    })
}

/// Opens a store and reads everything, off the runtime: a million instances take seconds.
async fn open<S: Store>(
    open: impl FnOnce() -> Result<S, StoreError> + Send + 'static,
) -> Result<(S, Loaded, Vec<Batch>), StartError> {
    let read = move || -> Result<_, StoreError> {
        let mut store = open()?;
        let loaded = store.load()?;
        let mut history = store.history()?;
        loaded.lend_to(&mut history);
        Ok((store, loaded, history))
    };
    let read = tokio::task::spawn_blocking(read).await;
    match read {
        Ok(result) => result.map_err(|error| StartError::Store(error.to_string())),
        Err(panic) => Err(StartError::Store(format!("the store could not be read: {panic}"))),
    }
}
