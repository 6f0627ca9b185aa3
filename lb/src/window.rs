//! Counts over the last while, in slices: what is older than the window is forgotten a slice at a time. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Into how many slices a window is cut: what is counted is the last nine to ten tenths of it.
const SLICES: usize = 10;

/// `N` counts of everything since a window's length ago.
#[derive(Clone, Debug)]
pub(crate) struct Window<const N: usize> {
    slice: Duration,
    slices: [[u32; N]; SLICES],
    /// When the slice at `at` began.
    began: Instant,
    at: usize,
}

impl<const N: usize> Window<N> {
    pub(crate) fn new(length: Duration, now: Instant) -> Self {
        Self {
            slice: (length / SLICES as u32).max(Duration::from_nanos(1)),
            slices: [[0; N]; SLICES],
            began: now,
            at: 0,
        }
    }

    pub(crate) fn add(&mut self, now: Instant, counts: [u32; N]) {
        self.advance(now);
        for (sum, count) in self.slices[self.at].iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
    }

    pub(crate) fn totals(&mut self, now: Instant) -> [u32; N] {
        self.advance(now);
        let mut totals = [0_u32; N];
        for slice in &self.slices {
            for (total, count) in totals.iter_mut().zip(slice) {
                *total = total.saturating_add(*count);
            }
        }
        totals
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began).as_nanos() / self.slice.as_nanos();
        if passed >= SLICES as u128 {
            self.slices = [[0; N]; SLICES];
            self.began = now;
            return;
        }
        for _ in 0..passed {
            self.at = (self.at + 1) % SLICES;
            self.slices[self.at] = [0; N];
            self.began += self.slice;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the list of everything that happened: nothing younger than nine tenths is missing, nothing older than the
        /// whole is counted.
        #[test]
        fn it_counts_what_is_young_and_nothing_that_is_old(
            events in prop::collection::vec((0_u64..4_000, 0_u32..10), 1..100),
        ) {
            let length = Duration::from_secs(10);
            let start = Instant::now();
            let (mut window, mut now) = (Window::<1>::new(length, start), start);
            let mut all = Vec::new();
            for (after, count) in events {
                now += Duration::from_millis(after);
                window.add(now, [count]);
                all.push((now, count));
                let within = |age: Duration| all.iter().filter(|(at, _)| now - *at < age).map(|(_, count)| count).sum::<u32>();
                let [total] = window.totals(now);
                prop_assert!(total >= within(length * 9 / 10), "{total} of {}", within(length * 9 / 10));
                prop_assert!(total <= within(length + Duration::from_millis(1)), "{total} of {}", within(length));
            }
        }
    }
}
