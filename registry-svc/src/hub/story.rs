//! What became of one instance, as far as the durable history has it. Nothing is kept for this: it is read out of what is kept for
//! watches anyway, and what that has forgotten is not told.

use std::sync::Arc;

use super::{Hub, Scope};
use crate::{
    catalog::{Batch, Change, OverrideChange, Removal},
    model::{Confidence, Instance, InstanceKey, LeaseId, Moment, Override, Revision, WallTime, Who},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Story {
    /// What it is, if it is registered.
    pub(crate) instance: Option<Arc<Instance>>,
    /// What is laid over it, registered or not.
    pub(crate) laid: Option<Arc<Override>>,
    /// What happened, the newest first.
    pub(crate) episodes: Vec<Episode>,
    /// Whether there were more, older ones.
    pub(crate) has_more: bool,
    /// The last revision that is forgotten.
    pub(crate) compacted: Revision,
    /// As of this one.
    pub(crate) revision: Revision,
    /// How far to trust it.
    pub(crate) confidence: Confidence,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Episode {
    /// Its revision.
    pub(crate) revision: Revision,
    /// When.
    pub(crate) at: WallTime,
    /// Where it was asked for; `None`: by the registry itself, or it is not known.
    pub(crate) by: Option<Who>,
    /// What.
    pub(crate) what: What,
}

/// See [`Episode`].
#[derive(Debug)]
pub(crate) enum What {
    /// Its owner registered it.
    Registered(Arc<Instance>),
    /// Its owner changed it.
    Updated {
        /// What it was then.
        instance: Arc<Instance>,
        /// And before, where the history has that.
        former: Option<Arc<Instance>>,
    },
    /// It left.
    Removed {
        /// Why.
        removal: Removal,
        /// What kept it, where the history has that.
        lease: Option<LeaseId>,
    },
    /// Something was laid over it or taken away.
    Governed(OverrideChange),
}

impl Hub {
    /// What became of an instance, at most so many episodes of it.
    pub(crate) fn story(&self, key: &InstanceKey, now: Moment, most: usize) -> Story {
        let scope = Scope {
            namespace: key.namespace.clone(),
            service: Some(key.service.clone()),
        };
        // References alone while the lock is held; who reads them then reads what does not change.
        let (batches, mut story) = {
            let state = self.read();
            let batches: Vec<Arc<Batch>> = state.past.newest_first().cloned().collect();
            let story = Story {
                instance: state.view.get(key),
                laid: state.view.laid_over(key),
                episodes: Vec::new(),
                has_more: false,
                compacted: state.past.compacted(),
                revision: state.view.revision,
                confidence: state.trust.confidence(&scope, now),
            };
            (batches, story)
        };
        story.tell(key, &batches, most);
        story
    }
}

impl Story {
    fn tell(&mut self, key: &InstanceKey, newest_first: &[Arc<Batch>], most: usize) {
        for batch in newest_first {
            for what in of_batch(key, batch).into_iter().rev() {
                self.learn(&what);
                if self.episodes.len() == most {
                    self.has_more = true;
                    return;
                }
                self.episodes.push(Episode {
                    revision: batch.revision,
                    at: batch.at,
                    by: batch.by.clone(),
                    what,
                });
            }
        }
    }

    /// What came before completes what came after.
    fn learn(&mut self, before: &What) {
        let is_open = |episode: &&mut Episode| matches!(episode.what, What::Updated { .. } | What::Removed { .. });
        let (What::Registered(instance) | What::Updated { instance, .. }) = before else {
            return;
        };
        match self
            .episodes
            .iter_mut()
            .rev()
            .find(is_open)
            .map(|episode| &mut episode.what)
        {
            Some(What::Updated {
                former: former @ None, ..
            }) => *former = Some(Arc::clone(instance)),
            Some(What::Removed {
                lease: lease @ None, ..
            }) => *lease = Some(instance.lease),
            _ => {}
        }
    }
}

/// What a batch did to an instance, in its order.
fn of_batch(key: &InstanceKey, batch: &Batch) -> Vec<What> {
    let governed: Vec<&OverrideChange> = batch.overrides.iter().filter(|change| change.key == *key).collect();
    let changes = batch.changes.iter().filter(|change| change.key() == key);
    let changes = changes.filter_map(|change| match change {
        Change::Removed(removal) => Some(What::Removed {
            removal: removal.clone(),
            lease: None,
        }),
        Change::Put { instance, .. } if instance.epoch.revision() == batch.revision => {
            Some(What::Registered(Arc::clone(instance)))
        }
        // What is laid over it is told by itself.
        Change::Put { .. } if !governed.is_empty() => None,
        Change::Put { instance, .. } => Some(What::Updated {
            instance: Arc::clone(instance),
            former: None,
        }),
    });
    let changes: Vec<What> = changes.collect();
    let governed = governed.into_iter().cloned().map(What::Governed);
    changes.into_iter().chain(governed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{Catalog, Command, Decision, Govern, Settings, Update},
        fixtures::{WALL, draft, end, grant, heartbeat, hub, key, now, owner},
        model::{Act, Detail, Epoch, Weight},
    };

    /// A registry without a disk.
    struct World {
        catalog: Catalog,
        hub: Hub,
    }

    impl World {
        fn new() -> Self {
            let catalog = Catalog::restore(Settings::default(), Revision::ZERO, Vec::new(), &[], now(0).moment);
            Self {
                catalog,
                hub: hub(&[], false),
            }
        }

        fn does(&mut self, command: Command) {
            let outcome = self.catalog.apply(&command, WALL).by(Some(&Who::of("10.0.0.7:4711")));
            outcome.reply.expect("is done");
            self.hub.publish(&[outcome.batch.expect("changes something")]);
        }

        fn govern(&mut self, decision: Decision) {
            self.does(Command::Govern(Govern {
                key: key("a", "1"),
                decision,
                who: Who::of("ann"),
                why: Detail::of("a disk"),
            }));
        }

        /// The newest first.
        fn tells(&self, most: usize) -> (Vec<String>, bool) {
            let story = self.hub.story(&key("a", "1"), now(0).moment, most);
            let tell = |episode: &Episode| match &episode.what {
                What::Registered(instance) => format!("{} registered {}", episode.revision, instance.epoch.revision()),
                What::Updated { instance, former } => {
                    let former = former.as_ref().map(|former| former.spec.weight.get());
                    format!(
                        "{} updated {former:?} to {}",
                        episode.revision,
                        instance.spec.weight.get()
                    )
                }
                What::Removed { removal, lease } => {
                    let known = lease.map(|lease| lease == owner(1).lease);
                    format!("{} removed {} {known:?}", episode.revision, removal.reason.as_str())
                }
                What::Governed(change) => format!("{} {}", episode.revision, change.act.as_str()),
            };
            (story.episodes.iter().map(tell).collect(), story.has_more)
        }
    }

    fn weight(weight: u32) -> Weight {
        Weight::try_new(weight).expect("a weight")
    }

    #[test]
    fn everything_that_happened_is_told_the_newest_first() {
        let mut world = World::new();
        world.does(Command::Register(grant(
            1,
            heartbeat(1_000),
            vec![draft("a", "1", ""), draft("a", "2", "")],
        )));
        for (epoch, to) in [(1, 5), (1, 7)] {
            world.does(Command::Update(Update {
                owner: owner(1),
                key: key("a", "1"),
                epoch: Epoch::of(Revision::new(epoch)),
                weight: Some(weight(to)),
                status: None,
                metadata: None,
            }));
        }
        world.govern(Decision::Drain { until: None });
        // Of another one.
        world.does(Command::Deregister(end(1, &["2"])));
        world.does(Command::Register(grant(2, heartbeat(1_000), vec![draft("a", "1", "")])));
        world.does(Command::Deregister(end(2, &[])));
        world.govern(Decision::Undrain);
        let (told, has_more) = world.tells(100);
        assert_eq!(
            told,
            [
                "8 undrained",
                "7 removed deregistered Some(false)",
                "6 registered 6",
                "6 removed replaced Some(true)",
                "4 drained",
                "3 updated Some(5) to 7",
                "2 updated Some(100) to 5",
                "1 registered 1",
            ]
        );
        assert!(!has_more);
        let (few, has_more) = world.tells(6);
        assert_eq!(
            (few.as_slice(), has_more),
            (&told[..6], true),
            "and is complete as far as it goes"
        );
        let story = world.hub.story(&key("a", "1"), now(0).moment, 100);
        assert!(story.instance.is_none() && story.laid.is_none());
        assert!(story.episodes.iter().all(|episode| episode.by.is_some()));
    }

    /// The history of this hub has a hundred revisions.
    #[test]
    fn what_is_forgotten_is_not_told() {
        let mut world = World::new();
        world.does(Command::Register(grant(1, heartbeat(1_000), vec![draft("a", "1", "")])));
        world.govern(Decision::Drain { until: None });
        for n in 0..120 {
            world.does(Command::Register(grant(
                2 + n,
                heartbeat(1_000),
                vec![draft("b", &n.to_string(), "")],
            )));
        }
        let story = world.hub.story(&key("a", "1"), now(0).moment, 100);
        assert!(story.episodes.is_empty() && story.compacted == Revision::new(22));
        assert!(story.instance.is_some() && story.laid.is_some_and(|laid| laid.is_drained()));
        world.does(Command::Deregister(end(1, &[])));
        let (told, _) = world.tells(100);
        assert_eq!(
            told,
            ["123 removed deregistered None"],
            "who registered it is not invented"
        );
        let story = world.hub.story(&key("a", "1"), now(0).moment, 100);
        assert!(
            matches!(&story.episodes[0].what, What::Removed { removal, .. } if removal.reason.as_str() == "deregistered")
        );
        let _ = Act::Drained;
    }
}
