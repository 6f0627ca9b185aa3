//! Refunds, what an organiser sees of a sale, and what is printed on tickets.

use proto::ticket::v1::{
    CheckTicketRequest, ConfirmHoldRequest, GetSalesRequest, GetTicketKeysRequest, RefundTicketsRequest, SectionSales,
    Ticket, TicketState,
};
use ticket_svc::code::{self, CodeError};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::fixture::{Client, Fixture, best, chosen, create, create_at, euro, fields, id, reason, section};

struct Bought {
    order_id: String,
    hold_id: String,
    token: i64,
    tickets: Vec<Ticket>,
}

async fn buy(client: &mut Client, event: &str, seats: &[&str]) -> Bought {
    let hold = client.hold_seats(chosen(event, seats)).await.expect("free");
    let hold = hold.into_inner().hold.expect("a hold");
    let order_id = id();
    let confirm = ConfirmHoldRequest {
        hold_id: hold.id.clone(),
        hold_token: hold.token,
        order_id: order_id.clone(),
    };
    let tickets = client
        .confirm_hold(confirm)
        .await
        .expect("in time")
        .into_inner()
        .tickets;
    Bought {
        order_id,
        hold_id: hold.id,
        token: hold.token,
        tickets,
    }
}

async fn sales(client: &mut Client, event: &str) -> (Vec<SectionSales>, SectionSales) {
    let request = GetSalesRequest {
        event_id: event.to_owned(),
    };
    let sales = client.get_sales(request).await.expect("it exists").into_inner();
    (sales.sections, sales.total.expect("a total"))
}

#[tokio::test]
async fn an_order_is_refunded_once_and_its_seats_are_sold_again() {
    let fixture = Fixture::with(2).await;
    let (mut one, mut other) = (fixture.client(0).await, fixture.client(1).await);
    let event = create(&mut one, vec![section("A", 1, 3)]).await;
    let bought = buy(&mut one, &event.id, &["A/1/1", "A/1/2"]).await;
    let refund = |hold_token| RefundTicketsRequest {
        order_id: bought.order_id.clone(),
        hold_token,
        ..RefundTicketsRequest::default()
    };
    let status = one
        .refund_tickets(refund(bought.token + 1))
        .await
        .expect_err("another hold's token");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "HOLD_TOKEN_WRONG")
    );
    let refunded = other
        .refund_tickets(refund(bought.token))
        .await
        .expect("sold")
        .into_inner();
    assert_eq!(refunded.tickets, bought.tickets);
    assert_eq!(refunded.total, euro(5_000));

    let again = buy(&mut one, &event.id, &["A/1/1"]).await;
    let repeated = one.refund_tickets(refund(0)).await.expect("a repeat").into_inner();
    assert_eq!(repeated.tickets, bought.tickets, "a repeat answers the same");
    let (_, total) = sales(&mut one, &event.id).await;
    assert_eq!(
        (total.sold, total.free, total.refunded),
        (1, 2, 2),
        "a repeat takes nothing from who bought since"
    );
    let check = |code: &str| CheckTicketRequest { code: code.to_owned() };
    let state = one
        .check_ticket(check(&bought.tickets[0].code))
        .await
        .expect("ours")
        .into_inner();
    assert_eq!(
        (state.state(), state.revoked_at.is_some()),
        (TicketState::Revoked, true)
    );
    let state = one
        .check_ticket(check(&again.tickets[0].code))
        .await
        .expect("ours")
        .into_inner();
    assert_eq!((state.state(), state.revoked_at), (TicketState::Valid, None));
    assert_eq!((state.seat_id.as_str(), &state.event_id), ("A/1/1", &event.id));

    // A confirmation that was under way for long does not sell what was refunded.
    let late = ConfirmHoldRequest {
        hold_id: bought.hold_id,
        hold_token: bought.token,
        order_id: bought.order_id,
    };
    let status = other.confirm_hold(late).await.expect_err("refunded");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "HOLD_REFUNDED")
    );
    let unknown = RefundTicketsRequest {
        order_id: id(),
        ..RefundTicketsRequest::default()
    };
    let status = one.refund_tickets(unknown).await.expect_err("nothing was sold");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "ORDER_UNKNOWN")
    );
    let bad = RefundTicketsRequest {
        order_id: "7".into(),
        hold_token: -1,
        request_id: "8".into(),
        by_buyer: true,
    };
    assert_eq!(
        fields(&one.refund_tickets(bad).await.expect_err("bad")),
        ["order_id", "hold_token", "request_id"]
    );
    fixture.stop().await;
}

