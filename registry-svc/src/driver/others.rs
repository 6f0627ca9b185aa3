//! What comes from beyond: other replicas' commits, who they are, and whether the store can be reached at all.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::{DriverError, SubmitError, absence::Absence, core::Core};
use crate::{
    catalog::Batch,
    metrics::{Rollback, Shed},
    model::{Now, Replicas},
    store::News,
};

/// News that waits for the store's answer to a commit. While so much waits no more is taken from its channel; the answer does
/// not stand behind it.
const QUEUED: usize = 64;

impl Core {
    /// Whether more news may come.
    pub(crate) fn takes_news(&self) -> bool {
        self.queued.len() < QUEUED
    }

    /// Something happened to the store.
    pub(crate) fn news(&mut self, news: News, now: Now) -> Result<(), DriverError> {
        match news {
            News::Failed(failure) => return Err(failure.into()),
            News::Replicas(replicas) => self.replicas(&replicas),
            // At once, even ahead of batches: callers are waiting.
            News::Away { since } => {
                self.queued.retain(|queued| !matches!(queued, News::Back));
                self.away(since, now);
            }
            // Whose batches these are is known when the store has answered.
            News::Batches(batches) if self.in_flight.is_some() => self.queued.push_back(News::Batches(batches)),
            News::Batches(batches) => self.follow(batches, now)?,
            // It promises that what was told before it has been shown.
            News::Back if self.queued.is_empty() => self.back(now),
            News::Back => self.queued.push_back(News::Back),
        }
        self.tell_trust();
        Ok(())
    }

    /// Takes up what was told while a group was on its way.
    pub(super) fn catch_up(&mut self, now: Now) -> Result<(), DriverError> {
        while let Some(news) = self.queued.pop_front() {
            match news {
                News::Batches(batches) => self.follow(batches, now)?,
                News::Back => self.back(now),
                News::Replicas(_) | News::Away { .. } | News::Failed(_) => {}
            }
        }
        Ok(())
    }

    /// Another replica has committed: ours is taken back, theirs is followed, and ours comes after it.
    fn follow(&mut self, mut batches: Vec<Arc<Batch>>, now: Now) -> Result<(), DriverError> {
        // Our own come back to us.
        batches.retain(|batch| batch.revision > self.durable);
        if batches.is_empty() {
            return Ok(());
        }
        let mut expected = self.durable;
        for batch in &batches {
            expected = expected.next();
            if batch.revision != expected {
                return Err(DriverError::Gap {
                    expected,
                    found: batch.revision,
                });
            }
        }
        if !self.open.batches().is_empty() {
            self.metrics.rollback(Rollback::Followed).inc();
        }
        let ours = std::mem::take(&mut self.open).take_back(&mut self.catalog);
        for batch in &batches {
            self.catalog.follow(batch);
            self.durable = batch.revision;
            self.report_followed(batch);
        }
        self.hub.publish(&batches);
        self.metrics.followed.inc_by(batches.len() as u64);
        self.behind = None;
        self.hear_again(ours.rounds, ours.heard);
        self.replay(ours.tasks.into_iter().map(|taken| taken.task), now);
        Ok(())
    }

    fn replicas(&mut self, replicas: &Replicas) {
        info!(own = %replicas.own, alive = replicas.alive.len(), elected = replicas.elected, "replicas");
        self.metrics.replicas.set(super::count(replicas.alive.len()));
        self.metrics.elected.set(if replicas.elected { 1.0 } else { 0.0 });
        self.catalog.replicas(replicas);
        self.hub.acks().set_replicas(replicas);
    }

    fn away(&mut self, since: std::time::Duration, now: Now) {
        if self.absence.is_none() {
            warn!(
                ?since,
                "the store cannot be reached: changes are refused, nothing expires"
            );
            self.absence = Some(Absence {
                since: now.moment.minus(since),
                told: false,
            });
            self.catalog.away();
            // Whoever is heard elsewhere meanwhile belongs there.
            self.forget_claims();
        }
        self.lose_patience(now);
    }

    fn back(&mut self, now: Now) {
        if let Some(absence) = self.absence.take() {
            let away = now.moment.since(absence.since);
            info!(?away, "the store can be reached again");
            self.catalog.back(now);
        }
    }

    /// Nobody waits for a store that is away for longer than a caller can be expected to. What was not sent has not happened;
    /// what was sent stays on its way, for it may still become durable.
    pub(super) fn lose_patience(&mut self, now: Now) {
        let Some(absence) = &mut self.absence else { return };
        if absence.told || !absence.is_long(now.moment, self.settings.patience) {
            return;
        }
        absence.told = true;
        let unsent = std::mem::take(&mut self.open).take_back(&mut self.catalog);
        debug!(unsent = unsent.tasks.len(), "answering those who wait for the store");
        self.hear_again(unsent.rounds, unsent.heard);
        for taken in unsent.tasks {
            self.metrics.shed(Shed::Away).inc();
            taken.task.refuse(SubmitError::StoreAway);
        }
        if let Some(group) = &mut self.in_flight {
            group.answer_unknown();
        }
    }

    /// Whether the store has been away for so long that nobody is made to wait for it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.absence.as_ref().is_some_and(|absence| absence.told)
    }
}
