//! A broker beside the subscribers: what it misses waits for it, and nobody else does.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

/// A broker in memory, which can be away and which refuses what it is told to refuse.
#[derive(Debug, Default)]
struct Memory {
    is_away: AtomicBool,
    refuses: Mutex<BTreeSet<String>>,
    has: Mutex<HashMap<String, Vec<i64>>>,
}

impl Memory {
    fn of(&self, key: &str) -> Vec<i64> {
        self.has.lock().expect("whole").get(key).cloned().unwrap_or_default()
    }

    fn take(&self, event: &Recorded) -> Result<(), NotTaken> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(NotTaken::Away("nobody there".to_owned()));
        }
        if self.refuses.lock().expect("whole").contains(&event.key) {
            return Err(NotTaken::Refused("too large".to_owned()));
        }
        let mut has = self.has.lock().expect("whole");
        has.entry(event.key.clone()).or_default().push(number(event));
        Ok(())
    }
}

impl Broker for Memory {
    fn take_over<'a>(&'a self, events: &'a [&'a Recorded]) -> BoxFuture<'a, Vec<Result<(), NotTaken>>> {
        Box::pin(async move { events.iter().map(|event| self.take(event)).collect() })
    }
}

fn deliver_to(database: Database, journal: &Journal, broker: &Arc<Memory>, settings: Settings) -> Dispatcher {
    let to = Destinations {
        subscribers: Subscribers::default().with(journal.clone()),
        broker: Some(broker.clone()),
    };
    Dispatcher::start(database, to, Bell::default(), settings)
}

async fn parked(database: &Database) -> i64 {
    let parked = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE state = 0 AND next_at = $1");
    let parked = parked.bind(crate::parked::PARKED).fetch_one(database.reader());
    parked.await.expect("a count")
}

/// However long it is away: no event becomes a dead letter of it, subscribers hear everything at once, and in the end the broker
/// has each event once and in order. Three events of a key: the later ones wait behind the first.
async fn what_a_broker_misses_waits_for_it_and_subscribers_go_on(store: TestStore) {
    let database = open(&store).await;
    let (journal, broker) = (Journal::default(), Arc::<Memory>::default());
    broker.is_away.store(true, Ordering::SeqCst);
    for number in 1..=3 {
        for key in ["a", "b", "c"] {
            write(&database, key, number).await;
        }
    }
    let settings = Settings { attempts: 1, ..hasty() };
    let dispatcher = deliver_to(database.clone(), &journal, &broker, settings.clone());
    until("the first ones are parked", async || parked(&database).await == 3).await;
    write(&database, "d", 1).await;
    until("subscribers go on", async || journal.of("d") == [1]).await;
    // Whoever starts meanwhile finds them; whoever stops leaves them.
    dispatcher.stop().await;
    let dispatcher = deliver_to(database.clone(), &journal, &broker, settings);
    assert_eq!(broker.of("a"), Vec::<i64>::new());
    broker.is_away.store(false, Ordering::SeqCst);
    all_delivered(&database).await;
    dispatcher.stop().await;
    for key in ["a", "b", "c"] {
        assert_eq!(broker.of(key), [1, 2, 3], "{key}");
        assert_eq!(journal.first_of(key), [1, 2, 3], "{key}");
    }
    assert_eq!(broker.of("d"), [1]);
    assert_eq!(
        table::waiting(&database).await.expect("a count"),
        table::Waiting::default()
    );
}

/// What the broker takes from others and not from this one is that one's fault.
async fn what_a_broker_refuses_becomes_a_dead_letter(store: TestStore) {
    let database = open(&store).await;
    let (journal, broker) = (Journal::default(), Arc::<Memory>::default());
    broker.refuses.lock().expect("whole").insert("bad".to_owned());
    for key in ["bad", "good"] {
        for number in 1..=2 {
            write(&database, key, number).await;
        }
    }
    let settings = Settings { attempts: 2, ..hasty() };
    let dispatcher = deliver_to(database.clone(), &journal, &broker, settings);
    until("a dead letter", async || {
        table::waiting(&database).await.expect("a count").dead == 1
    })
    .await;
    until("the others", async || broker.of("good") == [1, 2]).await;
    let letters = dead_letters(&database, None, 9).await.expect("a list");
    assert_eq!(letters[0].1.error, "too large");
    broker.refuses.lock().expect("whole").clear();
    assert_eq!(replay_all(&database).await.expect("a count"), 1);
    all_delivered(&database).await;
    dispatcher.stop().await;
    assert_eq!(broker.of("bad"), [1, 2]);
    // The subscriber was told once more for each attempt, as it has to expect.
    assert_eq!(journal.first_of("bad"), [1, 2]);
}

/// In a batch of three, one is delivered, one is refused and one is parked.
async fn a_batch_may_end_in_every_way_at_once(store: TestStore) {
    let database = open(&store).await;
    for key in ["a", "b", "c"] {
        write(&database, key, 1).await;
    }
    let batch = table::claim(&database, 9, Duration::from_secs(60))
        .await
        .expect("claimed");
    let failure = |place: usize, then| table::Failure {
        seq: batch.events[place].seq,
        error: "why".to_owned(),
        then,
    };
    let failures = [failure(1, table::Then::Dead), failure(2, table::Then::Park)];
    table::settle(&database, &batch, &failures).await.expect("noted");
    let rows: Vec<(String, i64, i64)> = sqlx::query_as("SELECT key, state, attempts FROM outbox ORDER BY seq")
        .fetch_all(database.reader())
        .await
        .expect("rows");
    let expected = [("a", 1, 1), ("b", 2, 1), ("c", 0, 0)];
    assert_eq!(
        rows,
        expected.map(|(key, state, attempts)| (key.to_owned(), state, attempts))
    );
    assert_eq!(crate::parked::unpark(&database, 9).await.expect("a count"), 1);
    assert_eq!(crate::parked::unpark(&database, 9).await.expect("a count"), 0);
    let again = table::claim(&database, 9, Duration::from_secs(60))
        .await
        .expect("claimed");
    assert_eq!((again.events.len(), again.events[0].attempts), (1, 1));
    // All of them parked, one failed: the parked ones in one statement.
    table::settle(
        &database,
        &again,
        &[table::Failure {
            seq: again.events[0].seq,
            ..failure(2, table::Then::Park)
        }],
    )
    .await
    .expect("noted");
    assert_eq!(parked(&database).await, 1);
}

service_store::on_both_stores![
    what_a_broker_misses_waits_for_it_and_subscribers_go_on,
    what_a_broker_refuses_becomes_a_dead_letter,
    a_batch_may_end_in_every_way_at_once,
];
