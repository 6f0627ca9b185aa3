//! The one task that owns the catalog: it performs what the catalog decides.
//!
//! Group commit: while one group of batches is on its way to the disk, further changes are applied and pile up in the next
//! group, so that many registrations share one fsync. Renewals change nothing on disk and are answered at once, however slow
//! the disk is. An answer that tells of a change, or of the lack of one, waits until everything applied before it is durable:
//! nobody ever hears of a state that a power cut could take back.
//!
//! After an error of the store the driver stops and with it the process: what the disk holds is then unknown, and only a
//! restart finds out (a second fsync may succeed without having written what the first one lost).

mod clock;
mod group;
mod handle;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

pub(crate) use clock::Clock;
use group::Group;
pub(crate) use handle::{Handle, SubmitError};
use handle::{Inbox, Mutation, Renewals};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use writer::{Committed, Writer};

use crate::{
    catalog::{Batch, Catalog, Change, LeaseChange, PULSE},
    hub::Hub,
    metrics::Metrics,
    model::{Moment, Now, RemovalReason},
    store::{Store, StoreError},
};

/// Rounds of renewals taken from their queue at once; the more, the fewer turns of the loop under load.
const RENEWALS_AT_ONCE: usize = 256;

/// Why the driver stopped without being asked to.
#[derive(Debug, Error)]
pub(crate) enum DriverError {
    /// The disk did not take a commit.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread of the store is gone.
    #[error("the store's thread has ended unexpectedly")]
    WriterGone,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Driver {
    catalog: Catalog,
    hub: Arc<Hub>,
    writer: Writer,
    clock: Clock,
    metrics: Metrics,
    inbox: Inbox,
    stop: CancellationToken,
    stopping: bool,
    /// Applied, waiting for the disk to be free.
    open: Group,
    /// On its way to the disk.
    in_flight: Option<Group>,
    last_pulse: Moment,
}

/// Everything that can wake the driver.
#[derive(Debug)]
enum Input {
    Mutation(Mutation),
    Renewals(Vec<Renewals>),
    Committed(Result<Committed, DriverError>),
    Pulse,
    Stop,
    /// The callers of one queue have gone.
    Idle,
}

impl Driver {
    /// Starts the store's thread. `stop` ends [`Driver::run`] after what was accepted is durable.
    pub(crate) fn new(
        catalog: Catalog,
        hub: Arc<Hub>,
        store: impl Store,
        clock: Clock,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> std::io::Result<(Self, Handle)> {
        let (handle, inbox) = handle::channel();
        let driver = Self {
            catalog,
            hub,
            writer: Writer::spawn(store)?,
            last_pulse: clock.now().moment,
            clock,
            metrics,
            inbox,
            stop,
            stopping: false,
            open: Group::default(),
            in_flight: None,
        };
        Ok((driver, handle))
    }

    /// Runs until it is stopped or the store fails. Callers that wait for an answer after a failure are told that their
    /// outcome is unknown.
    pub(crate) async fn run(mut self) -> Result<(), DriverError> {
        let result = self.work().await;
        self.writer.join().await;
        result
    }

    async fn work(&mut self) -> Result<(), DriverError> {
        loop {
            let input = self.next().await;
            let now = self.clock.now();
            if let Some(pause) = self.catalog.look(now) {
                warn!(?pause, "the registry was paused; no lease is charged for it");
            }
            match input {
                Input::Mutation(mutation) => self.mutate(mutation, now),
                Input::Renewals(rounds) => self.renew(rounds),
                Input::Committed(Ok(committed)) => self.committed(committed, now),
                Input::Committed(Err(failure)) => {
                    error!(error = %failure, "cannot make changes durable, stopping");
                    return Err(failure);
                }
                Input::Pulse => self.pulse(now),
                Input::Stop => self.begin_stop(now),
                Input::Idle => {}
            }
            self.advance()?;
            if self.stopping && self.in_flight.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits for the next input. Not biased: neither a flood of renewals nor one of mutations starves the other.
    async fn next(&mut self) -> Input {
        let wake = self.clock.instant(self.next_wake());
        let takes_mutations = self.takes_mutations();
        let mut rounds = Vec::new();
        tokio::select! {
            committed = self.writer.committed(), if self.in_flight.is_some() => Input::Committed(committed),
            mutation = self.inbox.mutations.recv(), if takes_mutations && !self.inbox.mutations_closed => match mutation {
                Some(mutation) => Input::Mutation(mutation),
                None => {
                    self.inbox.mutations_closed = true;
                    Input::Idle
                }
            },
            count = self.inbox.renewals.recv_many(&mut rounds, RENEWALS_AT_ONCE), if !self.inbox.renewals_closed => {
                self.inbox.renewals_closed = count == 0;
                Input::Renewals(rounds)
            }
            () = tokio::time::sleep_until(wake) => Input::Pulse,
            () = self.stop.cancelled(), if !self.stopping => Input::Stop,
        }
    }

    fn takes_mutations(&self) -> bool {
        !self.stopping && !self.open.is_full()
    }

    fn next_wake(&self) -> Moment {
        let pulse = self.last_pulse.plus(PULSE);
        match self.catalog.next_due() {
            // While a commit is on its way nothing expires, so being due is no reason to wake.
            Some(due) if self.in_flight.is_none() => due.min(pulse),
            _ => pulse,
        }
    }

    fn mutate(&mut self, mutation: Mutation, now: Now) {
        // Its caller's deadline has passed, or it hung up: it has given up, may have asked again, and must not be surprised by
        // a change that comes later. A Deregister that is dropped here is made good by the end of its lease.
        if mutation.reply.is_closed() {
            return;
        }
        let outcome = self.catalog.apply(&mutation.command, now.wall);
        // From here on the group counts it.
        drop(mutation.room);
        self.open.add(outcome.batch);
        self.open.park(mutation.reply, outcome.reply);
    }

    fn renew(&mut self, rounds: Vec<Renewals>) {
        for round in rounds {
            let results = round.owners.iter().map(|owner| self.catalog.renew(owner)).collect();
            // A caller that has gone needs no answer; its lease is renewed all the same.
            let _ = round.reply.send(results);
        }
    }

    fn pulse(&mut self, now: Now) {
        self.last_pulse = now.moment;
        self.metrics.instances.set(count(self.catalog.instances()));
        self.metrics.leases.set(count(self.catalog.leases()));
        self.expire(now);
    }

    /// Only while nothing is on its way to the disk: a lease whose grant waits for a slow disk has not begun to live.
    fn expire(&mut self, now: Now) {
        // Before what it allows: an expiry must not be told with the confidence of a recovery, during which there is none.
        self.hub.set_confidence(self.catalog.confidence());
        if self.in_flight.is_some() || self.stopping {
            return;
        }
        // Who has already knocked must not lapse for standing in a queue (ZOOKEEPER-1049).
        // Those alone: under a flood the queue would never be seen empty.
        for _ in 0..self.inbox.renewals.len() {
            let Ok(round) = self.inbox.renewals.try_recv() else {
                break;
            };
            self.renew(vec![round]);
        }
        let expired = self.catalog.expire(now.wall, rand::random());
        self.open.add(expired.into_iter().map(|(batch, _undo)| batch));
    }

    fn committed(&mut self, committed: Committed, now: Now) {
        let Some(group) = self.in_flight.take() else { return };
        self.metrics.commit_seconds.observe(committed.took.as_secs_f64());
        self.hub.publish(group.batches());
        for batch in group.batches().iter().chain(self.open.batches()) {
            self.catalog.begin_life(batch);
        }
        for batch in group.batches() {
            self.report(batch);
        }
        // Published first: whoever is answered and then reads sees its own write.
        group.answer();
        self.expire(now);
    }

    /// Sends the open group to the disk if that is free; answers it if there is nothing to write.
    fn advance(&mut self) -> Result<(), DriverError> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        let group = std::mem::take(&mut self.open);
        if group.batches().is_empty() {
            group.answer();
            return Ok(());
        }
        let compacted = self.hub.compacted_after(group.batches());
        self.writer.commit(group.batches().to_vec(), compacted)?;
        self.in_flight = Some(group);
        Ok(())
    }

    /// What was accepted is finished, what comes now is refused.
    fn begin_stop(&mut self, now: Now) {
        self.stopping = true;
        self.inbox.mutations.close();
        self.inbox.renewals.close();
        while let Ok(mutation) = self.inbox.mutations.try_recv() {
            self.mutate(mutation, now);
        }
    }

    fn report(&self, batch: &Batch) {
        let revision = batch.revision.get();
        for change in &batch.changes {
            match change {
                Change::Put { instance, .. } => {
                    debug!(instance = %instance.key, revision, "instance registered or changed")
                }
                Change::Removed(removal) => {
                    let (instance, reason) = (&removal.key, removal.reason.as_str());
                    info!(%instance, reason, detail = %removal.detail, revision, "instance removed");
                    self.metrics.removed(removal.reason).inc();
                    if removal.reason == RemovalReason::Expired {
                        self.metrics.expired.inc();
                    }
                }
            }
        }
        for change in &batch.leases {
            if let LeaseChange::Ended(lease) = change {
                debug!(%lease, revision, "lease ended");
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
