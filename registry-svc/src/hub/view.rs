//! The durable state, arranged for reading: namespace → service → instances.
//!
//! A service is shared with its readers, and copied when it changes while one of them still holds it: the list of its pieces and
//! one of them.

mod pieces;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use self::pieces::Pieces;
use super::{Scope, Selection};
use crate::{
    catalog::{Batch, Change},
    model::{Instance, InstanceId, InstanceKey, Namespace, Override, OverrideRecord, Revision, ServiceName, Version},
};

/// The instances of a service, by id, and what a list of services tells of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceView {
    instances: Pieces,
    callable: usize,
    /// How many run each version.
    versions: BTreeMap<Version, usize>,
    /// The last revision that changed it.
    changed: Revision,
}

/// The services of a namespace.
#[derive(Debug, Default)]
struct Services {
    by_name: BTreeMap<ServiceName, Arc<ServiceView>>,
    /// The last revision that changed any of them.
    changed: Revision,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// What it is of.
    pub(super) revision: Revision,
    namespaces: BTreeMap<Namespace, Services>,
    /// What operators have laid over instances, registered or not.
    overrides: BTreeMap<InstanceKey, Arc<Override>>,
}

impl ServiceView {
    /// By id.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.after(None)
    }

    /// By id, after this one.
    pub(crate) fn after(&self, id: Option<&InstanceId>) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.after(id)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.instances.len()
    }

    /// How many of them take calls.
    pub(crate) fn callable(&self) -> usize {
        self.callable
    }

    /// The versions that run, each once.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.keys()
    }

    fn put(&mut self, instance: &Arc<Instance>) {
        let replaced = self.instances.put(instance);
        self.callable += usize::from(instance.is_callable());
        match self.versions.get_mut(&instance.spec.labels.version) {
            Some(count) => *count += 1,
            None => drop(self.versions.insert(instance.spec.labels.version.clone(), 1)),
        }
        if let Some(replaced) = replaced {
            self.discount(&replaced);
        }
    }

    fn remove(&mut self, id: &InstanceId) {
        if let Some(removed) = self.instances.remove(id) {
            self.discount(&removed);
        }
    }

    fn discount(&mut self, gone: &Instance) {
        self.callable -= usize::from(gone.is_callable());
        let version = &gone.spec.labels.version;
        if let Some(count) = self.versions.get_mut(version) {
            *count -= 1;
            if *count == 0 {
                self.versions.remove(version);
            }
        }
    }
}

impl View {
    pub(super) fn restore(revision: Revision, instances: &[Arc<Instance>], overrides: Vec<OverrideRecord>) -> Self {
        let mut view = Self {
            revision,
            overrides: overrides.into_iter().map(|record| (record.key, record.laid)).collect(),
            ..Self::default()
        };
        for instance in instances {
            view.put(instance);
        }
        view
    }

    pub(super) fn apply(&mut self, batch: &Batch) {
        self.revision = batch.revision;
        for change in &batch.changes {
            match change {
                Change::Put { instance, .. } => self.put(instance),
                Change::Removed(removal) => self.remove(&removal.key),
            }
        }
        for change in &batch.overrides {
            match &change.now {
                Some(laid) => drop(self.overrides.insert(change.key.clone(), Arc::clone(laid))),
                None => drop(self.overrides.remove(&change.key)),
            }
        }
    }

    /// What it is of.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// One instance.
    pub(crate) fn get(&self, key: &InstanceKey) -> Option<Arc<Instance>> {
        let services = self.namespaces.get(&key.namespace)?;
        services.by_name.get(&key.service)?.instances.get(&key.id).cloned()
    }

    /// What is laid over an instance, also over one that is not registered.
    pub(crate) fn laid_over(&self, key: &InstanceKey) -> Option<Arc<Override>> {
        self.overrides.get(key).cloned()
    }

