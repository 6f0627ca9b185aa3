//! Every RPC as everybody: nobody, a buyer, organisers, an operator, services, and with tokens that are no good.
//!
//! The walk is over the descriptor set: an RPC without a row here fails, whoever adds it decides who may call it.

use std::collections::BTreeSet;

use identity::{KeyPair, KeySet, PLATFORM, Roles, Subject};
use prost::Message as _;
use proto::events::v1::{
    DropDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest, ReplayDeadLettersRequest,
    events_service_client::EventsServiceClient,
};
use proto::ticket::v1::{
    CheckTicketRequest, ConfirmHoldRequest, Event, GetEventRequest, GetSalesRequest, GetSeatMapRequest,
    GetTicketKeysRequest, ListEventsRequest, ListSeatsRequest, RefundTicketsRequest, ReleaseHoldRequest,
    SearchEventsRequest, WaitInLineRequest, WatchAvailabilityRequest,
};
use tempfile::TempDir;
use ticket_svc::{Access, Config, StartError, Tickets};
use tonic::{Code, Status, service::interceptor::InterceptedService, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::fixture::{
    Client, Fixture, Shown, best, claims, config, create, id, key, new_event, reason, section, service_token, token_of,
};

/// Whoever calls, in the order of the columns below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Buyer,
    /// Whose event it is.
    Organiser,
    AnotherOrganiser,
    Operator,
    /// The user service, for this one.
    Service,
    /// The user service, with what it showed to another one.
    Misplaced,
    Expired,
    /// An operator by a key of somebody else.
    Forged,
    /// An operator's, with a claim changed.
    Bent,
}

const ALL: [Who; 10] = [
    Who::Nobody,
    Who::Buyer,
    Who::Organiser,
    Who::AnotherOrganiser,
    Who::Operator,
    Who::Service,
    Who::Misplaced,
    Who::Expired,
    Who::Forged,
    Who::Bent,
];

/// What they are answered: `.` goes on, `u` UNAUTHENTICATED, `p` PERMISSION_DENIED.
const TABLE: &[(&str, &str)] = &[
    //              nobody buyer organiser another operator service misplaced expired forged bent
    ("CheckTicket", "up.p.puuuu"),
    ("ConfirmHold", "upppp.uuuu"),
    ("CreateEvent", "up...puuuu"),
    ("GetEvent", ".........."),
    ("GetSales", "up.p.puuuu"),
    ("GetSeatMap", ".........."),
    ("GetTicketKeys", ".........."),
    ("HoldSeats", "upppp.uuuu"),
    ("ListEvents", ".........."),
    ("ListSeats", ".........."),
    ("RefundTickets", "upppp.uuuu"),
    ("ReleaseHold", "upppp.uuuu"),
    ("SearchEvents", ".........."),
    // As the buyer among them.
    ("WaitInLine", "u.pp.puuuu"),
    ("WatchAvailability", ".........."),
];

/// What they may do with dead letters, which is the same for all RPCs of it.
const EVENTS: &[(&str, &str)] = &[
    //                   nobody buyer organiser another operator service misplaced expired forged bent
    ("DropDeadLetter", "uppp.puuuu"),
    ("GetDeadLetter", "uppp.puuuu"),
    ("ListDeadLetters", "uppp.puuuu"),
    ("ReplayDeadLetters", "uppp.puuuu"),
];

type Events = EventsServiceClient<InterceptedService<Channel, Shown>>;

const ORGANISER: Uuid = Uuid::from_u128(20);
const BUYER: Uuid = Uuid::from_u128(10);