/// Twenty ask at once, over two servers: each hears the same, and one of them did it.
#[tokio::test]
async fn twenty_refunds_at_once_are_one() {
    let fixture = Fixture::with(2).await;
    let clients = [fixture.client(0).await, fixture.client(1).await];
    let event = create(&mut clients[0].clone(), vec![section("A", 1, 4)]).await;
    let bought = buy(&mut clients[0].clone(), &event.id, &["A/1/1", "A/1/2"]).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..20 {
        let mut client = clients[number % 2].clone();
        let request = RefundTicketsRequest {
            order_id: bought.order_id.clone(),
            ..RefundTicketsRequest::default()
        };
        calls.spawn(async move {
            client
                .refund_tickets(request)
                .await
                .expect("refunded")
                .into_inner()
                .tickets
        });
    }
    for tickets in calls.join_all().await {
        assert_eq!(tickets, bought.tickets);
    }
    let (_, total) = sales(&mut clients[0].clone(), &event.id).await;
    assert_eq!((total.sold, total.free, total.refunded), (0, 4, 2));
    assert_eq!(total.revenue, euro(0));
    fixture.stop().await;
}

/// A buyer's refund ends when the event begins, the platform's does not; programs read in the metadata when it was.
#[tokio::test]
async fn what_has_begun_is_given_back_by_the_platform_only() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = create_at(&mut client, 1_000_000_000, vec![section("A", 1, 2)]).await;
    let bought = buy(&mut client, &event.id, &["A/1/1"]).await;
    let refund = |by_buyer| RefundTicketsRequest {
        order_id: bought.order_id.clone(),
        request_id: id(),
        by_buyer,
        ..RefundTicketsRequest::default()
    };
    let status = client.refund_tickets(refund(true)).await.expect_err("it has begun");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "REFUND_CLOSED")
    );
    let info = status.get_details_error_info().expect("a reason");
    assert_eq!(
        info.metadata.get("refunds_until").map(String::as_str),
        Some("2001-09-09T01:46:40Z")
    );
    let (_, total) = sales(&mut client, &event.id).await;
    assert_eq!((total.sold, total.refunded), (1, 0));
    client.refund_tickets(refund(false)).await.expect("the platform may");
    let (_, total) = sales(&mut client, &event.id).await;
    assert_eq!((total.sold, total.refunded), (0, 1));
    fixture.stop().await;
}

#[tokio::test]
async fn an_organiser_sees_what_adds_up() {
    let fixture = Fixture::with(1).await;
    let mut client = fixture.client(0).await;
    let event = create(&mut client, vec![section("A", 1, 4), section("B", 1, 3)]).await;
    buy(&mut client, &event.id, &["A/1/1", "A/1/2", "B/1/3"]).await;
    client.hold_seats(best(&event.id, 1)).await.expect("free");
    let (sections, total) = sales(&mut client, &event.id).await;
    let shown: Vec<_> = sections
        .iter()
        .map(|section| {
            (
                section.section.as_str(),
                section.capacity,
                section.free,
                section.held,
                section.sold,
            )
        })
        .collect();
    assert_eq!(shown, [("A", 4, 1, 1, 2), ("B", 3, 2, 0, 1)]);
    assert_eq!(sections[0].revenue, euro(5_000));
    assert_eq!((total.capacity, total.free, total.held, total.sold), (7, 3, 1, 3));
    assert_eq!((total.section.as_str(), total.revenue), ("", euro(7_500)));
    let status = client
        .get_sales(GetSalesRequest { event_id: id() })
        .await
        .expect_err("none");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "EVENT_UNKNOWN")
    );
    fixture.stop().await;
}

#[tokio::test]
async fn codes_are_checked_without_asking_and_servers_sign_with_one_key() {
    let fixture = Fixture::with(2).await;
    let (mut one, mut other) = (fixture.client(0).await, fixture.client(1).await);
    let event = create(&mut one, vec![section("A", 1, 3)]).await;
    let keys = other
        .get_ticket_keys(GetTicketKeysRequest {})
        .await
        .expect("keys")
        .into_inner()
        .jwks;
    let keys = identity::KeySet::from_jwks(&keys).expect("a key set");
    let [first, second] = [
        buy(&mut one, &event.id, &["A/1/1"]).await,
        buy(&mut other, &event.id, &["A/1/2"]).await,
    ];
    for (bought, seat) in [(&first, "A/1/1"), (&second, "A/1/2")] {
        let ticket = &bought.tickets[0];
        let admission = code::verify(&keys, &ticket.code).expect("ours");
        assert_eq!(admission.ticket_id.to_string(), ticket.id);
        assert_eq!(
            (admission.event_id.to_string(), admission.seat.as_str()),
            (event.id.clone(), seat)
        );
    }
    let mixed = format!(
        "{}.{}",
        first.tickets[0].code.rsplit_once('.').expect("a signature").0,
        second.tickets[0].code.rsplit_once('.').expect("a signature").1
    );
    assert_eq!(code::verify(&keys, &mixed), Err(CodeError::Forged));
    for bad in [mixed, String::new(), "TSR1.a.b".into(), "x".repeat(100_000)] {
        let status = one
            .check_ticket(CheckTicketRequest { code: bad })
            .await
            .expect_err("not ours");
        assert_eq!(fields(&status), ["code"]);
    }
    fixture.stop().await;
}
