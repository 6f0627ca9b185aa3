//! The six promises of a watch (etcd's words): ordered, unique, reliable, atomic, resumable, bookmarkable. Each is judged by
//! itself, against what the log means for the watcher's selection.

use std::{collections::BTreeMap, time::Duration};

use super::{End, Invariant, Seen, ensure};
use crate::{
    catalog::Change,
    hub::Selection,
    model::Revision,
    simulation::{
        heard::{Fact, Heard},
        truth::{Truth, selects},
    },
};

/// How far behind a watcher may be in the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// A watcher never hears of an earlier revision after a later one, over all of its streams.
#[derive(Debug, Default)]
pub(super) struct Ordered(BTreeMap<usize, Revision>);

/// No revision is told twice.
#[derive(Debug, Default)]
pub(super) struct Unique(BTreeMap<usize, Revision>);

/// Nothing is left out: between two things that are told, nothing has happened that the watcher selects; a snapshot is the
/// state of its revision; and in the end it knows what is.
#[derive(Debug, Default)]
pub(super) struct Reliable(BTreeMap<usize, Revision>);

/// All of a revision that the watcher selects is told at once, in its order, and nothing else.
#[derive(Debug)]
pub(super) struct Atomic;

/// Who resumes within the history is not told anew what it knows, and whoever is within it is let in.
#[derive(Debug, Default)]
pub(super) struct Resumable(BTreeMap<usize, Option<Revision>>);

/// A bookmark at a revision says that everything up to it has been told.
#[derive(Debug, Default)]
pub(super) struct Bookmarkable(BTreeMap<usize, Revision>);

impl Invariant for Ordered {
    fn name(&self) -> &'static str {
        "ordered"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Heard { watch, heard, .. } = seen else {
            return Ok(());
        };
        let last = self.0.insert(*watch, heard.revision()).unwrap_or_default();
        ensure(heard.revision() >= last, || {
            format!("watcher {watch} hears {heard} after {last}")
        })
    }
}

impl Invariant for Unique {
    fn name(&self) -> &'static str {
        "unique"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Heard { watch, heard, .. } = seen else {
            return Ok(());
        };
        let last = self.0.insert(*watch, heard.revision());
        ensure(
            !matches!(heard, Heard::Delta(..)) || last != Some(heard.revision()),
            || format!("watcher {watch} hears {heard} twice"),
        )
    }
}

impl Invariant for Reliable {
    fn name(&self) -> &'static str {
        "reliable"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Heard {
            watch,
            selection,
            heard,
            ..
        } = seen
        else {
            return Ok(());
        };
        let last = self.0.insert(*watch, heard.revision());
        match (heard, last) {
            (Heard::Snapshot(revision, instances, _), _) => {
                let state = truth.state(*revision);
                ensure(
                    state.is_some_and(|state| state.selected(selection).into_iter().eq(instances)),
                    || format!("watcher {watch} gets a snapshot that is not the state of {revision}"),
                )
            }
            (Heard::Delta(revision, _), Some(last)) => missed(*watch, selection, last, before(*revision), truth),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        for (n, watch) in end.watches.iter().enumerate() {
            let last = watch.last.unwrap_or_default();
            // What has just happened may be on its way.
            let late = end
                .truth
                .after(last)
                .iter()
                .filter(|entry| entry.at + PATIENCE < end.truth.now);
            for entry in late {
                missed(n, &watch.selection, last, entry.batch.revision, end.truth)?;
            }
            let state = end.truth.state(last).expect("it has happened");
            ensure(watch.folded.values().eq(state.selected(&watch.selection)), || {
                let known: Vec<String> = watch.folded.keys().map(ToString::to_string).collect();
                format!(
                    "watcher {n} knows {known:?} as of {:?}, which is not what is",
                    watch.last
                )
            })?;
        }
        Ok(())
    }
}

impl Invariant for Atomic {
    fn name(&self) -> &'static str {
        "atomic"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Heard {
            watch,
            selection,
            heard: heard @ Heard::Delta(revision, facts),
            ..
        } = seen
        else {
            return Ok(());
        };
        let meant = means(*revision, selection, truth);
        ensure(*facts == meant, || {
            format!(
                "watcher {watch} hears {heard}, and the log means {}",
                Heard::Delta(*revision, meant)
            )
        })
    }
}

impl Invariant for Resumable {
    fn name(&self) -> &'static str {
        "resumable"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Opened {
                watch,
                from,
                accepted,
                shown,
            } => {
                self.0.insert(*watch, *from);
                // A registry that is behind may ask for patience.
                let ahead = from.is_some_and(|from| from > *shown);
                ensure(*accepted || ahead, || format!("watcher {watch} is refused at {from:?}"))
            }
            Seen::Heard {
                watch,
                heard,
                compacted,
                ..
            } => {
                let last = self.0.insert(*watch, Some(heard.revision())).flatten();
                let known = last.is_some_and(|last| last >= *compacted);
                ensure(!known || !matches!(heard, Heard::Snapshot(..)), || {
                    format!("watcher {watch} knew {last:?}, the history begins after {compacted}, and it hears {heard}")
                })
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for Bookmarkable {
    fn name(&self) -> &'static str {
        "bookmarkable"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Heard {
            watch,
            selection,
            heard,
            ..
        } = seen
        else {
            return Ok(());
        };
        let last = self.0.insert(*watch, heard.revision());
        match (heard, last) {
            (Heard::Bookmark(revision), Some(last)) => missed(*watch, selection, last, *revision, truth),
            _ => Ok(()),
        }
    }
}

/// Nothing that the watcher selects has happened after one revision, up to another.
fn missed(watch: usize, selection: &Selection, after: Revision, upto: Revision, truth: &Truth) -> Result<(), String> {
    for revision in after.get() + 1..=upto.get() {
        let meant = means(Revision::new(revision), selection, truth);
        ensure(meant.is_empty(), || {
            let missed = Heard::Delta(Revision::new(revision), meant);
            format!("watcher {watch} was at {after}, is told to be at {upto}, and never heard {missed}")
        })?;
    }
    Ok(())
}

/// What a revision means for a selection.
fn means(revision: Revision, selection: &Selection, truth: &Truth) -> Vec<Fact> {
    let (Some(entry), Some(state)) = (truth.entry(revision), truth.state(before(revision))) else {
        return Vec::new();
    };
    let mut facts = Vec::new();
    // Within a revision a name may leave and come.
    let mut gone = Vec::new();
    for change in &entry.batch.changes {
        let key = change.key();
        let former = state.get(key).filter(|_| !gone.contains(&key));
        let had = former.is_some_and(|former| selects(selection, former));
        match change {
            Change::Put { instance, .. } if selects(selection, instance) => {
                facts.push(Fact::Put(std::sync::Arc::clone(instance)));
            }
            Change::Put { .. } | Change::Removed(_) if had => facts.push(Fact::Gone(key.clone())),
            _ => {}
        }
        gone.push(key);
    }
    facts
}

fn before(revision: Revision) -> Revision {
    Revision::new(revision.get().saturating_sub(1))
}
