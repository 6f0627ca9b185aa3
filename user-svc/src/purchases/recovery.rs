//! Takes up the purchases that nobody drives any more, each from its recorded step, and keeps the claims on those that this
//! process drives.
//!
//! Each process looks for lapsed claims by itself; that two look at once costs one conditional write that changes nothing.
//! Looking is an index that holds unfinished orders only, so that an idle store is asked next to nothing.

use std::time::Duration;

use telemetry::WithContext as _;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::{Purchases, metrics};
use crate::{
    domain::{backoff, saga::Attempts},
    store::StoreError,
    trace,
};

/// Orders looked up at once. The slots bound what runs; this bounds what is read for nothing when others were faster.
const BATCH: u32 = 32;

/// The longest wait between two looks, with a jitter: from a half to the whole of it. Where claims lapse sooner, they are looked
/// for as soon.
const LOOK: Duration = Duration::from_secs(1);

/// The longest wait while the store cannot be read.
const RETRY: Duration = Duration::from_secs(5);

impl Purchases {
    /// Starts both, in tasks that [`Purchases::finish`] awaits.
    pub(crate) fn recover(&self) {
        let looking = self.clone().look_for_lapsed();
        self.inner.tasks.spawn(self.clone().until_cut(looking));
        let keeping = self.clone().keep_claims();
        self.inner.keeper.spawn(self.clone().until_cut(keeping));
    }

    /// Three renewals fit in a claim: two may fail.
    async fn keep_claims(self) {
        let store = &self.inner.store;
        loop {
            let turn = store.lease() / 3;
            tokio::time::sleep(turn).await;
            // Younger claims hold until the next turn; most purchases never see one.
            let driven = self.inner.register.driven_for(turn);
            if driven.is_empty() {
                continue;
            }
            if let Err(error) = store.renew_claims(&driven).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "claims were not renewed");
            }
        }
    }

    async fn look_for_lapsed(self) {
        let mut failures = 0_u32;
        loop {
            let wait = match self.take_up_lapsed().await {
                Ok(found) if found == BATCH as usize => Duration::ZERO,
                Ok(_) => {
                    failures = 0;
                    LOOK.min(self.inner.store.lease())
                        .mul_f64(rand::random_range(0.5..=1.0))
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot look for unfinished orders; again soon"
                    );
                    failures = failures.saturating_add(1);
                    backoff::delay(failures, RETRY, rand::random_range(0.5..=1.0))
                }
            };
            tokio::select! {
                biased;
                () = self.inner.closing.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How many there were, whoever got them.
    async fn take_up_lapsed(&self) -> Result<usize, StoreError> {
        let lapsed = self.inner.store.lapsed_orders(BATCH).await?;
        for id in &lapsed {
            let slot = tokio::select! {
                biased;
                () = self.inner.closing.cancelled() => break,
                slot = self.inner.slots.clone().acquire_owned() => slot,
            };
            let Ok(slot) = slot else { break };
            self.take_up(*id, slot).await?;
        }
        Ok(lapsed.len())
    }

    /// `false` when there is nothing to take up: it is driven, here or elsewhere, or has ended.
    pub(super) async fn take_up(&self, id: Uuid, slot: OwnedSemaphorePermit) -> Result<bool, StoreError> {
        let Some(driving) = self.inner.register.enter(id) else {
            return Ok(false);
        };
        let Some(order) = self.inner.store.claim_order(id).await? else {
            return Ok(false);
        };
        tracing::info!(order = %order.id, step = order.step.name(), "took up an unfinished purchase");
        metrics::recovered().inc();
        let purchases = self.clone();
        let (work, context) = trace::resumed(&order);
        let task = async move {
            purchases.drive(order, Attempts::RESUMED, driving).await;
            drop((work, slot));
        };
        self.inner
            .tasks
            .spawn(self.clone().until_cut(task).with_context(context));
        Ok(true)
    }
}