#[tokio::test]
async fn every_rpc_answers_everybody_as_the_table_says() {
    let fixture = Fixture::with(1).await;
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("decodes");
    let files = set.file.iter().filter(|file| file.package() == "tessera.ticket.v1");
    let methods = files.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let described: BTreeSet<&str> = methods.map(|method| method.name()).collect();
    let expected: BTreeSet<&str> = TABLE.iter().map(|(method, _)| *method).collect();
    assert_eq!(described, expected, "a row for each RPC, and none for others");

    let own = Shown::One(Some(token_of(ORGANISER, Roles::ORGANISER)));
    let event = create(&mut fixture.client_as(0, own).await, vec![section("A", 50, 50)]).await;
    for (method, row) in TABLE {
        assert_eq!(row.len(), ALL.len(), "{method}");
        for (who, expected) in ALL.into_iter().zip(row.chars()) {
            let client = fixture.client_as(0, Shown::One(token(who))).await;
            let got = match call(method, client, &fixture, &event).await {
                Ok(()) => '.',
                Err(status) => {
                    // Always with a reason.
                    reason(&status);
                    match status.code() {
                        Code::Unauthenticated => 'u',
                        Code::PermissionDenied => 'p',
                        _ => panic!("{method} as {who:?}: {status:?}"),
                    }
                }
            };
            assert_eq!(got, expected, "{method} as {who:?}");
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn dead_letters_are_for_operators() {
    let fixture = Fixture::with(1).await;
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("decodes");
    let files = set.file.iter().filter(|file| file.package() == "tessera.events.v1");
    let methods = files.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let described: BTreeSet<&str> = methods.map(|method| method.name()).collect();
    let expected: BTreeSet<&str> = EVENTS.iter().map(|(method, _)| *method).collect();
    assert_eq!(described, expected, "a row for each RPC, and none for others");
    let address = fixture.servers[0].local_addr();
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
    let channel = channel.connect().await.expect("it listens");
    for (method, row) in EVENTS {
        for (who, expected) in ALL.into_iter().zip(row.chars()) {
            let client = EventsServiceClient::with_interceptor(channel.clone(), Shown::One(token(who)));
            let got = match call_events(method, client).await {
                // Of an event that there is not: the gate has let it through.
                Ok(()) => '.',
                Err(status) if status.code() == Code::NotFound => '.',
                Err(status) => {
                    reason(&status);
                    match status.code() {
                        Code::Unauthenticated => 'u',
                        Code::PermissionDenied => 'p',
                        _ => panic!("{method} as {who:?}: {status:?}"),
                    }
                }
            };
            assert_eq!(got, expected, "{method} as {who:?}");
        }
    }
    fixture.stop().await;
}

async fn call_events(method: &str, mut client: Events) -> Result<(), Status> {
    let event_id = id();
    match method {
        "DropDeadLetter" => {
            let reason = "why".to_owned();
            client
                .drop_dead_letter(DropDeadLetterRequest { event_id, reason })
                .await
                .map(drop)
        }
        "GetDeadLetter" => client
            .get_dead_letter(GetDeadLetterRequest { event_id })
            .await
            .map(drop),
        "ListDeadLetters" => client
            .list_dead_letters(ListDeadLettersRequest::default())
            .await
            .map(drop),
        "ReplayDeadLetters" => {
            let (event_ids, all) = (Vec::new(), true);
            client
                .replay_dead_letters(ReplayDeadLettersRequest { event_ids, all })
                .await
                .map(drop)
        }
        method => panic!("say here how {method} is called"),
    }
}

fn token(who: Who) -> Option<String> {
    let operator = || Subject::User {
        id: Uuid::from_u128(1),
        session: Uuid::from_u128(9),
    };
    Some(match who {
        Who::Nobody => return None,
        Who::Buyer => token_of(BUYER, Roles::BUYER),
        Who::Organiser => token_of(ORGANISER, Roles::ORGANISER),
        Who::AnotherOrganiser => token_of(Uuid::from_u128(21), Roles::ORGANISER.and(Roles::BUYER)),
        Who::Operator => token_of(Uuid::from_u128(1), Roles::OPERATOR),
        Who::Service => service_token("user-svc"),
        Who::Misplaced => {
            let claims = claims(Subject::Service("user-svc".into()), Roles::SERVICE, "console");
            claims.sign(key()).expose().to_owned()
        }
        Who::Expired => {
            let mut claims = claims(operator(), Roles::OPERATOR, PLATFORM);
            claims.issued_at -= 7200;
            claims.expires_at -= 7200;
            claims.sign(key()).expose().to_owned()
        }
        Who::Forged => {
            let claims = claims(operator(), Roles::OPERATOR, PLATFORM);
            claims.sign(&KeyPair::generate().expect("a key")).expose().to_owned()
        }
        Who::Bent => {
            let good = token_of(Uuid::from_u128(1), Roles::OPERATOR);
            let at = good.find('.').expect("a header") + 20;
            let mut bytes = good.into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            String::from_utf8(bytes).expect("ASCII")
        }
    })
}

async fn call(method: &str, mut client: Client, fixture: &Fixture, event: &Event) -> Result<(), Status> {
    let event_id = event.id.clone();
    match method {
        "CheckTicket" => {
            let (_, code) = sold(fixture, &event_id).await;
            client.check_ticket(CheckTicketRequest { code }).await.map(drop)
        }
        "GetSales" => client.get_sales(GetSalesRequest { event_id }).await.map(drop),
        "GetSeatMap" => client.get_seat_map(GetSeatMapRequest { event_id }).await.map(drop),
        "GetTicketKeys" => client.get_ticket_keys(GetTicketKeysRequest {}).await.map(drop),
        "RefundTickets" => {
            let (order_id, _) = sold(fixture, &event_id).await;
            let request = RefundTicketsRequest {
                order_id,
                ..RefundTicketsRequest::default()
            };
            client.refund_tickets(request).await.map(drop)
        }
        "SearchEvents" => client.search_events(SearchEventsRequest::default()).await.map(drop),
        "WaitInLine" => {
            let request = WaitInLineRequest {
                event_id,
                buyer_id: BUYER.to_string(),
            };
            client.wait_in_line(request).await.map(drop)
        }
        "WatchAvailability" => {
            let request = WatchAvailabilityRequest { event_id, revision: 0 };
            client.watch_availability(request).await.map(drop)
        }
        "ConfirmHold" => {
            let hold = fixture
                .client(0)
                .await
                .hold_seats(best(&event_id, 1))
                .await
                .expect("free");
            let hold = hold.into_inner().hold.expect("the hold");
            let request = ConfirmHoldRequest {
                hold_id: hold.id,
                hold_token: hold.token,
                order_id: id(),
            };
            client.confirm_hold(request).await.map(drop)
        }
        "CreateEvent" => client.create_event(new_event(vec![section("A", 1, 1)])).await.map(drop),
        "GetEvent" => client.get_event(GetEventRequest { event_id }).await.map(drop),
        "HoldSeats" => client.hold_seats(best(&event_id, 1)).await.map(drop),
        "ListEvents" => client.list_events(ListEventsRequest::default()).await.map(drop),
        "ListSeats" => {
            let request = ListSeatsRequest {
                event_id,
                ..ListSeatsRequest::default()
            };
            client.list_seats(request).await.map(drop)
        }
        "ReleaseHold" => {
            let hold = fixture
                .client(0)
                .await
                .hold_seats(best(&event_id, 1))
                .await
                .expect("free");
            let hold = hold.into_inner().hold.expect("the hold");
            let request = ReleaseHoldRequest {
                hold_id: hold.id,
                hold_token: hold.token,
            };
            client.release_hold(request).await.map(drop)
        }
        method => panic!("say here how {method} is called"),
    }
}

/// An order, and the code of its ticket.
async fn sold(fixture: &Fixture, event_id: &str) -> (String, String) {
    let mut client = fixture.client(0).await;
    let hold = client.hold_seats(best(event_id, 1)).await.expect("free");
    let hold = hold.into_inner().hold.expect("the hold");
    let confirm = ConfirmHoldRequest {
        hold_id: hold.id,
        hold_token: hold.token,
        order_id: id(),
    };
    let order_id = confirm.order_id.clone();
    let mut tickets = client
        .confirm_hold(confirm)
        .await
        .expect("in time")
        .into_inner()
        .tickets;
    (order_id, tickets.remove(0).code)
}

/// An organiser makes events of their own, and an operator makes anybody's.
#[tokio::test]
async fn an_event_is_made_for_oneself() {
    let fixture = Fixture::with(1).await;
    let named = |organiser: &str| {
        let mut request = new_event(vec![section("A", 1, 1)]);
        request.event.as_mut().expect("an event").organiser_id = organiser.to_owned();
        request
    };
    let other = Uuid::from_u128(77).to_string();
    let mut organiser = fixture.client_as(0, Shown::One(token(Who::Organiser))).await;
    for mine in ["", &ORGANISER.to_string()] {
        let event = organiser
            .create_event(named(mine))
            .await
            .expect("one's own")
            .into_inner()
            .event;
        assert_eq!(event.expect("the event").organiser_id, ORGANISER.to_string());
    }
    let status = organiser.create_event(named(&other)).await.expect_err("another's");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "NOT_YOURS")
    );
    let mut operator = fixture.client_as(0, Shown::One(token(Who::Operator))).await;
    for anybodys in ["", &other] {
        let event = operator
            .create_event(named(anybodys))
            .await
            .expect("anybody's")
            .into_inner()
            .event;
        assert_eq!(event.expect("the event").organiser_id, anybodys);
    }
    fixture.stop().await;
}

async fn with(access: Access) -> Fixture {
    let folder = TempDir::new().expect("a temporary folder");
    let config = Config {
        access,
        ..config(&folder)
    };
    Fixture {
        servers: vec![Tickets::start(config).await.expect("it starts")],
        folder,
    }
}

/// A good token cannot be told from a forged one: whoever shows one is asked to come back, not to sign in again.
#[tokio::test]
async fn without_keys_what_is_public_is_answered_and_the_rest_is_asked_to_wait() {
    let fixture = with(Access::Keys(KeySet::default())).await;
    let mut client = fixture.client(0).await;
    client.list_events(ListEventsRequest::default()).await.expect("public");
    let status = client.hold_seats(best(&id(), 1)).await.expect_err("no keys");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "KEYS_MISSING")
    );
    assert!(
        status
            .get_details_retry_info()
            .is_some_and(|info| info.retry_delay.is_some())
    );
    let mut nobody = fixture.client_as(0, Shown::One(None)).await;
    let status = nobody.hold_seats(best(&id(), 1)).await.expect_err("nobody");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unauthenticated, "TOKEN_MISSING")
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_service_that_could_never_know_who_calls_does_not_start() {
    let folder = TempDir::new().expect("a temporary folder");
    let config = |access| Config {
        access,
        ..config(&folder)
    };
    let started = Tickets::start(config(Access::Discovered)).await;
    assert!(matches!(started, Err(StartError::NoKeys)), "{started:?}");
    let file = folder.path().join("keys.json");
    let started = Tickets::start(config(Access::KeyFile(file.clone()))).await;
    assert!(matches!(started, Err(StartError::Keys(_))), "{started:?}");
    std::fs::write(&file, "{}").expect("written");
    let started = Tickets::start(config(Access::KeyFile(file))).await;
    assert!(matches!(started, Err(StartError::Keys(_))), "{started:?}");
}

