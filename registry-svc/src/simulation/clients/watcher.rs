//! A process that watches: it pulls at its own pace, folds what it hears, loses its stream now and then, and resumes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    hub::{Selection, Watcher},
    model::{Instance, InstanceKey, Revision},
    simulation::{
        heard::{Fact, Heard},
        rng::Rng,
    },
};

/// See the module.
#[derive(Debug)]
pub(in crate::simulation) struct Watch {
    /// What it watches.
    pub(in crate::simulation) selection: Selection,
    /// How long it takes to look again.
    pub(in crate::simulation) pace: (Duration, Duration),
    /// The registry that it speaks to.
    pub(in crate::simulation) home: usize,
    /// Its stream, and the life of the registry that it belongs to.
    pub(in crate::simulation) stream: Option<(Watcher, u64)>,
    /// It has heard all there was, and waits to be woken.
    pub(in crate::simulation) idle: bool,
    /// The parts of a snapshot that has not come in full.
    parts: Vec<Arc<Instance>>,
    /// The revision that they are of.
    parts_of: Option<Revision>,
    /// The last revision that it heard.
    pub(in crate::simulation) last: Option<Revision>,
    /// What it knows.
    pub(in crate::simulation) folded: BTreeMap<InstanceKey, Arc<Instance>>,
    /// Its own.
    pub(in crate::simulation) rng: Rng,
}

impl Watch {
    pub(in crate::simulation) fn new(selection: Selection, pace: (Duration, Duration), home: usize, rng: Rng) -> Self {
        Self {
            selection,
            pace,
            home,
            stream: None,
            idle: false,
            parts: Vec::new(),
            parts_of: None,
            last: None,
            folded: BTreeMap::new(),
            rng,
        }
    }

    /// Its stream breaks.
    pub(in crate::simulation) fn disconnect(&mut self) {
        self.stream = None;
        self.idle = false;
        self.parts.clear();
    }

    /// A snapshot is heard when all of it has come. A part of another revision begins anew.
    pub(in crate::simulation) fn assemble(&mut self, heard: Heard) -> Option<Heard> {
        if let Heard::Snapshot(revision, ..) = &heard
            && self.parts_of.replace(*revision) != Some(*revision)
        {
            self.parts.clear();
        }
        match heard {
            Heard::Snapshot(_, instances, true) => {
                self.parts.extend(instances);
                None
            }
            Heard::Snapshot(revision, instances, false) => {
                let mut all = std::mem::take(&mut self.parts);
                all.extend(instances);
                Some(Heard::Snapshot(revision, all, false))
            }
            heard => Some(heard),
        }
    }

    /// Takes in what it heard, as `registry-client` does.
    pub(in crate::simulation) fn fold(&mut self, heard: &Heard) {
        match heard {
            Heard::Snapshot(_, instances, _) => {
                let keyed = instances.iter().map(|i| (i.key.clone(), Arc::clone(i)));
                self.folded = keyed.collect();
            }
            Heard::Delta(_, facts) => {
                for fact in facts {
                    match fact {
                        Fact::Put(instance) => {
                            self.folded.insert(instance.key.clone(), Arc::clone(instance));
                        }
                        Fact::Gone(key) => {
                            self.folded.remove(key);
                        }
                    }
                }
            }
            Heard::Bookmark(_) => {}
        }
        self.last = Some(heard.revision());
    }
}
