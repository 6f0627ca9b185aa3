//! On what terms seats are sold: venues, general admission, sale windows, limits for one buyer.

use std::time::{SystemTime, UNIX_EPOCH};

use proto::ticket::v1::{ConfirmHoldRequest, GetEventRequest, ReleaseHoldRequest, SaleState, Section, Venue};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::fixture::{Fixture, best, buyer, chosen, create, euro, id, new_event, reason, section};

fn in_seconds(seconds: i64) -> Option<prost_types::Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Some(prost_types::Timestamp {
        seconds: i64::try_from(now.as_secs()).expect("a date") + seconds,
        nanos: 0,
    })
}

fn admission(name: &str, capacity: u32) -> Section {
    Section {
        capacity,
        ..section(name, 0, 0)
    }
}

#[tokio::test]
async fn events_at_one_venue_share_its_record() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let venue = Venue {
        name: "Kammersaal".into(),
        city: "Zürich".into(),
        address: "Limmatquai 1".into(),
        time_zone: "Europe/Zurich".into(),
        ..Venue::default()
    };
    let mut ids = Vec::new();
    for city in ["Zürich", "Zürich", "Bern"] {
        let mut request = new_event(vec![section("A", 1, 1)]);
        let event = request.event.as_mut().expect("an event");
        event.venue_record = Some(Venue {
            city: city.into(),
            ..venue.clone()
        });
        let created = client
            .create_event(request.clone())
            .await
            .expect("in limits")
            .into_inner()
            .event;
        let repeated = client.create_event(request).await.expect("a repeat").into_inner().event;
        assert_eq!(created, repeated);
        let event = created.expect("the event");
        assert_eq!(event.venue, "Kammersaal");
        let record = event.venue_record.expect("a record");
        assert_eq!(
            (record.city.as_str(), record.time_zone.as_str()),
            (city, "Europe/Zurich")
        );
        ids.push(record.id);
    }
    assert_eq!(ids[0], ids[1], "equal in every field: one record");
    assert_ne!(ids[0], ids[2]);
    fixture.stop().await;
}

#[tokio::test]
async fn general_admission_is_sold_like_seats_until_it_is_full() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = create(&mut client, vec![section("A", 1, 2), admission("FLOOR", 3)]).await;
    assert_eq!((event.seats_total, event.seats_free), (5, 5));
    assert_eq!(event.sections[1].capacity, 3);
    let mut request = best(&event.id, 2);
    match request.selection.as_mut() {
        Some(proto::ticket::v1::hold_seats_request::Selection::BestAvailable(best)) => best.section = "FLOOR".into(),
        other => panic!("{other:?}"),
    }
    let hold = client
        .hold_seats(request)
        .await
        .expect("room")
        .into_inner()
        .hold
        .expect("a hold");
    let names: Vec<&str> = hold.seats.iter().map(|seat| seat.id.as_str()).collect();
    assert_eq!(names, ["FLOOR/ga/1", "FLOOR/ga/2"]);
    assert!(hold.seats.iter().all(|seat| seat.row == 0));
    let status = client
        .hold_seats(chosen(&event.id, &["FLOOR/ga/2"]))
        .await
        .expect_err("held");
    assert_eq!(reason(&status), "SEAT_TAKEN");
    let status = client
        .hold_seats(chosen(&event.id, &["FLOOR/ga/4"]))
        .await
        .expect_err("three places");
    assert_eq!(reason(&status), "SEAT_UNKNOWN");
    client
        .hold_seats(chosen(&event.id, &["FLOOR/ga/3"]))
        .await
        .expect("the last one");
    let counted = client
        .get_event(GetEventRequest { event_id: event.id })
        .await
        .expect("it exists");
    let counted = counted.into_inner().event.expect("the event");
    assert_eq!((counted.seats_free, counted.seats_held), (2, 3));
    fixture.stop().await;
}

