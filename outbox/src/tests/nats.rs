//! A real JetStream: each event once and in order of its key, through a server that is killed and a process that dies between the
//! hand-over and the note of it.

use super::*;
use crate::testing::{Message, NatsServer};

async fn connected(url: &str) -> Nats {
    let url = url.parse().expect("a URL");
    Nats::connect(url, "thing-svc", "thing-1").await.expect("usable")
}

async fn deliver_to(database: Database, nats: &NatsServer) -> Dispatcher {
    let to = Destinations {
        subscribers: Subscribers::default(),
        broker: Some(Arc::new(connected(&nats.url()).await)),
    };
    Dispatcher::start(database, to, Bell::default(), hasty())
}

/// The numbers of a key, in the stream's order.
fn of_key(messages: &[Message], key: &str) -> Vec<i64> {
    let own = messages.iter().filter(|message| message.event["subject"] == key);
    own.map(|message| message.event["data"]["number"].as_i64().expect("a number"))
        .collect()
}

async fn a_message_says_what_it_is_without_being_read(store: TestStore) {
    let Some(nats) = NatsServer::start().await else { return };
    let database = open(&store).await;
    write(&database, "a", 1).await;
    let dispatcher = deliver_to(database.clone(), &nats).await;
    all_delivered(&database).await;
    dispatcher.stop().await;
    let messages = nats.messages().await;
    let [message] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    assert_eq!(message.subject, "tessera.events.thing.happened");
    let id = message.event["id"].as_str().expect("an id");
    let expected = [
        "Content-Type: application/cloudevents+json".to_owned(),
        format!("Nats-Msg-Id: {id}"),
        "Tessera-Event-Key: a".to_owned(),
        "Tessera-Event-Kind: thing.happened".to_owned(),
        "Tessera-Event-Schema: 1".to_owned(),
    ];
    assert_eq!(message.headers, expected);
    let read = Recorded::from_cloud_event(&message.event).expect("a CloudEvent");
    assert_eq!((read.key.as_str(), number(&read)), ("a", 1));
    assert_eq!(message.event["source"], "thing-svc");
}

/// Two processes deliver while others write and the server dies again and again, at any moment of it.
async fn a_server_that_is_killed_has_every_event_once_and_in_order(store: TestStore) {
    let Some(nats) = NatsServer::start().await else { return };
    let database = open(&store).await;
    let mut dispatchers = Vec::new();
    for _ in 0..2 {
        dispatchers.push(deliver_to(open(&store).await, &nats).await);
    }
    let keys: Vec<String> = (0..5).map(|key| format!("key-{key}")).collect();
    for number in 0..20 {
        for key in &keys {
            write(&database, key, number).await;
        }
        if number % 7 == 3 {
            nats.crash();
            write(&database, "meanwhile", number).await;
            nats.up().await;
        }
    }
    all_delivered(&database).await;
    for dispatcher in dispatchers {
        dispatcher.stop().await;
    }
    let messages = nats.messages().await;
    for key in &keys {
        assert_eq!(of_key(&messages, key), (0..20).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(of_key(&messages, "meanwhile"), [3, 10, 17]);
}

/// It takes the events over, and the process is gone before that is noted. Whoever comes next sends them again, under the same
/// ids, and JetStream has them once.
async fn what_is_sent_twice_is_stored_once(store: TestStore) {
    let Some(nats) = NatsServer::start().await else { return };
    let database = open(&store).await;
    for number in 0..3 {
        write(&database, &number.to_string(), number).await;
    }
    let taken = table::claim(&database, 9, Duration::ZERO).await.expect("claimed");
    let events: Vec<&Recorded> = taken.events.iter().collect();
    let dying = connected(&nats.url()).await;
    until("taken over", async || {
        dying.take_over(&events).await.iter().all(Result::is_ok)
    })
    .await;
    drop(dying);
    assert_eq!(nats.messages().await.len(), 3);
    let dispatcher = deliver_to(database.clone(), &nats).await;
    all_delivered(&database).await;
    dispatcher.stop().await;
    let messages = nats.messages().await;
    assert_eq!(messages.len(), 3, "{messages:?}");
}

/// The service starts without it, and says why events wait.
async fn a_server_that_is_not_there_is_waited_for(store: TestStore) {
    let Some(nats) = NatsServer::start().await else { return };
    nats.crash();
    let database = open(&store).await;
    write(&database, "a", 1).await;
    let dispatcher = deliver_to(database.clone(), &nats).await;
    let error = async || -> String {
        let error = sqlx::query_scalar("SELECT error FROM outbox")
            .fetch_one(database.reader())
            .await;
        error.expect("the event")
    };
    until("the reason is noted", async || error().await.contains(&nats.url())).await;
    assert_eq!(table::waiting(&database).await.expect("a count").dead, 0);
    nats.up().await;
    all_delivered(&database).await;
    dispatcher.stop().await;
    assert_eq!(of_key(&nats.messages().await, "a"), [1]);
}

/// Larger than the server takes: a dead letter, and the next key goes on.
async fn what_is_too_large_for_the_server_is_a_dead_letter(store: TestStore) {
    let Some(nats) = NatsServer::start().await else { return };
    let database = open(&store).await;
    let mut large = database.begin(None).await.expect("its turn");
    let body = json!({ "number": 1, "text": "x".repeat(2 << 20) });
    let large_event = Event {
        body,
        ..event("large", 1)
    };
    record(&mut large, large_event).await.expect("written");
    large.commit().await.expect("committed");
    write(&database, "small", 1).await;
    let to = Destinations {
        subscribers: Subscribers::default(),
        broker: Some(Arc::new(connected(&nats.url()).await)),
    };
    let settings = Settings { attempts: 2, ..hasty() };
    let dispatcher = Dispatcher::start(database.clone(), to, Bell::default(), settings);
    all_delivered(&database).await;
    dispatcher.stop().await;
    let letters = dead_letters(&database, None, 9).await.expect("a list");
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0].1.error.contains("max payload size exceeded"),
        "{}",
        letters[0].1.error
    );
    assert_eq!(of_key(&nats.messages().await, "small"), [1]);
}

