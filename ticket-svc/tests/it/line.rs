//! When more want seats than can be served, they wait in line, and are told so.

use std::time::Duration;

use proto::ticket::v1::{HoldSeatsRequest, Pass, WaitInLineRequest, WaitInLineResponse, wait_in_line_response::Word};
use tokio::time::timeout;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use crate::fixture::{Client, Fixture, best, buyer, create, fields, id, reason, section};

/// Longer than anything takes here; a test that meets it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

async fn wait(client: &mut Client, event: &str, buyer: &str) -> Streaming<WaitInLineResponse> {
    let request = WaitInLineRequest {
        event_id: event.to_owned(),
        buyer_id: buyer.to_owned(),
    };
    client.wait_in_line(request).await.expect("a place").into_inner()
}

async fn word(stream: &mut Streaming<WaitInLineResponse>) -> Word {
    let told = timeout(PATIENCE, stream.message())
        .await
        .expect("in time")
        .expect("no error");
    told.expect("no end").word.expect("a word")
}

async fn position(stream: &mut Streaming<WaitInLineResponse>) -> u64 {
    match word(stream).await {
        Word::Place(place) => place.position,
        other => panic!("{other:?}"),
    }
}

async fn pass(stream: &mut Streaming<WaitInLineResponse>) -> Pass {
    loop {
        if let Word::Pass(pass) = word(stream).await {
            return pass;
        }
    }
}

fn with(pass: &Pass, request: HoldSeatsRequest) -> HoldSeatsRequest {
    HoldSeatsRequest {
        pass: pass.pass.clone(),
        ..request
    }
}

#[tokio::test]
async fn without_a_line_a_pass_comes_at_once_and_is_good_at_every_server() {
    let fixture = Fixture::with(2).await;
    let (mut one, mut other) = (fixture.client(0).await, fixture.client(1).await);
    let event = create(&mut one, vec![section("A", 1, 4)]).await;
    let mut stream = wait(&mut one, &event.id, "ada").await;
    let pass = pass(&mut stream).await;
    assert!(pass.expires_at.is_some());
    assert!(
        timeout(PATIENCE, stream.message())
            .await
            .expect("in time")
            .expect("a clean end")
            .is_none()
    );
    other
        .hold_seats(with(&pass, buyer("ada", best(&event.id, 1))))
        .await
        .expect("a good pass");
    for wrong in [buyer("bob", best(&event.id, 1)), buyer("ada", best(&id(), 1))] {
        let status = one.hold_seats(with(&pass, wrong)).await.expect_err("another's pass");
        assert_eq!(fields(&status), ["pass"]);
    }
    let changed = HoldSeatsRequest {
        pass: pass.pass.replace("TSP1", "TSR1"),
        ..buyer("ada", best(&event.id, 1))
    };
    assert_eq!(fields(&one.hold_seats(changed).await.expect_err("no pass")), ["pass"]);
    fixture.stop().await;
}

/// One place at the store, and it is kept for whoever was called: the others wait in the order in which they came.
#[tokio::test]
async fn those_who_wait_are_called_in_the_order_in_which_they_came() {
    let fixture = Fixture::with_places(1).await;
    let mut client = fixture.client(0).await;
    let event = create(&mut client, vec![section("A", 1, 10)]).await;
    let first = pass(&mut wait(&mut client, &event.id, "b0").await).await;
    let mut waiting = Vec::new();
    for number in 1..5_u64 {
        let mut stream = wait(&mut client, &event.id, &format!("b{number}")).await;
        assert_eq!(position(&mut stream).await, number);
        waiting.push(stream);
    }
    // Nobody goes past them, and who is in line already does not get in by asking.
    for name in ["stranger", "b3"] {
        let status = client
            .hold_seats(buyer(name, best(&event.id, 1)))
            .await
            .expect_err("others are first");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::ResourceExhausted, "WAIT_IN_LINE")
        );
        assert!(
            status
                .get_details_retry_info()
                .and_then(|info| info.retry_delay)
                .is_some()
        );
    }
    // Asking again takes the place over, and neither loses nor gains one.
    let mut again = wait(&mut client, &event.id, "b2").await;
    assert_eq!(position(&mut again).await, 2);
    let mut replaced = std::mem::replace(&mut waiting[1], again);
    let status = loop {
        match timeout(PATIENCE, replaced.message()).await.expect("in time") {
            Ok(told) => assert!(told.is_some(), "an error ends it"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Aborted, "WAITS_ELSEWHERE")
    );

    let mut held = Vec::new();
    let mut next = first;
    for (number, mut stream) in waiting.into_iter().enumerate() {
        let hold = client
            .hold_seats(with(&next, buyer(&format!("b{number}"), best(&event.id, 1))))
            .await;
        held.push(
            hold.expect("their turn").into_inner().hold.expect("a hold").seats[0]
                .id
                .clone(),
        );
        next = pass(&mut stream).await;
    }
    assert_eq!(
        held,
        ["A/1/1", "A/1/2", "A/1/3", "A/1/4"],
        "in the order in which they came"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_place_in_line_is_refused_where_nothing_is_to_be_had() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let nowhere = WaitInLineRequest {
        event_id: id(),
        buyer_id: "ada".into(),
    };
    let status = client.wait_in_line(nowhere).await.expect_err("no such event");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "EVENT_UNKNOWN")
    );
    let status = client
        .wait_in_line(WaitInLineRequest::default())
        .await
        .expect_err("nothing");
    assert_eq!(fields(&status), ["event_id", "buyer_id"]);
    let mut request = crate::fixture::new_event(vec![section("A", 1, 1)]);
    let starts = Some(prost_types::Timestamp {
        seconds: 1_800_000_000,
        nanos: 0,
    });
    request.event.as_mut().expect("an event").sale_starts_at = starts;
    let event = client
        .create_event(request)
        .await
        .expect("in limits")
        .into_inner()
        .event
        .expect("it");
    let early = WaitInLineRequest {
        event_id: event.id,
        buyer_id: "ada".into(),
    };
    let status = client.wait_in_line(early).await.expect_err("not on sale");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "SALE_NOT_OPEN")
    );
    fixture.stop().await;
}

/// Two hundred at once for one place at the store: each gets a seat, or is told when to come again, and nobody times out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_served_or_told_to_come_again() {
    let fixture = Fixture::with_places(1).await;
    let client = fixture.client(0).await;
    let event = create(&mut client.clone(), vec![section("A", 10, 20)]).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (mut client, request) = (client.clone(), buyer(&format!("b{number}"), best(&event.id, 1)));
        calls.spawn(async move {
            loop {
                match client.hold_seats(request.clone()).await {
                    Ok(hold) => return hold.into_inner().hold.expect("a hold").seats[0].id.clone(),
                    Err(status) => {
                        assert_eq!(reason(&status), "WAIT_IN_LINE", "{status:?}");
                        let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
                        tokio::time::sleep(wait.expect("when").min(Duration::from_secs(1))).await;
                    }
                }
            }
        });
    }
    let mut seats = timeout(Duration::from_secs(120), calls.join_all())
        .await
        .expect("in time");
    seats.sort_unstable();
    seats.dedup();
    assert_eq!(seats.len(), 200, "a seat each");
    fixture.stop().await;
}
