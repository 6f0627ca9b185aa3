//! What was committed, as the registry reads it back from its disk: the measure for what watches were told meanwhile.
//!
//! It is read after a restart, so nothing in it comes from the memory of the process that served the watches. The registry
//! must keep all of it as history (`--history-len`).

use std::collections::BTreeMap;

use proto::registry::v1::{instance_event::Event, watch_response::Change};

use super::{
    RegistryProcess,
    wire::{self, Listing},
};

/// See the module.
#[derive(Debug)]
pub struct Truth {
    begin: Listing,
    committed: BTreeMap<i64, Vec<wire::InstanceEvent>>,
}

/// Service and id of what an event is about.
pub(super) fn name(event: &wire::InstanceEvent) -> Option<(String, String)> {
    match event.event.as_ref()? {
        Event::Put(instance) => Some((instance.service.clone(), instance.id.clone())),
        Event::Removed(removal) => Some((removal.service.clone(), removal.id.clone())),
    }
}

impl Truth {
    /// Reads the history from `begin`, a listing that was read while nothing else went on, up to the present.
    ///
    /// # Panics
    /// When the registry does not tell it, or what it tells does not lead to what is there.
    pub async fn read(registry: &RegistryProcess, begin: Listing) -> Self {
        let mut client = registry.client();
        // The end of the history, and a change that is told: a revision that only moves leases between replicas is not.
        let end = client.register(wire::lasting([wire::instance("truth", "end")])).await;
        end.expect("registers");
        let end = wire::list(&mut client, "").await.expect("lists");
        let request = wire::WatchRequest {
            start_after_revision: begin.revision,
            ..Default::default()
        };
        assert!(begin.revision > 0, "a watch after revision 0 begins with a snapshot");
        let mut stream = client.watch(request).await.expect("watches").into_inner();
        let mut committed = BTreeMap::new();
        let mut revision = begin.revision;
        while revision < end.revision {
            let response = stream.message().await.expect("goes on").expect("goes on");
            let Some(Change::Delta(delta)) = response.change else {
                panic!("the history is told in deltas up to {}: {response:?}", end.revision);
            };
            assert!(response.revision > revision, "{} after {revision}", response.revision);
            revision = response.revision;
            committed.insert(revision, delta.events);
        }
        let truth = Self { begin, committed };
        let replayed: Vec<wire::Instance> = truth
            .at(end.revision, &|_: &str, _: &str| true)
            .into_iter()
            .cloned()
            .collect();
        assert_eq!(replayed, end.instances, "the history leads to what is there");
        truth
    }

    /// The events of a revision that are selected.
    pub(super) fn events(&self, revision: i64, selects: &impl Fn(&str, &str) -> bool) -> Vec<&wire::InstanceEvent> {
        let events = self.committed.get(&revision).into_iter().flatten();
        events
            .filter(|event| name(event).is_some_and(|(service, id)| selects(&service, &id)))
            .collect()
    }

    /// The revisions in `first..=last` that touch what is selected.
    pub(super) fn touching(&self, first: i64, last: i64, selects: &impl Fn(&str, &str) -> bool) -> Vec<i64> {
        if first > last {
            return Vec::new();
        }
        let revisions = self.committed.range(first..=last).map(|(revision, _)| *revision);
        revisions
            .filter(|revision| !self.events(*revision, selects).is_empty())
            .collect()
    }

    /// The selected instances at a revision.
    pub(super) fn at(&self, revision: i64, selects: &impl Fn(&str, &str) -> bool) -> Vec<&wire::Instance> {
        let mut instances: BTreeMap<(&str, &str), &wire::Instance> = BTreeMap::new();
        for instance in &self.begin.instances {
            instances.insert((&instance.service, &instance.id), instance);
        }
        for event in self.committed.range(..=revision).flat_map(|(_, events)| events) {
            match &event.event {
                Some(Event::Put(instance)) => {
                    instances.insert((&instance.service, &instance.id), instance);
                }
                Some(Event::Removed(removal)) => {
                    instances.remove(&(removal.service.as_str(), removal.id.as_str()));
                }
                None => {}
            }
        }
        let selected = instances.into_iter().filter(|((service, id), _)| selects(service, id));
        selected.map(|(_, instance)| instance).collect()
    }

    /// How many revisions it knows.
    pub fn len(&self) -> usize {
        self.committed.len()
    }

    /// Whether nothing was committed.
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty()
    }
}
