//! Drives purchases, and refunds of them: performs the recorded step, asks `domain::saga` what follows, records it. Decides nothing itself.
//!
//! Each purchase runs in a task that this owns, not in the call that asked for it: a caller who hangs up does not stop a
//! purchase half-way. At most so many run at once; more callers are told to come back.
//!
//! Several processes may share a store. Each order is driven by the one that has claimed it (`store::claims`); the others
//! follow it by looking. A claim lapses unless it is renewed, and `recovery` takes up what has lapsed. On shutdown, purchases
//! that wait for a retry stop at once and their claims are given up, the others get the grace.

mod metrics;
mod recovery;
mod running;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use service_store::failpoint;
use telemetry::{Context, WithContext as _};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub(crate) use self::running::Following;
use self::running::{Driving, Register};
use crate::{
    domain::{
        backoff,
        order::{Failing, NewOrder, NewRefund, Order},
        saga::{self, Attempts, HoldOutcome, Next, Step},
        sold_out::SoldOut,
    },
    failpoints,
    store::{Recorded, Store, StoreError},
    tickets::{Heard, Tickets},
    trace,
};

/// The longest wait between attempts while nothing is paid: somebody is waiting for the answer.
const EAGER: Duration = Duration::from_secs(1);
/// The longest wait between attempts at what goes on for as long as it takes: to confirm what is paid, to refund.
const PATIENT: Duration = Duration::from_secs(5);
/// How long an order is left alone that cannot go on without somebody's help.
const STUCK: Duration = Duration::from_secs(60);
/// The longest wait between two looks at an order that another process drives, and the shortest is a tenth of it.
const LOOK: Duration = Duration::from_millis(500);

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
    /// What was refused a moment ago.
    sold_out: Mutex<SoldOut>,
    tasks: TaskTracker,
    /// Renews claims for as long as `tasks` may need them, so it ends after them.
    keeper: TaskTracker,
    /// Unfinished purchases that a shutdown interrupted at a wait.
    left: AtomicU64,
    /// No new purchases, no more waiting for retries.
    closing: CancellationToken,
    /// The grace is over.
    cut: CancellationToken,
}

/// What is asked for.
#[derive(Debug, Clone)]
enum Asked {
    Purchase(NewOrder),
    Refund(NewRefund),
}

