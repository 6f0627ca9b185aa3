//! What nobody sends by mistake: names that deceive, sizes that no form has, terms that make no sense.

use proto::ticket::v1::{Event, Section, Venue};
use tonic::Code;

use crate::fixture::{Client, Fixture, best, buyer, chosen, create, euro, fields, id, new_event, reason, section};

async fn refused(client: &mut Client, change: impl FnOnce(&mut Event)) -> Vec<String> {
    let mut request = new_event(vec![section("A", 1, 1)]);
    change(request.event.as_mut().expect("an event"));
    fields(&client.create_event(request).await.expect_err("refused"))
}

fn venue(event: &mut Event, change: impl FnOnce(&mut Venue)) {
    let mut venue = Venue {
        name: event.venue.clone(),
        ..Venue::default()
    };
    change(&mut venue);
    event.venue_record = Some(venue);
}

/// Control characters forge lines of logs, and marks of direction make a name read as another one.
#[tokio::test]
async fn names_that_deceive_are_refused_by_field() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = create(&mut client, vec![section("A", 1, 1)]).await.id;
    for mark in [
        '\0', '\n', '\u{1b}', '\u{7f}', '\u{85}', '\u{200f}', '\u{202e}', '\u{2066}', '\u{2028}',
    ] {
        let bad = format!("a{mark}b");
        assert_eq!(
            refused(&mut client, |event| event.title = bad.clone()).await,
            ["event.title"],
            "{mark:?}"
        );
        assert_eq!(
            refused(&mut client, |event| event.venue = bad.clone()).await,
            ["event.venue"]
        );
        let city = refused(&mut client, |event| venue(event, |venue| venue.city = bad.clone())).await;
        assert_eq!(city, ["event.venue_record.city"]);
        let address = refused(&mut client, |event| venue(event, |venue| venue.address = bad.clone())).await;
        assert_eq!(address, ["event.venue_record.address"]);
        let organiser = refused(&mut client, |event| event.organiser_id = bad.clone()).await;
        assert_eq!(organiser, ["event.organiser_id"]);
        let status = client
            .hold_seats(buyer(&bad, best(&event, 1)))
            .await
            .expect_err("refused");
        assert_eq!(fields(&status), ["buyer_id"]);
    }
    let hebrew = new_event(vec![section("A", 1, 1)]);
    let mut hebrew = hebrew.clone();
    hebrew.event.as_mut().expect("an event").title = "שלום עולם".into();
    client
        .create_event(hebrew)
        .await
        .expect("letters from right to left are letters");
    fixture.stop().await;
}

#[tokio::test]
async fn long_names_and_many_seats_are_refused_by_field_and_larger_messages_before_they_are_read() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = create(&mut client, vec![section("A", 1, 1)]).await.id;
    let long = "x".repeat(200 << 10);
    assert_eq!(
        refused(&mut client, |event| event.title = long.clone()).await,
        ["event.title"]
    );
    let many: Vec<String> = (0..10_001).map(|number| format!("A/1/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let status = client
        .hold_seats(chosen(&event, &many))
        .await
        .expect_err("10,001 seats");
    assert_eq!(fields(&status), ["seats.seat_ids"]);
    let status = client.hold_seats(best(&event, 10_001)).await.expect_err("10,001 seats");
    assert_eq!(fields(&status), ["best_available.quantity"]);
    let mut sections: Vec<Section> = (0..1_000).map(|number| section(&format!("S{number}"), 1, 1)).collect();
    sections[0].price = euro(-1);
    assert_eq!(
        refused(&mut client, |event| event.sections = sections).await,
        ["event.sections"]
    );
    // A megabyte is more than a message may have here (256 KiB): it is not read, and the answer says by how much.
    let mut request = new_event(vec![section("A", 1, 1)]);
    request.event.as_mut().expect("an event").title = "x".repeat(1 << 20);
    let status = client.create_event(request).await.expect_err("a megabyte");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
    );
    assert!(
        status.message().contains("262144: shorten its fields"),
        "{}",
        status.message()
    );
    // What fits is read, and its field named with the limit.
    let named = refused(&mut client, |event| event.title = "x".repeat(200_000)).await;
    assert_eq!(named, ["event.title"]);
    fixture.stop().await;
}

#[tokio::test]
async fn terms_that_make_no_sense_are_refused_by_field() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let window = refused(&mut client, |event| {
        (event.sale_starts_at, event.sale_ends_at) = (at(10), at(10));
    });
    assert_eq!(window.await, ["event.sale_ends_at"]);
    let range = refused(&mut client, |event| {
        (event.sale_starts_at, event.sale_ends_at) = (at(i64::MAX), at(i64::MIN));
    });
    assert_eq!(range.await, ["event.sale_starts_at", "event.sale_ends_at"]);
    assert_eq!(
        refused(&mut client, |event| event.max_per_buyer = 1_001).await,
        ["event.max_per_buyer"]
    );
    let organiser = refused(&mut client, |event| event.organiser_id = "x".repeat(65)).await;
    assert_eq!(organiser, ["event.organiser_id"]);
    let other = refused(&mut client, |event| {
        venue(event, |venue| venue.name = "Elsewhere".into())
    })
    .await;
    assert_eq!(other, ["event.venue_record.name"]);
    let zone = refused(&mut client, |event| {
        venue(event, |venue| venue.time_zone = "not a zone".into())
    })
    .await;
    assert_eq!(zone, ["event.venue_record.time_zone"]);
    let nameless = refused(&mut client, |event| {
        event.venue = String::new();
        event.venue_record = Some(Venue::default());
    });
    assert_eq!(nameless.await, ["event.venue_record.name"]);
    for (rows, seats_per_row, capacity) in [(1, 1, 1), (0, 0, 20_001), (0, 0, u32::MAX), (0, 0, 0), (0, 5, 0)] {
        let section = Section {
            capacity,
            ..section("A", rows, seats_per_row)
        };
        let layout = refused(&mut client, |event| event.sections = vec![section]).await;
        assert_eq!(layout, ["event.sections[0]"], "{rows} {seats_per_row} {capacity}");
    }
    let currency = refused(&mut client, |event| {
        event.sections[0].price.as_mut().expect("a price").currency_code = "euro".into();
    });
    assert_eq!(currency.await, ["event.sections[0].price.currency_code"]);
    let status = client.hold_seats(best(&id(), 1)).await.expect_err("no such event");
    assert_eq!(status.code(), Code::NotFound);
    fixture.stop().await;
}
