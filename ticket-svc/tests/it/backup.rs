//! Backup while it serves, restore into a new store, go on from there: as `docs/stores.md` says, on both kinds of store.

use proto::ticket::v1::{
    CheckTicketRequest, ConfirmHoldRequest, GetEventRequest, GetTicketKeysRequest, RefundTicketsRequest,
    SearchEventsRequest, TicketState,
};
use service_store::testing::TestStore;
use tempfile::TempDir;
use ticket_svc::{Config, Running, Tickets};
use tonic::Code;

use crate::fixture::{Client, Shown, best, chosen, config, connect, create, id, reason, section};

async fn served(folder: &TempDir, store: &TestStore) -> (Running, Client) {
    let config = Config {
        store: store.location(),
        ..config(folder)
    };
    let server = Tickets::start(config).await.expect("it starts");
    let client = connect(&server, Shown::AsMeant).await;
    (server, client)
}

/// Free, held and sold.
async fn counts(client: &mut Client, event_id: &str) -> (u32, u32, u32) {
    let event_id = event_id.to_owned();
    let event = client.get_event(GetEventRequest { event_id }).await.expect("it exists");
    let event = event.into_inner().event.expect("the event");
    (event.seats_free, event.seats_held, event.seats_sold)
}

async fn a_backup_taken_while_it_serves_is_a_box_office_again(store: TestStore) {
    let folder = TempDir::new().expect("a temporary folder");
    let (server, mut client) = served(&folder, &store).await;
    let event = create(&mut client, vec![section("A", 2, 4)]).await;
    let mut held = Vec::new();
    for seats in [&["A/1/1", "A/1/2"][..], &["A/1/3"], &["A/1/4"]] {
        let hold = client.hold_seats(chosen(&event.id, seats)).await.expect("free");
        held.push(hold.into_inner().hold.expect("a hold"));
    }
    let confirm = |hold: usize| ConfirmHoldRequest {
        hold_id: held[hold].id.clone(),
        hold_token: held[hold].token,
        order_id: held[hold].id.clone(),
    };
    let refund = RefundTicketsRequest {
        order_id: held[1].id.clone(),
        ..RefundTicketsRequest::default()
    };
    let sold = client
        .confirm_hold(confirm(0))
        .await
        .expect("in time")
        .into_inner()
        .tickets;
    client.confirm_hold(confirm(1)).await.expect("in time");
    let void = client.refund_tickets(refund.clone()).await.expect("sold").into_inner();
    let keys = client
        .get_ticket_keys(GetTicketKeysRequest {})
        .await
        .expect("keys")
        .into_inner();

    let copy = TestStore::new(store.location().dialect()).expect("a second one");
    store.copy_into(&copy);
    // Not in the backup any more.
    client.hold_seats(best(&event.id, 4)).await.expect("free");
    server.stop().await;

    let (server, mut client) = served(&folder, &copy).await;
    assert_eq!(
        counts(&mut client, &event.id).await,
        (5, 1, 2),
        "what there was at the backup"
    );
    let words = SearchEventsRequest {
        text: "beeth".into(),
        ..SearchEventsRequest::default()
    };
    let found = client.search_events(words).await.expect("found").into_inner().events;
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), [&event.id]);
    let again = client
        .get_ticket_keys(GetTicketKeysRequest {})
        .await
        .expect("keys")
        .into_inner();
    assert_eq!(again, keys, "what was printed before is verified as before");
    for (tickets, state) in [(&sold, TicketState::Valid), (&void.tickets, TicketState::Revoked)] {
        let code = tickets[0].code.clone();
        let checked = client.check_ticket(CheckTicketRequest { code }).await.expect("known");
        assert_eq!(checked.into_inner().state(), state);
    }
    // Whoever lost an answer hears the same, and whoever was in the middle of it goes on.
    let repeated = client.confirm_hold(confirm(0)).await.expect("it was sold").into_inner();
    assert_eq!(repeated.tickets, sold);
    assert_eq!(
        client.refund_tickets(refund).await.expect("a repeat").into_inner(),
        void
    );
    client.confirm_hold(confirm(2)).await.expect("still held");
    let taken = client
        .hold_seats(chosen(&event.id, &["A/1/1"]))
        .await
        .expect_err("sold");
    assert_eq!(
        (taken.code(), reason(&taken).as_str()),
        (Code::FailedPrecondition, "SEAT_TAKEN")
    );
    client
        .hold_seats(best(&event.id, 5))
        .await
        .expect("the others are free");
    assert_eq!(counts(&mut client, &event.id).await, (0, 5, 3));
    let nothing = RefundTicketsRequest {
        order_id: id(),
        ..RefundTicketsRequest::default()
    };
    client.refund_tickets(nothing).await.expect_err("of no order");
    server.stop().await;
}

service_store::on_both_stores![a_backup_taken_while_it_serves_is_a_box_office_again];
