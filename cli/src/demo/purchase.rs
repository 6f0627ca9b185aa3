//! What one attempt to buy came to, and what many of them come to together. Pure: durations are measured elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proto::{
    common::v1::Money,
    user::v1::{Order, OrderFailure, OrderState},
};
use serde_json::{Value, json};

/// One attempt to buy.
#[derive(Debug, Clone)]
pub(crate) struct Purchase {
    /// How BuyTicket ended.
    pub(crate) outcome: Outcome,
    /// How long BuyTicket took.
    pub(crate) took: Duration,
    /// The trace of it, 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// Where it can be looked at, if it was exported.
    pub(crate) trace_url: Option<String>,
}

/// How an attempt to buy ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The seats are the buyer's.
    Sold(Order),
    /// Fewer seats were free than asked for: an answer, no failure.
    SoldOut(Order),
    /// The order failed, though there may have been seats.
    Refused(Order),
    /// There is no answer, or it is an error.
    Failed(String),
}

impl Outcome {
    /// From an order that will not change any more.
    pub(crate) fn of(order: Order) -> Self {
        match (order.state(), order.failure()) {
            (OrderState::Succeeded, _) => Self::Sold(order),
            (OrderState::Failed, OrderFailure::SoldOut) => Self::SoldOut(order),
            (OrderState::Failed, _) => Self::Refused(order),
            (state, _) => Self::Failed(format!("order {} stays {}", order.id, state.as_str_name())),
        }
    }

    /// The order, where there is one.
    pub(crate) fn order(&self) -> Option<&Order> {
        match self {
            Self::Sold(order) | Self::SoldOut(order) | Self::Refused(order) => Some(order),
            Self::Failed(_) => None,
        }
    }

    /// In one word or two.
    pub(crate) fn state(&self) -> &'static str {
        match self {
            Self::Sold(_) => "SUCCEEDED",
            Self::SoldOut(_) => "SOLD OUT",
            Self::Refused(_) | Self::Failed(_) => "FAILED",
        }
    }

    /// Why it did not succeed; nothing where it did.
    pub(crate) fn why(&self) -> String {
        match self {
            Self::Sold(_) => String::new(),
            Self::SoldOut(order) => order.detail.clone(),
            Self::Refused(order) => {
                let failure = order
                    .failure()
                    .as_str_name()
                    .trim_start_matches("ORDER_FAILURE_")
                    .replace('_', " ");
                if order.detail.is_empty() {
                    failure
                } else {
                    format!("{failure}: {}", order.detail)
                }
            }
            Self::Failed(why) => why.clone(),
        }
    }

    /// Whether the demo must exit with 1 for it.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Failed(_))
    }
}

impl Purchase {
    /// As a machine reads it.
    pub(crate) fn as_json(&self) -> Value {
        let order = self.outcome.order();
        json!({
            "state": self.outcome.state().replace(' ', "_"),
            "detail": self.outcome.why(),
            "order_id": order.map(|order| &order.id),
            "seats": order.map(|order| &order.seat_ids),
            "price": order.and_then(|order| order.total.as_ref()).map(|total| json!({
                "currency_code": total.currency_code,
                "minor_units": total.minor_units,
            })),
            "instance": order.map(|order| &order.ticket_instance_id),
            "trace_id": self.trace_id,
            "trace_url": self.trace_url,
            "took_ms": millis(self.took),
        })
    }
}

/// Many purchases together.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Orders that succeeded.
    pub(crate) sold: usize,
    /// Seats of those.
    pub(crate) seats: usize,
    /// Orders for which there were too few seats.
    pub(crate) sold_out: usize,
    /// Orders that failed otherwise, and calls without an order.
    pub(crate) failed: usize,
    /// What was paid; of one currency, as an event's prices are.
    pub(crate) paid: Option<Money>,
    /// Half of the BuyTicket calls took at most so long.
    pub(crate) p50: Duration,
    /// 99 of 100 took at most so long.
    pub(crate) p99: Duration,
    /// Orders by the ticket instance that served them last.
    pub(crate) spread: BTreeMap<String, usize>,
    /// Seats that more than one order of this run was sold.
    pub(crate) sold_twice: BTreeSet<String>,
    /// All seats that were sold.
    pub(crate) seat_ids: BTreeSet<String>,
}

