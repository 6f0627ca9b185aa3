//! The store of either kind: terms of sale, general admission, refunds, the sweep, figures, search and keys.

use super::*;
use crate::domain::{
    refund::{Asker, NewRefund},
    sale::{BuyerCap, MAX_LIVE_HOLDS, SaleWindow},
    search::{Query, Words},
};

const DAY: Duration = Duration::from_secs(86_400);

/// As the platform asks.
pub(super) fn asked(order_id: Uuid) -> NewRefund {
    NewRefund {
        id: None,
        order_id,
        token: None,
        by: Asker::Platform,
    }
}

impl Fixture {
    /// An event with these terms beside the fixture's own; later holds are of it.
    async fn on_terms(mut self, terms: Terms) -> Self {
        let new = NewEvent {
            terms,
            ..event(&[("A", 2, 40)])
        };
        let (event, _) = self.store.create_event(id(), id(), &new).await.expect("a new event");
        self.event = event.id;
        self
    }

    fn by(&self, buyer: &str, quantity: u32) -> NewHold {
        NewHold {
            buyer: Text::try_new(buyer).expect("in limits"),
            ..self.best(quantity)
        }
    }

    /// Sells the best seats; the order.
    async fn sold(&self, quantity: u32) -> Uuid {
        let hold = self.store.hold(&self.best(quantity)).await.expect("free");
        let order = id();
        let sold = self.store.confirm(hold.id, hold.token, order, ids()).await;
        sold.expect("in time");
        order
    }

    /// Free, held, sold and refunded of all sections together, as an organiser sees them.
    async fn figures(&self) -> [u32; 4] {
        let (event, sales) = self.store.sales(self.event).await.expect("the event");
        let sum = |of: fn(&SectionSales) -> u32| sales.iter().map(of).sum::<u32>();
        let figures = [
            sum(|sales| sales.free),
            sum(|sales| sales.held),
            sum(|sales| sales.sold),
            sum(|sales| sales.refunded),
        ];
        assert_eq!(figures[..3].iter().sum::<u32>(), event.plan.total(), "T1");
        figures
    }
}

async fn a_sale_begins_and_ends_and_what_is_held_may_still_be_confirmed(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 1)]).await;
    let now = fixture.store.now();
    let (opens, closes) = (now.after(DAY), now.after(DAY * 2));
    let terms = Terms {
        window: SaleWindow::try_new(Some(opens), Some(closes)).expect("in order"),
        ..Terms::default()
    };
    let fixture = fixture.on_terms(terms).await;
    let early = fixture.store.hold(&fixture.best(1)).await;
    assert_eq!(refusal(early), Refusal::SaleNotOpen(opens));
    fixture.clock.advance(DAY * 2 - Duration::from_secs(1));
    let hold = fixture.store.hold(&fixture.best(1)).await.expect("on sale");
    fixture.clock.advance(Duration::from_secs(2));
    let late = fixture.store.hold(&fixture.best(1)).await;
    assert_eq!(refusal(late), Refusal::SaleClosed(closes));
    let confirmed = fixture.store.confirm(hold.id, hold.token, id(), ids()).await;
    confirmed.expect("held before the end");
}

async fn a_buyer_has_no_more_than_the_cap_in_a_rush_either(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 1)]).await;
    let terms = Terms {
        cap: Some(BuyerCap::try_new(5).expect("in range")),
        ..Terms::default()
    };
    let fixture = Arc::new(fixture.on_terms(terms).await);
    let stores = [fixture.store.clone(), fixture.another_process().await];
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..30_usize {
        let (shared, store) = (fixture.clone(), stores[number % 2].clone());
        calls.spawn(async move {
            let request = shared.by("ada", 2);
            match insist(|| store.hold(&request)).await {
                Ok(_) => 2,
                Err(StoreError::Refused(Refusal::BuyerCap {
                    cap: 5,
                    has: 4,
                    wanted: 2,
                })) => 0,
                Err(error) => panic!("{error:?}"),
            }
        });
    }
    assert_eq!(calls.join_all().await.iter().sum::<u32>(), 4);
    fixture.store.hold(&fixture.by("ada", 1)).await.expect("the fifth");
    fixture.store.hold(&fixture.by("bob", 5)).await.expect("another buyer");
    fixture.clock.advance(Duration::from_secs(120));
    let again = fixture.store.hold(&fixture.by("ada", 5)).await;
    again.expect("what has expired is nobody's");
}