#[tokio::test]
async fn nothing_is_held_outside_the_sale_window_and_the_answer_says_when() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    for (starts, ends, state, refusal, field) in [
        (
            in_seconds(600),
            in_seconds(900),
            SaleState::NotOpen,
            Some("SALE_NOT_OPEN"),
            "sale_starts_at",
        ),
        (
            in_seconds(-900),
            in_seconds(-600),
            SaleState::Closed,
            Some("SALE_CLOSED"),
            "sale_ends_at",
        ),
        (in_seconds(-600), in_seconds(600), SaleState::Open, None, ""),
    ] {
        let mut request = new_event(vec![section("A", 1, 2)]);
        let event = request.event.as_mut().expect("an event");
        (event.sale_starts_at, event.sale_ends_at) = (starts, ends);
        let event = client
            .create_event(request)
            .await
            .expect("in limits")
            .into_inner()
            .event
            .expect("it");
        assert_eq!(event.sale(), state);
        match (client.hold_seats(best(&event.id, 1)).await, refusal) {
            (Ok(_), None) => {}
            (Err(status), Some(expected)) => {
                assert_eq!(
                    (status.code(), reason(&status).as_str()),
                    (Code::FailedPrecondition, expected)
                );
                let info = status.get_details_error_info().expect("an ErrorInfo");
                let when = info.metadata.get(field).expect("when");
                assert!(
                    when.ends_with('Z') && status.message().contains(when.as_str()),
                    "{status:?}"
                );
            }
            (other, _) => panic!("{state:?}: {other:?}"),
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn one_buyer_has_no_more_seats_than_the_event_allows_held_and_bought_together() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let mut request = new_event(vec![section("A", 2, 10)]);
    request.event.as_mut().expect("an event").max_per_buyer = 4;
    let event = client
        .create_event(request)
        .await
        .expect("in limits")
        .into_inner()
        .event
        .expect("it");
    let hold = client
        .hold_seats(buyer("ada", best(&event.id, 3)))
        .await
        .expect("three of four");
    let hold = hold.into_inner().hold.expect("a hold");
    let status = client
        .hold_seats(buyer("ada", best(&event.id, 2)))
        .await
        .expect_err("five");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "BUYER_CAP")
    );
    client
        .hold_seats(buyer("bob", best(&event.id, 4)))
        .await
        .expect("another buyer");
    let confirm = ConfirmHoldRequest {
        hold_id: hold.id,
        hold_token: hold.token,
        order_id: id(),
    };
    client.confirm_hold(confirm).await.expect("in time");
    let last = client
        .hold_seats(buyer("ada", best(&event.id, 1)))
        .await
        .expect("the fourth");
    let status = client
        .hold_seats(buyer("ada", best(&event.id, 1)))
        .await
        .expect_err("bought ones count");
    assert_eq!(reason(&status), "BUYER_CAP");
    let release = ReleaseHoldRequest {
        hold_id: last.into_inner().hold.expect("a hold").id,
        hold_token: 0,
    };
    client.release_hold(release).await.expect("released");
    client
        .hold_seats(buyer("ada", best(&event.id, 1)))
        .await
        .expect("released ones do not");
    fixture.stop().await;
}

/// A program that holds 10,000 times gets fifty holds, and every other answer is a clean one.
///
/// On a busy machine this takes longer than a hold lasts by default, and what lapsed was granted again: so these last longest.
#[tokio::test]
async fn a_bot_with_ten_thousand_holds_takes_fifty_seats_out_of_the_sale() {
    let fixture = Fixture::with(1).await;
    let client = fixture.client(0).await;
    let event = create(&mut client.clone(), vec![section("A", 20, 50)]).await;
    let mut answers = std::collections::BTreeMap::<String, u32>::new();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (mut client, event) = (client.clone(), event.id.clone());
        calls.spawn(async move {
            let mut heard = Vec::new();
            for _ in 0..500 {
                let mut request = buyer("bot", best(&event, 1));
                request.ttl = Some(prost_types::Duration { seconds: 900, nanos: 0 });
                heard.push(match client.hold_seats(request).await {
                    Ok(_) => "held".to_owned(),
                    Err(status) => {
                        assert!(status.get_details_retry_info().is_some(), "{status:?}");
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                        reason(&status)
                    }
                });
            }
            heard
        });
    }
    for heard in calls.join_all().await.into_iter().flatten() {
        *answers.entry(heard).or_default() += 1;
    }
    assert_eq!(answers.values().sum::<u32>(), 10_000);
    assert_eq!(answers.get("held"), Some(&50), "{answers:?}");
    let mut client = client;
    client
        .hold_seats(buyer("ada", best(&event.id, 10)))
        .await
        .expect("seats are left for people");
    let counted = client
        .get_event(GetEventRequest { event_id: event.id })
        .await
        .expect("it exists");
    let counted = counted.into_inner().event.expect("the event");
    assert_eq!((counted.seats_held, counted.seats_free), (60, 940));
    assert_eq!(euro(2_500), counted.sections[0].price);
    fixture.stop().await;
}
