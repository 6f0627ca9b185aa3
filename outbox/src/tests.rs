//! Events on both stores: in order per key, at least once, effects exactly once, dead letters that hold back their key only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::json;
use service_store::{Database, SystemClock, testing::TestStore};
use uuid::Uuid;

use super::{
    dead::{dead_letters, replay_all},
    *,
};

mod api;
mod broker;
mod nats;

/// Longer than anything here should take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn open(store: &TestStore) -> Database {
    let database = Database::open(store.location(), &schema(), Arc::new(SystemClock)).await;
    database.expect("it opens")
}

/// Each look and each pause as short as can be.
fn hasty() -> Settings {
    Settings {
        look: Duration::from_millis(10),
        pause: Duration::from_millis(1),
        most_pause: Duration::from_millis(5),
        attempts: u32::MAX,
        ..Settings::default()
    }
}

fn event(key: &str, number: i64) -> Event {
    Event {
        key: key.to_owned(),
        kind: "thing.happened",
        schema: 1,
        body: json!({ "number": number }),
    }
}

/// Delivers to this journal alone, and is never rung.
fn deliver(database: Database, journal: &Journal, settings: Settings) -> Dispatcher {
    let to = Destinations {
        subscribers: Subscribers::default().with(journal.clone()),
        broker: None,
    };
    Dispatcher::start(database, to, Bell::default(), settings)
}

async fn write(database: &Database, key: &str, number: i64) {
    let mut write = database.begin(None).await.expect("its turn");
    record(&mut write, event(key, number)).await.expect("written");
    write.commit().await.expect("committed");
}

fn number(event: &Recorded) -> i64 {
    event.body["number"].as_i64().expect("a number")
}

/// What came, in order, by key; and what fails.
#[derive(Debug, Default)]
struct Seen {
    by_key: HashMap<String, Vec<i64>>,
    /// How often each event fails before it is taken.
    fails: HashMap<(String, i64), u32>,
}

#[derive(Debug, Clone, Default)]
struct Journal(Arc<Mutex<Seen>>);

impl Journal {
    fn fail(&self, key: &str, number: i64, times: u32) {
        self.0
            .lock()
            .expect("whole")
            .fails
            .insert((key.to_owned(), number), times);
    }

    fn of(&self, key: &str) -> Vec<i64> {
        let seen = self.0.lock().expect("whole");
        seen.by_key.get(key).cloned().unwrap_or_default()
    }

    /// In the order in which each came first.
    fn first_of(&self, key: &str) -> Vec<i64> {
        let mut first = Vec::new();
        for number in self.of(key) {
            if !first.contains(&number) {
                first.push(number);
            }
        }
        first
    }
}

impl Subscriber for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn wants(&self, kind: &str) -> bool {
        kind == "thing.happened"
    }

    fn take_in<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<(), NotDelivered>> {
        Box::pin(async move {
            let mut seen = self.0.lock().expect("whole");
            for event in events {
                if let Some(left) = seen.fails.get_mut(&(event.key.clone(), number(event)))
                    && *left > 0
                {
                    *left -= 1;
                    return Err(NotDelivered("not now".to_owned()));
                }
            }
            for event in events {
                seen.by_key.entry(event.key.clone()).or_default().push(number(event));
            }
            Ok(())
        })
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let so = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

async fn all_delivered(database: &Database) {
    until("all delivered", async || {
        table::waiting(database).await.expect("a count").pending == 0
    })
    .await;
}

#[test]
fn the_list_of_fail_points_has_every_place_and_no_other() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    assert_eq!(service_store::failpoints_in(sources.as_ref()), FAILPOINTS);
}

