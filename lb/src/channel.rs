//! What callers hold: a [`Channel`], and the builder that makes one. The way of a call is in `call`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use prost_reflect::DescriptorPool;
use rand::Rng as _;
use tokio::{sync::watch, time::Instant};
use tonic::{Status, body::Body};
use tower_service::Service;

use crate::{
    Backoff, CircuitBreaker, ConcurrencyLimit, ConnectError, EndpointView, Error, Explanation, FallbackRequest,
    FaultCounts, HedgingPolicy, InvalidDescriptors, InvalidServiceConfig, Mode, OutlierDetection, Policy, ResponseBody,
    RetryBudget, RetryPolicy, RetryThrottling, ServiceConfig, SlowStart, Target, Throttling,
    call::{self, gate::Gate},
    degrade::{self, Act, Bindings},
    endpoint::Dial,
    explain::live,
    pool::{Keeper, KeeperSettings, Pool, Wish},
    range::FOR_EVER,
    route,
    settings::{CallSettings, ChannelRules, Governed, Layer, MethodSettings, Rules, Subject, read_file},
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
    pub(crate) shared: Arc<call::Shared>,
}

/// Makes a [`Channel`]. See [`Channel::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is dialled before `build`"]
pub struct Builder {
    target: Target,
    connect_timeout: Duration,
    max_connections: usize,
    idle_timeout: Option<Duration>,
    backoff: Backoff,
    tls: Option<tls::Client>,
    rules: Rules,
    pub(crate) routing: route::Setup,
    pub(crate) channel: ChannelRules,
    config: ServiceConfig,
    file: Option<PathBuf>,
    ignores_provider: bool,
    check: Option<bool>,
    standins: BTreeMap<String, Act>,
    descriptors: Option<DescriptorPool>,
}

/// What became of what a builder was given.
struct Outcomes {
    code: Result<(), InvalidServiceConfig>,
    file: Result<(), ConnectError>,
    check: bool,
}

/// Who answered: an extension of every response, also after tonic has decoded it.
///
/// ```
/// fn served_by<T>(response: &tonic::Response<T>) -> Option<&str> {
///     Some(&response.extensions().get::<lb::Picked>()?.instance_id)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
            connect_timeout: defaults::CONNECT_TIMEOUT,
            max_connections: defaults::MAX_CONNECTIONS,
            idle_timeout: Some(defaults::IDLE_TIMEOUT),
            backoff: Backoff::default(),
            rules: Rules::default(),
            routing: route::Setup::default(),
            channel: ChannelRules::default(),
            config: ServiceConfig::default(),
            file: None,
            ignores_provider: false,
            check: None,
            standins: BTreeMap::new(),
            descriptors: None,
        }
    }

    /// Waits until at least one instance can be called.
    ///
    /// # Errors
    /// [`Error::NoInstances`] or [`Error::NotReady`] when there is none within `timeout`.
    pub async fn ready(&self, timeout: Duration) -> Result<(), Error> {
        let started = Instant::now();
        match self.shared.pool.pick_by(started + timeout.min(FOR_EVER)).await {
            Some(_) => Ok(()),
            None => Err(self
                .shared
                .pool
                .scarcity(Wish::default())
                .into_error(&self.shared.service, started.elapsed())),
        }
    }

    /// All endpoints as they are now, ordered by instance id, those that only finish their calls last.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.shared.pool.views()
    }

    /// Whom a call would go to now, by what the choice goes, and what keeps calls from every other instance that is known.
    ///
    /// ```
    /// # async fn example(channel: lb::Channel) {
    /// println!("{}", channel.explain());
    /// for instance in channel.explain().instances {
    ///     if let Some(removed) = instance.removed {
    ///         println!("{} is out: {} ({})", instance.instance_id, removed.by, removed.why);
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn explain(&self) -> Explanation {
        self.shared.explain(None)
    }

    /// As [`Channel::explain`], of a call of that method (`/package.Service/Method`) with these headers: where the rules and the tag
    /// lead it. Of a rule that splits its calls it is one draw.
    #[must_use]
    pub fn explain_call(&self, method_path: &str, headers: &HeaderMap) -> Explanation {
        self.shared.explain_call(method_path, headers)
    }

    /// From here on calls are made as `config` says, on all clones; calls under way are not touched. It counts more than every
    /// other config of this caller, see [`Builder::service_config`]; an empty one takes back what was said here before.
    ///
    /// # Errors
    /// It names a fallback that this channel does not have; then what held before stays.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, if it names another service as a fallback.
    pub fn configure(&self, config: &ServiceConfig) -> Result<(), InvalidServiceConfig> {
        self.shared.settings.set(Layer::Live, config)
    }

    /// What holds for the calls of the method with that path (`/package.Service/Method`) from here on.
    #[must_use]
    pub fn settings_of(&self, path: &str) -> CallSettings {
        self.shared.settings.load().of(path).view()
    }

    /// The target's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.shared.service
    }

    /// How often calls were repeated, hedged, swallowed and delivered later.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        self.shared.retries.view()
    }

    /// Takes no more calls, on any clone, and waits until those under way have ended; put a limit on the wait. Only who wants
    /// to know needs it: dropping every clone closes as well.
    ///
    /// Calls that wait to be tried again ([`Mode::Failback`]) are tried once more first; those that fail are logged and counted.
    pub async fn close(&self) {
        self.shared.failback.close().await;
        self.shared.keeper.close().await;
    }
}

