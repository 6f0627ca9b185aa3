//! What a consumer wants to know of: a service, a selection, and where the answers come from. A description only; `watcher`
//! does the watching.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    model::{DEFAULT_NAMESPACE, Selector, Snapshot},
    registry::Registry,
    watcher::Watcher,
};

/// How long instances that a registry no longer shows, without saying why, are kept unless told otherwise. Three default
/// leases (15 s each) would be too careful, one too hasty: within two, every live provider of a registry that lost its state
/// has noticed and registered again.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The instances of a service, as a description. Clone it freely; each [`watch`](Self::watch) is a watch of its own.
#[derive(Debug, Clone)]
pub struct Discovery {
    pub(crate) source: Source,
    pub(crate) service: String,
    pub(crate) selector: Selector,
    pub(crate) grace: Duration,
}

/// Where the answers come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Registry(Registry),
    Fed(watch::Receiver<Arc<Snapshot>>),
}

impl Discovery {
    pub(crate) fn of_registry(registry: Registry, service: String) -> Self {
        Self {
            source: Source::Registry(registry),
            service,
            selector: Selector::default(),
            grace: DEFAULT_GRACE,
        }
    }

    /// A description without a registry: the snapshots come from whoever holds the sender. For tests, and for targets that
    /// something else knows.
    #[must_use]
    pub fn fed_by(service: impl Into<String>, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self {
            source: Source::Fed(snapshots),
            service: service.into(),
            selector: Selector::default(),
            grace: DEFAULT_GRACE,
        }
    }

    /// Narrows the selection. Default: all instances of the service. Not applied to snapshots that are fed by hand.
    #[must_use]
    pub fn with_selector(self, selector: Selector) -> Self {
        Self { selector, ..self }
    }

    /// The description of another service of the same registry and namespace, without a selector. Of one that is fed by hand it
    /// is the same set under another name.
    #[must_use]
    pub fn beside(&self, service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            selector: Selector::default(),
            ..self.clone()
        }
    }

    /// What is selected of the service.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// How long instances that the registry no longer shows, without saying why, are kept. Default: 30 s; zero believes at
    /// once; at most a day.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The namespace that the service is looked for in; of a description that is fed by hand, `default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match &self.source {
            Source::Registry(registry) => registry.namespace(),
            Source::Fed(_) => DEFAULT_NAMESPACE,
        }
    }

    /// What the registry was connected with; nothing for a description that is fed by hand.
    #[must_use]
    pub fn tls(&self) -> Option<&tls::Client> {
        match &self.source {
            Source::Registry(registry) => registry.tls(),
            Source::Fed(_) => None,
        }
    }

    /// Starts to watch. Must be called within a tokio runtime: it starts a task, which ends when the watcher and all
    /// receivers made from it are gone.
    #[must_use = "dropping the watcher ends the watch"]
    pub fn watch(&self) -> Watcher {
        Watcher::start(self)
    }
}
