//! A value for each scope: for a namespace as a whole, and for each of its services.
//!
//! Looked up by reference: a change finds the scopes that hold it without making a [`Scope`] of its own.

use std::collections::HashMap;

use super::Scope;
use crate::model::{InstanceKey, Namespace, ServiceName};

/// See the module. What is not there is as good as the default.
#[derive(Debug)]
pub(super) struct ByScope<T>(HashMap<Namespace, InNamespace<T>>);

#[derive(Debug, Default)]
struct InNamespace<T> {
    whole: T,
    services: HashMap<ServiceName, T>,
}

impl<T> Default for ByScope<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Default> ByScope<T> {
    /// The scope's value, if there is one.
    pub(super) fn get(&self, scope: &Scope) -> Option<&T> {
        let namespace = self.0.get(&scope.namespace)?;
        match &scope.service {
            Some(service) => namespace.services.get(service),
            None => Some(&namespace.whole),
        }
    }

    /// The scope's value, made if there is none.
    pub(super) fn entry(&mut self, scope: &Scope) -> &mut T {
        let namespace = self.0.entry(scope.namespace.clone()).or_default();
        match &scope.service {
            Some(service) => namespace.services.entry(service.clone()).or_default(),
            None => &mut namespace.whole,
        }
    }

    /// The values of the scopes that hold this instance, as far as there are any.
    pub(super) fn holding(&self, key: &InstanceKey) -> impl Iterator<Item = &T> {
        let namespace = self.0.get(&key.namespace);
        let service = namespace.and_then(|namespace| namespace.services.get(&key.service));
        namespace.map(|namespace| &namespace.whole).into_iter().chain(service)
    }

    /// Changes the values of the two scopes that hold this instance, made if there are none.
    pub(super) fn change_holding(&mut self, key: &InstanceKey, mut change: impl FnMut(&mut T)) {
        // Not by `entry` alone, which wants names of its own: nearly always they are there.
        let namespace = match self.0.get_mut(&key.namespace) {
            Some(namespace) => namespace,
            None => self.0.entry(key.namespace.clone()).or_default(),
        };
        change(&mut namespace.whole);
        change(match namespace.services.get_mut(&key.service) {
            Some(service) => service,
            None => namespace.services.entry(key.service.clone()).or_default(),
        });
    }

    /// Forgets the values of these scopes that are empty, by `is_empty`.
    pub(super) fn tidy(&mut self, namespace: &Namespace, service: Option<&ServiceName>, is_empty: impl Fn(&T) -> bool) {
        let Some(found) = self.0.get_mut(namespace) else {
            return;
        };
        if let Some(service) = service
            && found.services.get(service).is_some_and(&is_empty)
        {
            found.services.remove(service);
        }
        if found.services.is_empty() && is_empty(&found.whole) {
            self.0.remove(namespace);
        }
    }

    /// All values.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.0
            .values()
            .flat_map(|namespace| std::iter::once(&namespace.whole).chain(namespace.services.values()))
    }
}
