//! Events are found by their words, place and date, and by nothing that a query could do to a store.

use proto::ticket::v1::{SearchEventsRequest, Venue};

use crate::fixture::{Client, Fixture, fields, new_event, section};

/// Title, venue, city, start in seconds.
const EVENTS: [(&str, &str, &str, i64); 6] = [
    ("Late Beethoven", "Kammersaal", "Zürich", 1_900_000_000),
    ("Late Schubert", "Kammersaal", "Bern", 1_900_100_000),
    ("Beethoven for children", "Old Gasworks", "Berlin", 1_900_200_000),
    ("Quartet", "Beethovensaal", "Stuttgart", 1_900_300_000),
    ("O'Neill's \"Café\" & friends", "Théâtre", "Genève", 1_900_400_000),
    ("שלום", "היכל", "חיפה", 1_900_500_000),
];

async fn sown(client: &mut Client) {
    for (title, venue, city, starts) in EVENTS {
        let mut request = new_event(vec![section("A", 1, 1)]);
        let event = request.event.as_mut().expect("an event");
        event.title = title.into();
        event.venue = String::new();
        event.venue_record = Some(Venue {
            name: venue.into(),
            city: city.into(),
            ..Venue::default()
        });
        event.starts_at.as_mut().expect("a start").seconds = starts;
        client.create_event(request).await.expect("in limits");
    }
}

fn text(text: &str) -> SearchEventsRequest {
    SearchEventsRequest {
        text: text.into(),
        ..SearchEventsRequest::default()
    }
}

fn place(place: &str) -> SearchEventsRequest {
    SearchEventsRequest {
        place: place.into(),
        ..SearchEventsRequest::default()
    }
}

async fn found(client: &mut Client, request: SearchEventsRequest) -> Vec<String> {
    let answer = client.search_events(request).await.expect("a search").into_inner();
    answer.events.into_iter().map(|event| event.title).collect()
}

#[tokio::test]
async fn events_are_found_by_words_place_and_date_the_best_first() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    sown(&mut client).await;
    let [late, schubert, children, quartet, cafe, shalom] = EVENTS.map(|(title, ..)| title);
    // In the title first, then in the place; among equals the earlier one.
    let beethoven = vec![late, children, quartet];
    assert_eq!(found(&mut client, text("beethoven")).await, beethoven);
    assert_eq!(found(&mut client, text("BEETH")).await, beethoven);
    assert_eq!(
        found(&mut client, text("beethoven late")).await,
        [late],
        "all words, in any order"
    );
    assert_eq!(found(&mut client, text("kammersaal")).await, [late, schubert]);
    assert_eq!(found(&mut client, text("cafe")).await, [cafe], "accents do not matter");
    assert_eq!(found(&mut client, text("geneve théâtre")).await, [cafe]);
    assert_eq!(found(&mut client, text("שלום")).await, [shalom]);
    assert!(
        found(&mut client, text("eethoven")).await.is_empty(),
        "words are begun, not contained"
    );
    assert_eq!(found(&mut client, place("zurich")).await, [late]);
    assert!(
        found(&mut client, place("late")).await.is_empty(),
        "a title is no place"
    );
    let both = SearchEventsRequest {
        place: "kammer".into(),
        ..text("late")
    };
    assert_eq!(found(&mut client, both).await, [late, schubert]);
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 5 });
    let between = SearchEventsRequest {
        starts_from: at(1_900_100_000),
        starts_before: at(1_900_300_000),
        ..SearchEventsRequest::default()
    };
    assert_eq!(
        found(&mut client, between).await,
        [schubert, children],
        "from is in it, before is not"
    );
    assert_eq!(found(&mut client, SearchEventsRequest::default()).await.len(), 6);
    fixture.stop().await;
}

#[tokio::test]
async fn pages_of_a_search_neither_skip_nor_repeat() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    sown(&mut client).await;
    for request in [SearchEventsRequest::default(), text("beethoven")] {
        let whole = found(&mut client, request.clone()).await;
        let (mut paged, mut token) = (Vec::new(), String::new());
        loop {
            let request = SearchEventsRequest {
                page_size: 2,
                page_token: token,
                ..request.clone()
            };
            let page = client.search_events(request).await.expect("a page").into_inner();
            assert!(page.events.len() <= 2);
            paged.extend(page.events.into_iter().map(|event| event.title));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(paged, whole);
    }
    fixture.stop().await;
}

/// What is an operator in either store's query language, what breaks out of a string, and what no index was made for.
#[tokio::test]
async fn hostile_queries_are_words_or_nothing() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    sown(&mut client).await;
    for nothing in [
        "\"",
        "\"\"\"",
        "*",
        "^",
        "()",
        ":*",
        "&",
        "!",
        "<->",
        "'",
        "';--",
        "\0",
        "\u{7}\u{202e}",
        "-",
    ] {
        assert!(found(&mut client, text(nothing)).await.is_empty(), "{nothing:?}");
        assert!(found(&mut client, place(nothing)).await.is_empty(), "{nothing:?}");
    }
    for (hostile, expected) in [
        ("late\" OR \"x", 0),
        ("beethoven NOT late", 0),
        ("title : late", 0),
        ("NEAR(late beethoven)", 0),
        ("late* AND", 0),
        ("'; DROP TABLE events; --", 0),
        ("beethoven:*", 3),
        ("{title}: beethoven", 0),
        ("beethoven & !late", 1),
        ("late\0beethoven", 1),
        ("o'neill", 1),
    ] {
        assert_eq!(found(&mut client, text(hostile)).await.len(), expected, "{hostile:?}");
    }
    for long in ["x".repeat(201), "late ".repeat(40_000)] {
        let status = client.search_events(text(&long)).await.expect_err("too long");
        assert_eq!(fields(&status), ["text"]);
    }
    let status = client
        .search_events(text(&"x".repeat(1 << 20)))
        .await
        .expect_err("a megabyte");
    assert!(
        status.code() != tonic::Code::Internal && status.code() != tonic::Code::Unknown,
        "{status:?}"
    );
    let bad = SearchEventsRequest {
        place: "x".repeat(201),
        starts_from: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        page_size: 101,
        page_token: "1.2".into(),
        ..SearchEventsRequest::default()
    };
    let status = client.search_events(bad).await.expect_err("bad");
    assert_eq!(fields(&status), ["place", "starts_from", "page_size", "page_token"]);
    assert_eq!(found(&mut client, text("late")).await.len(), 2, "the store is well");
    fixture.stop().await;
}