async fn fifty_holds_live_at_once_and_no_more(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 2, 40)]).await;
    for _ in 0..MAX_LIVE_HOLDS {
        let hold = fixture.store.hold(&fixture.by("bot", 1)).await;
        hold.expect("within the limit");
    }
    let refused = refusal(fixture.store.hold(&fixture.by("bot", 1)).await);
    let wait = Duration::from_secs(120);
    assert_eq!(refused, Refusal::TooManyHolds { live: 50, wait });
    fixture.clock.advance(wait);
    let hold = fixture.store.hold(&fixture.by("bot", 1)).await;
    hold.expect("the others have expired");
}

async fn general_admission_sells_every_place_once(store: TestStore) {
    let mut fixture = Fixture::with(store, &[("A", 1, 1)]).await;
    let floor = Section {
        name: SectionName::try_new("FLOOR").expect("a name"),
        layout: Layout::try_new(0, 0, 30).expect("in range"),
        price: Price::try_new(Currency::EUR, 1_000).expect("in range"),
    };
    let new = NewEvent {
        plan: SeatingPlan::try_new(vec![floor]).expect("a plan"),
        ..event(&[("A", 1, 1)])
    };
    let (created, counts) = fixture.store.create_event(id(), id(), &new).await.expect("new");
    assert_eq!(counts.total, 30);
    fixture.event = created.id;
    let fixture = Arc::new(fixture);
    let stores = [fixture.store.clone(), fixture.another_process().await];
    let mut buyers = tokio::task::JoinSet::new();
    for buyer in 0..40_usize {
        let (shared, store) = (fixture.clone(), stores[buyer % 2].clone());
        buyers.spawn(async move {
            let request = shared.best(1);
            match insist(|| store.hold(&request)).await {
                Ok(hold) => Some(names(&hold)[0].clone()),
                Err(StoreError::Refused(Refusal::SoldOut { wanted: 1, free: 0 })) => None,
                Err(error) => panic!("{error:?}"),
            }
        });
    }
    let mut places: Vec<String> = buyers.join_all().await.into_iter().flatten().collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 30, "each place once");
    assert!(places.iter().all(|place| place.starts_with("FLOOR/ga/")), "{places:?}");
    assert_eq!(fixture.figures().await, [0, 30, 0, 0]);
}

async fn a_refund_frees_the_seats_once_however_often_and_wherever_it_is_asked_for(store: TestStore) {
    let fixture = Arc::new(Fixture::with(store, &[("A", 1, 4)]).await);
    let order = fixture.sold(3).await;
    let other = fixture.sold(1).await;
    assert_eq!(fixture.figures().await, [0, 0, 4, 0]);
    let stores = [fixture.store.clone(), fixture.another_process().await];
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..10_usize {
        let store = stores[number % 2].clone();
        calls.spawn(async move {
            let asked = asked(order);
            insist(|| store.refund(&asked)).await.expect("refunded")
        });
    }
    let answers = calls.join_all().await;
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]) && answers[0].len() == 3);
    assert_eq!(fixture.figures().await, [3, 0, 1, 3]);
    assert_eq!(fixture.counts().await, (3, 0, 1));
    let again = fixture.sold(3).await;
    fixture.store.refund(&asked(order)).await.expect("a repeat");
    assert_eq!(
        fixture.figures().await,
        [0, 0, 4, 3],
        "a repeat leaves the next buyer alone"
    );
    let ticket = fixture.store.check_ticket(answers[0][0].id).await.expect("known");
    assert!(ticket.revoked_at.is_some());
    fixture.store.refund(&asked(again)).await.expect("refunded");
    fixture.store.refund(&asked(other)).await.expect("refunded");
    assert_eq!(fixture.figures().await, [4, 0, 0, 7]);
    let nobody = id();
    let refunded = fixture.store.refund(&asked(nobody)).await;
    assert_eq!(refusal(refunded), Refusal::OrderUnknown(nobody));
    let checked = fixture.store.check_ticket(nobody).await;
    assert_eq!(refusal(checked), Refusal::TicketUnknown(nobody));
    fixture.check_seats().await;
}

