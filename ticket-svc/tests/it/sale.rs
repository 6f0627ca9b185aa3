//! Seats are sold through several servers on one file, each once.

use std::collections::BTreeSet;

use proto::ticket::v1::{
    ConfirmHoldRequest, GetEventRequest, ListEventsRequest, ListSeatsRequest, ReleaseHoldRequest, SeatState,
};
use tokio::task::JoinSet;
use tonic::Code;

use crate::fixture::{Fixture, best, chosen, create, id, new_event, reason, section};

#[tokio::test]
async fn a_seat_is_held_through_one_server_and_sold_through_another() {
    let fixture = Fixture::with(2).await;
    let (mut one, mut other) = (fixture.client(0).await, fixture.client(1).await);
    let event = create(&mut one, vec![section("A", 2, 3), section("B", 1, 4)]).await;
    assert_eq!((event.seats_total, event.seats_free), (10, 10));

    let hold = one
        .hold_seats(best(&event.id, 2))
        .await
        .expect("free")
        .into_inner()
        .hold
        .expect("the hold");
    assert_eq!(hold.total, crate::fixture::euro(5_000));
    assert!(hold.token > 0 && hold.expires_at.is_some());
    let wrong = ConfirmHoldRequest {
        hold_id: hold.id.clone(),
        hold_token: hold.token + 1,
        order_id: id(),
    };
    let status = other.confirm_hold(wrong).await.expect_err("another hold's token");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "HOLD_TOKEN_WRONG")
    );

    let confirm = ConfirmHoldRequest {
        hold_id: hold.id.clone(),
        hold_token: hold.token,
        order_id: id(),
    };
    let tickets = other
        .confirm_hold(confirm.clone())
        .await
        .expect("in time")
        .into_inner()
        .tickets;
    assert_eq!(
        tickets.iter().map(|ticket| ticket.seat_id.as_str()).collect::<Vec<_>>(),
        ["A/1/1", "A/1/2"]
    );
    assert!(
        tickets
            .iter()
            .all(|ticket| ticket.order_id == confirm.order_id && ticket.event_id == event.id)
    );
    assert_eq!(
        one.confirm_hold(confirm).await.expect("a repeat").into_inner().tickets,
        tickets
    );

    let late = ReleaseHoldRequest {
        hold_id: hold.id.clone(),
        hold_token: hold.token,
    };
    let status = one.release_hold(late).await.expect_err("sold");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "HOLD_CONFIRMED")
    );
    let request = ListSeatsRequest {
        event_id: event.id.clone(),
        state: SeatState::Sold.into(),
        ..Default::default()
    };
    assert_eq!(
        other.list_seats(request).await.expect("seats").into_inner().seats.len(),
        2
    );
    let status = one.hold_seats(chosen(&event.id, &["A/1/1"])).await.expect_err("sold");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "SEAT_TAKEN")
    );
    fixture.stop().await;
}

#[tokio::test]
async fn requests_repeat_and_ids_are_not_reused() {
    let fixture = Fixture::with(2).await;
    let (mut one, mut other) = (fixture.client(0).await, fixture.client(1).await);
    let request = new_event(vec![section("A", 1, 4)]);
    let event = one
        .create_event(request.clone())
        .await
        .expect("new")
        .into_inner()
        .event
        .expect("the event");
    assert_eq!(
        other
            .create_event(request.clone())
            .await
            .expect("a repeat")
            .into_inner()
            .event,
        Some(event.clone())
    );
    let mut changed = request;
    changed.event.as_mut().expect("an event").title = "Early Beethoven".into();
    let status = one.create_event(changed).await.expect_err("another body");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );

    let request = best(&event.id, 1);
    let hold = one.hold_seats(request.clone()).await.expect("free").into_inner().hold;
    assert_eq!(
        other
            .hold_seats(request.clone())
            .await
            .expect("a repeat")
            .into_inner()
            .hold,
        hold
    );
    let status = other
        .hold_seats(proto::ticket::v1::HoldSeatsRequest {
            buyer_id: "b".into(),
            ..request.clone()
        })
        .await;
    assert_eq!(reason(&status.expect_err("another body")), "REQUEST_ID_REUSED");

    let release = ReleaseHoldRequest {
        hold_id: request.request_id.clone(),
        hold_token: 0,
    };
    one.release_hold(release.clone())
        .await
        .expect("its answer was lost, say");
    other.release_hold(release).await.expect("a repeat");
    let status = one.hold_seats(request).await.expect_err("released");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "HOLD_RELEASED")
    );
    let never = best(&event.id, 1);
    let release = ReleaseHoldRequest {
        hold_id: never.request_id.clone(),
        hold_token: 0,
    };
    one.release_hold(release).await.expect("an empty release");
    assert_eq!(
        reason(&other.hold_seats(never).await.expect_err("late")),
        "HOLD_RELEASED"
    );
    fixture.stop().await;
}

/// 60 buyers want 20 seats, two each, through three servers on one file.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rush_through_three_servers_sells_each_seat_once() {
    let fixture = Fixture::with(3).await;
    let clients = [
        fixture.client(0).await,
        fixture.client(1).await,
        fixture.client(2).await,
    ];
    let event = create(&mut clients[0].clone(), vec![section("A", 2, 10)]).await;
    let mut buyers = JoinSet::new();
    for buyer in 0..60_usize {
        let (mut hold_at, mut confirm_at) = (clients[buyer % 3].clone(), clients[(buyer + 1) % 3].clone());
        let event_id = event.id.clone();
        buyers.spawn(async move {
            match hold_at.hold_seats(best(&event_id, 2)).await {
                Ok(held) => {
                    let hold = held.into_inner().hold.expect("the hold");
                    let confirm = ConfirmHoldRequest {
                        hold_id: hold.id,
                        hold_token: hold.token,
                        order_id: id(),
                    };
                    confirm_at
                        .confirm_hold(confirm)
                        .await
                        .expect("in time")
                        .into_inner()
                        .tickets
                }
                Err(status) => {
                    assert_eq!(reason(&status), "SOLD_OUT", "{status:?}");
                    Vec::new()
                }
            }
        });
    }
    let sold: Vec<String> = buyers
        .join_all()
        .await
        .into_iter()
        .flatten()
        .map(|ticket| ticket.seat_id)
        .collect();
    assert_eq!(
        (sold.len(), sold.iter().collect::<BTreeSet<_>>().len()),
        (20, 20),
        "each seat once"
    );
    let request = GetEventRequest { event_id: event.id };
    let event = clients[1]
        .clone()
        .get_event(request)
        .await
        .expect("it is there")
        .into_inner()
        .event
        .expect("it");
    assert_eq!((event.seats_free, event.seats_held, event.seats_sold), (0, 0, 20));
    fixture.stop().await;
}

#[tokio::test]
async fn pages_lead_from_one_to_the_next_and_end() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    for _ in 0..5 {
        create(&mut client, vec![section("A", 1, 5)]).await;
    }
    let (mut seen, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let request = ListEventsRequest {
            page_size: 2,
            page_token,
        };
        let page = client.list_events(request).await.expect("a page").into_inner();
        assert!(page.events.len() <= 2);
        seen.extend(page.events.iter().map(|event| event.id.clone()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    let event_id = seen.pop_first().expect("five");
    let first = ListSeatsRequest {
        event_id,
        page_size: 5,
        ..Default::default()
    };
    let page = client.list_seats(first).await.expect("a page").into_inner();
    assert_eq!(
        (page.seats.len(), page.next_page_token.as_str()),
        (5, ""),
        "a full page that is the last has no token"
    );
    fixture.stop().await;
}
