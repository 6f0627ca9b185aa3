//! What a watcher hears, as its client sees it. The only place here that knows the hub's own form of it.
//!
//! What the hub has encoded for one watcher of a selection it hands to all of them. Here "encoded" is a number in a table, so
//! that a watcher that is handed what was made for another revision or another selection hears the wrong thing.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::request::short;
use crate::{
    hub::{Content, Event, Told, Watcher},
    model::{Instance, InstanceKey, Moment, Revision},
};

/// See the module.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    /// A part of what replaces everything; whether more of it follows.
    Snapshot(Revision, Vec<Arc<Instance>>, bool),
    /// All of one revision.
    Delta(Revision, Vec<Fact>),
    /// Nothing, up to this revision.
    Bookmark(Revision),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// It came or changed.
    Put(Arc<Instance>),
    /// It left.
    Gone(InstanceKey),
}

/// What was encoded, by its number.
#[derive(Debug, Default)]
pub(super) struct Encoded(Vec<Vec<Fact>>);

impl Encoded {
    fn put(&mut self, content: &Content<'_>) -> Bytes {
        let fact = |event: &Event| match event {
            Event::Put(instance) => Fact::Put(Arc::clone(instance)),
            Event::Removed(removal) => Fact::Gone(removal.key.clone()),
        };
        let facts = match content {
            Content::Instances(instances) => instances.iter().map(|i| Fact::Put(Arc::clone(i))).collect(),
            Content::Events { events, .. } => events.iter().map(fact).collect(),
        };
        self.0.push(facts);
        Bytes::copy_from_slice(&(self.0.len() - 1).to_be_bytes())
    }

    fn get(&self, bytes: &Bytes) -> Vec<Fact> {
        let number = bytes.as_ref().try_into().expect("ours");
        self.0[usize::from_be_bytes(number)].clone()
    }
}

impl Heard {
    /// The next thing, if there is one.
    pub(super) fn from(watcher: &mut Watcher, now: Moment, encoded: &mut Encoded) -> Option<Self> {
        let step = watcher.try_next(now)?;
        let bytes = watcher.encoded(&step, |content| encoded.put(content));
        let facts = bytes.map(|bytes| encoded.get(&bytes)).unwrap_or_default();
        let instance = |fact| match fact {
            Fact::Put(instance) => Some(instance),
            Fact::Gone(_) => None,
        };
        Some(match &step.told {
            Told::Part(part) => {
                let instances = facts.into_iter().filter_map(instance).collect();
                Self::Snapshot(step.revision, instances, part.has_more())
            }
            Told::Delta(_) => Self::Delta(step.revision, facts),
            Told::Bookmark => Self::Bookmark(step.revision),
        })
    }

    /// With it everything up to this revision is told.
    pub(super) fn revision(&self) -> Revision {
        let (Self::Snapshot(revision, ..) | Self::Delta(revision, _) | Self::Bookmark(revision)) = self;
        *revision
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(revision, instances, _) => {
                write!(f, "snapshot of {revision}: {} instances", instances.len())
            }
            Self::Delta(revision, facts) => {
                write!(f, "delta {revision}:")?;
                facts.iter().try_for_each(|fact| match fact {
                    Fact::Put(instance) => write!(f, " +{}", short(&instance.key)),
                    Fact::Gone(key) => write!(f, " -{}", short(key)),
                })
            }
            Self::Bookmark(revision) => write!(f, "bookmark {revision}"),
        }
    }
}
