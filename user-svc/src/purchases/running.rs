//! Which orders this process drives now, and how to hear of their changes. The store has the orders themselves: what is
//! passed here only says that it is time to look.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use uuid::Uuid;

/// The orders that are driven, each with the version it has reached. Bounded by the slots for purchases.
#[derive(Debug, Default, Clone)]
pub(super) struct Register(Arc<Mutex<HashMap<Uuid, Driven>>>);

/// An order that is driven: the version it has reached, and since when.
#[derive(Debug)]
struct Driven {
    version: watch::Receiver<i64>,
    since: Instant,
}

/// Held by the one who drives an order; its end is the end of the driving, however it comes about.
#[derive(Debug)]
pub(super) struct Driving {
    order_id: Uuid,
    version: watch::Sender<i64>,
    register: Register,
}

/// Hears of an order's changes.
#[derive(Debug, Clone)]
pub(crate) struct Following(watch::Receiver<i64>);

impl Register {
    /// Registers as the driver of an order. `None` when this process drives it already.
    pub(super) fn enter(&self, order_id: Uuid) -> Option<Driving> {
        let mut driven = self.lock();
        if driven.contains_key(&order_id) {
            return None;
        }
        let (sender, version) = watch::channel(0);
        let since = Instant::now();
        driven.insert(order_id, Driven { version, since });
        Some(Driving {
            order_id,
            version: sender,
            register: self.clone(),
        })
    }

    pub(super) fn follow(&self, order_id: Uuid) -> Option<Following> {
        let driven = self.lock();
        driven.get(&order_id).map(|driven| Following(driven.version.clone()))
    }

    /// How many orders are driven, and for how long the oldest has been.
    pub(super) fn driven(&self) -> (usize, Duration) {
        let driven = self.lock();
        let oldest = driven.values().map(|driven| driven.since).min();
        (driven.len(), oldest.map(|since| since.elapsed()).unwrap_or_default())
    }

    /// The orders that have been driven for that long. Always in one order, so that writers of them do not cross.
    pub(super) fn driven_for(&self, time: Duration) -> Vec<Uuid> {
        let driven = self.lock();
        let old = driven.iter().filter(|(_, driven)| driven.since.elapsed() >= time);
        let mut ids: Vec<Uuid> = old.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Driven>> {
        // Nothing can panic while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driving {
    pub(super) fn moved(&self, version: i64) {
        self.version.send_replace(version);
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.register.lock().remove(&self.order_id);
    }
}

impl Following {
    /// Waits for the next change after the last one seen. `false`: nobody drives it any more.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Takes all changes until now as seen. Call it before looking at the store, so that none falls in between.
    pub(crate) fn seen(&mut self) {
        self.0.mark_unchanged();
    }

    /// Waits until nobody drives it any more: it is final, or left for later.
    pub(crate) async fn ended(&mut self) {
        while self.changed().await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_drives_many_follow_and_all_hear_the_end() {
        let register = Register::default();
        let order = Uuid::from_u128(1);
        let driving = register.enter(order).expect("nobody drives it");
        let follow = || register.follow(order).expect("it is driven");
        let (mut first, mut second) = (follow(), follow());
        assert!(register.enter(order).is_none());
        driving.moved(2);
        assert!(first.changed().await && second.changed().await);
        drop(driving);
        assert!(!first.changed().await);
        second.ended().await;
        assert!(register.follow(order).is_none());
        assert!(register.enter(order).is_some(), "it can be taken up again");
    }
}
