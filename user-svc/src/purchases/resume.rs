//! Takes up the purchases that an earlier run left unfinished, each from its recorded step.

use std::time::Duration;

use telemetry::WithContext as _;
use tokio::sync::OwnedSemaphorePermit;

use super::Purchases;
use crate::{
    domain::{order::Order, saga::Attempts},
    store::StoreError,
    trace,
};

/// Orders read at once. They are small; the slots bound what runs.
const PAGE: u32 = 100;

/// How long to leave a store alone that cannot be read.
const RETRY: Duration = Duration::from_secs(1);

impl Purchases {
    /// Starts to take them up, in a task that [`Purchases::finish`] awaits.
    pub(crate) fn resume(&self) {
        let task = self.clone().resume_all();
        self.inner.tasks.spawn(self.clone().until_cut(task));
    }

    async fn resume_all(self) {
        let (mut cursor, mut taken) = (None, 0_usize);
        loop {
            let page = match self.inner.store.unfinished_orders(cursor, PAGE).await {
                Ok(page) => page,
                Err(error @ (StoreError::Busy | StoreError::Failed(_))) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot read unfinished orders; again soon"
                    );
                    tokio::select! {
                        () = self.inner.closing.cancelled() => return,
                        () = tokio::time::sleep(RETRY) => continue,
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot read unfinished orders"
                    );
                    return;
                }
            };
            let Some(last) = page.last() else { break };
            cursor = Some(last.cursor());
            for order in page {
                let slot = tokio::select! {
                    () = self.inner.closing.cancelled() => return,
                    slot = self.inner.slots.clone().acquire_owned() => slot,
                };
                let Ok(slot) = slot else { return };
                taken += usize::from(self.take_up(order, slot));
            }
        }
        if taken > 0 {
            tracing::info!(orders = taken, "took up unfinished purchases");
        }
    }

    /// `false` when it is driven already, by a call that came since the start.
    pub(super) fn take_up(&self, order: Order, slot: OwnedSemaphorePermit) -> bool {
        let (Some(driving), _) = self.inner.register.enter(order.id) else {
            return false;
        };
        let (purchases, context) = (self.clone(), trace::resumed(&order.trace));
        let task = async move {
            purchases.drive(order, Attempts::RESUMED, driving).await;
            drop(slot);
        };
        self.inner
            .tasks
            .spawn(self.clone().until_cut(task).with_context(context));
        true
    }
}