/// Stores remember what their tables were made with; another text under the same number would not open them any more.
#[test]
fn the_tables_are_those_that_stores_have() {
    let schema = schema();
    let checksum = |migrations: &sqlx::migrate::Migrator| {
        let [one] = migrations.migrations.as_ref() else {
            panic!("one migration: {migrations:?}")
        };
        let start: String = one.checksum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        (one.description.to_string(), start)
    };
    let named = |start: &str| ("outbox".to_owned(), start.to_owned());
    assert_eq!(checksum(&schema.sqlite), named("aeedabee0610466c"));
    assert_eq!(checksum(&schema.postgres), named("15b9dddb2d833129"));
}

/// Its own looks are an hour apart.
async fn what_is_rung_for_is_delivered_at_once(store: TestStore) {
    let database = open(&store).await;
    let (journal, bell) = (Journal::default(), Bell::default());
    let to = Destinations {
        subscribers: Subscribers::default().with(journal.clone()),
        broker: None,
    };
    let settings = Settings {
        look: Duration::from_secs(3_600),
        ..Settings::default()
    };
    let dispatcher = Dispatcher::start(database.clone(), to, bell.clone(), settings);
    for number in 1..=3 {
        write(&database, "a", number).await;
        bell.ring();
        until("delivered", async || journal.of("a").len() as i64 == number).await;
    }
    dispatcher.stop().await;
}

async fn what_is_rolled_back_is_never_delivered(store: TestStore) {
    let database = open(&store).await;
    let mut dropped = database.begin(None).await.expect("its turn");
    record(&mut dropped, event("a", 1)).await.expect("written");
    drop(dropped);
    write(&database, "a", 2).await;
    let journal = Journal::default();
    let dispatcher = deliver(database.clone(), &journal, hasty());
    all_delivered(&database).await;
    dispatcher.stop().await;
    assert_eq!(journal.of("a"), [2]);
}

/// Three processes on one store, events that fail some times, and writers that go on meanwhile.
async fn events_of_a_key_come_in_order_over_all_processes_and_failures(store: TestStore) {
    let database = open(&store).await;
    let journal = Journal::default();
    let keys: Vec<String> = (0..10).map(|key| format!("key-{key}")).collect();
    for (place, key) in keys.iter().enumerate() {
        journal.fail(key, place as i64, 3);
    }
    let mut dispatchers = Vec::new();
    for _ in 0..3 {
        dispatchers.push(deliver(open(&store).await, &journal, hasty()));
    }
    for number in 0..10 {
        for key in &keys {
            write(&database, key, number).await;
        }
    }
    all_delivered(&database).await;
    for dispatcher in dispatchers {
        dispatcher.stop().await;
    }
    for key in &keys {
        assert_eq!(journal.first_of(key), (0..10).collect::<Vec<_>>(), "{key}");
    }
}

/// A process dies after the hand-over and before it is noted: the event comes again, and its effect does not.
async fn an_event_that_comes_twice_has_one_effect(store: TestStore) {
    let database = open(&store).await;
    write(&database, "a", 1).await;
    let batch = table::claim(&database, 9, Duration::ZERO).await.expect("claimed");
    assert_eq!(batch.events.len(), 1);
    let again = table::claim(&database, 9, Duration::from_secs(60))
        .await
        .expect("claimed");
    assert_eq!(again.events[0].id, batch.events[0].id, "its claim had lapsed");
    assert_eq!(again.events[0].attempts, 2);
    let id = again.events[0].id;
    for (consumer, expected) in [("mail", true), ("mail", false), ("other", true), ("mail", false)] {
        let mut write = database.begin(None).await.expect("its turn");
        let first = first_time(&mut write, consumer, id).await.expect("an answer");
        assert_eq!(first, expected, "{consumer}");
        write.commit().await.expect("committed");
    }
    // Who lost the claim can neither fail it nor settle it.
    let failure = table::Failure {
        seq: batch.events[0].seq,
        error: "late".to_owned(),
        then: table::Then::Dead,
    };
    table::settle(&database, &batch, &[failure])
        .await
        .expect("nothing to note");
    table::settle(&database, &batch, &[]).await.expect("nothing to note");
    assert_eq!(table::waiting(&database).await.expect("a count").pending, 1);
    table::settle(&database, &again, &[]).await.expect("noted");
    assert_eq!(
        table::waiting(&database).await.expect("a count"),
        table::Waiting::default()
    );
}

