//! An instance that is removed while calls go to it.

use std::sync::Arc;

use loom::{
    sync::{
        Notify,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::occupancy::Occupancy;

/// An instance with one connection. Calls have it from a snapshot of the ready set, which may be an old one: arc-swap keeps that
/// alive as long as somebody reads it, so it is not what can go wrong here.
struct Instance {
    occupancy: Occupancy,
    /// As `Connection::close` sets it, and `Connection::try_room` sees it.
    is_closed: AtomicBool,
    /// The task behind the connection has ended: whatever is sent on it now is lost.
    is_gone: AtomicBool,
    idle: Notify,
}

impl Instance {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            occupancy: Occupancy::default(),
            is_closed: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            idle: Notify::new(),
        })
    }

    /// What a call does that has picked it: `Endpoint::begin`, the look at the connection, the exchange, and the drop of its guard.
    fn call(&self) {
        self.occupancy.enter();
        if !self.is_closed.load(Ordering::Acquire) {
            assert!(!self.is_gone.load(Ordering::Acquire), "nothing is there any more");
            // The answer takes its time.
            thread::yield_now();
            assert!(!self.is_gone.load(Ordering::Acquire), "it was taken away under a call");
        }
        if self.occupancy.exit() {
            self.idle.notify();
        }
    }

    /// What its removal does: `Pool::apply`, then the end of its driver.
    fn remove(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.occupancy.leave();
        while !self.occupancy.is_empty() {
            self.idle.wait();
        }
        self.is_gone.store(true, Ordering::Release);
    }
}

pub(super) fn old_snapshot() {
    let instance = Instance::new();
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let instance = Arc::clone(&instance);
            thread::spawn(move || instance.call())
        })
        .collect();
    instance.remove();
    for caller in callers {
        caller.join().expect("no panic");
    }
    assert_eq!(instance.occupancy.calls(), 0, "and none is counted in the end");
}

/// loom finds a wait without an end.
pub(super) fn last_call() {
    let instance = Instance::new();
    // Under way already.
    instance.occupancy.enter();
    let caller = {
        let instance = Arc::clone(&instance);
        thread::spawn(move || {
            if instance.occupancy.exit() {
                instance.idle.notify();
            }
        })
    };
    instance.remove();
    caller.join().expect("no panic");
}