/// A token of a key that is not known makes the file be read again.
#[tokio::test]
async fn a_file_of_keys_is_followed() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("keys.json");
    let old = KeyPair::generate().expect("a key");
    std::fs::write(&file, KeySet::new([old.public_key().clone()]).to_jwks()).expect("written");
    let fixture = with(Access::KeyFile(file.clone())).await;
    let mut client = fixture.client(0).await;
    let status = client
        .create_event(new_event(vec![section("A", 1, 1)]))
        .await
        .expect_err("not known");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unauthenticated, "TOKEN_INVALID")
    );
    let both = [old.public_key().clone(), key().public_key().clone()];
    std::fs::write(&file, KeySet::new(both).to_jwks()).expect("written");
    let looked = async {
        while client.create_event(new_event(vec![section("A", 1, 1)])).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, looked).await.expect("it is read again");
    // What is broken later does not take away what was read before.
    std::fs::write(&file, "{").expect("written");
    client
        .create_event(new_event(vec![section("A", 1, 1)]))
        .await
        .expect("still known");
    fixture.stop().await;
}

#[tokio::test]
async fn an_open_service_lets_everybody_do_everything_that_there_is() {
    let fixture = with(Access::Open).await;
    let mut nobody = fixture.client_as(0, Shown::One(None)).await;
    let event = create(&mut nobody, vec![section("A", 1, 1)]).await;
    nobody.hold_seats(best(&event.id, 1)).await.expect("open");
    fixture.stop().await;
}
