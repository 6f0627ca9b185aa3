//! What follows from the store's answer to a commit: the good case, and the two in which nothing happened.

use std::time::Duration;

use tracing::{debug, error, info};

use super::{
    DriverError, SubmitError,
    core::Core,
    group::{Group, TakenBack, Task},
    rounds::Round,
};
use crate::{
    catalog::Owner,
    metrics::{Rollback, Shed},
    model::Now,
    store::Verdict,
};

/// How long an overtaken replica waits to be told by whom before it tries again all the same. The news is on its way when the
/// verdict comes; this is for one that never comes.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);

/// Races in a row that may be lost to the size of a group: by then it is a few KiB, which nobody sends much faster. One that is
/// won forgets half of them, so that after a burst of many writers a group is soon as large as what waits.
const OVERTAKEN_MAX: u32 = 6;

impl Core {
    /// The store has answered after so long.
    pub(crate) fn committed(
        &mut self,
        verdict: Verdict,
        took: Duration,
        now: Now,
        draw: u64,
    ) -> Result<(), DriverError> {
        let Some(group) = self.in_flight.take() else {
            return Ok(());
        };
        // Without a batch it was a question, and no commit.
        if !group.batches().is_empty() {
            self.metrics.commit_seconds.observe(took.as_secs_f64());
        }
        match verdict {
            Verdict::Durable => {
                self.trace_commit(&group, took);
                self.durable(group);
            }
            Verdict::NoRoom(why) => self.no_room(group, why, now),
            Verdict::Overtaken => self.overtaken(group, now),
        }
        self.catch_up(now)?;
        self.expire(now, draw);
        Ok(())
    }

    fn durable(&mut self, group: Group) {
        if !group.batches().is_empty() {
            self.metrics.group_batches.observe(super::count(group.batches().len()));
            self.hub.publish(group.batches());
            self.overtaken /= 2;
        }
        if self.room.took(group.grows()) {
            info!("the store has room again");
        }
        // A lease whose grant waited for the disk begins to live now, not when the disk was asked.
        for batch in group.batches().iter().chain(self.open.batches()) {
            self.catalog.begin_life(batch);
        }
        for batch in group.batches() {
            self.durable = batch.revision;
            self.report(batch);
        }
        // Published first: whoever is answered and then reads sees its own write.
        self.answer(group);
    }

    fn no_room(&mut self, group: Group, why: String, now: Now) {
        let grows = group.grows();
        if self.room.lacking(why.clone(), grows, now.moment) {
            error!(%why, "the store has no room: registrations and updates are refused until there is some");
        }
        self.metrics.rollback(Rollback::NoRoom).inc();
        let later = std::mem::take(&mut self.open).take_back(&mut self.catalog);
        let first = group.take_back(&mut self.catalog);
        self.hear_again(
            first.rounds.into_iter().chain(later.rounds),
            first.heard.into_iter().chain(later.heard),
        );
        let mut again = Vec::new();
        for TakenBack { task, changed } in first.tasks {
            // What would make room did not fit in together with something larger; alone it may. What has been tried alone is
            // refused like the rest, so this ends.
            if changed && (task.grows() || !grows) {
                self.metrics.shed(Shed::NoRoom).inc();
                task.refuse(SubmitError::NoRoom(why.clone()));
            } else {
                again.push(task);
            }
        }
        self.replay(again, now);
        self.replay(later.tasks.into_iter().map(|taken| taken.task), now);
    }

    fn overtaken(&mut self, group: Group, now: Now) {
        debug!(batches = group.batches().len(), "another replica has committed first");
        self.behind = Some(now.moment.plus(NEWS_PATIENCE));
        if !group.batches().is_empty() {
            self.metrics.rollback(Rollback::Overtaken).inc();
            self.overtaken = (self.overtaken + 1).min(OVERTAKEN_MAX);
        }
        let later = std::mem::take(&mut self.open).take_back(&mut self.catalog);
        let first = group.take_back(&mut self.catalog);
        // Until the news has come this stands on what is no longer the present; it is not committed before.
        self.hear_again(
            first.rounds.into_iter().chain(later.rounds),
            first.heard.into_iter().chain(later.heard),
        );
        let tasks = first.tasks.into_iter().chain(later.tasks);
        self.replay(tasks.map(|taken| taken.task), now);
    }

    /// Hears those again who were refused for what has not happened; before any of it is applied once more.
    pub(super) fn hear_again(
        &mut self,
        rounds: impl IntoIterator<Item = Round>,
        heard: impl IntoIterator<Item = Owner>,
    ) {
        for owner in heard {
            // Its owner may be gone without an answer; it was heard all the same.
            let _ = self.catalog.renew(&owner);
        }
        // Whoever has gone was heard when it came, and not again since.
        for round in rounds.into_iter().filter(|round| !round.is_abandoned()) {
            self.listen(round.owners, round.within, round.peer, round.caller);
        }
    }

    /// Applies what has been taken back, in its order, to what is there now. It may be answered otherwise than it would have been.
    pub(super) fn replay(&mut self, tasks: impl IntoIterator<Item = Task>, now: Now) {
        // Claims come first: their owners were heard, and what is in front is durable first.
        let (claims, others): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(Task::is_claim);
        for task in claims.into_iter().chain(others) {
            let outcome = task.apply(&mut self.catalog, now.wall);
            self.open.add(task, outcome, self.catalog.own());
        }
    }
}
