//! `tessera ticket-code`: good codes and bad ones, without a network.

use std::path::PathBuf;

use proto::ticket::v1::{
    BestAvailable, ConfirmHoldRequest, CreateEventRequest, Event, GetTicketKeysRequest, HoldSeatsRequest, Section,
    hold_seats_request::Selection, ticket_service_client::TicketServiceClient,
};
use tempfile::TempDir;
use ticket_svc::{Access, Config, Tickets};

use crate::run::run;

struct Sold {
    folder: TempDir,
    code: String,
    event: String,
}

impl Sold {
    fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

fn id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A ticket of a real service, and the keys that it publishes.
async fn sold() -> (Sold, String) {
    let folder = TempDir::new().expect("a folder");
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: None,
        store: folder.path().join("tickets.db").as_path().into(),
        access: Access::Open,
        ..Config::default()
    };
    let server = Tickets::start(config).await.expect("it starts");
    let mut client = TicketServiceClient::connect(format!("http://{}", server.local_addr()))
        .await
        .expect("it listens");
    let event = Event {
        title: "T".into(),
        venue: "V".into(),
        starts_at: Some(prost_types::Timestamp {
            seconds: 1_900_000_000,
            nanos: 0,
        }),
        sections: vec![Section {
            name: "A".into(),
            rows: 1,
            seats_per_row: 1,
            price: Some(proto::common::v1::Money {
                currency_code: "EUR".into(),
                minor_units: 1,
            }),
            ..Section::default()
        }],
        ..Event::default()
    };
    let request = CreateEventRequest {
        request_id: id(),
        event: Some(event),
    };
    let event = client
        .create_event(request)
        .await
        .expect("made")
        .into_inner()
        .event
        .expect("it")
        .id;
    let hold = HoldSeatsRequest {
        request_id: id(),
        event_id: event.clone(),
        buyer_id: "ada".into(),
        selection: Some(Selection::BestAvailable(BestAvailable {
            quantity: 1,
            section: String::new(),
        })),
        ..HoldSeatsRequest::default()
    };
    let hold = client
        .hold_seats(hold)
        .await
        .expect("free")
        .into_inner()
        .hold
        .expect("it");
    let confirm = ConfirmHoldRequest {
        hold_id: hold.id,
        hold_token: hold.token,
        order_id: id(),
    };
    let tickets = client
        .confirm_hold(confirm)
        .await
        .expect("in time")
        .into_inner()
        .tickets;
    let jwks = client
        .get_ticket_keys(GetTicketKeysRequest {})
        .await
        .expect("keys")
        .into_inner()
        .jwks;
    drop(client);
    server.stop().await;
    let code = tickets[0].code.clone();
    (Sold { folder, code, event }, jwks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_good_or_not_and_the_exit_code_says_so() {
    let (sold, jwks) = sold().await;
    let set = sold.file("set.json", &jwks);
    let answer = sold.file("answer.json", &serde_json::json!({ "jwks": jwks }).to_string());
    let broken = sold.file("broken.json", "{}");
    for keys in [&set, &answer] {
        let out = run(&["ticket-code", "verify", &sold.code, "--keys", keys]).code(0);
        assert!(out.stdout.contains("Good: seat A/1/1"), "{}", out.stdout);
    }
    let good = [
        "ticket-code",
        "verify",
        &sold.code,
        "--keys",
        &set,
        "--output",
        "json",
        "--event",
        &sold.event,
    ];
    let document: serde_json::Value = serde_json::from_str(&run(&good).code(0).stdout).expect("JSON");
    assert_eq!(
        (&document["seat_id"], &document["event_id"]),
        (&"A/1/1".into(), &sold.event.clone().into())
    );
    let mut forged = sold.code.clone();
    let at = forged.len() - 10;
    let other = if &forged[at..=at] == "A" { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    for bad in [forged.as_str(), "TSR1.x.y", "nonsense"] {
        let out = run(&["ticket-code", "verify", bad, "--keys", &set]).code(1);
        assert!(out.stderr.contains("not good"), "{}", out.stderr);
    }
    run(&["ticket-code", "verify", &sold.code, "--keys", &set, "--event", &id()]).code(1);
    for keys in [broken.as_str(), "/nowhere/keys.json"] {
        let out = run(&["ticket-code", "verify", &sold.code, "--keys", keys]).code(2);
        assert!(out.stderr.contains("GetTicketKeys"), "{}", out.stderr);
    }
    run(&["ticket-code"]).code(2);
}
