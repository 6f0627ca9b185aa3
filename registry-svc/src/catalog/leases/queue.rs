//! Who is due when: for each lease whose time is counted here the deadline that it had when it was last queued, which is never
//! later than the true one. What comes up early is queued again, which happens at most once in a time to live.

use super::{
    super::{
        LeaseTime,
        wheel::{Tick, Wheel},
    },
    lease::Lease,
};
use crate::model::LeaseId;

/// Entries of the queue that nobody means any more before they are worth a sweep.
const STALE_MAX: usize = 4_096;

/// Who is due when, and what the queue has to tell.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) wheel: Wheel,
    /// How many leases stand in it.
    pub(super) len: usize,
    /// Those that were held back and are not any more, since `Leases::take_released`.
    pub(super) released: Vec<LeaseId>,
}

impl Queue {
    /// Nobody stands in it.
    pub(super) fn new(now: LeaseTime) -> Self {
        Self {
            wheel: Wheel::new(now),
            len: 0,
            released: Vec::new(),
        }
    }

    /// Makes a lease due at a time; the queue must never be later than that.
    pub(super) fn schedule(&mut self, id: LeaseId, lease: &mut Lease, deadline: LeaseTime) {
        lease.deadline = deadline;
        self.release(id, lease);
        let at = self.wheel.tick(deadline);
        if lease.queued.is_none_or(|queued| at.is_before(queued)) {
            self.put(id, lease, at);
        }
    }

    /// Puts a lease where it comes up at a tick, instead of where it stands.
    pub(super) fn put(&mut self, id: LeaseId, lease: &mut Lease, at: Tick) {
        if lease.queued.replace(at).is_none() {
            self.len += 1;
        }
        self.wheel.insert(id, at);
    }

    /// Its time is not counted any more.
    pub(super) fn forget(&mut self, id: LeaseId, lease: &mut Lease) {
        self.release(id, lease);
        if lease.queued.take().is_some() {
            self.len -= 1;
        }
    }

    fn release(&mut self, id: LeaseId, lease: &mut Lease) {
        if std::mem::take(&mut lease.held) {
            self.released.push(id);
        }
    }

    pub(super) fn has_too_many_stale(&self) -> bool {
        self.wheel.len() > 2 * self.len + STALE_MAX
    }
}