/// A stream of the operator's own, with another name, takes the subjects: it is used, and none is made beside it.
#[tokio::test]
async fn a_stream_that_is_there_is_left_as_it_is() {
    let Some(nats) = NatsServer::start().await else { return };
    let client = async_nats::connect(nats.url()).await.expect("connected");
    let jetstream = async_nats::jetstream::new(client);
    let own = async_nats::jetstream::stream::Config {
        name: "OWN".to_owned(),
        subjects: vec!["tessera.events.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(own).await.expect("made");
    let event = Recorded {
        seq: 1,
        id: Uuid::from_u128(1),
        key: "a".to_owned(),
        kind: "thing.happened".to_owned(),
        body: json!({ "number": 1 }),
        trace: None,
        created_at: service_store::Timestamp::from_nanos(1),
        attempts: 1,
    };
    let sender = connected(&nats.url()).await;
    until("taken over", async || sender.take_over(&[&event]).await == [Ok(())]).await;
    assert_eq!(nats.messages().await, [], "ours was not made");
    let mut stream = jetstream.get_stream("OWN").await.expect("theirs");
    assert_eq!(stream.info().await.expect("an answer").state.messages, 1);
}

/// It asks for a password. A wrong one is away, and told; the right one is let in, and shown nowhere.
#[tokio::test]
async fn a_password_lets_in_and_is_shown_nowhere() {
    let Some(nats) = NatsServer::start_with(&["--user", "me", "--pass", "s@cret"]).await else {
        return;
    };
    let event = Recorded::from_cloud_event(&json!({
        "specversion": "1.0", "id": Uuid::nil().to_string(), "source": "s", "type": "thing.happened", "subject": "a",
        "unixnanos": "1", "data": {"number": 1},
    }))
    .expect("an event");
    let host = nats.url().replace("nats://", "");
    let wrong = connected(&format!("nats://me:guess@{host}")).await;
    until("refused", async || match &wrong.take_over(&[&event]).await[..] {
        [Err(NotTaken::Away(error))] => {
            assert!(!error.contains("guess"), "{error}");
            error.to_lowercase().contains("authorization")
        }
        other => panic!("{other:?}"),
    })
    .await;
    let right = connected(&format!("nats://me:s%40cret@{host}")).await;
    until("taken over", async || right.take_over(&[&event]).await == [Ok(())]).await;
    assert!(!format!("{right:?}").contains("cret"));
}

service_store::on_both_stores![
    a_message_says_what_it_is_without_being_read,
    a_server_that_is_killed_has_every_event_once_and_in_order,
    what_is_sent_twice_is_stored_once,
    a_server_that_is_not_there_is_waited_for,
    what_is_too_large_for_the_server_is_a_dead_letter,
];
