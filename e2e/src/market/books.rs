//! What the buyers were told: one line an order, on their side of the wire.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use proto::user::v1::{Order, OrderFailure, OrderState};
use tonic::Status;

use super::Buyer;

/// All ends that were told, in the order in which they were.
#[derive(Debug, Default)]
pub struct Books(Mutex<Vec<Entry>>);

/// One purchase as its buyer knows it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who bought.
    pub buyer: Buyer,
    /// The order's id.
    pub order_id: String,
    /// What for.
    pub event_id: String,
    /// How it ended.
    pub ended: Ended,
    /// Its buyer wants the money back.
    pub asked_back: bool,
    /// The errors on the way to that answer.
    pub rough: Vec<Status>,
}

/// How a purchase ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With these seats, for so many cents.
    Sold {
        /// Ids of seats.
        seats: Vec<String>,
        /// One ticket a seat.
        tickets: Vec<String>,
        /// Cents.
        paid: i64,
    },
    /// Sold, and given back: these seats are others' to buy.
    Refunded {
        /// Ids of seats.
        seats: Vec<String>,
    },
    /// Nothing was bought, for this reason.
    Nothing(OrderFailure),
}

impl Books {
    pub(super) fn enter(&self, buyer: &Buyer, order: &Order, rough: Vec<Status>) -> Entry {
        let ended = match order.state() {
            OrderState::Succeeded => Ended::Sold {
                seats: order.seat_ids.clone(),
                tickets: order.ticket_ids.clone(),
                paid: order.total.as_ref().map_or(0, |total| total.minor_units),
            },
            _ => Ended::Nothing(order.failure()),
        };
        let entry = Entry {
            buyer: buyer.clone(),
            order_id: order.id.clone(),
            event_id: order.event_id.clone(),
            ended,
            asked_back: false,
            rough,
        };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(entry.clone());
        entry
    }

    /// What buyers were told to have paid for this event so far, in cents, and have not asked back.
    pub(super) fn paid(&self, event_id: &str) -> i64 {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_event = lines.iter().filter(|line| line.event_id == event_id);
        let kept = of_event.filter(|line| !line.asked_back);
        kept.map(|line| line.ended.paid()).sum()
    }

    /// How often buyers were told to come again, by code and reason.
    pub fn rough(&self) -> BTreeMap<String, usize> {
        use tonic_types::StatusExt as _;
        let mut rough = BTreeMap::new();
        for status in self.lines().iter().flat_map(|line| &line.rough) {
            let reason = status.get_details_error_info().map(|info| info.reason);
            let what = format!("{:?} {}", status.code(), reason.unwrap_or_default());
            *rough.entry(what).or_default() += 1;
        }
        rough
    }

    /// From now on its money may be back at any moment.
    pub(super) fn asked_back(&self, order_id: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines.iter_mut().filter(|line| line.order_id == order_id) {
            line.asked_back = true;
        }
    }

    /// An order that was sold is told to be refunded.
    pub(super) fn refunded(&self, order: &Order) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.iter_mut().find(|line| line.order_id == order.id);
        let line = line.expect("an order that was told to be sold");
        assert!(matches!(line.ended, Ended::Sold { .. }), "{line:?}");
        line.ended = Ended::Refunded {
            seats: order.seat_ids.clone(),
        };
    }

    /// What is in them so far.
    pub fn lines(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ended {
    /// Seats that were sold and not given back.
    pub fn seats(&self) -> &[String] {
        match self {
            Self::Sold { seats, .. } => seats,
            Self::Refunded { .. } | Self::Nothing(_) => &[],
        }
    }

    /// Why nothing was bought; unspecified where something was.
    pub fn failure(&self) -> OrderFailure {
        match self {
            Self::Sold { .. } | Self::Refunded { .. } => OrderFailure::Unspecified,
            Self::Nothing(failure) => *failure,
        }
    }

    /// Cents that were paid and not given back.
    pub fn paid(&self) -> i64 {
        match self {
            Self::Sold { paid, .. } => *paid,
            Self::Refunded { .. } | Self::Nothing(_) => 0,
        }
    }
}
