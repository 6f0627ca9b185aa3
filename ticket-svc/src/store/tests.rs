//! The store of either kind: never sold twice, whoever asks how often and when.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use service_store::{Clock, Currency, Dialect, Text, Timestamp, testing::TestStore};
use uuid::Uuid;

use super::*;
use crate::domain::{
    event::{NewEvent, Terms},
    hold::{ChosenSeats, FencingToken, HoldTtl, MAX_SEATS, NewHold, Quantity, Selection},
    plan::{Layout, SeatingPlan, Section},
    price::Price,
    refusal::Refusal,
    seat::{SeatState, SectionName},
    venue::Venue,
};

mod cases;
mod events;
mod terms;

/// A clock that stands still until told.
#[derive(Debug, Default)]
struct Hand(AtomicI64);

impl Hand {
    fn advance(&self, by: Duration) {
        self.0
            .fetch_add(i64::try_from(by.as_nanos()).expect("a test's time"), Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

struct Fixture {
    store: Store,
    clock: Arc<Hand>,
    event: Uuid,
    // Dropped last: it must outlive the pools.
    place: TestStore,
}

impl Fixture {
    /// An event with sections given as (name, rows, seats a row), at 10.00 EUR a seat.
    async fn with(place: TestStore, sections: &[(&str, u32, u32)]) -> Self {
        let clock = Arc::new(Hand::default());
        let store = open(&place, &clock).await;
        let (event, _) = store
            .create_event(id(), id(), &event(sections))
            .await
            .expect("a new event");
        Self {
            store,
            clock,
            event: event.id,
            place,
        }
    }

    /// A second process on the same file.
    async fn another_process(&self) -> Store {
        open(&self.place, &self.clock).await
    }

    fn best(&self, quantity: u32) -> NewHold {
        let quantity = Quantity::try_new(quantity).expect("in range");
        self.hold(Selection::BestAvailable {
            quantity,
            section: None,
        })
    }

    fn chosen(&self, seats: &[&str]) -> NewHold {
        let seats = seats.iter().map(|seat| seat.parse().expect("a seat")).collect();
        self.hold(Selection::Seats(ChosenSeats::try_new(seats).expect("in limits")))
    }

    fn hold(&self, selection: Selection) -> NewHold {
        // One each: how much one buyer may have is another test's.
        let buyer = Text::try_new(&id().to_string()).expect("in limits");
        NewHold {
            id: id(),
            event_id: self.event,
            buyer,
            selection,
            ttl: HoldTtl::default(),
        }
    }

    /// Free, held and sold, as the event counts them and as its seats say one by one. While nobody buys.
    async fn counts(&self) -> (u32, u32, u32) {
        let (_, counts) = self.store.event(self.event).await.expect("the event");
        let seats = self.store.seats(self.event, None, None, 1_000).await.expect("seats");
        let number = |state| u32::try_from(seats.iter().filter(|seat| seat.state == state).count()).expect("few");
        let listed = [SeatState::Free, SeatState::Held, SeatState::Sold].map(number);
        assert_eq!([counts.free, counts.held, counts.sold], listed, "counted and listed");
        assert_eq!(listed.iter().sum::<u32>(), counts.total, "no seat is lost or made");
        self.check_seats().await;
        (counts.free, counts.held, counts.sold)
    }

    /// What is true at every moment, also in the middle of a rush; one statement, so that it is one moment. A sold seat has
    /// one ticket and its confirmed hold, a held seat has its hold, and each of them was granted this very seat.
    async fn check_seats(&self) {
        let wrong: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
            "SELECT section, row_no, seat_no, state FROM seats
             WHERE state <> CASE (SELECT phase FROM holds JOIN hold_seats ON hold_seats.hold = token
                                  WHERE token = seats.hold AND holds.event = seats.event
                                    AND (hold_seats.section, hold_seats.row_no, hold_seats.seat_no)
                                      = (seats.section, seats.row_no, seats.seat_no))
                            WHEN 0 THEN 1 WHEN 1 THEN 2 ELSE 0 END
                OR CASE state WHEN 2 THEN 1 ELSE 0 END
                                <> (SELECT count(*) FROM tickets
                                   WHERE tickets.event = seats.event AND tickets.hold = seats.hold AND revoked_at IS NULL
                                     AND (tickets.section, tickets.row_no, tickets.seat_no)
                                       = (seats.section, seats.row_no, seats.seat_no))",
        )
        .fetch_all(self.store.database.reader())
        .await
        .expect("an answer");
        assert!(wrong.is_empty(), "seats that are not what their hold says: {wrong:?}");
        let strays: i64 =
            sqlx::query_scalar("SELECT (SELECT count(*) FROM tickets WHERE revoked_at IS NULL) - (SELECT count(*) FROM seats WHERE state = 2)")
                .fetch_one(self.store.database.reader())
                .await
                .expect("a count");
        assert_eq!(strays, 0, "each ticket is for a sold seat");
    }
}

async fn open(place: &TestStore, clock: &Arc<Hand>) -> Store {
    Store::open(place.location(), clock.clone())
        .await
        .expect("the store opens")
}

fn id() -> Uuid {
    Uuid::new_v4()
}

fn ids() -> [Uuid; MAX_SEATS] {
    std::array::from_fn(|_| id())
}

fn event(sections: &[(&str, u32, u32)]) -> NewEvent {
    let price = Price::try_new(Currency::EUR, 1_000).expect("in range");
    let section = |(name, rows, seats): &(&str, u32, u32)| Section {
        name: SectionName::try_new(name).expect("a name"),
        layout: Layout::try_new(*rows, *seats, 0).expect("in range"),
        price,
    };
    NewEvent {
        title: Text::try_new("Title").expect("in limits"),
        venue: Venue::named(Text::try_new("Venue").expect("in limits")),
        terms: Terms::default(),
        starts_at: Timestamp::from_nanos(1),
        plan: SeatingPlan::try_new(sections.iter().map(section).collect()).expect("a plan"),
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Refusal {
    match result {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn names(hold: &crate::domain::hold::Hold) -> Vec<String> {
    hold.seats.iter().map(|(seat, _)| seat.to_string()).collect()
}

async fn a_hold_becomes_tickets_and_the_counts_follow(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 2, 3), ("B", 1, 4)]).await;
    assert_eq!(fixture.counts().await, (10, 0, 0));
    let hold = fixture.store.hold(&fixture.best(2)).await.expect("free seats");
    assert_eq!(names(&hold), ["A/1/1", "A/1/2"]);
    assert_eq!(hold.total.minor(), 2_000);
    assert_eq!(fixture.counts().await, (8, 2, 0));
    let order = id();
    let tickets = fixture
        .store
        .confirm(hold.id, hold.token, order, ids())
        .await
        .expect("in time");
    assert_eq!(tickets.len(), 2);
    assert_eq!(fixture.counts().await, (8, 0, 2));
    let again = fixture
        .store
        .confirm(hold.id, hold.token, order, ids())
        .await
        .expect("a repeat");
    assert_eq!(again, tickets, "a repeat answers the same tickets");
}

async fn holding_is_all_or_none(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 4)]).await;
    fixture.store.hold(&fixture.chosen(&["A/1/2"])).await.expect("free");
    let both = fixture.chosen(&["A/1/1", "A/1/2", "A/1/3"]);
    assert_eq!(
        refusal(fixture.store.hold(&both).await),
        Refusal::SeatTaken("A/1/2".parse().expect("a seat"))
    );
    assert_eq!(fixture.counts().await, (3, 1, 0));
    let too_many = refusal(fixture.store.hold(&fixture.best(4)).await);
    assert_eq!(too_many, Refusal::SoldOut { wanted: 4, free: 3 });
    assert_eq!(fixture.counts().await, (3, 1, 0));
}

