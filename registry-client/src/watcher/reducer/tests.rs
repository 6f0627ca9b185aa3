//! The believed set, by table: the rules. What they do not foresee is in `histories`.

use super::*;
use crate::model::{RemovalReason, SnapshotCause};

mod histories;

const GRACE: Duration = Duration::from_secs(30);

/// A reducer and its virtual clock.
struct World {
    reducer: Reducer,
    /// What the registry calls its history.
    history: String,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self {
            reducer: Reducer::new(GRACE),
            history: String::new(),
            now: Instant::now(),
        }
    }

    fn snapshot(&mut self, revision: i64, ids: &str) -> Change {
        self.snapshot_with(revision, ids, Confidence::Fresh)
    }

    fn snapshot_with(&mut self, revision: i64, ids: &str, confidence: Confidence) -> Change {
        let step = WatchStep::Snapshot {
            revision,
            instances: ids.chars().map(|id| instance(id, revision)).collect(),
            cause: SnapshotCause::Initial,
            confidence,
        };
        self.step(step)
    }

    fn step(&mut self, step: WatchStep) -> Change {
        let told = Told {
            cause: None,
            history: self.history.clone(),
            step,
        };
        assert!(self.reducer.admits(&told), "{told:?}");
        self.reducer.step(self.now, told)
    }

    fn put(&mut self, revision: i64, id: char) -> Change {
        self.delta(revision, vec![InstanceEvent::Put(Arc::new(instance(id, revision)))])
    }

    fn removed(&mut self, revision: i64, ids: &str) -> Change {
        self.delta(revision, ids.chars().map(removal).collect())
    }

    fn delta(&mut self, revision: i64, events: Vec<InstanceEvent>) -> Change {
        let step = WatchStep::Delta {
            revision,
            events,
            confidence: Confidence::Fresh,
        };
        self.step(step)
    }

    fn bookmark(&mut self, revision: i64) -> Change {
        let step = WatchStep::Bookmark {
            revision,
            confidence: Confidence::Fresh,
        };
        self.step(step)
    }

    fn broken(&mut self) -> Change {
        self.reducer.broken(self.now, "gone", false)
    }

    fn pass(&mut self, seconds: u64) -> Change {
        self.now += Duration::from_secs(seconds);
        self.reducer.tick(self.now)
    }

    /// The ids; unconfirmed ones with a question mark.
    fn shows(&self) -> String {
        let held = self.reducer.held.iter();
        held.map(|((_, id), held)| if held.confirmed { id.clone() } else { format!("{id}?") })
            .collect()
    }

    fn is_fresh(&self) -> bool {
        self.reducer.snapshot().state == SnapshotState::Fresh
    }
}

fn instance(id: char, revision: i64) -> Instance {
    Instance {
        revision,
        ..Instance::new("ticket-svc", id, "127.0.0.1:7101")
    }
}

fn removal(id: char) -> InstanceEvent {
    InstanceEvent::Removed {
        service: "ticket-svc".into(),
        id: id.into(),
        reason: RemovalReason::Expired,
        detail: String::new(),
        removed_at: None,
    }
}

#[test]
fn a_snapshot_then_what_happens() {
    let mut world = World::new();
    assert_eq!(world.reducer.snapshot(), Snapshot::connecting());
    assert_eq!(world.snapshot(5, "ab"), Change::Told);
    assert_eq!((world.shows().as_str(), world.is_fresh()), ("ab", true));
    assert_eq!(world.put(6, 'c'), Change::Told);
    assert_eq!(world.removed(8, "a"), Change::Told);
    assert_eq!(world.bookmark(11), Change::Quiet, "no consumer acts upon a bookmark");
    assert_eq!(world.shows(), "bc");
    assert_eq!(world.reducer.resume().after, 11);
}

#[test]
fn what_was_told_already_changes_nothing() {
    let mut world = World::new();
    world.snapshot(5, "ab");
    assert_eq!(world.removed(5, "a"), Change::Quiet);
    assert_eq!(world.removed(4, "b"), Change::Quiet);
    assert_eq!(world.bookmark(3), Change::Quiet);
    assert_eq!((world.shows().as_str(), world.reducer.resume().after), ("ab", 5));
}

#[test]
fn a_break_keeps_the_set_and_says_since_when() {
    let mut world = World::new();
    world.snapshot(5, "ab");
    let broke_at = world.now;
    assert_eq!(world.broken(), Change::Told);
    world.pass(100);
    assert_eq!(world.broken(), Change::None, "another attempt of the same outage");
    assert_eq!(world.reducer.broken(world.now, "refused", false), Change::Quiet);
    assert_eq!(
        world.reducer.snapshot().state,
        SnapshotState::Stale {
            since: broke_at,
            reason: "refused".into()
        }
    );
    assert_eq!((world.shows().as_str(), world.reducer.resume().after), ("ab", 5));
    assert_eq!(world.removed(6, "a"), Change::Told);
    assert_eq!((world.shows().as_str(), world.is_fresh()), ("b", true));
}

