//! Every RPC against every kind of bad input: all violations at once, each naming its field and its limit.

use proto::ticket::v1::{
    ConfirmHoldRequest, CreateEventRequest, Event, GetEventRequest, HoldSeatsRequest, ListEventsRequest,
    ListSeatsRequest, ReleaseHoldRequest, Section,
};

use crate::fixture::{Fixture, best, chosen, euro, fields, id, new_event, reason, section};

#[tokio::test]
async fn create_event_refuses_what_breaks_a_limit() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = |change: fn(&mut Event)| {
        let mut request = new_event(vec![section("A", 1, 1)]);
        change(request.event.as_mut().expect("an event"));
        request
    };
    let in_section = |change: fn(&mut Section)| {
        let mut section = section("A", 1, 1);
        change(&mut section);
        new_event(vec![section])
    };
    let many = |count: usize| new_event((0..count).map(|n| section(&format!("S{n}"), 1, 1)).collect());
    let cases: Vec<(&str, CreateEventRequest, &[&str])> = vec![
        (
            "nothing at all",
            CreateEventRequest::default(),
            &[
                "request_id",
                "event.title",
                "event.venue",
                "event.starts_at",
                "event.sections",
            ],
        ),
        (
            "no UUID",
            CreateEventRequest {
                request_id: "7".into(),
                ..event(|_| ())
            },
            &["request_id"],
        ),
        (
            "a UUID in another spelling",
            CreateEventRequest {
                request_id: id().replace('-', ""),
                ..event(|_| ())
            },
            &["request_id"],
        ),
        ("no title", event(|event| event.title = "  ".into()), &["event.title"]),
        (
            "a long title",
            event(|event| event.title = "x".repeat(201)),
            &["event.title"],
        ),
        (
            "a title that forges a log line",
            event(|event| event.title = "a\nb".into()),
            &["event.title"],
        ),
        (
            "a long venue",
            event(|event| event.venue = "x".repeat(201)),
            &["event.venue"],
        ),
        (
            "a time out of range",
            event(|event| {
                event.starts_at = Some(prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                })
            }),
            &["event.starts_at"],
        ),
        (
            "negative nanoseconds",
            event(|event| event.starts_at = Some(prost_types::Timestamp { seconds: 0, nanos: -1 })),
            &["event.starts_at"],
        ),
        ("51 sections", many(51), &["event.sections"]),
        (
            "one name twice",
            new_event(vec![section("A", 1, 1), section("A", 1, 1)]),
            &["event.sections"],
        ),
        (
            "too many seats",
            new_event(vec![section("A", 100, 200), section("B", 1, 1)]),
            &["event.sections"],
        ),
        (
            "a blank in a name",
            in_section(|section| section.name = "A B".into()),
            &["event.sections[0].name"],
        ),
        (
            "a long name",
            in_section(|section| section.name = "A".repeat(41)),
            &["event.sections[0].name"],
        ),
        (
            "no rows",
            in_section(|section| section.rows = 0),
            &["event.sections[0]"],
        ),
        (
            "101 rows",
            in_section(|section| section.rows = 101),
            &["event.sections[0]"],
        ),
        (
            "u32::MAX seats a row",
            in_section(|section| section.seats_per_row = u32::MAX),
            &["event.sections[0]"],
        ),
        (
            "no price",
            in_section(|section| section.price = None),
            &["event.sections[0].price.currency_code"],
        ),
        (
            "a negative price",
            in_section(|section| section.price = euro(-1)),
            &["event.sections[0].price.minor_units"],
        ),
        (
            "a price that would overflow",
            in_section(|section| section.price = euro(i64::MAX)),
            &["event.sections[0].price.minor_units"],
        ),
    ];
    for (name, request, expected) in cases {
        let status = client.create_event(request).await.expect_err(name);
        assert_eq!(fields(&status), expected, "{name}: {status:?}");
    }
    let mut two_currencies = new_event(vec![section("A", 1, 1), section("B", 1, 1)]);
    two_currencies.event.as_mut().expect("an event").sections[1]
        .price
        .as_mut()
        .expect("a price")
        .currency_code = "USD".into();
    let status = client.create_event(two_currencies).await.expect_err("two currencies");
    assert_eq!(fields(&status), ["event.sections"]);
    fixture.stop().await;
}

