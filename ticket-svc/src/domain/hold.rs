//! Holds: what is asked for, and what may become of one. Who wins a seat is the store's conditional write.

use std::time::Duration;

use service_store::{Fingerprint, Invalid, Money, Text, Timestamp};
use uuid::Uuid;

use super::{
    refusal::Refusal,
    seat::{SeatId, SectionName},
};

/// Who seats are held for. The caller's name for them; nothing is looked up by it.
pub(crate) type BuyerId = Text<64>;

/// The most seats of one hold.
pub(crate) const MAX_SEATS: usize = 10;

/// The fencing token of a hold: grows with every hold of the store, so that a later holder's is always greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FencingToken(pub(crate) i64);

/// Asks for a hold.
#[derive(Debug, Clone)]
pub(crate) struct NewHold {
    /// The request's id, which becomes the hold's.
    pub(crate) id: Uuid,
    pub(crate) event_id: Uuid,
    pub(crate) buyer: BuyerId,
    pub(crate) selection: Selection,
    pub(crate) ttl: HoldTtl,
}

/// Which seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// These: 1 to 10, each once, sorted.
    Seats(ChosenSeats),
    /// The best ones of a section, or of all.
    BestAvailable {
        quantity: Quantity,
        section: Option<SectionName>,
    },
}

/// 1 to 10 seats, each once, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChosenSeats(Vec<SeatId>);

/// How many seats: 1 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantity(u32);

/// How long seats are kept: 1 s to 15 min, 2 min unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HoldTtl(Duration);

/// Seats that are kept, or were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) id: Uuid,
    pub(crate) token: FencingToken,
    pub(crate) event_id: Uuid,
    pub(crate) buyer: String,
    pub(crate) seats: Vec<(SeatId, Money)>,
    pub(crate) total: Money,
    pub(crate) expires_at: Timestamp,
}

/// A sold seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) id: Uuid,
    pub(crate) event_id: Uuid,
    pub(crate) seat: SeatId,
    pub(crate) order_id: Uuid,
    pub(crate) price: Money,
}

/// What has become of a hold, as it is stored. `Over` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldPhase {
    /// The seats are kept until then, unless someone took them after.
    Held { until: Timestamp },
    /// The seats are sold to this order.
    Confirmed { order_id: Uuid },
    /// It is over: the seats were given back, time ran out and that was recorded, or they were sold and the order was refunded.
    Over(Ending),
}

/// How a hold is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Released,
    Lapsed,
    Refunded,
}

/// What the rules look at before a hold changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HoldFacts {
    pub(crate) id: Uuid,
    pub(crate) token: FencingToken,
    pub(crate) phase: HoldPhase,
}

/// What a confirmation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// Sell the seats now.
    Sell,
    /// They were sold to this very order before: answer the same tickets.
    Repeat,
    /// It is too late: give the seats back, and refuse. Only a refusal that is recorded is final: a buyer who hears it is
    /// refunded, and a clock that steps back must not let the same hold sell after that.
    Lapse,
}

/// What a release comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Give the seats back now.
    GiveBack,
    /// It was done before.
    Repeat,
}

/// What a refund of the order that bought a hold's seats comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refund {
    /// Revoke the tickets and free the seats now.
    Revoke,
    /// It was done before: answer the same tickets.
    Repeat,
}

impl HoldFacts {
    /// May `order_id` confirm with `token` at `now`?
    pub(crate) fn confirm(&self, token: FencingToken, order_id: Uuid, now: Timestamp) -> Result<Confirmation, Refusal> {
        if token != self.token {
            return Err(Refusal::HoldTokenWrong(self.id));
        }
        match self.phase {
            HoldPhase::Held { until } if now < until => Ok(Confirmation::Sell),
            HoldPhase::Held { .. } => Ok(Confirmation::Lapse),
            HoldPhase::Confirmed { order_id: buyer } if buyer == order_id => Ok(Confirmation::Repeat),
            HoldPhase::Confirmed { .. } => Err(Refusal::HoldConfirmed(self.id)),
            HoldPhase::Over(Ending::Released) => Err(Refusal::HoldReleased(self.id)),
            HoldPhase::Over(Ending::Lapsed) => Err(Refusal::HoldExpired(self.id)),
            HoldPhase::Over(Ending::Refunded) => Err(Refusal::HoldRefunded(self.id)),
        }
    }

    /// May it be released? `token` is `None` when its owner never heard of it.
    pub(crate) fn release(&self, token: Option<FencingToken>) -> Result<Release, Refusal> {
        if token.is_some_and(|token| token != self.token) {
            return Err(Refusal::HoldTokenWrong(self.id));
        }
        match self.phase {
            HoldPhase::Held { .. } => Ok(Release::GiveBack),
            HoldPhase::Over(Ending::Released) | HoldPhase::Over(Ending::Lapsed) => Ok(Release::Repeat),
            HoldPhase::Confirmed { .. } => Err(Refusal::HoldConfirmed(self.id)),
            HoldPhase::Over(Ending::Refunded) => Err(Refusal::HoldRefunded(self.id)),
        }
    }