#[test]
fn a_registry_that_never_answers_says_why() {
    let mut world = World::new();
    assert_eq!(world.broken(), Change::Told);
    let snapshot = world.reducer.snapshot();
    assert!(matches!(snapshot.state, SnapshotState::Stale { .. }));
    assert!(!snapshot.is_known());
}

#[test]
fn a_resumed_watch_without_news_settles() {
    let mut world = World::new();
    world.snapshot(5, "ab");
    world.broken();
    world.reducer.opened(world.now);
    assert!(!world.is_fresh(), "the answer may still be an error");
    assert_eq!(world.reducer.next_tick(), Some(world.now + SETTLE));
    assert_eq!(world.pass(1), Change::Told);
    assert!(world.is_fresh());
    assert_eq!(world.reducer.next_tick(), None);
}

#[test]
fn a_watch_that_owes_a_snapshot_does_not_settle() {
    let mut world = World::new();
    world.broken();
    world.reducer.opened(world.now);
    assert_eq!(world.pass(60), Change::None);
    assert!(!world.is_fresh());
}

/// A second of silence between two parts of a large snapshot counted as having nothing to tell: the old set was called fresh
/// while the snapshot that replaces it was on its way.
#[test]
fn a_watch_that_told_a_part_of_a_snapshot_does_not_settle() {
    let mut world = World::new();
    world.snapshot(5, "ab");
    world.broken();
    world.reducer.opened(world.now);
    world.reducer.part();
    assert_eq!(world.reducer.next_tick(), None);
    assert_eq!(world.pass(60), Change::None);
    assert!(!world.is_fresh());
    world.snapshot(9, "b");
    assert_eq!((world.shows().as_str(), world.is_fresh()), ("b", true));

    // What one watch owed is not owed by the next.
    world.broken();
    world.reducer.opened(world.now);
    world.reducer.part();
    world.broken();
    world.reducer.opened(world.now);
    assert_eq!(world.pass(1), Change::Told);
    assert!(world.is_fresh());
}

#[test]
fn a_shrunken_snapshot_of_the_same_history_is_believed() {
    let mut world = World::new();
    world.snapshot(5, "abcdef");
    world.snapshot(9, "a");
    assert_eq!(world.shows(), "a");
}

#[test]
fn an_empty_snapshot_is_not_believed_before_the_grace_ends() {
    let mut world = World::new();
    world.snapshot(5, "ab");
    world.snapshot(9, "");
    assert_eq!(world.shows(), "a?b?");
    assert_eq!(world.reducer.snapshot().unconfirmed, 2);
    assert_eq!(world.pass(29), Change::None);
    assert_eq!(world.pass(1), Change::Told);
    assert_eq!(world.shows(), "");
}

#[test]
fn a_removal_that_is_told_is_believed_at_once() {
    let mut world = World::new();
    world.snapshot(5, "ab");
    world.removed(6, "ab");
    assert_eq!(world.shows(), "");

    world.snapshot(7, "ab");
    world.snapshot(9, "");
    world.removed(10, "a");
    assert_eq!(world.shows(), "b?");
}

#[test]
fn the_first_set_may_be_empty() {
    let mut world = World::new();
    world.snapshot(5, "");
    assert_eq!(world.shows(), "");
    assert!(world.is_fresh());
    assert_eq!(world.reducer.next_tick(), None);
}

/// A registry comes back on an empty disk. Its providers find out one by one, at their next heartbeat: believing the new set
/// as it grows would leave the first of them alone with all the traffic.
#[test]
fn providers_that_come_back_join_those_that_have_not_yet() {
    let mut world = World::new();
    world.snapshot(500, "abc");
    world.broken();
    world.reducer.broken(world.now, "REVISION_IN_FUTURE", true);
    assert_eq!(world.reducer.resume().after, 0);
    world.snapshot(1, "b");
    assert_eq!(world.shows(), "a?bc?");
    world.put(2, 'a');
    assert_eq!(world.shows(), "abc?");
    world.pass(30);
    assert_eq!(world.shows(), "ab");
    assert_eq!(world.reducer.resume().after, 2);
}

/// Between the refusal and the new watch the new history may have overtaken the old revision.
#[test]
fn another_history_is_doubted_whatever_its_revision() {
    let mut world = World::new();
    world.snapshot(500, "abc");
    world.reducer.broken(world.now, "REVISION_IN_FUTURE", true);
    world.snapshot(900, "b");
    assert_eq!(world.shows(), "a?bc?");
    assert_eq!(world.reducer.resume().after, 900);
}

