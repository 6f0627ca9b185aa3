//! Buyers who buy as fast as they are answered, for as long as a round takes.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use e2e::market::{Buyer, Ended, Market, Wish};
use proto::{ticket::v1::Event, user::v1::OrderFailure};
use tokio::{task::JoinSet, time::Instant};

use crate::{Arm, report::Figures};

/// How long an arm's turn is.
pub(crate) const TIME: Duration = Duration::from_secs(3);
/// How many buy at once; twice as many in the arm of that name.
pub(crate) const BUYERS: usize = 32;
/// More people than buy at once: what one has bought of an event before is part of what a purchase costs, and few people buy much.
const PEOPLE: usize = 256;
/// Of a new event for each turn: more than can be sold in its time.
const ROWS: u32 = 100;
const SEATS_PER_ROW: u32 = 100;

/// The buyers of one cluster.
pub(crate) struct Rush {
    market: Market,
    people: Arc<[Buyer]>,
    /// Has one seat, which is sold.
    sold_out: Event,
    /// Those that were sold from.
    events: Vec<Event>,
}

impl Rush {
    pub(crate) async fn new(market: Market) -> Self {
        let people = market.buyers(PEOPLE, 1_000).await.into();
        let sold_out = market.event(1, 1).await;
        let mut rush = Self {
            market,
            people,
            events: vec![sold_out.clone()],
            sold_out,
        };
        let first = rush.market.buy(&rush.people[0], &rush.sold_out, Wish::Best(1)).await;
        assert!(matches!(first.ended, Ended::Sold { .. }), "{first:?}");
        rush.events.truncate(1);
        rush
    }

    /// One turn of an arm.
    pub(crate) async fn round(&mut self, arm: Arm) -> Figures {
        let event = match arm {
            Arm::SoldOut => self.sold_out.clone(),
            _ => {
                let event = self.market.event(ROWS, SEATS_PER_ROW).await;
                self.events.push(event.clone());
                event
            }
        };
        let buyers = if arm == Arm::Twice { 2 * BUYERS } else { BUYERS };
        let (next, begun) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let mut all = JoinSet::new();
        for _ in 0..buyers {
            let (market, people, event, next) = (self.market.clone(), self.people.clone(), event.clone(), next.clone());
            all.spawn(async move {
                let mut answers = Vec::new();
                while begun.elapsed() < TIME {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let buyer = &people[number as usize % people.len()];
                    let asked = Instant::now();
                    let ended = market.buy(buyer, &event, wish(arm, number)).await.ended;
                    answers.push(asked.elapsed());
                    check(arm, &ended);
                }
                answers
            });
        }
        let answers = all.join_all().await.concat();
        Figures::of(answers, begun.elapsed())
    }

    /// Holds what the buyers were told against seats, orders and wallets.
    pub(crate) async fn audit(&self) {
        let ids: BTreeSet<&str> = self.events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids.len(), self.events.len(), "an event was listed twice");
        // The last ones of each kind: an audit asks for each order.
        for event in self.events.iter().rev().take(2) {
            self.market.audit(event, &self.people).await;
        }
    }
}

/// Each purchase picks a seat of its own: who meets whom at a seat is the tests' matter (`sale::crowd`).
fn wish(arm: Arm, number: u32) -> Wish {
    match arm {
        Arm::Best | Arm::SoldOut => Wish::Best(1),
        Arm::Bare | Arm::Purchases | Arm::Twice => {
            let (row, seat) = (number / SEATS_PER_ROW, number % SEATS_PER_ROW);
            assert!(row < ROWS, "the event is too small for so fast a machine");
            Wish::Seats(vec![format!("A/{}/{}", row + 1, seat + 1)])
        }
    }
}

fn check(arm: Arm, ended: &Ended) {
    let as_wished = match arm {
        Arm::SoldOut => *ended == Ended::Nothing(OrderFailure::SoldOut),
        _ => matches!(ended, Ended::Sold { .. }),
    };
    assert!(as_wished, "{}: {ended:?}", arm.name());
}
