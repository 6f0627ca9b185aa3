//! A snapshot of a selection, in parts that a client accepts, and those of a feed that are being told.
//!
//! A large one is shared: by those who begin while nothing of the selection has changed, however much others have, and by those
//! who begin a little later and are told what came since. Each part is encoded when the first watcher gets there. So a storm of
//! reconnecting watchers costs one snapshot and not thousands, also while the service goes on changing.
//!
//! The feed keeps it and not the watchers that are in the middle of it: those know which it was and how far they are. When nobody
//! has asked for a part for a while it goes; whoever comes back later goes on in the same one, made again, or begins anew if the
//! selection has changed. One that stalls keeps nothing alive.

use std::{ops::Range, sync::Arc, time::Duration};

use crate::model::{Instance, Moment, Revision};

/// Bytes, roughly, after which a part ends: large enough that what frames it does not count, and small enough for a watch that
/// is not read, which holds two of them and a send buffer, to hold no more than 64 KiB. What is larger by itself is one instance
/// with nearly all that it may have, some 40 KiB.
pub(super) const PART_BYTES: usize = 20 * 1_024;
/// How long a snapshot is kept that nobody reads on in: a client that reads at all has taken the next 20 KiB by then.
pub(super) const UNREAD: Duration = Duration::from_secs(30);
/// Changes of its selection that a snapshot may be behind for whoever begins: far less to tell than what fills more than a part.
const BEHIND: usize = 16;
/// Snapshots of a feed that are kept at once. With so many, one may be behind by as many changes as it has instances: then telling
/// what came since costs what telling all of it again would.
const KEPT: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The last revision that had changed its scope: what is in it, and in each part, is the same until the next does.
    content: Revision,
    /// The revision at which it was made.
    made: Revision,
    /// By service and id.
    instances: Vec<Arc<Instance>>,
    /// Where each part ends. At least one, which is empty if there are no instances.
    parts: Vec<usize>,
}

/// The large snapshots of a feed that somebody is told.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Each of another content, in the order in which they were made, with when a part was asked for last.
    kept: Vec<(Arc<Snapshot>, Moment)>,
}

/// Where a selection is, for those who begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    /// The revision.
    pub(super) revision: Revision,
    /// The last one that has changed the scope.
    pub(super) content: Revision,
    /// What whoever begins has been told: nothing up to it is to be told again.
    pub(super) told: Revision,
    /// The last revision of the selection that the history has lost.
    pub(super) lost: Revision,
}

impl Snapshots {
    /// One for who begins now, and the revision that it tells, if there is one. `changes` counts those of the scope after a
    /// revision.
    pub(super) fn find(
        &mut self,
        present: Present,
        now: Moment,
        changes: impl Fn(Revision) -> usize,
    ) -> Option<(Arc<Snapshot>, Revision)> {
        let is_full = self.kept.len() >= KEPT;
        let newest_first = self.kept.iter_mut().rev();
        for (snapshot, asked) in newest_first {
            let tells = if snapshot.content == present.content {
                present.revision
            } else if snapshot.made > present.told
                && snapshot.made >= present.lost
                && changes(snapshot.made)
                    <= if is_full {
                        snapshot.instances.len().max(BEHIND)
                    } else {
                        BEHIND
                    }
            {
                snapshot.made
            } else {
                continue;
            };
            *asked = (*asked).max(now);
            return Some((Arc::clone(snapshot), tells));
        }
        None
    }

    /// Makes one of these instances, with parts of about `part_bytes`, and keeps it if it is large.
    pub(super) fn make(
        &mut self,
        present: Present,
        instances: Vec<Arc<Instance>>,
        part_bytes: usize,
        now: Moment,
    ) -> Arc<Snapshot> {
        let snapshot = Arc::new(Snapshot::new(present, instances, part_bytes));
        if snapshot.has_more(0) {
            if self.kept.len() >= KEPT {
                // The one that has been read least lately. Whoever is in the middle of it begins anew.
                let asked = self.kept.iter().enumerate().min_by_key(|(_, (_, asked))| *asked);
                if let Some((unread, _)) = asked {
                    self.kept.remove(unread);
                }
            }
            self.kept.push((Arc::clone(&snapshot), now));
        }
        snapshot
    }

    /// The one of this content, if it is still there, for its next part.
    pub(super) fn get(&mut self, content: Revision, now: Moment) -> Option<Arc<Snapshot>> {
        let (snapshot, asked) = self.kept.iter_mut().find(|(kept, _)| kept.content == content)?;
        *asked = (*asked).max(now);
        Some(Arc::clone(snapshot))
    }

    /// Takes out those in which nobody reads any more.
    pub(super) fn take_unread(&mut self, now: Moment) -> Vec<Arc<Snapshot>> {
        let is_unread = |(_, asked): &mut (Arc<Snapshot>, Moment)| now.since(*asked) >= UNREAD;
        self.kept
            .extract_if(.., is_unread)
            .map(|(snapshot, _)| snapshot)
            .collect()
    }
}

impl Snapshot {
    /// A single instance is never split.
    fn new(present: Present, instances: Vec<Arc<Instance>>, part_bytes: usize) -> Self {
        let mut parts = Vec::new();
        let mut bytes = 0;
        for (index, instance) in instances.iter().enumerate() {
            let more = instance.bytes();
            if bytes > 0 && bytes + more > part_bytes {
                parts.push(index);
                bytes = 0;
            }
            bytes += more;
        }
        parts.push(instances.len());
        Self {
            content: present.content,
            made: present.revision,
            instances,
            parts,
        }
    }