/// A registry that lost its disk and has since counted beyond our revision could not be told from the old one, and the watch
/// resumed in the middle of a history that had never been its own.
#[test]
fn a_registry_that_begins_anew_is_told_by_the_name_of_its_history() {
    let snapshot = |cause| WatchStep::Snapshot {
        revision: 900,
        instances: vec![instance('b', 900)],
        cause,
        confidence: Confidence::Fresh,
    };
    let resume = |after, history: &str| Resume {
        after,
        history: history.into(),
    };
    // The registry says it, or its name does; a registry that names no history is believed.
    for (history, cause, expected) in [
        ("new", SnapshotCause::HistoryChanged, "a?bc?"),
        ("", SnapshotCause::HistoryChanged, "a?bc?"),
        ("new", SnapshotCause::Compacted, "a?bc?"),
        ("old", SnapshotCause::Compacted, "b"),
        ("", SnapshotCause::Compacted, "b"),
    ] {
        let mut world = World::new();
        world.history = "old".into();
        world.snapshot(500, "abc");
        world.broken();
        assert_eq!(world.reducer.resume(), resume(500, "old"));
        world.history = history.into();
        world.step(snapshot(cause));
        assert_eq!(world.shows(), expected, "{history:?} {cause}");
        assert_eq!(world.reducer.resume(), resume(900, history));
        world.put(901, 'd');
        world.pass(30);
        assert_eq!(world.shows(), "bd");
    }
}

#[test]
fn a_change_of_another_history_is_not_applied() {
    let mut world = World::new();
    world.history = "old".into();
    world.snapshot(500, "abc");
    let removed = Told {
        cause: None,
        history: "new".into(),
        step: WatchStep::Delta {
            revision: 501,
            events: vec![removal('a')],
            confidence: Confidence::Fresh,
        },
    };
    assert!(!world.reducer.admits(&removed));
    world.broken();
    assert_eq!(world.reducer.resume(), Resume::default(), "the next watch begins anew");
    world.history = "new".into();
    world.snapshot(502, "b");
    assert_eq!(world.shows(), "a?bc?");
}

/// A registry that was upgraded in the middle of a watch, or one replica of several that is of an older version.
#[test]
fn a_history_may_get_its_name_later() {
    let mut world = World::new();
    world.snapshot(5, "a");
    world.history = "h".into();
    world.put(6, 'b');
    assert_eq!(world.reducer.resume().history, "h");
    world.history.clear();
    world.put(7, 'c');
    assert_eq!(world.reducer.resume().history, "h");
    assert_eq!(world.shows(), "abc");
}

#[test]
fn a_registry_that_doubts_itself_is_doubted() {
    for confidence in [Confidence::Recovering, Confidence::Stale(Duration::from_secs(9))] {
        let mut world = World::new();
        world.snapshot(5, "abc");
        world.snapshot_with(9, "a", confidence);
        assert_eq!(world.shows(), "ab?c?", "{confidence}");
    }
    for confidence in [Confidence::Protecting, Confidence::Unknown(9)] {
        let mut world = World::new();
        world.snapshot(5, "abc");
        world.snapshot_with(9, "a", confidence);
        assert_eq!(world.shows(), "a", "{confidence}");
    }
}

#[test]
fn a_grace_does_not_end_while_the_registry_is_away() {
    // Found by the random histories below: the grace used to run on during an outage, and a registry that came back empty
    // from it was believed at once.
    let mut world = World::new();
    world.snapshot(5, "ab");
    world.snapshot(9, "");
    world.broken();
    assert_eq!(world.pass(1_000), Change::None);
    assert_eq!(world.reducer.next_tick(), None);
    assert_eq!(world.shows(), "a?b?");
    world.bookmark(9);
    assert_eq!(world.pass(29), Change::None);
    assert_eq!(world.shows(), "a?b?", "its providers could not find it before");
    world.pass(1);
    assert_eq!(world.shows(), "");
}

#[test]
fn a_second_doubt_does_not_extend_the_grace() {
    let mut world = World::new();
    world.snapshot(5, "ab");
    for revision in 6..=8 {
        world.snapshot(revision, "");
        assert_eq!(world.shows(), "a?b?", "{revision}");
        world.pass(9);
    }
    world.pass(3);
    assert_eq!(world.shows(), "");
}

#[test]
fn a_better_snapshot_does_not_end_a_doubt_early() {
    let mut world = World::new();
    world.snapshot(5, "abc");
    world.snapshot(9, "");
    world.snapshot(10, "a");
    assert_eq!(world.shows(), "ab?c?");
    world.snapshot(11, "abc");
    assert_eq!((world.shows().as_str(), world.reducer.next_tick()), ("abc", None));
}

#[test]
fn unchanged_instances_keep_their_allocation() {
    let mut world = World::new();
    world.put(1, 'a');
    let before = world.reducer.snapshot().instances;
    let same = WatchStep::Snapshot {
        revision: 2,
        instances: vec![instance('a', 1)],
        cause: SnapshotCause::Compacted,
        confidence: Confidence::Fresh,
    };
    world.step(same);
    assert!(Arc::ptr_eq(&before[0], &world.reducer.snapshot().instances[0]));
}

#[test]
fn confidence_is_news_once() {
    let mut world = World::new();
    world.snapshot(5, "a");
    let stale = |age| WatchStep::Bookmark {
        revision: 5,
        confidence: Confidence::Stale(Duration::from_secs(age)),
    };
    assert_eq!(world.step(stale(1)), Change::Told);
    assert_eq!(world.step(stale(2)), Change::Quiet);
    assert_eq!(
        world.reducer.snapshot().confidence,
        Confidence::Stale(Duration::from_secs(2))
    );
}
