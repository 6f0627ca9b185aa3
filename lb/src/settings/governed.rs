//! The settings of a channel as they are now, and the one way by which they change. Not what they mean.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{
    ChannelRules, InvalidServiceConfig, Layer, MethodSettings, Rules, Scope, ServiceConfig, Settings, Subject,
    layers::{Bound, Layers},
    provider::{METADATA_KEY, elect},
};
use crate::{Routes, Subsetting, degrade::Bindings, pool::Backend};

/// Read by every call without a lock; changed seldom, as a whole.
#[derive(Debug)]
pub(crate) struct Governed {
    service: Arc<str>,
    current: ArcSwap<Settings>,
    layers: Mutex<Layers>,
    bindings: Bindings,
    /// Told of what concerns more than single calls.
    subject: Subject,
    follows_provider: bool,
    /// What the instances announced last.
    announced: Mutex<Vec<Option<String>>>,
}

impl Governed {
    /// `base` has the defaults, `plain` what the builder was told setter by setter.
    pub(crate) fn new(
        service: Arc<str>,
        base: MethodSettings,
        (plain, of_channel): (Rules, ChannelRules),
        bindings: Bindings,
        subject: Subject,
        follows_provider: bool,
    ) -> Self {
        let mut layers = Layers::new(base);
        let plain = Bound {
            rules: plain,
            ..Bound::default()
        };
        layers.set(Layer::Setters, BTreeMap::from([(Scope::Every, plain)]), of_channel);
        let settings = layers.resolve();
        subject.follow(settings.channel(), None);
        Self {
            service,
            current: ArcSwap::from_pointee(settings),
            subject,
            layers: Mutex::new(layers),
            bindings,
            follows_provider,
            announced: Mutex::default(),
        }
    }

    pub(crate) fn load(&self) -> Guard<Arc<Settings>> {
        self.current.load()
    }

    /// From here on that layer says what `config` says. All calls that begin from now on go by it.
    ///
    /// # Errors
    /// It cannot be used with this channel, and what held before stays: a fallback that nobody has given.
    pub(crate) fn set(&self, layer: Layer, config: &ServiceConfig) -> Result<(), InvalidServiceConfig> {
        let mut problems = Vec::new();
        let mut entries = BTreeMap::new();
        for (scope, entry) in &config.entries {
            let fallback = match &entry.fallback {
                None => None,
                Some(rule) => match self.bindings.bind(scope, rule) {
                    Ok(fallback) => Some(Arc::new(fallback)),
                    Err(problem) => {
                        problems.push(problem);
                        continue;
                    }
                },
            };
            let bound = Bound {
                rules: entry.rules.clone(),
                fallback,
                inherits: entry.inherits,
            };
            entries.insert(scope.clone(), bound);
        }
        if !problems.is_empty() {
            return Err(InvalidServiceConfig::new(problems));
        }
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.set(layer, entries, config.channel.clone());
        self.publish(&mut layers);
        Ok(())
    }

    /// From here on the live config has these routes, whatever else it says.
    pub(crate) fn set_live_routes(&self, routes: Routes) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.channel_mut(Layer::Live).routes = Some(routes);
        self.publish(&mut layers);
    }

    /// How many instances are to be connected to, now and whenever that changes.
    pub(crate) fn subsetting(&self) -> watch::Receiver<Option<Subsetting>> {
        self.subject.subsetting.subscribe()
    }

    /// What the layers say holds from here on. Under their lock: of two changes, both see to it in the same order.
    fn publish(&self, layers: &mut Layers) {
        let settings = layers.resolve();
        self.subject.follow(settings.channel(), Some(self.load().channel()));
        self.current.store(Arc::new(settings));
    }

    /// The file has another text now. One that cannot be used is told of, once, and changes nothing.
    pub(crate) fn file_changed(&self, path: &Path, found: Result<String, String>) {
        let outcome = found.and_then(|text| {
            let config: ServiceConfig = text.parse().map_err(|error: InvalidServiceConfig| error.to_string())?;
            self.set(Layer::File, &config).map_err(|error| error.to_string())
        });
        let (service, file) = (&self.service, path.display());
        match outcome {
            Ok(()) => {
                changes().with(&["applied"]).inc();
                tracing::info!(%service, %file, "the service config has changed");
            }
            Err(error) => {
                changes().with(&["refused"]).inc();
                tracing::warn!(%service, %file, error, "the service config is refused; what held before stays");
            }
        }
    }

    /// What these instances announce is asked where the caller says nothing.
    pub(crate) fn hears(&self, backends: &[Backend]) {
        if !self.follows_provider {
            return;
        }
        let text = |backend: &Backend| backend.attributes.metadata.get(METADATA_KEY).cloned();
        let mut announced: Vec<Option<String>> = backends.iter().map(text).collect();
        announced.sort_unstable();
        let mut before = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        // An empty set says nothing about how it wants to be called: the last word stays until there is another.
        if announced.is_empty() || *before == announced {
            return;
        }
        let elected = elect(announced.iter().map(Option::as_deref));
        for (text, error) in &elected.refused {
            if !before.iter().flatten().any(|known| known.starts_with(text)) {
                tracing::warn!(service = %self.service, text, %error, "a service config that instances announce is refused");
            }
        }
        *before = announced;
        // It has no fallbacks, and those are all that can be wrong with a config that was read.
        if let Err(error) = self.set(Layer::Provider, &elected.config) {
            tracing::warn!(service = %self.service, %error, "the service config that instances announce is refused");
        }
    }
}

#[cfg(test)]
impl Governed {
    /// Where nobody says anything.
    pub(crate) fn plain() -> Self {
        let base = MethodSettings {
            ready_timeout: std::time::Duration::from_secs(1),
            call_timeout: None,
            ..MethodSettings::default()
        };
        let plain = (Rules::default(), ChannelRules::default());
        let subject = Subject {
            pool: Arc::new(crate::pool::Pool::new(crate::Policy::default())),
            gate: Arc::default(),
            retries: Arc::new(crate::call::Retries::new()),
            caller: crate::route::Caller::default(),
            registries: Arc::default(),
            subsetting: watch::Sender::new(None),
        };
        Self::new("s".into(), base, plain, Bindings::default(), subject, true)
    }
}

/// By outcome, over all channels.
fn changes() -> telemetry::metrics::CounterFamily {
    telemetry::metrics::counter(
        "tessera_lb_service_config_changes",
        "Changes of service config files that were seen.",
        &["outcome"],
    )
}
