//! A snapshot that comes in parts, put together again.
//!
//! The registry splits what a stock client could not read as one message. Nothing of a snapshot counts before its last part:
//! a watch that breaks in between resumes from where it was before. A registry that can no longer go on with a snapshot begins
//! another one in its place. Pure: no I/O here.

use prost::Message as _;
use proto::registry::v1::{Snapshot, WatchResponse, watch_response::Change};

/// The parts that have come.
#[derive(Debug)]
pub(super) struct Parts {
    /// The most bytes that all parts of a snapshot may have together.
    limit: usize,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    revision: i64,
    snapshot: Snapshot,
    bytes: usize,
}

/// What a response makes of the parts.
#[derive(Debug, PartialEq)]
pub(super) enum Assembled {
    /// A whole step.
    Whole(Box<WatchResponse>),
    /// A part of one that goes on.
    Part,
}

/// Parts that do not make a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// They contradict each other.
    Malformed(String),
    /// They are more than is read.
    TooLarge(String),
}

impl Parts {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, begun: None }
    }

    /// Takes the next response.
    pub(super) fn add(&mut self, mut response: WatchResponse) -> Result<Assembled, Unfit> {
        let revision = response.revision;
        let part = match &mut response.change {
            Some(Change::Snapshot(part)) => part,
            _ if self.begun.is_some() => return Err(Unfit::Malformed("a snapshot that breaks off".to_owned())),
            _ => return Ok(Assembled::Whole(Box::new(response))),
        };
        let goes_on = |begun: &Begun| begun.revision == revision && begun.snapshot.cause == part.cause;
        let Begun {
            mut snapshot,
            mut bytes,
            ..
        } = self.begun.take().filter(goes_on).unwrap_or_else(|| Begun {
            revision,
            snapshot: Snapshot {
                instances: Vec::new(),
                ..*part
            },
            bytes: 0,
        });
        bytes += part.encoded_len();
        if bytes > self.limit {
            let problem = format!(
                "a snapshot of more than {bytes} bytes, the limit is: {} bytes",
                self.limit
            );
            return Err(Unfit::TooLarge(problem));
        }
        snapshot.instances.append(&mut part.instances);
        if part.more {
            self.begun = Some(Begun {
                revision,
                snapshot,
                bytes,
            });
            return Ok(Assembled::Part);
        }
        snapshot.more = false;
        response.change = Some(Change::Snapshot(snapshot));
        Ok(Assembled::Whole(Box::new(response)))
    }
}

#[cfg(test)]
mod tests {
    use proto::registry::v1::{Bookmark, Instance, snapshot::Cause};

    use super::*;

    fn part(revision: i64, ids: &[&str], more: bool) -> WatchResponse {
        let instance = |id: &&str| Instance {
            id: (*id).to_owned(),
            ..Instance::default()
        };
        WatchResponse {
            revision,
            change: Some(Change::Snapshot(Snapshot {
                instances: ids.iter().map(instance).collect(),
                cause: Cause::Compacted.into(),
                more,
            })),
            ..WatchResponse::default()
        }
    }

    fn whole(response: WatchResponse) -> Assembled {
        Assembled::Whole(Box::new(response))
    }

    #[test]
    fn parts_make_one_snapshot() {
        let mut parts = Parts::new(1_000);
        for _ in 0..2 {
            assert_eq!(parts.add(part(7, &["a", "b"], true)), Ok(Assembled::Part));
            assert_eq!(parts.add(part(7, &["c"], true)), Ok(Assembled::Part));
            let last = parts.add(part(7, &["d"], false));
            assert_eq!(last, Ok(whole(part(7, &["a", "b", "c", "d"], false))));
        }
        assert_eq!(parts.add(part(8, &[], false)), Ok(whole(part(8, &[], false))));
    }

    /// It was an error, and the watch was given up: a registry that has let go of a snapshot which a slow watcher had begun to
    /// read, could only break the stream.
    #[test]
    fn a_part_of_another_snapshot_begins_anew() {
        let coalesced = |mut response: WatchResponse| {
            if let Some(Change::Snapshot(snapshot)) = &mut response.change {
                snapshot.cause = Cause::Coalesced.into();
            }
            response
        };
        let mut parts = Parts::new(1_000);
        parts.add(part(7, &["a"], true)).expect("begins");
        parts.add(part(8, &["b"], true)).expect("begins anew: another revision");
        parts
            .add(coalesced(part(8, &["b"], true)))
            .expect("and anew: another cause");
        let last = parts.add(coalesced(part(8, &["c"], false)));
        assert_eq!(last, Ok(whole(coalesced(part(8, &["b", "c"], false)))));

        parts.add(part(9, &["a"], true)).expect("begins");
        let last = parts.add(part(10, &["b"], false));
        assert_eq!(last, Ok(whole(part(10, &["b"], false))), "that is all of it");
    }

    /// The bytes of what was forgotten count no more.
    #[test]
    fn what_begins_anew_has_all_the_room() {
        let id = "x".repeat(100);
        let mut parts = Parts::new(1_000);
        for revision in 1..100 {
            for _ in 0..5 {
                assert_eq!(
                    parts.add(part(revision, &[&id], true)),
                    Ok(Assembled::Part),
                    "{revision}"
                );
            }
        }
    }

    #[test]
    fn nothing_comes_between_the_parts() {
        let mut parts = Parts::new(1_000);
        parts.add(part(7, &["a"], true)).expect("begins");
        let bookmark = WatchResponse {
            revision: 7,
            change: Some(Change::Bookmark(Bookmark {})),
            ..WatchResponse::default()
        };
        assert!(matches!(parts.add(bookmark.clone()), Err(Unfit::Malformed(_))));
        assert_eq!(
            Parts::new(1).add(bookmark.clone()),
            Ok(whole(bookmark)),
            "on its own it is well"
        );
    }

    /// Bounded part by part, a registry that never ends its snapshot would fill its clients' memory.
    #[test]
    fn the_limit_is_for_all_parts_together() {
        let id = "x".repeat(100);
        let mut parts = Parts::new(1_000);
        let unfit = (0..100).find_map(|_| parts.add(part(7, &[&id], true)).err());
        let Some(Unfit::TooLarge(problem)) = unfit else {
            panic!("{unfit:?}")
        };
        assert!(problem.contains("limit is: 1000 bytes"), "{problem}");
    }
}
