//! One watch: a cursor that its stream pulls forward.
//!
//! The promises are etcd's six: ordered, unique, reliable, atomic, resumable, bookmarkable. They follow from the shape: there
//! is one history, the cursor only moves forward through it, a step tells all of one revision, and a watcher that the history
//! has left behind begins anew with a snapshot and is told so.

use std::{
    mem::{Discriminant, discriminant},
    ops::Bound,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use thiserror::Error;

use super::{
    Hub, Scope, State,
    acks::{Holder, Seat},
    encodings::Key,
    feeds::Feed,
    snapshot::Present,
    step::{self, Cause, Content, Part, Step, Told},
    view,
    wakers::Ticket,
};
use crate::{
    catalog::Batch,
    model::{Confidence, Moment, Revision, WallTime, WatchId},
};

/// See the module. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    ticket: Ticket,
    position: Position,
    /// The kind of confidence that was told last.
    told: Option<Discriminant<Confidence>>,
    /// On the board of those who can acknowledge; a watch without a name cannot.
    seat: Option<Arc<Seat>>,
}

#[derive(Debug, Clone)]
enum Position {
    /// Nothing was told yet.
    Begin(WatchFrom),
    /// A part of a snapshot is to be told next, if that is still there.
    Within(Next),
    /// All up to this revision was told.
    Told(Revision),
}

/// The next part of a snapshot. Not the snapshot, which a watch that stalls would keep.
#[derive(Debug, Clone, Copy)]
struct Next {
    /// Names the snapshot.
    content: Revision,
    part: usize,
    cause: Cause,
    /// What all of its parts tell.
    revision: Revision,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WatchFrom {
    /// It knows nothing.
    Nothing,
    /// It has been told this revision of this history; resume if the history still reaches back to it.
    Revision(Revision),
    /// It has been told a revision of another history, which means nothing in this one.
    OtherHistory,
}

/// The revision to resume from has not happened here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("revision {asked} is in the future, the registry is at {present}: watch from 0 to begin with a snapshot")]
pub(crate) struct FutureRevision {
    /// What was asked for.
    pub(crate) asked: Revision,
    /// What is.
    pub(crate) present: Revision,
}

/// What a look at the hub finds; the rest is done outside of its lock.
enum Found {
    /// From here on everything is to be told anew, and not less than this revision.
    Snapshot(Cause, Revision),
    Part(Next),
    Batch(Arc<Batch>),
    Nothing,
}

impl Watcher {
    pub(super) fn new(hub: Arc<Hub>, feed: Arc<Feed>, from: WatchFrom) -> Self {
        Self {
            hub,
            ticket: feed.wakers().join(),
            feed,
            position: Position::Begin(from),
            told: None,
            seat: None,
        }
    }

    /// The watchers of one connection, by any number that tells them apart, are woken one after another.
    pub(crate) fn on_connection(self, number: u64) -> Self {
        self.feed.wakers().sort(&self.ticket, number);
        self
    }

    /// From here on it can be named in an acknowledgement, and those who drain wait for it. Before its first step.
    ///
    /// Nobody has acknowledged anything yet. Who resumes was told all up to the revision, but may not have applied it: its watch may
    /// have broken in between. Who begins after a drain will be told a snapshot that may have been made before.
    pub(crate) fn named(mut self, id: WatchId, holder: Holder, since: WallTime) -> Self {
        let told = match self.position {
            Position::Begin(WatchFrom::Revision(after)) => after,
            _ => Revision::ZERO,
        };
        let feed = Arc::clone(&self.feed);
        self.seat = Some(self.hub.acks.join(id, feed, holder, since, told));
        self
    }

    /// A step has been handed over. Until then it cannot be acknowledged.
    pub(crate) fn sent(&self, step: &Step, now: impl FnOnce() -> WallTime) {
        let Some(seat) = &self.seat else { return };
        match &step.told {
            // All of it or nothing.
            Told::Part(part) if part.has_more() => {}
            Told::Part(_) | Told::Delta(_) => seat.sent(step.revision, Some(now())),
            Told::Bookmark => seat.sent(step.revision, None),
        }
    }

    /// The next step, if there is one. Each call moves the cursor at most to the end of one revision that is told.
    pub(crate) fn try_next(&mut self, now: Moment) -> Option<Step> {
        self.step(now, false)
    }

    /// The next step, which says where the watcher is if there is nothing else to tell.
    pub(crate) fn bookmark(&mut self, now: Moment) -> Option<Step> {
        self.step(now, true)
    }

