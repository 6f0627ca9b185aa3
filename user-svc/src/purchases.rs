//! Drives purchases: performs the recorded step, asks `domain::saga` what follows, records it. Decides nothing itself.
//!
//! Each purchase runs in a task that this owns, not in the call that asked for it: a caller who hangs up does not stop a
//! purchase half-way. At most so many run at once; more callers are told to come back. On shutdown, purchases that wait for a
//! retry stop at once, the others get the grace; what is left is taken up at the next start, from its recorded step.

mod metrics;
mod resume;
mod running;

use std::{sync::Arc, time::Duration};

use service_store::failpoint;
use telemetry::{Context, WithContext as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub(crate) use self::running::Following;
use self::running::{Driving, Register};
use crate::{
    domain::{
        backoff,
        order::{NewOrder, Order},
        saga::{self, Attempts, Next, Step},
    },
    failpoints,
    store::{Recorded, Store, StoreError},
    tickets::{Heard, Tickets},
    trace,
};

/// The longest wait between attempts while nothing is paid: somebody is waiting for the answer.
const EAGER: Duration = Duration::from_secs(1);
/// The longest wait between attempts to confirm what is paid, which go on for as long as it takes.
const PATIENT: Duration = Duration::from_secs(5);

/// All purchases of a process. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Purchases {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    tickets: Tickets,
    /// One permit a running purchase.
    slots: Arc<Semaphore>,
    register: Register,
    tasks: TaskTracker,
    /// No new purchases, no more waiting for retries.
    closing: CancellationToken,
    /// The grace is over.
    cut: CancellationToken,
}

/// Why a purchase was not taken on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuyError {
    /// As many as may run are running. A retry may help.
    #[error("too many purchases are under way")]
    Full,
    /// The process is about to end. Another one may help.
    #[error("this instance is shutting down")]
    Closing,
    /// The order could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How performing a step went.
enum Performed {
    /// The next step is recorded.
    Moved(Box<Order>),
    /// The same step once more, after a while.
    Again { in_doubt: bool },
}