    /// Is it time to record that it has run out?
    pub(crate) fn has_lapsed(&self, now: Timestamp) -> bool {
        matches!(self.phase, HoldPhase::Held { until } if until <= now)
    }

    /// May `order_id` be refunded what it bought by this hold? `token` is `None` when the caller does not know it.
    pub(crate) fn refund(&self, token: Option<FencingToken>, order_id: Uuid) -> Result<Refund, Refusal> {
        if token.is_some_and(|token| token != self.token) {
            return Err(Refusal::HoldTokenWrong(self.id));
        }
        match self.phase {
            HoldPhase::Confirmed { order_id: buyer } if buyer == order_id => Ok(Refund::Revoke),
            HoldPhase::Over(Ending::Refunded) => Ok(Refund::Repeat),
            HoldPhase::Confirmed { .. }
            | HoldPhase::Held { .. }
            | HoldPhase::Over(Ending::Released)
            | HoldPhase::Over(Ending::Lapsed) => Err(Refusal::OrderUnknown(order_id)),
        }
    }

    /// May the answer to its HoldSeats be given again? Not once the seats may be someone else's.
    pub(crate) fn repeat(&self) -> Result<(), Refusal> {
        match self.phase {
            HoldPhase::Over(Ending::Released) => Err(Refusal::HoldReleased(self.id)),
            HoldPhase::Over(Ending::Lapsed) => Err(Refusal::HoldExpired(self.id)),
            HoldPhase::Over(Ending::Refunded) => Err(Refusal::HoldRefunded(self.id)),
            HoldPhase::Held { .. } | HoldPhase::Confirmed { .. } => Ok(()),
        }
    }
}

impl NewHold {
    /// Tells a repeated HoldSeats from another one under the same request id.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let print = Fingerprint::of("HoldSeats")
            .text(&self.event_id.to_string())
            .text(self.buyer.as_str())
            .number(i128::try_from(self.ttl.0.as_nanos()).unwrap_or(i128::MAX));
        match &self.selection {
            Selection::Seats(seats) => {
                let print = print.number(0);
                seats.0.iter().fold(print, |print, seat| print.text(&seat.to_string()))
            }
            Selection::BestAvailable { quantity, section } => print
                .number(1)
                .number(quantity.0.into())
                .text(section.as_ref().map_or("", SectionName::as_str)),
        }
        .finish()
    }
}

impl Selection {
    /// How many seats.
    pub(crate) fn seats(&self) -> u32 {
        match self {
            // At most ten.
            Self::Seats(ChosenSeats(seats)) => u32::try_from(seats.len()).unwrap_or(u32::MAX),
            Self::BestAvailable { quantity, .. } => quantity.0,
        }
    }
}

impl ChosenSeats {
    pub(crate) fn try_new(mut seats: Vec<SeatId>) -> Result<Self, Invalid> {
        if seats.is_empty() || seats.len() > MAX_SEATS {
            return Err(Invalid("must have 1 to 10 seats"));
        }
        seats.sort_unstable();
        if seats.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Invalid("must name each seat once"));
        }
        Ok(Self(seats))
    }

    pub(crate) fn as_slice(&self) -> &[SeatId] {
        &self.0
    }
}