impl Builder {
    /// How the next instance is chosen. Default: [`Policy::PeakEwma`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.channel.policy = Some(policy);
        self
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
    pub fn ready_timeout(mut self, ready_timeout: Duration) -> Self {
        self.rules.ready_timeout = Some(ready_timeout.min(FOR_EVER));
        self
    }

    /// How long one attempt to connect may take, the server's first word included. Default: 1 s.
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout: connect_timeout.min(FOR_EVER),
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
            idle_timeout: idle_timeout.into().map(|timeout| timeout.min(FOR_EVER)),
            ..self
        }
    }

    /// The longest that a call may take, its response stream included, where no service config says otherwise; a call's own
    /// `grpc-timeout` and the deadline of the call that is being worked for shorten it. Default: none.
    pub fn call_timeout(mut self, call_timeout: impl Into<Option<Duration>>) -> Self {
        self.rules.timeout = call_timeout.into().map(|timeout| timeout.min(FOR_EVER));
        self
    }

    /// What is done about calls that fail, where no service config says otherwise. Default: [`Mode::Failfast`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.rules.mode = Some(mode);
        self
    }

    /// Calls that fail are repeated elsewhere: [`Mode::Failover`]. Only for services whose calls may all be processed twice.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.mode(Mode::Failover(policy))
    }

    /// Calls whose answer is late are sent to one more instance: [`Mode::Hedging`]. Only for services whose calls may all be
    /// processed twice.
    pub fn hedging(self, policy: HedgingPolicy) -> Self {
        self.mode(Mode::Hedging(policy))
    }

    /// How many attempts more than calls failover may make, all methods together. Default: a fifth of the calls, and 10 a second.
    pub fn retry_budget(mut self, retry_budget: RetryBudget) -> Self {
        self.channel.retry_budget = Some(retry_budget);
        self
    }

    /// How many attempts more than calls hedging may make, all methods together. Default: a tenth of the calls, and 10 a second.
    pub fn hedging_budget(mut self, hedging_budget: RetryBudget) -> Self {
        self.channel.hedging_budget = Some(hedging_budget);
        self
    }

    /// gRPC's throttle, in addition to the budgets. Default: none.
    pub fn retry_throttling(mut self, retry_throttling: impl Into<Option<RetryThrottling>>) -> Self {
        self.channel.retry_throttling = retry_throttling.into();
        self
    }

    /// How long to wait between attempts to connect. Default: 100 ms to 10 s, see [`Backoff`].
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// How instances that fail are taken out of service and come back; `None` keeps everybody in. Default:
    /// [`OutlierDetection::default`].
    pub fn outlier_detection(mut self, outlier: impl Into<Option<OutlierDetection>>) -> Self {
        self.channel.outlier = Some(outlier.into());
        self
    }

    /// How instances that are new come to their share of the calls; with `None` they have it at once. Default:
    /// [`SlowStart::default`].
    pub fn slow_start(mut self, slow_start: impl Into<Option<SlowStart>>) -> Self {
        self.channel.slow_start = Some(slow_start.into());
        self
    }

    /// When calls of a method fail at once for a while: a breaker for each. Default: never.
    pub fn method_breaker(mut self, breaker: impl Into<Option<CircuitBreaker>>) -> Self {
        self.rules.breaker = Some(breaker.into());
        self
    }

    /// When calls of the service fail at once for a while, whatever the method. Default: never.
    pub fn service_breaker(mut self, breaker: impl Into<Option<CircuitBreaker>>) -> Self {
        self.channel.breaker = Some(breaker.into());
        self
    }

    /// How many calls may be under way at a time, by how long they take. Default: no limit.
    pub fn concurrency_limit(mut self, limit: impl Into<Option<ConcurrencyLimit>>) -> Self {
        self.channel.limit = Some(limit.into());
        self
    }

    /// When calls that would probably be refused for overload are not sent. Default: never.
    pub fn throttling(mut self, throttling: impl Into<Option<Throttling>>) -> Self {
        self.channel.throttling = Some(throttling.into());
        self
    }

    /// How calls are to be made, method by method.
    ///
    /// Of several configs (this one, that of a file, a live one, what instances announce) each setting is taken by itself: first
    /// from what is said of the method, then of its service, then of all; among those, the caller's before the instances'; among
    /// the caller's, [`Channel::configure`] before the file before this one before the setters of this builder. Default: empty.
    pub fn service_config(self, config: ServiceConfig) -> Self {
        Self { config, ..self }
    }

    /// A file with a [`ServiceConfig`]. It is read by `build`, and read again every second: a change counts for all calls that
    /// begin after it. A file that cannot be read or used is logged with its line, and what held before stays; with
    /// [`Builder::connect`] that is an error at the start. Default: none.
    pub fn service_config_file(self, path: impl Into<PathBuf>) -> Self {
        Self {
            file: Some(path.into()),
            ..self
        }
    }

    /// Whether instances may say how they want to be called, by a [`ServiceConfig`] of at most 16 KiB under
    /// `tessera.service-config` in their metadata, for what the caller leaves open. The one that most of them announce counts.
    /// Default: they may.
    pub fn provider_config(self, followed: bool) -> Self {
        Self {
            ignores_provider: !followed,
            ..self
        }
    }

    /// Whether [`Builder::connect`] fails when nobody can be called within the ready timeout. What is set here counts more than
    /// `"tessera": {"check": true}` in a config. Default: false, a caller starts without its providers.
    pub fn check(self, check: bool) -> Self {
        Self {
            check: Some(check),
            ..self
        }
    }

    /// A function that fallback rules can name as their `handler`: it gives the encoded message of the reply, or a status. It
    /// runs in the task of the call, so it must not block.
    pub fn fallback_handler<F>(mut self, name: impl Into<String>, handler: F) -> Self
    where
        F: Fn(&FallbackRequest<'_>) -> Result<Bytes, Status> + Send + Sync + 'static,
    {
        self.standins.insert(name.into(), Act::Handler(Arc::new(handler)));
        self
    }

    /// A channel that fallback rules can name as their `handler`: the call goes there. It does not fall back itself then.
    pub fn fallback_channel(mut self, name: impl Into<String>, channel: Channel) -> Self {
        self.standins.insert(name.into(), Act::Call(channel));
        self
    }

    /// The service's descriptors, an encoded `FileDescriptorSet`: a fallback's fixed `reply` is written in JSON, and becomes a
    /// message by them.
    ///
    /// # Errors
    /// If they are none.
    pub fn descriptors(self, set: &[u8]) -> Result<Self, InvalidDescriptors> {
        Ok(Self {
            descriptors: Some(degrade::descriptors(set)?),
            ..self
        })
    }

    /// As [`Builder::build`], and is sure of what it was given: a service config that cannot be used is an error. With
    /// [`Builder::check`], so is having nobody to call.
    ///
    /// # Errors
    /// The file or the config, with the line; or why nobody can be called after the ready timeout.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn connect(self) -> Result<Channel, ConnectError> {
        let (check, patience) = (self.check, self.rules.ready_timeout);
        let (channel, outcomes) = self.start();
        let Outcomes {
            code,
            file,
            check: asked,
        } = outcomes;
        code.map_err(ConnectError::ServiceConfig)?;
        file?;
        if check.unwrap_or(asked) {
            let patience = patience.unwrap_or(defaults::READY_TIMEOUT);
            channel.ready(patience).await.map_err(ConnectError::NotReady)?;
        }
        Ok(channel)
    }

    /// Starts to connect, in the background. A service config that cannot be used is logged, and counts as empty.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn build(self) -> Channel {
        let (channel, outcomes) = self.start();
        let service = channel.service();
        if let Err(error) = outcomes.code {
            tracing::error!(service, %error, "the service config is refused");
        }
        if let Err(error) = outcomes.file {
            let error = &error as &dyn std::error::Error;
            tracing::error!(service, error, "the service config file is refused");
        }
        channel
    }

    fn start(self) -> (Channel, Outcomes) {
        let (service, source) = self.target.into_parts();
        let base = MethodSettings {
            ready_timeout: defaults::READY_TIMEOUT,
            call_timeout: None,
            mode: Mode::default(),
            breaker: None,
            fallback: None,
        };
        let bindings = Bindings {
            standins: self.standins,
            descriptors: self.descriptors,
            discovery: source.discovery().cloned(),
            tls: self.tls.clone(),
            ..Bindings::default()
        };
        let retries = Arc::new(call::Retries::new());
        let gate: Arc<Gate> = Arc::default();
        let pool = Arc::new(Pool::new(self.channel.policy.clone().unwrap_or_default()));
        let subject = Subject {
            pool: Arc::clone(&pool),
            gate: Arc::clone(&gate),
            retries: Arc::clone(&retries),
            caller: self.routing.caller,
            registries: source.ranks().into(),
            subsetting: watch::Sender::new(None),
        };
        let follows_provider = !self.ignores_provider;
        let governed = Governed::new(
            Arc::clone(&service),
            base,
            (self.rules, self.channel),
            bindings,
            subject,
            follows_provider,
        );
        let mut check = self.config.check;
        let code = governed.set(Layer::Code, &self.config);
        let mut file = None;
        let from_file = self.file.map_or(Ok(()), |path| {
            let found = read_file(&path);
            file = Some((
                path.clone(),
                found.as_ref().map(String::clone).map_err(ToString::to_string),
            ));
            let unread = |source| ConnectError::Unreadable {
                path: path.clone(),
                source,
            };
            let unusable = |source| ConnectError::File {
                path: path.clone(),
                source,
            };
            let config: ServiceConfig = found.map_err(unread)?.parse().map_err(unusable)?;
            check = config.check.or(check);
            governed.set(Layer::File, &config).map_err(unusable)
        });
        let outcomes = Outcomes {
            code,
            file: from_file,
            check: check.unwrap_or(false),
        };
        let settings = Arc::new(governed);
        let keeping = KeeperSettings {
            dial: Dial {
                tls: self.tls,
                timeout: self.connect_timeout,
                most: self.max_connections.max(1),
            },
            idle_timeout: self.idle_timeout.filter(|timeout| !timeout.is_zero()),
            backoff: self.backoff,
            governed: Arc::clone(&settings),
            file,
            cache_dir: self.routing.cache_dir,
            subset_seed: rand::rng().next_u64(),
        };
        let keeper = Keeper::spawn(Arc::clone(&pool), source, keeping);
        let shared = Arc::new_cyclic(|shared| call::Shared {
            service,
            pool,
            keeper,
            settings,
            retries,
            failback: call::Failback::new(shared.clone()),
            gate,
        });
        live::opened(&shared);
        (Channel { shared }, outcomes)
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