/// Why a purchase or a refund was not taken on.
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
            sold_out: Mutex::default(),
            tasks: TaskTracker::new(),
            keeper: TaskTracker::new(),
            left: AtomicU64::new(0),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        metrics::measure(&inner.register);
        Self { inner: Arc::new(inner) }
    }

    /// Records the order and buys what it says. Answers once it is recorded and somebody drives it. The same request again
    /// joins the running purchase, wherever it runs, or takes it up.
    pub(crate) async fn buy(&self, new: NewOrder) -> Result<Order, BuyError> {
        self.take_on(Asked::Purchase(new)).await
    }

    /// Records that the money of an order is asked back and gives it back, as [`Purchases::buy`] buys.
    pub(crate) async fn refund(&self, new: NewRefund) -> Result<Order, BuyError> {
        self.take_on(Asked::Refund(new)).await
    }

    async fn take_on(&self, asked: Asked) -> Result<Order, BuyError> {
        // Before a slot is taken: what is under way has its own.
        if let Some(joined) = self.join(&asked).await? {
            return Ok(joined);
        }
        if let Asked::Purchase(new) = &asked
            && let Some(why) = self.known_refusal(new)
        {
            // The answer is kept as any other: asked again, it is the same.
            let recorded = self.inner.store.record_failed(new, &trace::current(), why).await?;
            return Ok(recorded.into_order());
        }
        let slot = match self.slot() {
            Ok(slot) => slot,
            // It may have started or ended since that look, and its own slot be the one that is missing.
            Err(error) => return self.join(&asked).await?.ok_or(error),
        };
        let (recorded, heard) = oneshot::channel();
        let (purchases, context) = (self.clone(), trace::of_purchase(&Context::current()));
        // Recorded within the task too: were the caller to hang up between the record and the start, nobody would start it.
        let task = async move { purchases.record_and_drive(asked, slot, recorded).await };
        self.inner
            .tasks
            .spawn(self.clone().until_cut(task).with_context(context));
        // The sender is dropped unsent only when the grace of a shutdown is over.
        heard.await.unwrap_or(Err(BuyError::Closing))
    }

    /// The order, if the same request recorded it before and it has ended or is driven now: nothing is left to start.
    async fn join(&self, asked: &Asked) -> Result<Option<Order>, StoreError> {
        let order = match asked {
            Asked::Purchase(new) => self.inner.store.recorded_order(new).await?,
            Asked::Refund(new) => self.inner.store.asked_refund(new).await?,
        };
        Ok(order.filter(|order| {
            let is_driven = order.claim.until > self.inner.store.now() || self.follow(order.id).is_some();
            order.is_final() || is_driven
        }))
    }

    /// A way to follow an order, if this process drives it now.
    pub(crate) fn follow(&self, order_id: uuid::Uuid) -> Option<Following> {
        self.inner.register.follow(order_id)
    }

    /// The order in its final state, or as it is when `give_up` has come or this process ends. Whoever drives it: what another
    /// process does is seen by looking.
    pub(crate) async fn settled(&self, mut order: Order, give_up: Instant) -> Result<Order, StoreError> {
        let mut look = LOOK / 10;
        while !order.is_final() && Instant::now() < give_up {
            match self.follow(order.id) {
                // Either way the store has the answer.
                Some(mut following) => drop(tokio::time::timeout_at(give_up, following.ended()).await),
                None if self.inner.closing.is_cancelled() => break,
                None => {
                    tokio::time::sleep_until(give_up.min(Instant::now() + look)).await;
                    look = (look * 2).min(LOOK);
                }
            }
            order = self.inner.store.order(order.id).await?;
        }
        Ok(order)
    }

    /// Lets no new purchase start, waits at most `grace` for the running ones, gives up the claims on those that are left, and
    /// answers how many these are. Another process goes on with them, or the next start.
    pub(crate) async fn finish(&self, grace: Duration) -> Result<u64, StoreError> {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.keeper.close();
        // Either they have all ended, or what has not is cut now.
        let _ = tokio::time::timeout(grace, self.inner.tasks.wait()).await;
        self.inner.cut.cancel();
        self.inner.tasks.wait().await;
        self.inner.keeper.wait().await;
        let cut = self.inner.store.give_up_claims().await?;
        Ok(cut + self.inner.left.load(Ordering::Relaxed))
    }

    /// Ends all purchases at once when the guard is dropped, as a crash would.
    pub(crate) fn cut_on_drop(&self) -> DropGuard {
        self.inner.cut.clone().drop_guard()
    }

    /// What the ticket service would say, because it has just said it.
    fn known_refusal(&self, new: &NewOrder) -> Option<Failing> {
        let now = std::time::Instant::now();
        self.sold_out().known(new.event_id, &new.selection, now)
    }

    fn sold_out(&self) -> MutexGuard<'_, SoldOut> {
        // Nothing can panic while it is held.
        self.inner.sold_out.lock().unwrap_or_else(PoisonError::into_inner)
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
        asked: Asked,
        slot: OwnedSemaphorePermit,
        recorded: oneshot::Sender<Result<Order, BuyError>>,
    ) {
        // Registered first: what this process has claimed it shows as driven, whoever looks.
        let driving = self.enter(asked.order_id()).await;
        let (order, claimed) = match self.record(&asked).await {
            Ok(Recorded::New(order)) => (order.clone(), Ok(Some((order, Attempts::FIRST)))),
            // Another process's, or left behind by one. With a claim it is read anew: it may have moved since.
            Ok(Recorded::Before(order)) if driving.is_some() && !order.is_final() => {
                let claimed = self.inner.store.claim_order(order.id).await;
                (
                    order,
                    claimed.map(|order| order.map(|order| (order, Attempts::RESUMED))),
                )
            }
            Ok(Recorded::Before(order)) => (order, Ok(None)),
            Err(error) => {
                // Nobody listens any more: nothing to tell.
                let _ = recorded.send(Err(error.into()));
                return;
            }
        };
        // Whether it can be taken up now or not: it is recorded, and followed from there.
        let _ = recorded.send(Ok(order));
        match (driving, claimed) {
            (Some(driving), Ok(Some((order, attempts)))) => self.drive(order, attempts, driving).await,
            (_, Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a purchase waits to be taken up"
            ),
            _ => {}
        }
        drop(slot);
    }

    /// Registers as the driver of an order, unless it is driven. One that has ended is for the moment that its driver takes to
    /// leave; a refund waits that moment.
    async fn enter(&self, order_id: uuid::Uuid) -> Option<Driving> {
        loop {
            if let Some(driving) = self.inner.register.enter(order_id) {
                return Some(driving);
            }
            if !self.inner.store.order(order_id).await.ok()?.is_final() {
                return None;
            }
            if let Some(mut following) = self.follow(order_id) {
                following.ended().await;
            }
        }
    }

    async fn record(&self, asked: &Asked) -> Result<Recorded, StoreError> {
        match asked {
            Asked::Purchase(new) => {
                failpoint("user.record.commit.before").await;
                let recorded = self.inner.store.record_order(new, &trace::current()).await;
                failpoint("user.record.commit.after").await;
                recorded
            }
            Asked::Refund(new) => {
                let parent = trace::parent_of(&Context::current());
                failpoint("user.ask.commit.before").await;
                let recorded = self.inner.store.begin_refund(new, &parent).await;
                failpoint("user.ask.commit.after").await;
                recorded
            }
        }
    }

    /// Performs step after step until the order is final, a shutdown interrupts a wait, or the store says that someone else
    /// drives it. `order` was read under this process's claim.
    async fn drive(&self, mut order: Order, mut attempts: Attempts, driving: Driving) {
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
                    metrics::overtaken().inc();
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
                    self.let_go(&order, STUCK).await;
                    return;
                }
            };
            let goes_on = matches!(
                order.step,
                Step::Confirm | Step::Refund(_) | Step::Revoke(_) | Step::Repay(_)
            );
            let cap = if goes_on { PATIENT } else { EAGER };
            if !self.pause(attempts, cap).await {
                // So that another process goes on at once.
                self.let_go(&order, Duration::ZERO).await;
                self.inner.left.fetch_add(1, Ordering::Relaxed);
                return;
            }
            attempts = attempts.another(in_doubt);
        }
    }

    /// Gives up the claim, to be taken up by anyone after that time. What cannot be given up lapses.
    async fn let_go(&self, order: &Order, rest: Duration) {
        if let Err(error) = self.inner.store.give_up_claim(order, rest).await {
            tracing::warn!(order = %order.id, error = &error as &dyn std::error::Error, "its claim lapses by itself");
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
                let outcome = heard_by(order, heard);
                if let HoldOutcome::Refused(why) = &outcome {
                    let now = std::time::Instant::now();
                    self.sold_out().refused(order.event_id, &order.selection, why, now);
                }
                saga::after_hold(outcome, attempts)
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
            Step::Revoke(sold) => {
                let heard = tickets.revoke(order, &sold).await?;
                let (next, refused) = saga::after_revoke(sold, heard_by(order, heard));
                if let Some(refund) = &mut order.refund {
                    // Recorded with the next step.
                    refund.refused = refused;
                }
                (next, None)
            }
            Step::Repay(_) => {
                failpoint("user.repay.commit.before").await;
                let moved = store.repay(order).await?;
                failpoint("user.repay.commit.after").await;
                return Ok(Performed::moved(moved));
            }
            Step::Succeeded(_) | Step::Refunded(_) | Step::Failed(_) => {
                return Ok(Performed::Again { in_doubt: false });
            }
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

impl Asked {
    fn order_id(&self) -> uuid::Uuid {
        match self {
            Self::Purchase(new) => new.id,
            Self::Refund(new) => new.order_id,
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
