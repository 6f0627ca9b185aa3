//! What others are told, on either store: one event for each change of a hold, in its transaction, and enough to know the seats.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::*;

/// Kind, key and body of every event, as they were written.
async fn told(store: &Store) -> Vec<(String, String, Value)> {
    let rows: Vec<(String, String, String)> = sqlx::query_as("SELECT kind, key, body FROM outbox ORDER BY seq")
        .fetch_all(store.database.reader())
        .await
        .expect("events");
    let read = |body: String| serde_json::from_str(&body).expect("JSON");
    rows.into_iter()
        .map(|(kind, key, body)| (kind, key, read(body)))
        .collect()
}

async fn each_change_of_a_hold_is_told_once_and_what_changes_nothing_is_not(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 9)]).await;
    let store = &fixture.store;
    let sold = store.hold(&fixture.chosen(&["A/1/1", "A/1/2"])).await.expect("free");
    let order = id();
    let tickets = store.confirm(sold.id, sold.token, order, ids()).await.expect("in time");
    store
        .confirm(sold.id, sold.token, order, ids())
        .await
        .expect("a repeat");
    store.refund(&super::terms::asked(order)).await.expect("refunded");
    store.refund(&super::terms::asked(order)).await.expect("a repeat");
    let released = store.hold(&fixture.chosen(&["A/1/3"])).await.expect("free");
    store.release(released.id, None).await.expect("released");
    store.release(released.id, None).await.expect("a repeat");
    // Neither of these comes to anything.
    store.release(id(), None).await.expect("remembered");
    refusal(store.hold(&fixture.chosen(&["A/1/10"])).await);

    let (event, both) = (fixture.event.to_string(), json!(["A/1/1", "A/1/2"]));
    let ticket_ids: Vec<_> = tickets.iter().map(|ticket| ticket.id.to_string()).collect();
    let of_order = json!({
        "schema": 1, "hold_id": sold.id.to_string(), "fencing_token": sold.token.0, "event_id": event, "seat_ids": both,
        "order_id": order.to_string(), "ticket_ids": ticket_ids,
    });
    let held = |hold: &crate::domain::hold::Hold| {
        json!({
            "schema": 1, "hold_id": hold.id.to_string(), "fencing_token": hold.token.0, "event_id": event,
            "seat_ids": names(hold), "expires_at_unix_nanos": hold.expires_at.as_nanos().to_string(),
        })
    };
    let gone = json!({
        "schema": 1, "hold_id": released.id.to_string(), "fencing_token": released.token.0, "event_id": event,
        "seat_ids": ["A/1/3"], "reason": "released",
    });
    let expected = [
        ("seat.held", sold.id, held(&sold)),
        ("seat.sold", sold.id, of_order.clone()),
        ("seat.refunded", sold.id, of_order),
        ("seat.held", released.id, held(&released)),
        ("seat.released", released.id, gone),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(kind, hold, body)| (kind.to_owned(), hold.to_string(), body))
        .collect();
    assert_eq!(told(store).await, expected);
}

async fn a_hold_that_time_ended_frees_what_it_still_has_and_is_told_once(store: TestStore) {
    let fixture = Fixture::with(store, &[("A", 1, 3)]).await;
    let store = &fixture.store;
    let early = store.hold(&fixture.best(3)).await.expect("free");
    fixture.clock.advance(Duration::from_secs(3_600));
    // Nobody has written down yet that the earlier one is over.
    let late = store.hold(&fixture.chosen(&["A/1/2"])).await.expect("free again");
    store.sweep(9).await.expect("swept");
    store.sweep(9).await.expect("nothing left");
    let told = told(store).await;
    let kinds: Vec<_> = told.iter().map(|(kind, key, _)| (kind.as_str(), key.clone())).collect();
    let (early, late) = (early.id.to_string(), late.id.to_string());
    assert_eq!(
        kinds,
        [
            ("seat.held", early.clone()),
            ("seat.held", late),
            ("seat.released", early)
        ]
    );
    assert_eq!(told[2].2["reason"], "expired");
    assert_eq!(
        told[2].2["seat_ids"],
        json!(["A/1/1", "A/1/3"]),
        "the other one is a later hold's"
    );
}

/// What a seat is for a reader of events: by hold in order, and between holds by the greater fencing token.
fn as_read(events: &[(String, String, Value)]) -> BTreeMap<String, SeatState> {
    let mut seen: HashMap<String, (i64, SeatState)> = HashMap::new();
    for (kind, _, body) in events {
        let state = match kind.as_str() {
            "seat.held" => SeatState::Held,
            "seat.sold" => SeatState::Sold,
            "seat.released" | "seat.refunded" => SeatState::Free,
            other => panic!("a kind that is none: {other}"),
        };
        let token = body["fencing_token"].as_i64().expect("a number");
        for seat in body["seat_ids"].as_array().expect("a list") {
            let entry = seen.entry(seat.as_str().expect("text").to_owned());
            let known = entry.or_insert((token, state));
            if token >= known.0 {
                *known = (token, state);
            }
        }
    }
    seen.into_iter().map(|(seat, (_, state))| (seat, state)).collect()
}

/// Many at once, who hold, buy, give back and get their money back. The events of each hold are in order, and as many as there
/// were changes; read with those of all holds turned around, they say what the seats are.
async fn whoever_reads_the_events_knows_the_seats(store: TestStore) {
    let fixture = Arc::new(Fixture::with(store, &[("A", 4, 10)]).await);
    let other = fixture.another_process().await;
    let mut buyers = tokio::task::JoinSet::new();
    for buyer in 0..60_usize {
        let (fixture, other) = (fixture.clone(), other.clone());
        buyers.spawn(async move {
            let store = if buyer % 2 == 0 { &fixture.store } else { &other };
            let Ok(hold) = store
                .hold(&fixture.best(1 + u32::try_from(buyer % 3).expect("few")))
                .await
            else {
                return;
            };
            if buyer % 4 == 0 {
                return store.release(hold.id, None).await.expect("released");
            }
            let order = id();
            store.confirm(hold.id, hold.token, order, ids()).await.expect("in time");
            if buyer % 5 == 0 {
                store.refund(&super::terms::asked(order)).await.expect("refunded");
            }
        });
    }
    buyers.join_all().await;
    let mut events = told(&fixture.store).await;
    let mut by_hold: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (kind, hold, _) in &events {
        by_hold.entry(hold.clone()).or_default().push(kind);
    }
    for (hold, kinds) in by_hold {
        let lives: [&[&str]; 3] = [
            &["seat.held", "seat.released"],
            &["seat.held", "seat.sold"],
            &["seat.held", "seat.sold", "seat.refunded"],
        ];
        assert!(lives.contains(&kinds.as_slice()), "{hold}: {kinds:?}");
    }
    let seats = fixture
        .store
        .seats(fixture.event, None, None, 1_000)
        .await
        .expect("seats");
    let seats: BTreeMap<_, _> = seats
        .into_iter()
        .map(|seat| (seat.id.to_string(), seat.state))
        .collect();
    for _ in 0..2 {
        let read = as_read(&events);
        for (seat, state) in &seats {
            assert_eq!(read.get(seat).unwrap_or(&SeatState::Free), state, "{seat}");
        }
        // The holds in another order, each of them in its own.
        events.sort_by(|one, next| next.1.cmp(&one.1));
    }
}

service_store::on_both_stores![
    each_change_of_a_hold_is_told_once_and_what_changes_nothing_is_not,
    a_hold_that_time_ended_frees_what_it_still_has_and_is_told_once,
    whoever_reads_the_events_knows_the_seats,
];
