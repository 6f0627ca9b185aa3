//! Who watches an event hears of every change, whichever server made it; seat maps.

use std::{collections::BTreeMap, time::Duration};

use proto::ticket::v1::{
    ConfirmHoldRequest, GetSeatMapRequest, HoldSeatsRequest, SeatMap, SeatState, Section, WatchAvailabilityRequest,
    WatchAvailabilityResponse, watch_availability_response::Update,
};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::fixture::{Client, Fixture, chosen, create, id, reason, section};

/// Longer than anything takes here; a test that meets it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

async fn watch(client: &mut Client, event: &str, revision: i64) -> Streaming<WatchAvailabilityResponse> {
    let request = WatchAvailabilityRequest {
        event_id: event.to_owned(),
        revision,
    };
    client
        .watch_availability(request)
        .await
        .expect("it exists")
        .into_inner()
}

async fn next(stream: &mut Streaming<WatchAvailabilityResponse>) -> Update {
    let told = timeout(PATIENCE, stream.message())
        .await
        .expect("in time")
        .expect("no error");
    told.expect("no end").update.expect("an update")
}

async fn snapshot(stream: &mut Streaming<WatchAvailabilityResponse>) -> SeatMap {
    match next(stream).await {
        Update::Snapshot(map) => map,
        other => panic!("{other:?}"),
    }
}

/// Applies what is told until `seat` is in `state`.
async fn until(stream: &mut Streaming<WatchAvailabilityResponse>, seat: &str, state: SeatState) -> i64 {
    let mut seats = BTreeMap::new();
    loop {
        if let Update::Delta(delta) = next(stream).await {
            seats.extend(delta.seats.into_iter().map(|seat| (seat.seat_id.clone(), seat.state())));
            if seats.get(seat) == Some(&state) {
                return delta.revision;
            }
        }
    }
}

#[tokio::test]
async fn a_watcher_hears_of_holds_sales_and_lapses_of_all_servers() {
    let fixture = Fixture::with(2).await;
    let (mut one, mut other) = (fixture.client(0).await, fixture.client(1).await);
    let floor = Section {
        capacity: 3,
        ..section("F", 0, 0)
    };
    let event = create(&mut one, vec![section("A", 2, 3), floor]).await;
    let mut watched = [
        watch(&mut one, &event.id, -1).await,
        watch(&mut other, &event.id, -1).await,
    ];
    for stream in &mut watched {
        let map = snapshot(stream).await;
        assert_eq!(map.sections[0].rows, ["FFF", "FFF"]);
        assert!(map.sections[1].rows.is_empty(), "general admission is a count");
        assert_eq!((map.sections[1].free, map.revision), (3, 0));
    }
    let hold = one.hold_seats(chosen(&event.id, &["A/1/2"])).await.expect("free");
    let hold = hold.into_inner().hold.expect("a hold");
    for stream in &mut watched {
        until(stream, "A/1/2", SeatState::Held).await;
    }
    let confirm = ConfirmHoldRequest {
        hold_id: hold.id,
        hold_token: hold.token,
        order_id: id(),
    };
    other.confirm_hold(confirm).await.expect("in time");
    for stream in &mut watched {
        until(stream, "A/1/2", SeatState::Sold).await;
    }
    // Nobody does anything about this one: it is swept.
    let short = HoldSeatsRequest {
        ttl: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..chosen(&event.id, &["A/2/3"])
    };
    one.hold_seats(short).await.expect("free");
    let mut revisions = Vec::new();
    for stream in &mut watched {
        until(stream, "A/2/3", SeatState::Held).await;
        revisions.push(until(stream, "A/2/3", SeatState::Free).await);
    }
    let map = one
        .get_seat_map(GetSeatMapRequest {
            event_id: event.id.clone(),
        })
        .await
        .expect("it exists");
    let map = map.into_inner().map.expect("a map");
    assert_eq!(map.sections[0].rows, ["FSF", "FFF"]);
    assert!(revisions.iter().all(|revision| *revision <= map.revision));

    let mut resumed = watch(&mut one, &event.id, map.revision).await;
    assert!(matches!(next(&mut resumed).await, Update::Bookmark(bookmark) if bookmark.revision == map.revision));
    let mut behind = watch(&mut one, &event.id, map.revision - 1).await;
    assert_eq!(snapshot(&mut behind).await, map);

    let status = one
        .watch_availability(WatchAvailabilityRequest {
            event_id: id(),
            revision: 0,
        })
        .await;
    let status = status.expect_err("no such event");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "EVENT_UNKNOWN")
    );
    drop((watched, resumed, behind));
    fixture.stop().await;
}

/// A server that goes says so to those who watch it, and does not wait for them.
#[tokio::test]
async fn a_watch_ends_with_its_server() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = create(&mut client, vec![section("A", 1, 1)]).await;
    let mut stream = watch(&mut client, &event.id, -1).await;
    snapshot(&mut stream).await;
    let stopped = tokio::spawn(fixture.stop());
    let status = timeout(PATIENCE, stream.message())
        .await
        .expect("in time")
        .expect_err("an end");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "DRAINING")
    );
    stopped.await.expect("a clean end");
}

#[tokio::test]
async fn a_hall_of_twenty_thousand_seats_is_one_small_answer() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = create(&mut client, vec![section("A", 100, 200)]).await;
    client
        .hold_seats(chosen(&event.id, &["A/100/200"]))
        .await
        .expect("free");
    let map = client
        .get_seat_map(GetSeatMapRequest { event_id: event.id })
        .await
        .expect("it exists")
        .into_inner();
    assert!(
        prost::Message::encoded_len(&map) < 32 << 10,
        "{}",
        prost::Message::encoded_len(&map)
    );
    let section = &map.map.expect("a map").sections[0];
    assert_eq!((section.rows.len(), section.free, section.held), (100, 19_999, 1));
    assert!(section.rows[99].ends_with("FFH") && section.rows.iter().all(|row| row.len() == 200));
    fixture.stop().await;
}