async fn what_is_not_there_is_refused_by_name(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 4)]).await;
    let seat = refusal(fixture.store.hold(&fixture.chosen(&["A/1/5"])).await);
    assert_eq!(seat, Refusal::SeatUnknown("A/1/5".parse().expect("a seat")));
    let section = Some(SectionName::try_new("Z").expect("a name"));
    let quantity = Quantity::try_new(1).expect("in range");
    let section = refusal(
        fixture
            .store
            .hold(&fixture.hold(Selection::BestAvailable { quantity, section }))
            .await,
    );
    assert_eq!(section, Refusal::SectionUnknown("Z".to_owned()));
    let elsewhere = NewHold {
        event_id: id(),
        ..fixture.best(1)
    };
    assert_eq!(
        refusal(fixture.store.hold(&elsewhere).await),
        Refusal::EventUnknown(elsewhere.event_id)
    );
    let nobody = id();
    let unknown = fixture.store.confirm(nobody, FencingToken(1), id(), ids()).await;
    assert_eq!(refusal(unknown), Refusal::HoldUnknown(nobody));
}

async fn the_same_request_gets_the_same_answer_and_another_body_is_an_error(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 4)]).await;
    let request = fixture.best(2);
    let first = fixture.store.hold(&request).await.expect("free");
    assert_eq!(fixture.store.hold(&request).await.expect("a repeat"), first);
    assert_eq!(fixture.counts().await, (2, 2, 0), "a repeat takes nothing");
    let other = NewHold {
        id: request.id,
        ..fixture.best(1)
    };
    assert_eq!(
        refusal(fixture.store.hold(&other).await),
        Refusal::RequestIdReused(request.id)
    );

    let (request_id, new) = (id(), event(&[("A", 1, 1)]));
    let (created, _) = fixture.store.create_event(request_id, id(), &new).await.expect("new");
    let (repeated, _) = fixture
        .store
        .create_event(request_id, id(), &new)
        .await
        .expect("a repeat");
    assert_eq!(repeated, created);
    let reused = fixture
        .store
        .create_event(request_id, id(), &event(&[("B", 1, 1)]))
        .await;
    assert_eq!(refusal(reused), Refusal::RequestIdReused(request_id));
}