    fn step(&mut self, now: Moment, is_due: bool) -> Option<Step> {
        let (found, mut present, confidence) = {
            let state = self.hub.read();
            let confidence = state.trust.confidence(&self.feed.selection().scope, now);
            (self.find(&state), state.view.revision, confidence)
        };
        // Outside of the lock: this part costs time in proportion to what is told.
        let (revision, told) = match found {
            Found::Snapshot(cause, after) => self.begin(cause, after, None, now, &mut present),
            Found::Part(next) => {
                let snapshot = self.feed.snapshots().get(next.content, now);
                match snapshot {
                    Some(snapshot) => {
                        let Next {
                            part: number, cause, ..
                        } = next;
                        let part = Part {
                            snapshot,
                            number,
                            cause,
                        };
                        (next.revision, Told::Part(part))
                    }
                    // Nobody had read on in it for so long that it is gone.
                    None => self.begin(Cause::Coalesced, next.revision, Some(next), now, &mut present),
                }
            }
            Found::Batch(batch) => (batch.revision, Told::Delta(batch)),
            Found::Nothing => {
                // Who resumes and has missed nothing is told so at once, and so is everybody of another confidence.
                let is_news =
                    matches!(self.position, Position::Begin(_)) || self.told != Some(discriminant(&confidence));
                self.position = Position::Told(present);
                if !is_news && !is_due {
                    return None;
                }
                (present, Told::Bookmark)
            }
        };
        self.position = match &told {
            Told::Part(part) if part.has_more() => Position::Within(Next {
                content: part.snapshot.content(),
                part: part.number + 1,
                cause: part.cause,
                revision,
            }),
            _ => Position::Told(revision),
        };
        self.told = Some(discriminant(&confidence));
        let lag = present.get().saturating_sub(revision.get());
        Some(Step {
            revision,
            confidence,
            lag,
            is_last: lag == 0 && matches!(self.position, Position::Told(_)),
            told,
        })
    }

    /// The first part of a snapshot, and the revision that it tells; or the next part, if it is the one that the watcher was in.
    fn begin(
        &self,
        cause: Cause,
        after: Revision,
        within: Option<Next>,
        now: Moment,
        present: &mut Revision,
    ) -> (Revision, Told) {
        let selection = self.feed.selection();
        let mut snapshots = self.feed.snapshots();
        let (at, found) = {
            let state = self.hub.read();
            let at = Present {
                revision: state.view.revision,
                content: state.view.changed(&selection.scope),
                told: after,
                lost: self.feed.lost(),
            };
            let changes = |made| state.past.count_after(&selection.scope, made);
            let found = snapshots.find(at, now, changes);
            let services = || state.view.services(&selection.scope, Bound::Unbounded, usize::MAX);
            (at, found.ok_or_else(services))
        };
        *present = at.revision;
        let (snapshot, revision) = found.unwrap_or_else(|services| {
            let instances = view::select(&services, selection);
            let snapshot = snapshots.make(at, instances, self.hub.part_bytes, now);
            (snapshot, at.revision)
        });
        // Of another content it is of a later revision too, by which the watcher's client knows that it begins anew.
        let (number, cause, revision) = match within {
            Some(next) if next.content == snapshot.content() => (next.part, next.cause, next.revision),
            _ => (0, cause, revision),
        };
        let part = Part {
            snapshot,
            number,
            cause,
        };
        (revision, Told::Part(part))
    }

    fn find(&self, state: &State) -> Found {
        let selection = self.feed.selection();
        let after = match &self.position {
            Position::Within(next) => return Found::Part(*next),
            Position::Begin(WatchFrom::Nothing) => return Found::Snapshot(Cause::Initial, Revision::ZERO),
            Position::Begin(WatchFrom::OtherHistory) => return Found::Snapshot(Cause::HistoryChanged, Revision::ZERO),
            Position::Begin(WatchFrom::Revision(after)) if *after < state.past.compacted() => {
                return Found::Snapshot(Cause::Compacted, *after);
            }
            Position::Told(told) if *told < self.feed.lost() => return Found::Snapshot(Cause::Coalesced, *told),
            Position::Begin(WatchFrom::Revision(after)) | Position::Told(after) => *after,
        };
        let touches = |batch: &Batch| {
            let mut changes = batch.changes.iter();
            changes.any(|change| selection.scope.holds(change.key()) && step::touches(change, selection))
        };
        match state.past.after(&selection.scope, after).find(|batch| touches(batch)) {
            Some(batch) => Found::Batch(Arc::clone(batch)),
            None => Found::Nothing,
        }
    }

    /// What a step tells, encoded: shared by all watchers of the selection. `None` for a bookmark, which tells nothing.
    pub(crate) fn encoded(&self, step: &Step, encode: impl FnOnce(&Content<'_>) -> Bytes) -> Option<Bytes> {
        let key = |revision, part| Key {
            feed: self.feed.number(),
            revision,
            part,
        };
        let encodings = &self.hub.encodings;
        match &step.told {
            Told::Part(part) => {
                let make = || encode(&Content::Instances(part.instances()));
                Some(encodings.get(key(part.snapshot.content(), Some(part.number)), make))
            }
            Told::Delta(batch) => {
                let make = || {
                    encode(&Content::Events {
                        at: batch.at,
                        trace: batch.trace,
                        events: step::events(batch, self.feed.selection()),
                    })
                };
                Some(encodings.get(key(batch.revision, None), make))
            }
            Told::Bookmark => None,
        }
    }

    /// What it is told of.
    pub(crate) fn scope(&self) -> &Scope {
        &self.feed.selection().scope
    }

    /// Roughly what a step costs on the wire that may be large. A part of a snapshot never is: it holds one instance, or few
    /// enough of them.
    pub(crate) fn large_bytes(&self, step: &Step) -> usize {
        match &step.told {
            Told::Delta(batch) => step::bytes(batch, self.feed.selection()),
            Told::Part(_) | Told::Bookmark => 0,
        }
    }

    /// Ready, once each time, when there may be something to tell that was not there before. Ask before looking.
    pub(crate) fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.feed.wakers().poll(&mut self.ticket, cx)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            self.hub.acks.leave(seat);
        }
        self.feed.wakers().leave(&self.ticket);
        self.hub.feeds().leave(&self.feed);
    }
}