/// A request that was refused is refused when it comes once more, late, also where it would be granted by now: who asked has heard
/// that the tickets are good. A clock that steps back stands here for terms that have changed.
async fn a_buyer_gives_tickets_back_until_the_event_begins_and_a_refusal_is_for_good(store: TestStore) {
    let mut fixture = Fixture::with(store, &[("A", 1, 1)]).await;
    let new = NewEvent {
        starts_at: fixture.store.now().after(DAY),
        ..event(&[("A", 1, 4)])
    };
    let (event, _) = fixture.store.create_event(id(), id(), &new).await.expect("a new event");
    fixture.event = event.id;
    let by_buyer = |order_id| NewRefund {
        id: Some(id()),
        by: Asker::Buyer,
        ..asked(order_id)
    };
    let [early, late, never] = [fixture.sold(1).await, fixture.sold(1).await, fixture.sold(1).await];
    fixture.clock.advance(DAY - Duration::from_nanos(1));
    let first = by_buyer(early);
    let void = fixture.store.refund(&first).await.expect("in time");
    fixture.clock.advance(Duration::from_nanos(1));
    let closed = Refusal::RefundClosed(event.starts_at);
    let [refused, last] = [by_buyer(late), by_buyer(never)];
    for _ in 0..2 {
        assert_eq!(refusal(fixture.store.refund(&refused).await), closed);
    }
    assert_eq!(refusal(fixture.store.refund(&last).await), closed);
    let repeated = fixture.store.refund(&first).await.expect("it was done in time");
    assert_eq!(repeated, void);
    fixture.clock.0.fetch_sub(5_000_000_000, Ordering::SeqCst);
    assert_eq!(refusal(fixture.store.refund(&refused).await), closed, "it was told so");
    fixture.store.refund(&by_buyer(late)).await.expect("another request");
    fixture.clock.advance(Duration::from_secs(60));
    fixture
        .store
        .refund(&asked(never))
        .await
        .expect("the platform always may");
    assert_eq!(fixture.figures().await, [4, 0, 0, 3]);
    fixture.check_seats().await;
}

async fn the_sweep_writes_down_what_is_over_and_nothing_else(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 2, 4)]).await;
    let request = fixture.best(2);
    let lapsed = fixture.store.hold(&request).await.expect("free");
    fixture.clock.advance(Duration::from_secs(119));
    assert_eq!(fixture.store.sweep(50).await.expect("nothing to do"), 0);
    let kept = fixture.store.hold(&fixture.best(1)).await.expect("free");
    fixture.sold(1).await;
    fixture.clock.advance(Duration::from_secs(1));
    // One of the two seats has a later hold by now: it stays with that one.
    let later = fixture.store.hold(&fixture.chosen(&["A/1/1"])).await;
    later.expect("free by time");
    let (key, event) = fixture.store.event_and_key(fixture.event).await.expect("it");
    let before = fixture.store.map_of(key, &event).await.expect("a map");
    assert_eq!(fixture.store.sweep(50).await.expect("swept"), 1);
    assert_eq!(fixture.store.sweep(50).await.expect("done"), 0);
    let after = fixture.store.map_of(key, &event).await.expect("a map");
    assert_eq!(after.revision, before.revision + 1, "one seat was written");
    assert_eq!(after.counts(), before.counts(), "and nobody sees a difference");
    assert_eq!(fixture.counts().await, (5, 2, 1));
    let late = fixture.store.confirm(lapsed.id, lapsed.token, id(), ids()).await;
    assert_eq!(refusal(late), Refusal::HoldExpired(lapsed.id));
    let repeated = fixture.store.hold(&request).await;
    assert_eq!(refusal(repeated), Refusal::HoldExpired(lapsed.id));
    let released = fixture.store.release(lapsed.id, Some(lapsed.token)).await;
    released.expect("releasing what lapsed succeeds");
    let confirmed = fixture.store.confirm(kept.id, kept.token, id(), ids()).await;
    confirmed.expect("in time");
}

async fn a_sweep_takes_so_many_at_a_time_and_two_processes_do_not_mind_each_other(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 2, 40)]).await;
    for _ in 0..20 {
        fixture.store.hold(&fixture.best(1)).await.expect("free");
    }
    fixture.clock.advance(Duration::from_secs(120));
    assert_eq!(fixture.store.sweep(5).await.expect("swept"), 5);
    let other = fixture.another_process().await;
    let (one, two) = tokio::join!(insist(|| fixture.store.sweep(50)), insist(|| other.sweep(50)));
    assert!(one.expect("swept") + two.expect("swept") >= 15);
    assert_eq!(fixture.store.sweep(50).await.expect("done"), 0);
    let (key, event) = fixture.store.event_and_key(fixture.event).await.expect("it");
    let map = fixture.store.map_of(key, &event).await.expect("a map");
    assert_eq!(map.revision, 40, "each seat was held once and freed once");
}