impl Purchases {
    /// At most `limit` at once.
    pub(crate) fn new(store: Store, tickets: Tickets, limit: usize) -> Self {
        let inner = Inner {
            store,
            tickets,
            slots: Arc::new(Semaphore::new(limit)),
            register: Register::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        metrics::measure(&inner.register);
        Self { inner: Arc::new(inner) }
    }

    /// Records the order and buys what it says. Answers once it is recorded, with a way to follow it unless it has ended
    /// before. The same request again joins the running purchase, or takes it up.
    pub(crate) async fn buy(&self, new: NewOrder) -> Result<(Order, Option<Following>), BuyError> {
        // Before a slot is taken: what is under way has its own.
        if let Some(joined) = self.join(&new).await? {
            return Ok(joined);
        }
        let slot = match self.slot() {
            Ok(slot) => slot,
            // It may have started or ended since that look, and its own slot be the one that is missing.
            Err(error) => return self.join(&new).await?.ok_or(error),
        };
        let (recorded, heard) = oneshot::channel();
        let (purchases, context) = (self.clone(), trace::of_purchase(&Context::current()));
        // Recorded within the task too: were the caller to hang up between the record and the start, nobody would start it.
        let task = async move { purchases.record_and_drive(new, slot, recorded).await };
        self.inner
            .tasks
            .spawn(self.clone().until_cut(task).with_context(context));
        // The sender is dropped unsent only when the grace of a shutdown is over.
        heard.await.unwrap_or(Err(BuyError::Closing))
    }

    /// The order, if the same request recorded it before and it has ended or is driven now: nothing is left to start.
    async fn join(&self, new: &NewOrder) -> Result<Option<(Order, Option<Following>)>, StoreError> {
        let Some(order) = self.inner.store.recorded_order(new).await? else {
            return Ok(None);
        };
        if order.is_final() {
            return Ok(Some((order, None)));
        }
        Ok(self.follow(order.id).map(|following| (order, Some(following))))
    }

    /// A way to follow an order, if this process drives it now.
    pub(crate) fn follow(&self, order_id: uuid::Uuid) -> Option<Following> {
        self.inner.register.follow(order_id)
    }

    /// Lets no new purchase start, waits at most `grace` for the running ones, and answers how many orders are unfinished.
    /// They go on at the next start.
    pub(crate) async fn finish(&self, grace: Duration) -> Result<u64, StoreError> {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        // Either they have all ended, or what has not is cut now.
        let _ = tokio::time::timeout(grace, self.inner.tasks.wait()).await;
        self.inner.cut.cancel();
        self.inner.tasks.wait().await;
        self.inner.store.count_unfinished_orders().await
    }

    /// Ends all purchases at once when the guard is dropped, as a crash would.
    pub(crate) fn cut_on_drop(&self) -> DropGuard {
        self.inner.cut.clone().drop_guard()
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, BuyError> {
        if self.inner.closing.is_cancelled() {
            return Err(BuyError::Closing);
        }
        self.inner.slots.clone().try_acquire_owned().map_err(|_| BuyError::Full)
    }

    /// Dropping a purchase at any await is what a crash would do, and as harmless.
    async fn until_cut(self, task: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = self.inner.cut.cancelled() => {}
            () = task => {}
        }
    }

    async fn record_and_drive(
        self,
        new: NewOrder,
        slot: OwnedSemaphorePermit,
        recorded: oneshot::Sender<Result<(Order, Option<Following>), BuyError>>,
    ) {
        failpoint("user.record.commit.before").await;
        let record = self.inner.store.record_order(&new, &trace::current()).await;
        failpoint("user.record.commit.after").await;
        let (order, attempts) = match record {
            Ok(Recorded::New(order)) => (order, Attempts::FIRST),
            Ok(Recorded::Before(order)) => (order, Attempts::RESUMED),
            Err(error) => {
                // Nobody listens any more: nothing to tell.
                let _ = recorded.send(Err(error.into()));
                return;
            }
        };
        if order.is_final() {
            let _ = recorded.send(Ok((order, None)));
            return;
        }
        let (driving, following) = self.inner.register.enter(order.id);
        let _ = recorded.send(Ok((order.clone(), Some(following))));
        if let Some(driving) = driving {
            self.drive(order, attempts, driving).await;
        }
        drop(slot);
    }

    /// Performs step after step until the order is final, a shutdown interrupts a wait, or the store says that someone else
    /// drives it. `known` was read before the registration.
    async fn drive(&self, known: Order, mut attempts: Attempts, driving: Driving) {
        // Looked at again under the registration: another driver may have moved it, and ended, since it was read.
        let Some(mut order) = self.present(&known).await else {
            return;
        };
        if order.version != known.version {
            attempts = Attempts::RESUMED;
        }
        while !order.is_final() {
            let in_doubt = match self.perform(&mut order, attempts).await {
                Ok(Performed::Moved(moved)) => {
                    tracing::debug!(order = %moved.id, step = ?moved.step, "recorded");
                    driving.moved(moved.version);
                    (order, attempts) = (*moved, Attempts::FIRST);
                    continue;
                }
                Ok(Performed::Again { in_doubt }) => in_doubt,
                Err(StoreError::Overtaken) => {
                    tracing::warn!(order = %order.id, "another process drives this order");
                    return;
                }
                Err(error @ (StoreError::Busy | StoreError::Failed(_))) => {
                    tracing::warn!(order = %order.id, error = &error as &dyn std::error::Error, "trying again");
                    // It may have been performed, and only its record have failed.
                    true
                }
                Err(error @ (StoreError::Corrupt(_) | StoreError::Refused(_))) => {
                    tracing::error!(order = %order.id, error = &error as &dyn std::error::Error, "stuck");
                    metrics::stuck().inc();
                    return;
                }
            };
            let cap = if matches!(order.step, Step::Confirm | Step::Refund(_)) {
                PATIENT
            } else {
                EAGER
            };
            if !self.pause(attempts, cap).await {
                return;
            }
            attempts = attempts.another(in_doubt);
        }
    }

    /// The order as it is recorded now. `None`: it cannot be read, or a shutdown interrupted the wait until it can.
    async fn present(&self, known: &Order) -> Option<Order> {
        let mut attempts = Attempts::FIRST;
        loop {
            let error = match self.inner.store.order(known.id).await {
                Ok(order) => return Some(order),
                Err(error) => error,
            };
            if !matches!(error, StoreError::Busy | StoreError::Failed(_)) {
                tracing::error!(order = %known.id, error = &error as &dyn std::error::Error, "stuck");
                metrics::stuck().inc();
                return None;
            }
            tracing::warn!(order = %known.id, error = &error as &dyn std::error::Error, "cannot read it; again soon");
            if !self.pause(attempts, EAGER).await {
                return None;
            }
            attempts = attempts.another(false);
        }
    }

    /// Waits before another attempt. `false`: a shutdown interrupted it.
    async fn pause(&self, attempts: Attempts, cap: Duration) -> bool {
        let delay = backoff::delay(attempts.count, cap, rand::random());
        tokio::select! {
            () = self.inner.closing.cancelled() => false,
            () = tokio::time::sleep(delay) => true,
        }
    }

    /// Performs the order's step and records the next one.
    async fn perform(&self, order: &mut Order, attempts: Attempts) -> Result<Performed, StoreError> {
        let Inner { store, tickets, .. } = &*self.inner;
        let (next, held) = match order.step.clone() {
            Step::Begin => (Next::Go(Step::Hold), None),
            Step::Hold => {
                let heard = tickets.hold(order).await;
                saga::after_hold(heard_by(order, heard), attempts)
            }
            Step::Debit => {
                failpoint("user.debit.commit.before").await;
                let moved = store.debit(order).await?;
                failpoint("user.debit.commit.after").await;
                return Ok(Performed::moved(moved));
            }
            Step::Confirm => {
                let held = order
                    .held
                    .as_ref()
                    .ok_or(StoreError::Corrupt("a confirmation without a hold"))?;
                let heard = tickets.confirm(order, held).await;
                (saga::after_confirm(heard_by(order, heard)), None)
            }
            Step::Refund(why) => {
                failpoint("user.refund.commit.before").await;
                let moved = store.refund(order, why).await?;
                failpoint("user.refund.commit.after").await;
                return Ok(Performed::moved(moved));
            }
            Step::Release(why) => {
                let heard = tickets.release(order).await;
                (saga::after_release(why, heard_by(order, heard), attempts), None)
            }
            Step::Succeeded(_) | Step::Failed(_) => return Ok(Performed::Again { in_doubt: false }),
        };
        match next {
            Next::Go(step) => {
                failpoints::before_commit(&order.step).await;
                let moved = store.advance(order, step, held).await?;
                failpoints::after_commit(&order.step).await;
                Ok(Performed::moved(moved))
            }
            Next::Again { in_doubt } => Ok(Performed::Again { in_doubt }),
        }
    }
}

impl Performed {
    fn moved(order: Order) -> Self {
        Self::Moved(Box::new(order))
    }
}

/// Notes who answered; it is recorded with the next step.
fn heard_by<T>(order: &mut Order, heard: Heard<T>) -> T {
    if let Some(instance) = heard.instance {
        order.ticket_instance = instance;
    }
    heard.outcome
}

#[cfg(test)]
mod tests;
