//! The durable state, arranged for reading: namespace → service → instances.
//!
//! A service is shared with its readers and copied only when it changes while one of them still holds it.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::{Scope, Selection};
use crate::{
    catalog::{Batch, Change},
    model::{Instance, InstanceId, InstanceKey, Namespace, Revision, ServiceName},
};

/// The instances of a service, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceView(BTreeSet<ById>);

/// An instance, found and ordered by its own id: there are a million of them, and a copy of the id would take 24 bytes.
#[derive(Debug, Clone)]
struct ById(Arc<Instance>);

type Services = BTreeMap<ServiceName, Arc<ServiceView>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// What it is of.
    pub(super) revision: Revision,
    namespaces: BTreeMap<Namespace, Services>,
}

impl Borrow<InstanceId> for ById {
    fn borrow(&self) -> &InstanceId {
        &self.0.key.id
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.key.id == other.0.key.id
    }
}

impl Eq for ById {}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ById {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.id.cmp(&other.0.key.id)
    }
}

impl ServiceView {
    /// By id.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.0.iter().map(|instance| &instance.0)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl View {
    pub(super) fn restore(revision: Revision, instances: &[Arc<Instance>]) -> Self {
        let mut view = Self {
            revision,
            ..Self::default()
        };
        for instance in instances {
            view.put(instance);
        }
        view
    }

    pub(super) fn apply(&mut self, batch: &Batch) {
        for change in &batch.changes {
            match change {
                Change::Put { instance, .. } => self.put(instance),
                Change::Removed(removal) => self.remove(&removal.key),
            }
        }
        self.revision = batch.revision;
    }

    /// What it is of.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// One instance.
    pub(crate) fn get(&self, key: &InstanceKey) -> Option<Arc<Instance>> {
        self.namespaces
            .get(&key.namespace)?
            .get(&key.service)?
            .0
            .get(&key.id)
            .map(|instance| Arc::clone(&instance.0))
    }

    /// The services of a scope by name, from a point on; at most `limit`.
    pub(crate) fn services(
        &self,
        scope: &Scope,
        from: Bound<&ServiceName>,
        limit: usize,
    ) -> Vec<(ServiceName, Arc<ServiceView>)> {
        let Some(services) = self.namespaces.get(&scope.namespace) else {
            return Vec::new();
        };
        let shared = |(name, view): (&ServiceName, &Arc<ServiceView>)| (name.clone(), Arc::clone(view));
        match &scope.service {
            Some(service) => services.get_key_value(service).map(shared).into_iter().collect(),
            None => services
                .range::<ServiceName, _>((from, Bound::Unbounded))
                .take(limit)
                .map(shared)
                .collect(),
        }
    }

    fn put(&mut self, instance: &Arc<Instance>) {
        let (namespace, service) = (&instance.key.namespace, &instance.key.service);
        let services = match self.namespaces.get_mut(namespace) {
            Some(services) => services,
            None => self.namespaces.entry(namespace.clone()).or_default(),
        };
        let view = match services.get_mut(service) {
            Some(view) => view,
            None => services.entry(service.clone()).or_default(),
        };
        Arc::make_mut(view).0.replace(ById(Arc::clone(instance)));
    }

    /// A service without instances is no service, and a namespace without services no namespace.
    fn remove(&mut self, key: &InstanceKey) {
        let Some(services) = self.namespaces.get_mut(&key.namespace) else {
            return;
        };
        let Some(view) = services.get_mut(&key.service) else {
            return;
        };
        Arc::make_mut(view).0.remove(&key.id);
        if view.0.is_empty() {
            services.remove(&key.service);
        }
        if services.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
    }
}

/// The selected instances of some services, by service and id.
pub(super) fn select(services: &[(ServiceName, Arc<ServiceView>)], selection: &Selection) -> Vec<Arc<Instance>> {
    let instances = services.iter().flat_map(|(_, view)| view.values());
    instances
        .filter(|instance| selection.holds(instance))
        .cloned()
        .collect()
}
