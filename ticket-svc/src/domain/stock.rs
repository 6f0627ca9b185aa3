//! One seat through its life: free, held, sold, and free again. Each state is a type, and what may follow consumes it, so that a
//! seat that was never held cannot be sold.
//!
//! A seat carries the version that it was read with. A transition keeps it: what is written is written on condition that the seat
//! still has that version, and makes it the next one. So of two that read the same seat one writes, whatever each of them decided.
//!
//! ```text
//!            hold                  sell
//!   Free ───────────▶ Held ──────────────────▶ Sold
//!    ▲                 │  give_back, lapse       │
//!    ├─────────────────┘                         │
//!    └───────────────────────────────────────────┘ refund
//! ```

use service_store::Timestamp;

use super::{hold::FencingToken, seat::SeatState};

/// How often a seat was written. Grows by one with each write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) i64);

/// A seat that can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) version: Version,
}

/// A seat that is kept for the owner of a hold until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) version: Version,
    pub(crate) by: FencingToken,
    pub(crate) until: Timestamp,
}

/// A seat with a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sold {
    pub(crate) version: Version,
    pub(crate) by: FencingToken,
}

/// A seat as it was last written, in whichever state that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seat {
    Free(Free),
    Held(Held),
    Sold(Sold),
}

impl Free {
    /// Free → Held.
    pub(crate) fn hold(self, by: FencingToken, until: Timestamp) -> Held {
        Held {
            version: self.version,
            by,
            until,
        }
    }
}

impl Held {
    /// Held → Sold, by the hold that has it. By its token and not by the clock: whether it is in time is the hold's to say, and a seat
    /// that went to a later hold is that one's.
    pub(crate) fn sell(self, by: FencingToken) -> Result<Sold, Self> {
        if self.by == by {
            Ok(Sold {
                version: self.version,
                by,
            })
        } else {
            Err(self)
        }
    }

    /// Held → Free, by the hold that has it.
    pub(crate) fn give_back(self, by: FencingToken) -> Result<Free, Self> {
        if self.by == by {
            Ok(Free { version: self.version })
        } else {
            Err(self)
        }
    }

    /// Held → Free, by time.
    pub(crate) fn lapse(self, now: Timestamp) -> Result<Free, Self> {
        if self.until <= now {
            Ok(Free { version: self.version })
        } else {
            Err(self)
        }
    }
}

impl Sold {
    /// Sold → Free, by the hold that sold it.
    pub(crate) fn refund(self, by: FencingToken) -> Result<Free, Self> {
        if self.by == by {
            Ok(Free { version: self.version })
        } else {
            Err(self)
        }
    }
}

impl Seat {
    /// As a buyer sees it. A hold that has run out counts as free, whether or not anyone has tidied it away.
    pub(crate) fn state_at(self, now: Timestamp) -> SeatState {
        match self {
            Self::Free(_) => SeatState::Free,
            Self::Held(held) => held.lapse(now).map_or(SeatState::Held, |_| SeatState::Free),
            Self::Sold(_) => SeatState::Sold,
        }
    }
}

/// What stores do in SQL (`FREE` in store/take.rs), for the model of one in `simulation`.
#[cfg(test)]
impl Seat {
    pub(crate) fn version(self) -> Version {
        match self {
            Self::Free(seat) => seat.version,
            Self::Held(seat) => seat.version,
            Self::Sold(seat) => seat.version,
        }
    }

    /// The seat as one that can be held now, if it is.
    pub(crate) fn available(self, now: Timestamp) -> Option<Free> {
        match self {
            Self::Free(free) => Some(free),
            Self::Held(held) => held.lapse(now).ok(),
            Self::Sold(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: FencingToken = FencingToken(1);
    const LATE: FencingToken = FencingToken(2);
    const VERSION: Version = Version(5);

    const fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn only_the_hold_that_has_a_seat_moves_it_on() {
        let held = Free { version: VERSION }.hold(LATE, at(100));
        assert_eq!(held.sell(EARLY), Err(held));
        assert_eq!(held.give_back(EARLY), Err(held));
        assert_eq!(held.give_back(LATE), Ok(Free { version: VERSION }));
        let sold = held.sell(LATE).expect("its own");
        assert_eq!(sold.refund(EARLY), Err(sold));
        assert_eq!(sold.refund(LATE), Ok(Free { version: VERSION }));
    }

    #[test]
    fn a_hold_ends_at_its_very_instant() {
        let held = Free { version: VERSION }.hold(EARLY, at(100));
        let seat = Seat::Held(held);
        assert_eq!(seat.state_at(at(99)), SeatState::Held);
        assert_eq!((held.lapse(at(99)), seat.available(at(99))), (Err(held), None));
        assert_eq!(seat.state_at(at(100)), SeatState::Free);
        assert_eq!(seat.available(at(100)), Some(Free { version: VERSION }));
        let sold = Seat::Sold(held.sell(EARLY).expect("its own"));
        assert_eq!(
            (sold.state_at(at(i64::MAX)), sold.available(at(i64::MAX))),
            (SeatState::Sold, None)
        );
        assert_eq!(sold.version(), VERSION);
    }
}