async fn of_many_processes_one_takes_an_event(store: TestStore) {
    let database = open(&store).await;
    for number in 0..20 {
        write(&database, &format!("key-{number}"), 0).await;
    }
    let mut claiming = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let database = open(&store).await;
        claiming.spawn(async move {
            table::claim(&database, 15, Duration::from_secs(60))
                .await
                .expect("an answer")
        });
    }
    let mut taken: Vec<i64> = Vec::new();
    for batch in claiming.join_all().await {
        taken.extend(batch.events.iter().map(|event| event.seq));
    }
    let rest = table::claim(&database, 100, Duration::from_secs(60))
        .await
        .expect("an answer");
    taken.extend(rest.events.iter().map(|event| event.seq));
    taken.sort_unstable();
    let unique: std::collections::BTreeSet<i64> = taken.iter().copied().collect();
    assert_eq!((taken.len(), unique.len()), (20, 20), "{taken:?}");
}

async fn a_dead_letter_holds_its_key_back_until_it_is_replayed(store: TestStore) {
    let database = open(&store).await;
    let journal = Journal::default();
    journal.fail("bad", 1, u32::MAX);
    for number in 1..=3 {
        write(&database, "bad", number).await;
        write(&database, "good", number).await;
    }
    let settings = Settings { attempts: 3, ..hasty() };
    let dispatcher = deliver(database.clone(), &journal, settings);
    until("a dead letter", async || {
        table::waiting(&database).await.expect("a count").dead == 1
    })
    .await;
    until("the others", async || journal.of("good") == [1, 2, 3]).await;
    assert_eq!(journal.of("bad"), Vec::<i64>::new());
    let letters = dead_letters(&database, None, 9).await.expect("a list");
    let [(place, letter)] = letters.as_slice() else {
        panic!("{letters:?}")
    };
    assert_eq!((letter.error.as_str(), letter.holds_back), ("journal: not now", 2));
    assert_eq!((letter.event.attempts, number(&letter.event)), (3, 1));
    assert!(
        dead_letters(&database, Some(*place), 9)
            .await
            .expect("a list")
            .is_empty()
    );
    journal.fail("bad", 1, 0);
    assert_eq!(replay_all(&database).await.expect("a count"), 1);
    all_delivered(&database).await;
    dispatcher.stop().await;
    assert_eq!(journal.of("bad"), [1, 2, 3]);
    assert_eq!(replay_all(&database).await.expect("a count"), 0);
}

async fn what_was_delivered_is_removed_after_its_time_in_small_batches(store: TestStore) {
    let database = open(&store).await;
    for number in 0..5 {
        write(&database, &number.to_string(), number).await;
    }
    let batch = table::claim(&database, 4, Duration::from_secs(60))
        .await
        .expect("claimed");
    table::settle(&database, &batch, &[]).await.expect("noted");
    assert_eq!(
        table::prune(&database, Duration::from_secs(60), 9)
            .await
            .expect("a count"),
        0,
        "too young"
    );
    let mut removed = Vec::new();
    for _ in 0..3 {
        removed.push(table::prune(&database, Duration::ZERO, 3).await.expect("a count"));
    }
    assert_eq!(removed, [3, 1, 0]);
    assert_eq!(
        table::waiting(&database).await.expect("a count").pending,
        1,
        "what waits stays"
    );
}

service_store::on_both_stores![
    what_is_rung_for_is_delivered_at_once,
    what_is_rolled_back_is_never_delivered,
    events_of_a_key_come_in_order_over_all_processes_and_failures,
    an_event_that_comes_twice_has_one_effect,
    of_many_processes_one_takes_an_event,
    a_dead_letter_holds_its_key_back_until_it_is_replayed,
    what_was_delivered_is_removed_after_its_time_in_small_batches,
];
