//! Which instances are taken out of service because they fail, and how they come back.
//!
//! An instance that answers and fails is worse than a dead one: it stays connected, and failing is quick, so that a pick by load
//! sends it more than its share. Two judgements take it out: several failures in a row, at once, in the task of the call that saw
//! the last one (Envoy's consecutive errors), and sweeps over the last interval that compare it with the others (gRFC A50). It
//! comes back by proof: when its time is over one real call is let through, and how that ends decides. Letting it all the way in
//! instead, as A50 does, costs a whole row of failures each time somebody is still broken.
//!
//! What keeps this from doing harm: only a share of all may be out at a time, and when too few would be left, everybody can be
//! picked again (`panic`). Connections are kept; whether an instance is connected is no business of this module, nor is picking.
//!
//! [`Record`] is what calls write (atomics); [`Standing`] the life of an ejection as types; [`sweep`] the comparison. All pure but
//! for the atomics; the pool's `care` performs it.

mod config;
mod record;
mod standing;
mod sweep;

pub use config::{FailurePercentage, OutlierDetection, SuccessRate};
pub(crate) use record::Record;
pub use standing::{Ejection, EjectionReason};
pub(crate) use standing::{InService, Standing};
pub(crate) use sweep::{Host, sweep};

/// Whether one more may be ejected when `ejected` of `all` are. gRFC A50: it stops at the percentage or above it, so with any
/// percentage but zero one may always be, and of few instances the last one ejected may exceed it.
pub(crate) fn may_eject(ejected: usize, all: usize, percent: u8) -> bool {
    ejected * 100 < all * usize::from(percent)
}

/// Whether so few of those connected can be picked that all shall be: a guess of who is well must not put the whole load on a
/// few. Envoy's panic threshold, here of what is connected, since what is not can be picked in no case, and of what a call's route
/// leads to.
pub(crate) fn panics(pickable: usize, connected: usize, threshold_percent: u8) -> bool {
    pickable * 100 < connected * usize::from(threshold_percent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_percent_of_twenty_is_two_and_of_few_it_is_one() {
        let most = |all| (0..all).take_while(|ejected| may_eject(*ejected, all, 10)).count();
        assert_eq!([1, 2, 5, 10, 11, 20, 21].map(most), [1, 1, 1, 1, 2, 2, 3]);
        assert!(!may_eject(0, 10, 0));
    }

    #[test]
    fn half_is_enough_and_less_is_not() {
        assert!(!panics(1, 2, 50));
        assert!(panics(0, 1, 50));
        assert!(panics(9, 20, 50) && !panics(10, 20, 50));
        assert!(!panics(0, 5, 0));
        assert!(!panics(0, 0, 50));
    }

    proptest! {
        #[test]
        fn the_cap_holds_within_one(all in 1_usize..500, percent in 0_u8..=100) {
            let ejected = (0..all).take_while(|ejected| may_eject(*ejected, all, percent)).count();
            prop_assert!(ejected * 100 < all * usize::from(percent) + 100);
            prop_assert_eq!(ejected == 0, percent == 0);
        }
    }
}