    /// Names what is in it: of one feed, the same content is the same.
    pub(super) fn content(&self) -> Revision {
        self.content
    }

    /// The instances of a part.
    pub(super) fn part(&self, number: usize) -> &[Arc<Instance>] {
        let begin = number.checked_sub(1).map_or(0, |before| self.end(before));
        let range: Range<usize> = begin..self.end(number);
        self.instances.get(range).unwrap_or_default()
    }

    /// Whether there are parts after this one.
    pub(super) fn has_more(&self, number: usize) -> bool {
        number + 1 < self.parts.len()
    }

    fn end(&self, number: usize) -> usize {
        self.parts.get(number).copied().unwrap_or(self.instances.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{WALL, draft, now};
    use crate::model::LeaseId;

    fn present(revision: u64, content: u64) -> Present {
        Present {
            revision: Revision::new(revision),
            content: Revision::new(content),
            told: Revision::ZERO,
            lost: Revision::ZERO,
        }
    }

    fn instances(count: usize) -> Vec<Arc<Instance>> {
        let instance =
            |n| draft("a", &format!("{n:04}"), "").registered(Revision::new(1), LeaseId::from_random(1), WALL);
        (0..count).map(|n| Arc::new(instance(n))).collect()
    }

    #[test]
    fn parts_hold_each_instance_once_and_in_order() {
        let bytes = instances(1)[0].bytes();
        for count in [0, 1, 63, 64, 65, 300] {
            let snapshot = Snapshot::new(present(1, 1), instances(count), 64 * bytes);
            let mut told = Vec::new();
            let mut number = 0;
            loop {
                let part = snapshot.part(number);
                assert!((1..=64).contains(&part.len()) || count == 0);
                told.extend_from_slice(part);
                if !snapshot.has_more(number) {
                    break;
                }
                number += 1;
            }
            assert_eq!(told, instances(count));
        }
    }

    #[test]
    fn who_begins_is_given_one_that_leads_to_the_present() {
        let at = now(0).moment;
        let mut snapshots = Snapshots::default();
        let one = snapshots.make(present(10, 7), instances(2), 1, at);
        let mut find = |present, changes| snapshots.find(present, at, |_| changes).map(|(_, tells)| tells.get());
        assert_eq!(find(present(500, 7), 0), Some(500), "nothing has changed since");
        assert_eq!(find(present(30, 26), 16), Some(10), "and then what came since");
        assert_eq!(find(present(31, 27), 17), None, "too much has");
        let gone = Present {
            lost: Revision::new(11),
            ..present(30, 26)
        };
        assert_eq!(find(gone, 1), None, "the history does not reach back");
        let ahead = Present {
            told: Revision::new(10),
            ..present(30, 26)
        };
        assert_eq!(find(ahead, 1), None, "it knows as much");
        assert_eq!(one.content(), Revision::new(7));
        snapshots.make(present(40, 40), instances(1), 1, at);
        assert_eq!(snapshots.kept.len(), 1, "what has one part is told at once");
    }

    /// Beginning over and over, and stalling, would keep a snapshot for each.
    #[test]
    fn so_many_are_kept_and_no_more() {
        let at = now(0).moment;
        let mut snapshots = Snapshots::default();
        for revision in (100..2_000).step_by(100) {
            let present = present(revision, revision);
            let changes = |since: Revision| usize::try_from(revision - since.get()).expect("few");
            if snapshots.find(present, at, changes).is_none() {
                snapshots.make(present, instances(500), 1_000, at);
            }
        }
        let kept: Vec<u64> = snapshots.kept.iter().map(|(kept, _)| kept.made.get()).collect();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(
            kept.last(),
            Some(&1_600),
            "a new one when the newest is behind by more than all that it has"
        );
        let lost = Present {
            lost: Revision::new(2_000),
            ..present(3_000, 3_000)
        };
        assert!(snapshots.find(lost, at, |_| 0).is_none());
        snapshots.make(lost, instances(2), 1, at);
        assert_eq!(snapshots.kept.len(), KEPT);
    }

    /// Whoever reads a large one over a slow line would never come to its end if the oldest always went.
    #[test]
    fn the_one_that_was_read_least_lately_makes_room() {
        let moment = |seconds: u64| now(seconds * 1_000).moment;
        let mut snapshots = Snapshots::default();
        let old = snapshots.make(present(1, 1), instances(2), 1, moment(0)).content();
        for revision in 2..10 {
            snapshots.make(present(revision, revision), instances(2), 1, moment(revision));
            assert!(snapshots.get(old, moment(revision)).is_some(), "it is being read");
        }
        assert_eq!(snapshots.kept.len(), KEPT);
    }

    #[test]
    fn what_nobody_reads_goes() {
        let moment = |seconds: u64| now(seconds * 1_000).moment;
        let mut snapshots = Snapshots::default();
        let read = snapshots.make(present(1, 1), instances(2), 1, moment(0)).content();
        let unread = snapshots.make(present(2, 2), instances(2), 1, moment(0)).content();
        assert!(snapshots.get(read, moment(20)).is_some());
        assert_eq!(snapshots.take_unread(moment(29)).len(), 0);
        assert_eq!(snapshots.take_unread(moment(30)).len(), 1);
        assert!(snapshots.get(unread, moment(30)).is_none() && snapshots.get(read, moment(30)).is_some());
    }
}