    /// The last revision that changed what is in a scope: with it, what is there is the same. Of what is not there, 0.
    pub(super) fn changed(&self, scope: &Scope) -> Revision {
        let Some(services) = self.namespaces.get(&scope.namespace) else {
            return Revision::ZERO;
        };
        match &scope.service {
            Some(service) => services
                .by_name
                .get(service)
                .map_or(Revision::ZERO, |view| view.changed),
            None => services.changed,
        }
    }

    /// Whether there are at most so many instances in a scope. Looks at no more services than that.
    pub(crate) fn has_at_most(&self, scope: &Scope, most: usize) -> bool {
        let mut services = self.range(scope, Bound::Unbounded).map(|(_, view)| view.len());
        services
            .try_fold(0, |sum, len| (sum + len <= most).then_some(sum + len))
            .is_some()
    }

    /// The services of a scope by name, from a point on; at most `limit`.
    pub(crate) fn services(
        &self,
        scope: &Scope,
        from: Bound<&ServiceName>,
        limit: usize,
    ) -> Vec<(ServiceName, Arc<ServiceView>)> {
        let shared = |(name, view): (&ServiceName, &Arc<ServiceView>)| (name.clone(), Arc::clone(view));
        self.range(scope, from).take(limit).map(shared).collect()
    }

    /// The instances of a scope by service and id, after one of them; at most `limit`.
    pub(crate) fn instances(
        &self,
        scope: &Scope,
        after: Option<&(ServiceName, InstanceId)>,
        limit: usize,
    ) -> Vec<Arc<Instance>> {
        let from = after.map_or(Bound::Unbounded, |(service, _)| Bound::Included(service));
        let found = self
            .range(scope, from)
            .flat_map(|(name, view)| view.after(within(name, after)));
        found.take(limit).cloned().collect()
    }

    fn range(
        &self,
        scope: &Scope,
        from: Bound<&ServiceName>,
    ) -> impl Iterator<Item = (&ServiceName, &Arc<ServiceView>)> {
        let services = self.namespaces.get(&scope.namespace);
        let (one, all) = match (&scope.service, services) {
            (Some(service), Some(services)) => (services.by_name.get_key_value(service), None),
            (None, Some(services)) => {
                let range = services.by_name.range::<ServiceName, _>((from, Bound::Unbounded));
                (None, Some(range))
            }
            (_, None) => (None, None),
        };
        one.into_iter().chain(all.into_iter().flatten())
    }

    fn put(&mut self, instance: &Arc<Instance>) {
        let (namespace, service) = (&instance.key.namespace, &instance.key.service);
        let services = match self.namespaces.get_mut(namespace) {
            Some(services) => services,
            None => self.namespaces.entry(namespace.clone()).or_default(),
        };
        services.changed = self.revision;
        let view = match services.by_name.get_mut(service) {
            Some(view) => view,
            None => services.by_name.entry(service.clone()).or_default(),
        };
        let view = Arc::make_mut(view);
        view.changed = self.revision;
        view.put(instance);
    }

    /// A service without instances is no service, and a namespace without services no namespace.
    fn remove(&mut self, key: &InstanceKey) {
        let Some(services) = self.namespaces.get_mut(&key.namespace) else {
            return;
        };
        let Some(view) = services.by_name.get_mut(&key.service) else {
            return;
        };
        services.changed = self.revision;
        let view = Arc::make_mut(view);
        view.changed = self.revision;
        view.remove(&key.id);
        if view.len() == 0 {
            services.by_name.remove(&key.service);
        }
        if services.by_name.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
    }
}

/// After which id of a service to begin, when all up to an instance was told.
pub(crate) fn within<'a>(
    service: &ServiceName,
    after: Option<&'a (ServiceName, InstanceId)>,
) -> Option<&'a InstanceId> {
    after.filter(|(name, _)| name == service).map(|(_, id)| id)
}

/// The selected instances of some services, by service and id.
pub(super) fn select(services: &[(ServiceName, Arc<ServiceView>)], selection: &Selection) -> Vec<Arc<Instance>> {
    let instances = services.iter().flat_map(|(_, view)| view.values());
    instances
        .filter(|instance| selection.holds(instance))
        .cloned()
        .collect()
}