impl Quantity {
    pub(crate) fn try_new(quantity: u32) -> Result<Self, Invalid> {
        if !(1..=10).contains(&quantity) {
            return Err(Invalid("must be 1 to 10"));
        }
        Ok(Self(quantity))
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl HoldTtl {
    const RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(15 * 60);

    pub(crate) fn try_new(ttl: Duration) -> Result<Self, Invalid> {
        if !Self::RANGE.contains(&ttl) {
            return Err(Invalid("must be 1 s to 15 min"));
        }
        Ok(Self(ttl))
    }

    pub(crate) fn get(self) -> Duration {
        self.0
    }
}

impl Default for HoldTtl {
    fn default() -> Self {
        Self(Duration::from_secs(120))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);
    const ORDER: Uuid = Uuid::from_u128(2);
    const TOKEN: FencingToken = FencingToken(7);

    fn facts(phase: HoldPhase) -> HoldFacts {
        HoldFacts {
            id: ID,
            token: TOKEN,
            phase,
        }
    }

    #[test]
    fn a_hold_is_confirmed_in_time_by_its_own_token_once() {
        let until = Timestamp::from_nanos(100);
        let held = facts(HoldPhase::Held { until });
        let confirmed = facts(HoldPhase::Confirmed { order_id: ORDER });
        let released = facts(HoldPhase::Over(Ending::Released));
        let other = FencingToken(8);
        for (hold, token, order, now, expected) in [
            (held, TOKEN, ORDER, 99, Ok(Confirmation::Sell)),
            (held, TOKEN, ORDER, 100, Ok(Confirmation::Lapse)),
            (held, other, ORDER, 100, Err(Refusal::HoldTokenWrong(ID))),
            (held, other, ORDER, 99, Err(Refusal::HoldTokenWrong(ID))),
            (confirmed, TOKEN, ORDER, 999, Ok(Confirmation::Repeat)),
            (confirmed, TOKEN, ID, 0, Err(Refusal::HoldConfirmed(ID))),
            (confirmed, other, ORDER, 0, Err(Refusal::HoldTokenWrong(ID))),
            (released, TOKEN, ORDER, 0, Err(Refusal::HoldReleased(ID))),
            (
                facts(HoldPhase::Over(Ending::Lapsed)),
                TOKEN,
                ORDER,
                0,
                Err(Refusal::HoldExpired(ID)),
            ),
            (
                facts(HoldPhase::Over(Ending::Refunded)),
                TOKEN,
                ORDER,
                0,
                Err(Refusal::HoldRefunded(ID)),
            ),
        ] {
            assert_eq!(
                hold.confirm(token, order, Timestamp::from_nanos(now)),
                expected,
                "{hold:?} {token:?} at {now}"
            );
        }
    }

    #[test]
    fn a_release_repeats_but_never_takes_a_sold_seat_back() {
        let held = facts(HoldPhase::Held {
            until: Timestamp::from_nanos(100),
        });
        assert_eq!(held.release(Some(TOKEN)), Ok(Release::GiveBack));
        assert_eq!(held.release(None), Ok(Release::GiveBack));
        assert_eq!(held.release(Some(FencingToken(8))), Err(Refusal::HoldTokenWrong(ID)));
        assert_eq!(
            facts(HoldPhase::Over(Ending::Released)).release(None),
            Ok(Release::Repeat)
        );
        let sold = facts(HoldPhase::Confirmed { order_id: ORDER });
        assert_eq!(sold.release(None), Err(Refusal::HoldConfirmed(ID)));
    }

    #[test]
    fn only_what_was_sold_to_the_order_is_refunded_and_once() {
        let sold = facts(HoldPhase::Confirmed { order_id: ORDER });
        let refunded = facts(HoldPhase::Over(Ending::Refunded));
        let unknown = || Err(Refusal::OrderUnknown(ORDER));
        let until = Timestamp::from_nanos(100);
        for (hold, token, expected) in [
            (sold, None, Ok(Refund::Revoke)),
            (sold, Some(TOKEN), Ok(Refund::Revoke)),
            (sold, Some(FencingToken(8)), Err(Refusal::HoldTokenWrong(ID))),
            (refunded, None, Ok(Refund::Repeat)),
            (facts(HoldPhase::Confirmed { order_id: ID }), None, unknown()),
            (facts(HoldPhase::Held { until }), None, unknown()),
            (facts(HoldPhase::Over(Ending::Released)), None, unknown()),
            (facts(HoldPhase::Over(Ending::Lapsed)), None, unknown()),
        ] {
            assert_eq!(hold.refund(token, ORDER), expected, "{hold:?} {token:?}");
        }
        assert_eq!(refunded.release(None), Err(Refusal::HoldRefunded(ID)));
    }

    #[test]
    fn a_hold_lapses_at_its_very_instant_and_nothing_else_does() {
        let until = Timestamp::from_nanos(100);
        let held = facts(HoldPhase::Held { until });
        assert!(!held.has_lapsed(Timestamp::from_nanos(99)));
        assert!(held.has_lapsed(until));
        assert!(!facts(HoldPhase::Confirmed { order_id: ORDER }).has_lapsed(until));
        assert_eq!(
            facts(HoldPhase::Over(Ending::Lapsed)).release(Some(TOKEN)),
            Ok(Release::Repeat)
        );
        assert_eq!(
            facts(HoldPhase::Over(Ending::Lapsed)).repeat(),
            Err(Refusal::HoldExpired(ID))
        );
    }

    #[test]
    fn a_released_hold_is_not_answered_again() {
        assert_eq!(
            facts(HoldPhase::Over(Ending::Released)).repeat(),
            Err(Refusal::HoldReleased(ID))
        );
        assert_eq!(
            facts(HoldPhase::Held {
                until: Timestamp::from_nanos(0)
            })
            .repeat(),
            Ok(())
        );
    }

    #[test]
    fn the_order_of_chosen_seats_is_no_other_body() {
        let seats = |ids: [&str; 2]| ChosenSeats::try_new(ids.map(|id| id.parse().expect("a seat")).to_vec());
        assert_eq!(seats(["A/1/2", "A/1/1"]), seats(["A/1/1", "A/1/2"]));
        assert!(seats(["A/1/1", "A/1/1"]).is_err());
    }
}
