//! How far what is read here can be trusted, and why not further.

use std::{collections::BTreeSet, sync::Arc};

use super::Scope;
use crate::model::{Confidence, Moment, ServiceKey};

/// What the driver knows of the catalog and the store. The default is fresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    /// Just restarted: nothing expires yet.
    pub(crate) recovering: bool,
    /// The services whose expiry is slowed down.
    pub(crate) protecting: Arc<BTreeSet<ServiceKey>>,
    /// Since when the store cannot be reached.
    pub(crate) stale_since: Option<Moment>,
}

impl Trust {
    /// What is told with an answer about this scope. The gravest doubt is told: STALE before RECOVERING before PROTECTING.
    pub(super) fn confidence(&self, scope: &Scope, now: Moment) -> Confidence {
        if let Some(since) = self.stale_since {
            Confidence::Stale { age: now.since(since) }
        } else if self.recovering {
            Confidence::Recovering
        } else if self.protects(scope) {
            Confidence::Protecting
        } else {
            Confidence::Fresh
        }
    }

    /// A namespace is protected when any of its services is.
    fn protects(&self, scope: &Scope) -> bool {
        // Nearly always; and this is asked for each answer.
        if self.protecting.is_empty() {
            return false;
        }
        match &scope.service {
            Some(service) => self.protecting.contains(&ServiceKey {
                namespace: scope.namespace.clone(),
                service: service.clone(),
            }),
            None => self.protecting.iter().any(|key| key.namespace == scope.namespace),
        }
    }

    /// Whether another kind of confidence is told of this scope. The age of a stale answer is not another kind: it would be
    /// another one at every moment.
    pub(super) fn differs(&self, other: &Self, scope: &Scope) -> bool {
        let kind = |trust: &Self| {
            std::mem::discriminant(&trust.confidence(scope, Moment::after_start(std::time::Duration::ZERO)))
        };
        kind(self) != kind(other)
    }
}