async fn an_expired_hold_counts_as_free_and_cannot_be_confirmed(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let late = fixture.store.hold(&fixture.best(2)).await.expect("free");
    fixture.clock.advance(Duration::from_secs(120));
    assert_eq!(
        fixture.counts().await,
        (2, 0, 0),
        "nobody swept, yet the seats are free"
    );
    let free = fixture
        .store
        .seats(fixture.event, Some(SeatState::Free), None, 10)
        .await
        .expect("seats");
    assert_eq!(free.len(), 2);
    let confirmed = fixture.store.confirm(late.id, late.token, id(), ids()).await;
    assert_eq!(refusal(confirmed), Refusal::HoldExpired(late.id));

    let next = fixture.store.hold(&fixture.best(1)).await.expect("free again");
    assert!(next.token > late.token, "a later hold has a greater token");
    fixture
        .store
        .release(late.id, Some(late.token))
        .await
        .expect("releasing what expired succeeds");
    assert_eq!(
        fixture.counts().await,
        (1, 1, 0),
        "the late release leaves the later hold alone"
    );
    fixture
        .store
        .confirm(next.id, next.token, id(), ids())
        .await
        .expect("its own hold is good");
}

/// A clock that steps back must not let an expired hold sell seats that went to someone else: the token decides, not the time.
async fn a_seat_that_went_to_a_later_hold_is_not_sold_to_the_earlier_one(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let early = fixture.store.hold(&fixture.best(2)).await.expect("free");
    fixture.clock.advance(Duration::from_secs(120));
    let later = fixture
        .store
        .hold(&fixture.chosen(&["A/1/2"]))
        .await
        .expect("free again");
    fixture.clock.0.store(0, Ordering::SeqCst);
    let confirmed = fixture.store.confirm(early.id, early.token, id(), ids()).await;
    assert_eq!(refusal(confirmed), Refusal::HoldExpired(early.id));
    fixture
        .store
        .confirm(later.id, later.token, id(), ids())
        .await
        .expect("the later one may");
}

/// Asks again while the store is busy, as its callers are told to, and at most 20 times: where a commit takes its time to
/// reach the disk, the last of a rush waits longer than one attempt may.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> Result<T, StoreError> {
    for _ in 1..20 {
        match ask().await {
            Err(StoreError::Busy) => {}
            answer => return answer,
        }
    }
    ask().await
}

/// 120 buyers over two processes want 40 seats at the same instant.
async fn a_rush_over_two_processes_sells_every_seat_once(store: TestStore) {
    let fixture = Arc::new(Fixture::with(store, &[("A", 4, 10)]).await);
    let stores = [fixture.store.clone(), fixture.another_process().await];
    let mut buyers = tokio::task::JoinSet::new();
    for buyer in 0..120_usize {
        let (shared, store) = (fixture.clone(), stores[buyer % 2].clone());
        buyers.spawn(async move {
            // Every third chooses a seat by name, the others take what is best.
            let request = match buyer % 3 {
                0 => shared.chosen(&[&format!("A/{}/{}", buyer / 30 + 1, buyer / 3 % 10 + 1)]),
                _ => shared.best(1),
            };
            match insist(|| store.hold(&request)).await {
                // Every seventh changes their mind.
                Ok(hold) if buyer % 7 == 0 => {
                    let released = insist(|| store.release(hold.id, Some(hold.token))).await;
                    released.expect("released");
                    Vec::new()
                }
                Ok(hold) => {
                    let order = id();
                    let sold = insist(|| store.confirm(hold.id, hold.token, order, ids())).await;
                    sold.expect("in time")
                }
                Err(StoreError::Refused(Refusal::SoldOut { .. } | Refusal::SeatTaken(_))) => Vec::new(),
                Err(error) => panic!("buyer {buyer}: {error:?}"),
            }
        });
        if buyer % 30 == 0 {
            fixture.check_seats().await;
        }
    }
    let sold: Vec<_> = buyers
        .join_all()
        .await
        .into_iter()
        .flatten()
        .map(|ticket| ticket.seat)
        .collect();
    let distinct: std::collections::BTreeSet<_> = sold.iter().cloned().collect();
    assert_eq!(distinct.len(), sold.len(), "a seat was sold twice");
    let (free, held, counted) = fixture.counts().await;
    assert_eq!((free + counted, held, counted as usize), (40, 0, sold.len()));
}

