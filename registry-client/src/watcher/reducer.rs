//! What the steps of a watch, and its breaks, make of the set that is believed. Pure: time is an argument, nothing is awaited,
//! drawn or logged.
//!
//! # When an absence is believed
//!
//! That an instance *left* is told in a delta, with a reason, and believed at once. That it is merely *absent* from a
//! snapshot is believed at once too, while there is no cause to doubt the snapshot. There is cause when
//!
//! 1. the snapshot is empty and the set held is not,
//! 2. it is of another history than the set held: the registry says so, names another history, says that our revision is
//!    from its future, or is at a lower revision than one already told. It lost its state, or is another registry,
//! 3. the registry itself says that it is RECOVERING or STALE.
//!
//! Then what is absent is kept as *unconfirmed* for a grace. It begins with the first doubt, is not extended by later ones of
//! the same watch, and begins anew when a broken watch is heard again: its length is the time that live providers need to find
//! a registry and register, and they could not while it was away. What the registry tells meanwhile is applied: a put confirms an instance, a
//! removal ends it, new ones join. The alternative, keeping the whole old set and ignoring the new one, hides the providers
//! that have already come back; the other alternative, believing, stops all traffic because a registry was restarted on an
//! empty disk.

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::{
    Confidence, Instance, InstanceEvent, Resume, Snapshot, SnapshotCause, SnapshotState, Told, WatchStep,
};

/// A resumed watch that has been open for so long without a word has nothing to tell: the set is fresh.
const SETTLE: Duration = Duration::from_secs(1);
/// No doubt is kept longer than this.
const MAX_GRACE: Duration = Duration::from_secs(24 * 3_600);

/// What a change asks of its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The snapshot is another one, but in nothing that a consumer acts upon.
    Quiet,
    /// Tell the consumers.
    Told,
}

/// The believed set of one watch.
#[derive(Debug)]
pub(crate) struct Reducer {
    /// By service and id.
    held: BTreeMap<(String, String), Held>,
    /// The last revision told. Where the next watch begins.
    revision: i64,
    /// The history that counts it; empty while the registry has not named it.
    history: String,
    confidence: Confidence,
    link: Link,
    /// When unconfirmed instances are dropped; set while there are any.
    doubt_ends: Option<Instant>,
    /// The registry does not know our revision: its next snapshot is of another history.
    other_history: bool,
    grace: Duration,
}

#[derive(Debug)]
struct Held {
    instance: Arc<Instance>,
    confirmed: bool,
}

#[derive(Debug)]
enum Link {
    /// Never open, never failed.
    Connecting,
    /// Open, and heard.
    Up,
    /// Broken, or opened again but not heard yet: then `open_since`, unless it owes a snapshot of which it told a part.
    Down {
        since: Instant,
        reason: String,
        open_since: Option<Instant>,
    },
}

