//! A set of leases to draw from at random, and where the randomness comes from.

use std::collections::HashMap;

use crate::model::LeaseId;

/// Leases to draw from.
#[derive(Debug, Default)]
pub(super) struct Pool {
    order: Vec<LeaseId>,
    place: HashMap<LeaseId, usize>,
}

impl Pool {
    /// Adds one that is not there.
    pub(super) fn insert(&mut self, id: LeaseId) {
        self.place.insert(id, self.order.len());
        self.order.push(id);
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(&mut self, id: LeaseId) {
        let Some(place) = self.place.remove(&id) else { return };
        self.order.swap_remove(place);
        if let Some(moved) = self.order.get(place) {
            self.place.insert(*moved, place);
        }
    }

    /// One of them at random.
    pub(super) fn draw(&self, draw: &mut Draw) -> Option<LeaseId> {
        let place = draw.next().checked_rem(self.order.len() as u64)?;
        self.order.get(usize::try_from(place).ok()?).copied()
    }

    /// In no order that means anything.
    pub(super) fn all(&self) -> &[LeaseId] {
        &self.order
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// Many numbers from one: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Draw(pub(super) u64);

impl Draw {
    /// The next one.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