#[tokio::test]
async fn hold_seats_refuses_what_breaks_a_limit() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = id();
    let ttl = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let eleven: Vec<String> = (1..=11).map(|n| format!("A/1/{n}")).collect();
    let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
    let cases: Vec<(&str, HoldSeatsRequest, &[&str])> = vec![
        (
            "nothing at all",
            HoldSeatsRequest::default(),
            &["request_id", "event_id", "buyer_id", "selection"],
        ),
        (
            "a long buyer",
            HoldSeatsRequest {
                buyer_id: "x".repeat(65),
                ..best(&event, 1)
            },
            &["buyer_id"],
        ),
        ("no seats", chosen(&event, &[]), &["seats.seat_ids"]),
        ("11 seats", chosen(&event, &eleven), &["seats.seat_ids"]),
        ("a seat twice", chosen(&event, &["A/1/1", "A/1/1"]), &["seats.seat_ids"]),
        (
            "no seat name",
            chosen(&event, &["A/1/1", "A/01/1"]),
            &["seats.seat_ids[1]"],
        ),
        ("quantity 0", best(&event, 0), &["best_available.quantity"]),
        ("quantity 11", best(&event, 11), &["best_available.quantity"]),
        (
            "quantity u32::MAX",
            best(&event, u32::MAX),
            &["best_available.quantity"],
        ),
        (
            "too short",
            HoldSeatsRequest {
                ttl: ttl(0, 999_999_999),
                ..best(&event, 1)
            },
            &["ttl"],
        ),
        (
            "too long",
            HoldSeatsRequest {
                ttl: ttl(900, 1),
                ..best(&event, 1)
            },
            &["ttl"],
        ),
        (
            "negative",
            HoldSeatsRequest {
                ttl: ttl(-5, 0),
                ..best(&event, 1)
            },
            &["ttl"],
        ),
        (
            "overflowing",
            HoldSeatsRequest {
                ttl: ttl(i64::MAX, i32::MAX),
                ..best(&event, 1)
            },
            &["ttl"],
        ),
    ];
    for (name, request, expected) in cases {
        let status = client.hold_seats(request).await.expect_err(name);
        assert_eq!(fields(&status), expected, "{name}: {status:?}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn the_other_calls_refuse_what_breaks_a_limit() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let status = client
        .get_event(GetEventRequest { event_id: "x".into() })
        .await
        .expect_err("no UUID");
    assert_eq!(fields(&status), ["event_id"]);

    for (page_size, page_token, expected) in [
        (-1, "", "page_size"),
        (201, "", "page_size"),
        (i32::MAX, "", "page_size"),
        (0, "x", "page_token"),
        (0, "1.x", "page_token"),
    ] {
        let request = ListEventsRequest {
            page_size,
            page_token: page_token.into(),
        };
        let status = client.list_events(request).await.expect_err("a bad page");
        assert_eq!(fields(&status), [expected], "{page_size} {page_token:?}");
    }
    for (state, page_size, page_token, expected) in [
        (9, 0, "", "state"),
        (0, 1_001, "", "page_size"),
        (0, 0, "1.2", "page_token"),
        (0, 0, "1.2.3.4", "page_token"),
    ] {
        let request = ListSeatsRequest {
            event_id: id(),
            state,
            page_size,
            page_token: page_token.into(),
        };
        let status = client.list_seats(request).await.expect_err("a bad request");
        assert_eq!(fields(&status), [expected], "{state} {page_size} {page_token:?}");
    }

    let status = client
        .confirm_hold(ConfirmHoldRequest::default())
        .await
        .expect_err("nothing at all");
    assert_eq!(fields(&status), ["hold_id", "hold_token", "order_id"]);
    let negative = ConfirmHoldRequest {
        hold_id: id(),
        hold_token: i64::MIN,
        order_id: id(),
    };
    assert_eq!(
        fields(&client.confirm_hold(negative).await.expect_err("negative")),
        ["hold_token"]
    );
    let status = client
        .release_hold(ReleaseHoldRequest::default())
        .await
        .expect_err("nothing at all");
    assert_eq!(fields(&status), ["hold_id"]);
    let negative = ReleaseHoldRequest {
        hold_id: id(),
        hold_token: -1,
    };
    assert_eq!(
        fields(&client.release_hold(negative).await.expect_err("negative")),
        ["hold_token"]
    );
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_by_its_reason() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = crate::fixture::create(&mut client, vec![section("A", 1, 2)]).await;
    let unknown = id();
    let not_found = |status: tonic::Status, expected: &str| {
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (tonic::Code::NotFound, expected),
            "{status:?}"
        );
    };
    let request = GetEventRequest {
        event_id: unknown.clone(),
    };
    not_found(client.get_event(request).await.expect_err("unknown"), "EVENT_UNKNOWN");
    let request = ListSeatsRequest {
        event_id: unknown.clone(),
        ..ListSeatsRequest::default()
    };
    not_found(client.list_seats(request).await.expect_err("unknown"), "EVENT_UNKNOWN");
    not_found(
        client.hold_seats(best(&unknown, 1)).await.expect_err("unknown"),
        "EVENT_UNKNOWN",
    );
    not_found(
        client
            .hold_seats(chosen(&event.id, &["A/2/1"]))
            .await
            .expect_err("unknown"),
        "SEAT_UNKNOWN",
    );
    let mut elsewhere = best(&event.id, 1);
    if let Some(proto::ticket::v1::hold_seats_request::Selection::BestAvailable(best)) = &mut elsewhere.selection {
        best.section = "Z".into();
    }
    not_found(
        client.hold_seats(elsewhere).await.expect_err("unknown"),
        "SECTION_UNKNOWN",
    );
    let request = ConfirmHoldRequest {
        hold_id: unknown,
        hold_token: 1,
        order_id: id(),
    };
    not_found(client.confirm_hold(request).await.expect_err("unknown"), "HOLD_UNKNOWN");
    fixture.stop().await;
}
