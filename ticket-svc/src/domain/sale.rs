//! When an event is sold, and how much of it to one buyer.

use service_store::{Invalid, Timestamp};

use super::refusal::Refusal;

/// The most live holds of one buyer for one event: more than any honest buyer has, who chooses again a few times, and few
/// enough that a program that holds for sport takes at most 500 seats out of the sale, where the event has no limit of its own.
pub(crate) const MAX_LIVE_HOLDS: u32 = 50;

/// From when to when seats may be held. Open at both ends where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SaleWindow {
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
}

/// Whether an event is on sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaleState {
    NotOpen { until: Timestamp },
    Open,
    Closed { since: Timestamp },
}

/// The most seats that one buyer may have held and bought together: 1 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuyerCap(u32);

/// What a buyer has of an event at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BuyersShare {
    /// Holds that live.
    pub(crate) live_holds: u32,
    /// Seats held and bought.
    pub(crate) seats: u32,
    /// When the first of the live holds ends.
    pub(crate) next_lapse: Option<Timestamp>,
}

impl SaleWindow {
    pub(crate) fn try_new(starts_at: Option<Timestamp>, ends_at: Option<Timestamp>) -> Result<Self, Invalid> {
        if let (Some(starts), Some(ends)) = (starts_at, ends_at)
            && ends <= starts
        {
            return Err(Invalid("must be after sale_starts_at"));
        }
        Ok(Self { starts_at, ends_at })
    }

    pub(crate) fn starts_at(&self) -> Option<Timestamp> {
        self.starts_at
    }

    pub(crate) fn ends_at(&self) -> Option<Timestamp> {
        self.ends_at
    }

    /// The first instant belongs to the sale, the last one does not.
    pub(crate) fn state_at(&self, now: Timestamp) -> SaleState {
        match (self.starts_at, self.ends_at) {
            (Some(until), _) if now < until => SaleState::NotOpen { until },
            (_, Some(since)) if since <= now => SaleState::Closed { since },
            _ => SaleState::Open,
        }
    }

    /// May seats be held now?
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), Refusal> {
        match self.state_at(now) {
            SaleState::Open => Ok(()),
            SaleState::NotOpen { until } => Err(Refusal::SaleNotOpen(until)),
            SaleState::Closed { since } => Err(Refusal::SaleClosed(since)),
        }
    }
}

impl BuyerCap {
    pub(crate) fn try_new(seats: u32) -> Result<Self, Invalid> {
        if !(1..=1_000).contains(&seats) {
            return Err(Invalid("must be 1 to 1,000, or 0 for no limit"));
        }
        Ok(Self(seats))
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl BuyersShare {
    /// May the buyer hold `wanted` seats more at `now`?
    pub(crate) fn check(&self, cap: Option<BuyerCap>, wanted: u32, now: Timestamp) -> Result<(), Refusal> {
        if let Some(BuyerCap(cap)) = cap
            && self.seats.saturating_add(wanted) > cap
        {
            return Err(Refusal::BuyerCap {
                cap,
                has: self.seats,
                wanted,
            });
        }
        match self.next_lapse {
            Some(until) if self.live_holds >= MAX_LIVE_HOLDS => Err(Refusal::TooManyHolds {
                live: self.live_holds,
                wait: until.since(now),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn a_sale_begins_at_its_first_instant_and_is_over_at_its_last() {
        let window = SaleWindow::try_new(Some(at(10)), Some(at(20))).expect("in order");
        for (now, expected) in [
            (9, Err(Refusal::SaleNotOpen(at(10)))),
            (10, Ok(())),
            (19, Ok(())),
            (20, Err(Refusal::SaleClosed(at(20)))),
        ] {
            assert_eq!(window.check(at(now)), expected, "at {now}");
        }
        for now in [i64::MIN, 0, i64::MAX] {
            assert_eq!(SaleWindow::default().check(at(now)), Ok(()));
        }
        for (starts, ends) in [(5, 5), (5, 4)] {
            assert!(SaleWindow::try_new(Some(at(starts)), Some(at(ends))).is_err());
        }
    }

    #[test]
    fn a_buyer_gets_as_many_as_the_event_allows_and_no_more() {
        let cap = Some(BuyerCap::try_new(4).expect("in range"));
        let has = |seats| BuyersShare {
            seats,
            ..BuyersShare::default()
        };
        assert_eq!(has(0).check(cap, 4, at(0)), Ok(()));
        assert_eq!(has(2).check(cap, 2, at(0)), Ok(()));
        let refused = |has, wanted| Err(Refusal::BuyerCap { cap: 4, has, wanted });
        assert_eq!(has(2).check(cap, 3, at(0)), refused(2, 3));
        assert_eq!(has(u32::MAX).check(cap, 1, at(0)), refused(u32::MAX, 1));
        assert_eq!(has(900).check(None, 10, at(0)), Ok(()));
    }

    #[test]
    fn a_buyer_with_fifty_live_holds_waits_for_the_first_to_end() {
        let share = |live_holds| BuyersShare {
            live_holds,
            seats: live_holds,
            next_lapse: Some(at(7)),
        };
        assert_eq!(share(49).check(None, 1, at(2)), Ok(()));
        let refused = Refusal::TooManyHolds {
            live: 50,
            wait: Duration::from_nanos(5),
        };
        assert_eq!(share(50).check(None, 1, at(2)), Err(refused));
    }
}