impl Summary {
    /// Adds them up.
    pub(crate) fn of(purchases: &[Purchase]) -> Self {
        let mut summary = Self::default();
        for Purchase { outcome, .. } in purchases {
            if let Some(order) = outcome.order().filter(|order| !order.ticket_instance_id.is_empty()) {
                *summary.spread.entry(order.ticket_instance_id.clone()).or_default() += 1;
            }
            match outcome {
                Outcome::Sold(order) => summary.add(order),
                Outcome::SoldOut(_) => summary.sold_out += 1,
                Outcome::Refused(_) | Outcome::Failed(_) => summary.failed += 1,
            }
        }
        let mut took: Vec<Duration> = purchases.iter().map(|purchase| purchase.took).collect();
        took.sort_unstable();
        summary.p50 = percentile(&took, 50);
        summary.p99 = percentile(&took, 99);
        summary
    }

    fn add(&mut self, order: &Order) {
        self.sold += 1;
        self.seats += order.seat_ids.len();
        for seat in &order.seat_ids {
            if !self.seat_ids.insert(seat.clone()) {
                self.sold_twice.insert(seat.clone());
            }
        }
        if let Some(total) = &order.total {
            let paid = self.paid.get_or_insert_with(|| Money {
                currency_code: total.currency_code.clone(),
                minor_units: 0,
            });
            paid.minor_units = paid.minor_units.saturating_add(total.minor_units);
        }
    }
}

/// The smallest of the sorted values that so many percent do not exceed (nearest rank); zero of none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Milliseconds with three digits after the point.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sold(seats: &[&str], instance: &str) -> Purchase {
        let order = Order {
            state: OrderState::Succeeded.into(),
            seat_ids: seats.iter().map(ToString::to_string).collect(),
            ticket_instance_id: instance.to_owned(),
            total: Some(Money {
                currency_code: "EUR".to_owned(),
                minor_units: 100,
            }),
            ..Order::default()
        };
        Purchase {
            outcome: Outcome::of(order),
            took: Duration::from_millis(5),
            trace_id: String::new(),
            trace_url: None,
        }
    }

    #[test]
    fn a_seat_sold_twice_is_found() {
        let summary = Summary::of(&[
            sold(&["A/1/1", "A/1/2"], "t1"),
            sold(&["A/1/2"], "t2"),
            sold(&["A/1/3"], "t1"),
        ]);
        assert_eq!(summary.sold_twice.iter().collect::<Vec<_>>(), ["A/1/2"]);
        assert_eq!((summary.sold, summary.seats), (3, 4));
        assert_eq!(summary.paid.map(|paid| paid.minor_units), Some(300));
        assert_eq!(
            summary.spread,
            BTreeMap::from([("t1".to_owned(), 2), ("t2".to_owned(), 1)])
        );
    }

    #[test]
    fn sold_out_is_an_answer_and_everything_else_a_failure() {
        let failed = |failure: OrderFailure| {
            Outcome::of(Order {
                state: OrderState::Failed.into(),
                failure: failure.into(),
                ..Order::default()
            })
        };
        assert!(!failed(OrderFailure::SoldOut).is_failure());
        assert!(failed(OrderFailure::Unavailable).is_failure());
        assert!(failed(OrderFailure::InsufficientFunds).is_failure());
        assert!(
            Outcome::of(Order {
                state: OrderState::Processing.into(),
                ..Order::default()
            })
            .is_failure()
        );
        assert_eq!(failed(OrderFailure::HoldExpired).why(), "HOLD EXPIRED");
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_millis(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_millis(198));
        assert_eq!(percentile(&sorted[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