impl Reducer {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            held: BTreeMap::new(),
            revision: 0,
            history: String::new(),
            confidence: Confidence::Fresh,
            link: Link::Connecting,
            doubt_ends: None,
            other_history: false,
            grace: grace.min(MAX_GRACE),
        }
    }

    /// Where the next watch begins.
    pub(crate) fn resume(&self) -> Resume {
        if self.other_history {
            return Resume::default();
        }
        Resume {
            after: self.revision,
            history: self.history.clone(),
        }
    }

    /// The watch has been accepted; its first step is still to come.
    pub(crate) fn opened(&mut self, now: Instant) {
        if let Link::Down { open_since, .. } = &mut self.link {
            *open_since = Some(now);
        }
    }

    /// A part of a snapshot came, and more of it is to come. From then on the watch owes the rest: that it says nothing no
    /// longer means that there is nothing to say.
    pub(crate) fn part(&mut self) {
        if let Link::Down { open_since, .. } = &mut self.link {
            *open_since = None;
        }
    }

    /// False for a change that another history counts than the one that the set is of: nothing can be made of it, the watch
    /// is to be given up, and the next one begins with a snapshot. A snapshot is always admitted.
    pub(crate) fn admits(&mut self, told: &Told) -> bool {
        let foreign = !matches!(told.step, WatchStep::Snapshot { .. }) && self.is_other_history(&told.history);
        self.other_history |= foreign;
        !foreign
    }

    /// The watch told something that is [admitted](Self::admits).
    pub(crate) fn step(&mut self, now: Instant, told: Told) -> Change {
        let Told { history, step, .. } = told;
        let was_up = matches!(self.link, Link::Up);
        self.heard(now);
        let confidence = step.confidence();
        let news = match step {
            WatchStep::Snapshot {
                revision,
                instances,
                cause,
                ..
            } => {
                self.other_history |= cause == SnapshotCause::HistoryChanged || self.is_other_history(&history);
                self.replace(now, revision, instances, confidence);
                self.history = history.clone();
                true
            }
            // Told already: a replica that lags behind, or a registry that repeats itself.
            WatchStep::Delta { revision, .. } if revision <= self.revision => false,
            WatchStep::Delta { revision, events, .. } => {
                self.revision = revision;
                let news = !events.is_empty();
                for event in events {
                    self.event(event);
                }
                news
            }
            WatchStep::Bookmark { revision, .. } => {
                self.revision = self.revision.max(revision);
                false
            }
        };
        // A registry learns to name its history while a watch goes on in it: after an upgrade, for example.
        if self.history.is_empty() {
            self.history = history;
        }
        // By kind: the age of a stale answer grows with every step.
        let other_confidence = mem::discriminant(&self.confidence) != mem::discriminant(&confidence);
        let news = news || other_confidence || !was_up;
        self.confidence = confidence;
        let dropped = self.tick(now) == Change::Told;
        if news || dropped { Change::Told } else { Change::Quiet }
    }

    /// The watch broke, or could not be opened.
    pub(crate) fn broken(&mut self, now: Instant, reason: &str, revision_in_future: bool) -> Change {
        self.other_history |= revision_in_future;
        match &mut self.link {
            // One outage has one beginning, however many attempts it takes; the latest reason is the useful one.
            Link::Down {
                reason: told,
                open_since,
                ..
            } => {
                *open_since = None;
                if told == reason {
                    return Change::None;
                }
                reason.clone_into(told);
                Change::Quiet
            }
            Link::Connecting | Link::Up => {
                self.link = Link::Down {
                    since: now,
                    reason: reason.to_owned(),
                    open_since: None,
                };
                Change::Told
            }
        }
    }

    /// Time passed. Ask again at [`next_tick`](Self::next_tick).
    pub(crate) fn tick(&mut self, now: Instant) -> Change {
        let mut change = Change::None;
        if self.settles_at().is_some_and(|at| at <= now) {
            self.heard(now);
            change = Change::Told;
        }
        if self.doubt_over_at().is_some_and(|at| at <= now) {
            self.held.retain(|_, held| held.confirmed);
            self.doubt_ends = None;
            change = Change::Told;
        }
        change
    }

    /// When time alone will change something.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        [self.settles_at(), self.doubt_over_at()].into_iter().flatten().min()
    }

    /// The set as consumers see it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            revision: self.revision,
            instances: self.held.values().map(|held| held.instance.clone()).collect(),
            state: match &self.link {
                Link::Connecting => SnapshotState::Connecting,
                Link::Up => SnapshotState::Fresh,
                Link::Down { since, reason, .. } => SnapshotState::Stale {
                    since: *since,
                    reason: reason.clone(),
                },
            },
            confidence: self.confidence,
            unconfirmed: self.held.values().filter(|held| !held.confirmed).count(),
        }
    }

    /// Whatever it was → Up.
    fn heard(&mut self, now: Instant) {
        let before = mem::replace(&mut self.link, Link::Up);
        if matches!(before, Link::Down { .. }) && self.doubt_ends.is_some() {
            self.doubt_ends = Some(now + self.grace);
        }
    }

    fn is_other_history(&self, history: &str) -> bool {
        !self.history.is_empty() && !history.is_empty() && self.history != history
    }

    fn replace(&mut self, now: Instant, revision: i64, instances: Vec<Instance>, confidence: Confidence) {
        let doubted = instances.is_empty()
            || revision < self.revision
            || self.other_history
            || matches!(confidence, Confidence::Recovering | Confidence::Stale(_));
        self.revision = revision;
        self.other_history = false;
        let mut before = mem::take(&mut self.held);
        for instance in instances {
            let key = (instance.service.clone(), instance.id.clone());
            let old = before.remove(&key).map(|held| held.instance);
            self.held.insert(key, Held::confirmed(old, Arc::new(instance)));
        }
        // A doubt that stands is not lifted by a better snapshot: what it lacks may still be on its way back.
        let kept = before.into_iter().filter(|(_, held)| doubted || !held.confirmed);
        self.held.extend(kept.map(|(key, held)| {
            let instance = held.instance;
            (
                key,
                Held {
                    instance,
                    confirmed: false,
                },
            )
        }));
        if self.held.values().any(|held| !held.confirmed) {
            self.doubt_ends.get_or_insert(now + self.grace);
        } else {
            self.doubt_ends = None;
        }
    }

    fn event(&mut self, event: InstanceEvent) {
        match event {
            InstanceEvent::Put(instance) => {
                let key = (instance.service.clone(), instance.id.clone());
                let old = self.held.remove(&key).map(|held| held.instance);
                self.held.insert(key, Held::confirmed(old, instance));
            }
            InstanceEvent::Removed { service, id, .. } => {
                self.held.remove(&(service, id));
            }
        }
        if self.held.values().all(|held| held.confirmed) {
            self.doubt_ends = None;
        }
    }

    /// When a resumed watch that says nothing counts as heard. Not one that owes a snapshot, because it has no revision or told a
    /// part of one.
    fn settles_at(&self) -> Option<Instant> {
        match &self.link {
            Link::Down {
                open_since: Some(at), ..
            } if self.revision > 0 && !self.other_history => Some(*at + SETTLE),
            _ => None,
        }
    }

    /// When the doubt ends: not while the registry is away, which is when the doubt matters most.
    fn doubt_over_at(&self) -> Option<Instant> {
        self.doubt_ends.filter(|_| matches!(self.link, Link::Up))
    }
}

impl Held {
    /// The same content keeps its allocation, so that consumers can compare by pointer.
    fn confirmed(old: Option<Arc<Instance>>, new: Arc<Instance>) -> Self {
        Self {
            instance: old.filter(|old| *old == new).unwrap_or(new),
            confirmed: true,
        }
    }
}

#[cfg(test)]
mod tests;
