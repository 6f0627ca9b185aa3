//! What a pick reads of an endpoint, close together: the calls in flight and the moving averages of all endpoints of a channel lie in
//! a few dense blocks, one cache line each.
//!
//! Where these numbers are part of each endpoint's own allocation, a pick among ten thousand waits for memory: for the member, the
//! endpoint, and the averages further down in it. Here it waits for the line that it compares, and nothing else. It decides
//! nothing.

use std::sync::{Arc, Mutex, PoisonError};

use super::{ewma::Ewma, occupancy::Occupancy};

/// Endpoints a block. A channel to five has one block; one to ten thousand has 157.
const BLOCK: usize = 64;

/// What is read by every pick, and written by every call. A line of its own: two endpoints that are written by different cores
/// would take it from each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Hot {
    /// Calls under way.
    pub(crate) occupancy: Occupancy,
    pub(super) ewma: Ewma,
}

type Block = Arc<[Hot; BLOCK]>;

/// The blocks of one channel, and which places in them are free.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    blocks: Vec<Block>,
    /// Given back by endpoints that are gone.
    free: Vec<u32>,
    /// The first place that was never given out.
    next: u32,
}

/// One place of an endpoint, for as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    block: Block,
    number: u32,
}

/// The places of some endpoints in the order in which they are picked from. Whoever holds it holds the endpoints, too, or the places
/// would be somebody else's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    blocks: Vec<Block>,
    numbers: Vec<u32>,
}

impl Blocks {
    /// A place that nobody has, as new.
    pub(super) fn take(&self) -> Place {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inner.free.pop().unwrap_or_else(|| {
            inner.next += 1;
            inner.next - 1
        });
        let at = number as usize / BLOCK;
        if at == inner.blocks.len() {
            inner.blocks.push(Arc::new(std::array::from_fn(|_| Hot::default())));
        }
        let block = Arc::clone(&inner.blocks[at]);
        drop(inner);
        let place = Place { block, number };
        place.hot().occupancy.renew();
        place.hot().ewma.forget();
        place
    }

    /// Its endpoint is gone, and with it every set that it was in.
    pub(super) fn give_back(&self, place: &Place) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.free.push(place.number);
    }
}

impl Place {
    pub(super) fn hot(&self) -> &Hot {
        &self.block[self.number as usize % BLOCK]
    }
}

impl Places {
    pub(super) fn new<'a>(places: impl Iterator<Item = &'a Place>) -> Self {
        let mut this = Self::default();
        let mut last = 0;
        for place in places {
            // Neighbours are mostly of one block.
            let is_it = |block: &Block| Arc::ptr_eq(block, &place.block);
            if !this.blocks.get(last).is_some_and(is_it) {
                last = this.blocks.iter().position(is_it).unwrap_or_else(|| {
                    this.blocks.push(Arc::clone(&place.block));
                    this.blocks.len() - 1
                });
            }
            this.numbers.push((last * BLOCK) as u32 + place.number % BLOCK as u32);
        }
        this
    }

    /// That of the candidate at `index`.
    pub(crate) fn hot(&self, index: usize) -> &Hot {
        let number = self.numbers[index] as usize;
        &self.blocks[number / BLOCK][number % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_one_is_a_line() {
        assert_eq!(size_of::<Hot>(), 64);
    }

    #[test]
    fn places_are_found_by_the_order_they_are_asked_in() {
        let blocks = Blocks::default();
        let places: Vec<Place> = (0..200).map(|_| blocks.take()).collect();
        for (count, place) in places.iter().enumerate() {
            (0..count).for_each(|_| place.hot().occupancy.enter());
        }
        let elsewhere = Blocks::default().take();
        (0..1000).for_each(|_| elsewhere.hot().occupancy.enter());
        let backwards = Places::new(places.iter().rev().chain([&elsewhere]));
        for index in 0..200 {
            assert_eq!(backwards.hot(index).occupancy.calls(), 199 - index as u32);
        }
        assert_eq!(backwards.hot(200).occupancy.calls(), 1000);
    }

    #[test]
    fn a_place_that_was_given_back_is_taken_as_new_and_nothing_grows() {
        let blocks = Blocks::default();
        for _ in 0..1000 {
            let place = blocks.take();
            assert_eq!(place.number, 0);
            assert_eq!(place.hot().occupancy.calls(), 0);
            place.hot().occupancy.enter();
            blocks.give_back(&place);
        }
    }
}
