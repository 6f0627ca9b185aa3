//! The books of the buyers against what the services say, once nothing is under way: order, seats and debit are 1:1:1, and of what
//! was given back order, seats, debit and its return.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    ticket::v1::{Event, SeatState},
    user::v1::{Order, OrderState, StatementKind},
};

use super::{Buyer, Ended, Entry, Market};

impl Market {
    /// Holds the books against the services. Every buyer of this event is in `buyers`, and bought through this market only.
    ///
    /// 1. A seat that a buyer was told is theirs is sold, and is nobody else's; a seat that is sold was told to somebody.
    /// 2. One ticket a seat, and no ticket twice.
    /// 3. The wallet holds what was put in less what the told orders cost: a lost answer cost nothing, a refund came once.
    /// 4. The order says the same as its buyer was told: an acknowledged purchase is not taken back.
    /// 5. Nothing is held any more, and sold + free is all there is.
    /// 6. The books are right, and the event's revenue is what its buyers have paid, not a cent more.
    /// 7. What was told to be refunded was: its order says so, its seats were given back as often as that was told, and its debit
    ///    came back by one transfer, which no other order has.
    ///
    /// # Panics
    /// With what is broken.
    pub async fn audit(&self, event: &Event, buyers: &[Buyer]) {
        let all = self.books().lines();
        let lines: Vec<_> = all.iter().filter(|line| line.event_id == event.id).collect();
        let (mut owners, mut tickets) = (BTreeMap::new(), BTreeSet::new());
        for line in &lines {
            for seat in line.ended.seats() {
                let other = owners.insert(seat.clone(), &line.order_id);
                assert_eq!(other, None, "seat {seat} was sold to {} as well", line.order_id);
            }
            if let Ended::Sold {
                seats,
                tickets: told,
                paid,
            } = &line.ended
            {
                assert_eq!(
                    (told.len(), *paid),
                    (seats.len(), super::PRICE * i64::try_from(seats.len()).expect("few"))
                );
                for ticket in told {
                    assert!(tickets.insert(ticket.clone()), "ticket {ticket} is in two orders");
                }
            }
        }
        let counts = self.settled(event).await;
        let sold: BTreeSet<String> = self
            .seats(&event.id)
            .await
            .into_iter()
            .filter(|seat| seat.state() == SeatState::Sold)
            .map(|seat| seat.id)
            .collect();
        let told: BTreeSet<String> = owners.keys().cloned().collect();
        assert_eq!(
            sold, told,
            "seats that are sold, and seats that somebody was told to have"
        );
        assert_eq!(
            (
                counts.seats_sold as usize,
                counts.seats_held,
                counts.seats_sold + counts.seats_free
            ),
            (told.len(), 0, counts.seats_total)
        );
        let revenue = self.revenue(event).await;
        assert_eq!(revenue, super::PRICE * i64::from(counts.seats_sold), "the revenue");
        let mut paid: BTreeMap<&str, i64> = BTreeMap::new();
        for line in &all {
            *paid.entry(&line.buyer.id).or_default() += line.ended.paid();
        }
        for buyer in buyers {
            let paid = paid.get(buyer.id.as_str()).copied().unwrap_or_default();
            assert_eq!(
                self.balance(buyer).await,
                buyer.funds - paid,
                "the wallet of {}",
                buyer.id
            );
        }
        let given_back = lines.iter().map(|line| match &line.ended {
            Ended::Refunded { seats } => seats.len(),
            Ended::Sold { .. } | Ended::Nothing(_) => 0,
        });
        let given_back: usize = given_back.sum();
        let sales = self.sales(&event.id).await;
        assert_eq!(sales.refunded as usize, given_back, "seats that were given back");
        if given_back > 0 {
            self.audit_returns(&lines, buyers).await;
        }
        for line in &lines {
            let order = self.order(&line.order_id).await;
            let is_refunded = matches!(line.ended, Ended::Refunded { .. });
            assert_eq!(
                order.state() == OrderState::Refunded,
                is_refunded,
                "order {} was told otherwise",
                line.order_id
            );
            assert_eq!(
                (theirs(&order), order.failure()),
                (line.ended.seats().to_vec(), line.ended.failure()),
                "order {} was told otherwise",
                line.order_id
            );
        }
    }

    /// What the event has taken, by books that are right.
    async fn revenue(&self, event: &Event) -> i64 {
        let books = crate::wait::until("the books", || async {
            let auditor = self.auditor().await.ok_or("the store is away")?;
            let books = self.look_at_money(&auditor, &event.id, 0).await;
            auditor.close().await;
            books.ok_or("they cannot be read")
        })
        .await;
        let event = event.id.parse().expect("an event's id");
        let euros = books.money.get("EUR").expect("somebody has put money in");
        euros.sales.get(&event).copied().unwrap_or_default()
    }

    /// Each order that was told to be refunded has one debit and one return of it in its buyer's statement, and no other of the
    /// lines has a return.
    async fn audit_returns(&self, lines: &[&Entry], buyers: &[Buyer]) {
        let mut moved: BTreeMap<(String, i32), Vec<i64>> = BTreeMap::new();
        for buyer in buyers {
            for entry in self.statement(buyer).await {
                let key = (entry.reference, entry.kind);
                moved.entry(key).or_default().push(entry.amount_minor_units);
            }
        }
        let of = |order: &str, kind: StatementKind| {
            let found = moved.get(&(order.to_owned(), kind.into()));
            found.cloned().unwrap_or_default()
        };
        for line in lines {
            let returned = of(&line.order_id, StatementKind::Return);
            if let Ended::Refunded { seats } = &line.ended {
                let price = super::PRICE * i64::try_from(seats.len()).expect("few");
                let debit = of(&line.order_id, StatementKind::Debit);
                assert_eq!((debit, returned), (vec![-price], vec![price]), "{}", line.order_id);
            } else {
                assert_eq!(returned, Vec::<i64>::new(), "{} was not given back", line.order_id);
            }
        }
    }

    /// The event's counts once nothing is held: what a purchase gave up by itself may lapse only later.
    async fn settled(&self, event: &Event) -> Event {
        crate::wait::within(super::STUBBORN, "held seats to be sold or free", || async {
            match self.counts(&event.id).await {
                Ok(counts) if counts.seats_held == 0 => Ok(counts),
                Ok(counts) => Err(format!("{} are held", counts.seats_held)),
                Err(status) => Err(status.to_string()),
            }
        })
        .await
    }
}

/// The seats of an order that succeeded: those of one that failed are not its buyer's.
fn theirs(order: &Order) -> Vec<String> {
    match order.state() {
        OrderState::Succeeded => order.seat_ids.clone(),
        _ => Vec::new(),
    }
}