async fn pages_of_seats_and_events_neither_skip_nor_repeat(store: TestStore) {
    let fixture = Fixture::with(store, &[("B", 2, 3), ("A", 1, 4)]).await;
    fixture.store.hold(&fixture.chosen(&["B/1/2"])).await.expect("free");
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = fixture
            .store
            .seats(fixture.event, None, cursor, 3)
            .await
            .expect("a page");
        let Some(last) = page.last() else { break };
        cursor = Some(last.place);
        seen.extend(page.iter().map(|seat| seat.id.to_string()));
    }
    assert_eq!(
        seen,
        [
            "B/1/1", "B/1/2", "B/1/3", "B/2/1", "B/2/2", "B/2/3", "A/1/1", "A/1/2", "A/1/3", "A/1/4"
        ],
        "sections as the event lists them"
    );
    let held = fixture
        .store
        .seats(fixture.event, Some(SeatState::Held), None, 10)
        .await
        .expect("seats");
    assert_eq!(
        held.iter().map(|seat| seat.id.to_string()).collect::<Vec<_>>(),
        ["B/1/2"]
    );

    for _ in 0..4 {
        fixture
            .store
            .create_event(id(), id(), &event(&[("A", 1, 1)]))
            .await
            .expect("new");
    }
    let mut events = Vec::new();
    let mut cursor = None;
    loop {
        let page = fixture.store.events(cursor, 2).await.expect("a page");
        let Some((last, _)) = page.last() else { break };
        cursor = Some(last.cursor());
        events.extend(page.into_iter().map(|(event, _)| event.id));
    }
    assert_eq!(events.len(), 5);
    assert!(events.is_sorted(), "equal start times go by id");
}

/// Several processes may be told to sow the same new file.
async fn of_three_processes_that_start_at_once_one_sows(store: TestStore) {
    let place = Arc::new(store);
    let clock = Arc::new(Hand::default());
    let mut processes = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (place, clock) = (place.clone(), clock.clone());
        processes.spawn(async move {
            let store = open(&place, &clock).await;
            let programme = [(Uuid::from_u128(1), event(&[("A", 1, 1)]))];
            store.sow(&programme).await.expect("sown or found")
        });
    }
    let sowed = processes.join_all().await;
    assert_eq!(
        sowed.iter().filter(|sowed| **sowed).count(),
        1,
        "one of them sows: {sowed:?}"
    );
}

/// Another process keeps the file: the call gives up and says that a retry may help. When it does is `service-store`'s.
#[tokio::test]
async fn a_locked_file_is_busy_while_it_is_locked_and_free_again_after() {
    let store = TestStore::new(Dialect::Sqlite).expect("a file");
    let fixture = Fixture::with(store, &[("A", 1, 2)]).await;
    let other = fixture.another_process().await;
    let lock = other.begin().await.expect("the lock");
    let deadline = Deadline::after(Duration::from_millis(400));
    let refused = deadline.scope(fixture.store.hold(&fixture.best(1))).await;
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    drop(lock);
    fixture.store.hold(&fixture.best(1)).await.expect("the lock is free");
}

/// The last line of defence is the unique constraint on tickets.
async fn a_second_ticket_for_a_seat_cannot_even_be_inserted(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 1)]).await;
    let hold = fixture.store.hold(&fixture.best(1)).await.expect("free");
    fixture
        .store
        .confirm(hold.id, hold.token, id(), ids())
        .await
        .expect("in time");
    let mut write = fixture.store.begin().await.expect("the lock");
    let second = sqlx::query(
        "INSERT INTO tickets (id, event, section, row_no, seat_no, hold, order_id, sold_at)
         SELECT 'x', event, section, row_no, seat_no, hold, 'y', 0 FROM tickets",
    )
    .execute(&mut *write.tx)
    .await;
    assert!(second.is_err_and(|error| {
        error
            .as_database_error()
            .is_some_and(|error| error.is_unique_violation())
    }));
}

service_store::on_both_stores![
    a_hold_becomes_tickets_and_the_counts_follow,
    holding_is_all_or_none,
    what_is_not_there_is_refused_by_name,
    the_same_request_gets_the_same_answer_and_another_body_is_an_error,
    an_expired_hold_counts_as_free_and_cannot_be_confirmed,
    a_seat_that_went_to_a_later_hold_is_not_sold_to_the_earlier_one,
    a_rush_over_two_processes_sells_every_seat_once,
    pages_of_seats_and_events_neither_skip_nor_repeat,
    of_three_processes_that_start_at_once_one_sows,
    a_second_ticket_for_a_seat_cannot_even_be_inserted,
];
