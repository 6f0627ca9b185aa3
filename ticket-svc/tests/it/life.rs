//! The process: seeding, starting on a bad place, stopping.

use proto::ticket::v1::{ListEventsRequest, ticket_service_client::TicketServiceClient};
use tempfile::TempDir;
use ticket_svc::{Config, StartError, Tickets};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, config, create, section};

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn three_servers_that_start_at_once_sow_one_programme() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut starting = JoinSet::new();
    for _ in 0..3 {
        let config = Config {
            seed: true,
            ..config(&folder)
        };
        starting.spawn(async move { Tickets::start(config).await.expect("it starts") });
    }
    let servers = starting.join_all().await;
    let address = servers[0].local_addr();
    let mut client = TicketServiceClient::connect(format!("http://{address}"))
        .await
        .expect("it listens");
    let events = client
        .list_events(ListEventsRequest::default())
        .await
        .expect("a page")
        .into_inner()
        .events;
    assert_eq!(events.len(), 6);
    assert!(
        events
            .iter()
            .all(|event| event.seats_free == event.seats_total && event.seats_total > 0)
    );
    assert!(events.is_sorted_by_key(|event| event.starts_at.map(|time| time.seconds)));
    Fixture { servers, folder }.stop().await;
}

#[tokio::test]
async fn what_was_sold_is_still_there_after_a_restart_and_is_not_sown_over() {
    let fixture = Fixture::with(1).await;
    let event = create(&mut fixture.client(0).await, vec![section("A", 1, 1)]).await;
    let Fixture { servers, folder } = fixture;
    for server in servers {
        server.stop().await;
    }
    let server = Tickets::start(Config {
        seed: true,
        ..config(&folder)
    })
    .await
    .expect("it starts again");
    let fixture = Fixture {
        servers: vec![server],
        folder,
    };
    let request = ListEventsRequest::default();
    let events = fixture
        .client(0)
        .await
        .list_events(request)
        .await
        .expect("a page")
        .into_inner()
        .events;
    assert_eq!(events, [event]);
    fixture.stop().await;
}

#[tokio::test]
async fn a_start_that_cannot_work_says_why() {
    let folder = TempDir::new().expect("a temporary folder");
    let nowhere = Config {
        store: "/nonexistent/tickets.db".into(),
        ..config(&folder)
    };
    let error = Tickets::start(nowhere).await.expect_err("no such folder");
    assert!(
        matches!(error, StartError::Store(_)) && error.to_string().contains("/nonexistent/tickets.db"),
        "{error}"
    );

    let server = Tickets::start(config(&folder)).await.expect("it starts");
    let taken = Config {
        listen: server.local_addr(),
        ..config(&folder)
    };
    let error = Tickets::start(taken).await.expect_err("the port is taken");
    assert!(matches!(error, StartError::Bind(_)), "{error}");

    let unusable = Config {
        registry: vec!["not a url".into()],
        ..config(&folder)
    };
    let error = Tickets::start(unusable).await.expect_err("no URL");
    assert!(matches!(error, StartError::Registry(_)), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn answers_name_the_instance_that_gave_them() {
    let fixture = Fixture::with(1).await;
    let answer = fixture
        .client(0)
        .await
        .list_events(ListEventsRequest::default())
        .await
        .expect("a page");
    let named = answer
        .metadata()
        .get("tessera-instance")
        .expect("the header")
        .to_str()
        .expect("ASCII");
    assert_eq!(named, fixture.servers[0].instance_id());
    fixture.stop().await;
}