async fn the_revision_grows_with_every_change_and_is_the_same_everywhere(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 4)]).await;
    let other = fixture.another_process().await;
    let (key, event) = fixture.store.event_and_key(fixture.event).await.expect("it");
    let mut last = fixture.store.revision(key).await.expect("a number");
    assert_eq!(last, 0);
    let order = fixture.sold(2).await;
    for change in 0..3 {
        match change {
            0 => {}
            1 => drop(fixture.store.refund(&asked(order)).await.expect("refunded")),
            _ => drop(fixture.store.hold(&fixture.best(1)).await.expect("free")),
        }
        let map = other.map_of(key, &event).await.expect("a map");
        assert_eq!(map.revision, fixture.store.revision(key).await.expect("a number"));
        assert!(map.revision > last);
        last = map.revision;
    }
}

async fn several_processes_sign_with_one_key(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 1)]).await;
    let other = fixture.another_process().await;
    let (one, two) = tokio::join!(insist(|| fixture.store.signer()), insist(|| other.signer()));
    let (one, two) = (one.expect("a key"), two.expect("a key"));
    assert_eq!(one.kid(), two.kid());
    let keys = other.public_keys().await.expect("keys");
    assert_eq!(keys.iter().count(), 1);
    assert!(keys.get(one.kid().as_str()).is_some());
}

async fn words_are_found_on_either_store_alike(store: TestStore) {
    const CAFE: &str = "Café “Zürich”";
    let fixture = Fixture::with(store, &[("A", 1, 1)]).await;
    for (title, venue, at) in [
        ("Late Beethoven", "Kammersaal", 10),
        ("Beethoven spät", "Kammersaal", 5),
        ("Quartet", "Beethovensaal", 1),
        (CAFE, "Théâtre", 7),
        ("x'); DROP TABLE events; --", "\" OR 1=1", 8),
    ] {
        let new = NewEvent {
            title: Text::try_new(title).expect("in limits"),
            venue: Venue::named(Text::try_new(venue).expect("in limits")),
            starts_at: Timestamp::from_nanos(at),
            ..event(&[("A", 1, 1)])
        };
        fixture.store.create_event(id(), id(), &new).await.expect("new");
    }
    let found = async |text: &str, place: &str| {
        let query = Query {
            text: Words::asked(text).expect("short"),
            place: Words::asked(place).expect("short"),
            ..Query::default()
        };
        let found = fixture.store.search(&query, None, 10).await.expect("a search");
        found.into_iter().map(|(_, (event, _))| event.title).collect::<Vec<_>>()
    };
    assert_eq!(
        found("beethoven", "").await,
        ["Beethoven spät", "Late Beethoven", "Quartet"]
    );
    assert_eq!(found("beeth spat", "").await, ["Beethoven spät"]);
    assert_eq!(
        found("beethoven", "kammersaal").await,
        ["Beethoven spät", "Late Beethoven"]
    );
    assert_eq!(found("", "beethoven").await, ["Quartet"]);
    assert_eq!(found("ZURICH", "theatre").await, [CAFE]);
    assert_eq!(found("drop table", "").await, ["x'); DROP TABLE events; --"]);
    for nothing in [
        "\"",
        "beethoven | late | x",
        "NOT beethoven",
        "late:*A",
        "title:late",
        "nosuch",
        "\\",
    ] {
        assert!(found(nothing, "").await.is_empty(), "{nothing}");
    }
    assert_eq!(found("", "").await.len(), 6);
}

service_store::on_both_stores![
    a_sale_begins_and_ends_and_what_is_held_may_still_be_confirmed,
    a_buyer_has_no_more_than_the_cap_in_a_rush_either,
    fifty_holds_live_at_once_and_no_more,
    general_admission_sells_every_place_once,
    a_refund_frees_the_seats_once_however_often_and_wherever_it_is_asked_for,
    a_buyer_gives_tickets_back_until_the_event_begins_and_a_refusal_is_for_good,
    the_sweep_writes_down_what_is_over_and_nothing_else,
    a_sweep_takes_so_many_at_a_time_and_two_processes_do_not_mind_each_other,
    the_revision_grows_with_every_change_and_is_the_same_everywhere,
    several_processes_sign_with_one_key,
    words_are_found_on_either_store_alike,
];
