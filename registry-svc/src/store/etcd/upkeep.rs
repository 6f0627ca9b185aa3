//! When the elected replica writes a checkpoint.

use std::time::Duration;

use tokio::{task::JoinError, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::{
    Tuning, checkpoint,
    cluster::{SharedCluster, Trouble},
    value::{Checkpoint, Head},
};

/// Doublings of the pause after one failure and the next: what fails for long is not made better by trying, and each try
/// leaves what it has written in etcd's own history until that is compacted.
const DOUBLINGS: u32 = 5;

/// See the module.
#[derive(Debug)]
pub(super) struct Upkeep {
    tuning: Tuning,
    writing: Option<AbortOnDropHandle<Result<(), Trouble>>>,
    /// When the last one ended; how long it took does not shorten the pause.
    ended: Option<Instant>,
    /// How many have failed since the last success.
    failures: u32,
}

impl Upkeep {
    pub(super) fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            writing: None,
            ended: None,
            failures: 0,
        }
    }

    /// Begins a checkpoint where one is due. It goes on by itself; [`Upkeep::ended`] is to be awaited.
    pub(super) fn consider(&mut self, cluster: &SharedCluster, head: &Head, current: &Checkpoint) {
        if self.writing.is_none() && self.is_due(head, current) {
            let write = checkpoint::write(SharedCluster::clone(cluster), self.tuning.part_bytes);
            self.writing = Some(AbortOnDropHandle::new(tokio::spawn(write)));
        }
    }

    fn is_due(&self, head: &Head, current: &Checkpoint) -> bool {
        // A checkpoint costs what the whole state does: a large state is worth a longer log.
        let enough = self.tuning.checkpoint_cost.max(current.bytes / 2);
        let pauses = self.ended.is_some_and(|ended| ended.elapsed() < self.pause());
        head.written.saturating_sub(current.written) >= enough && !pauses
    }

    fn pause(&self) -> Duration {
        self.tuning.checkpoint_pause * (1 << self.failures.min(DOUBLINGS))
    }

    /// Waits for the end of what is being written; for ever while nothing is. Cancel safe.
    pub(super) async fn ended(&mut self) {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let ended = writing.await;
        self.writing = None;
        self.note(ended);
    }

    fn note(&mut self, ended: Result<Result<(), Trouble>, JoinError>) {
        self.ended = Some(Instant::now());
        let trouble = match ended {
            Ok(Ok(())) => {
                self.failures = 0;
                return;
            }
            Ok(Err(trouble)) => format!("{trouble:?}"),
            Err(error) => error.to_string(),
        };
        self.failures += 1;
        // The log is longer than it should be until the next try.
        warn!(%trouble, next_in = ?self.pause(), "no checkpoint was written, or the log was not trimmed after it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::etcd::failure::Failure;

    /// A try that took longer than the pause was followed by the next at once, and left hundreds of megabytes behind each time.
    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_ever_more_rarely() {
        let tuning = Tuning::default();
        let head = Head {
            written: tuning.checkpoint_cost,
            ..Head::default()
        };
        let current = Checkpoint::default();
        let mut upkeep = Upkeep::new(tuning);
        assert!(upkeep.is_due(&head, &current));
        assert!(!upkeep.is_due(&Head::default(), &current));
        for seconds in [20, 40, 80, 160, 320, 320] {
            upkeep.note(Ok(Err(Failure::NoSpace.into())));
            tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            assert!(!upkeep.is_due(&head, &current));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(upkeep.is_due(&head, &current));
        }
        upkeep.note(Ok(Ok(())));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(upkeep.is_due(&head, &current));
    }
}
