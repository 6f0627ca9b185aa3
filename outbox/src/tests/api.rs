//! Dead letters as operators see them, over the wire's types.

use proto::events::v1::{
    DeadLetter, DropDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest, ReplayDeadLettersRequest,
    events_service_server::EventsService as _,
};
use tonic::{Code, Request, Status};

use super::*;

fn api(database: &Database) -> EventsApi {
    let who_calls: WhoCalls = Arc::new(|_| Box::pin(async { Ok("ada".to_owned()) }));
    EventsApi::new(database.clone(), who_calls)
}

/// A store with so many dead letters, each the first of two events of its key.
async fn with_dead_letters(store: &TestStore, keys: &[&str]) -> Database {
    let database = open(store).await;
    for key in keys {
        write(&database, key, 1).await;
    }
    let batch = table::claim(&database, 99, Duration::from_secs(60))
        .await
        .expect("claimed");
    let dead = |event: &Recorded| table::Failure {
        seq: event.seq,
        error: "nobody home".to_owned(),
        then: table::Then::Dead,
    };
    let failures: Vec<_> = batch.events.iter().map(dead).collect();
    table::settle(&database, &batch, &failures).await.expect("noted");
    for key in keys {
        write(&database, key, 2).await;
    }
    database
}

async fn listed(api: &EventsApi, page_size: i32, page_token: &str) -> Result<(Vec<DeadLetter>, String), Status> {
    let request = ListDeadLettersRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let page = api.list_dead_letters(Request::new(request)).await?.into_inner();
    Ok((page.dead_letters, page.next_page_token))
}

async fn replayed(api: &EventsApi, event_ids: Vec<String>, all: bool) -> Result<i64, Status> {
    let request = ReplayDeadLettersRequest { event_ids, all };
    let answer = api.replay_dead_letters(Request::new(request)).await?;
    Ok(answer.into_inner().replayed)
}

async fn shown(api: &EventsApi, event_id: &str) -> Result<DeadLetter, Status> {
    let event_id = event_id.to_owned();
    let answer = api
        .get_dead_letter(Request::new(GetDeadLetterRequest { event_id }))
        .await?;
    Ok(answer.into_inner().dead_letter.expect("it"))
}

async fn dropped(api: &EventsApi, event_id: &str, reason: &str) -> Result<(), Status> {
    let (event_id, reason) = (event_id.to_owned(), reason.to_owned());
    let request = DropDeadLetterRequest { event_id, reason };
    api.drop_dead_letter(Request::new(request)).await.map(drop)
}

async fn pages_of_dead_letters_neither_skip_nor_repeat(store: TestStore) {
    let database = with_dead_letters(&store, &["a", "b", "c"]).await;
    let api = api(&database);
    let (first, token) = listed(&api, 2, "").await.expect("a page");
    let (second, end) = listed(&api, 2, &token).await.expect("a page");
    assert_eq!((first.len(), second.len(), end.as_str()), (2, 1, ""));
    let keys: Vec<_> = first.iter().chain(&second).map(|letter| letter.key.as_str()).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let letter = &first[0];
    assert_eq!(
        (letter.kind.as_str(), letter.error.as_str()),
        ("thing.happened", "nobody home")
    );
    assert_eq!((letter.attempts, letter.held_back), (1, 1));
    let body: serde_json::Value = serde_json::from_str(&letter.body).expect("JSON");
    assert_eq!(body, json!({ "number": 1, "schema": 1 }));
    assert!(letter.created_at.is_some());
    assert_eq!(&shown(&api, &letter.event_id).await.expect("the same"), letter);
}

/// All that are named, or none of them: half of a list that went through would leave its maker to find out which half.
async fn what_is_replayed_is_delivered_and_what_is_no_dead_letter_is_told(store: TestStore) {
    let database = with_dead_letters(&store, &["a", "b"]).await;
    let api = api(&database);
    let (letters, _) = listed(&api, 0, "").await.expect("a page");
    let ids: Vec<String> = letters.iter().map(|letter| letter.event_id.clone()).collect();
    let unknown = Uuid::from_u128(7).to_string();
    let refused = replayed(&api, vec![ids[0].clone(), unknown.clone()], false)
        .await
        .expect_err("one is none");
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains(&unknown), "{refused:?}");
    assert_eq!(listed(&api, 0, "").await.expect("a page").0.len(), 2, "neither went");

    let twice = vec![ids[0].clone(), ids[0].clone()];
    assert_eq!(replayed(&api, twice, false).await.expect("one"), 1);
    assert_eq!(
        replayed(&api, ids.clone(), false).await.expect_err("one went").code(),
        Code::NotFound
    );
    assert_eq!(replayed(&api, vec![], true).await.expect("the other"), 1);
    assert_eq!(replayed(&api, vec![], true).await.expect("none is left"), 0);
    let journal = Journal::default();
    let dispatcher = deliver(database.clone(), &journal, hasty());
    all_delivered(&database).await;
    dispatcher.stop().await;
    assert_eq!((journal.of("a"), journal.of("b")), (vec![1, 2], vec![1, 2]));
}

async fn what_is_dropped_is_never_delivered_and_the_later_ones_are(store: TestStore) {
    let database = with_dead_letters(&store, &["a"]).await;
    let api = api(&database);
    let id = listed(&api, 0, "").await.expect("a page").0[0].event_id.clone();
    dropped(&api, &id, " told by hand ").await.expect("dropped");
    for again in [dropped(&api, &id, "again").await, shown(&api, &id).await.map(drop)] {
        assert_eq!(again.expect_err("gone").code(), Code::NotFound);
    }
    let note: String = sqlx::query_scalar("SELECT error FROM outbox WHERE id = $1")
        .bind(&id)
        .fetch_one(database.reader())
        .await
        .expect("the event");
    assert_eq!(note, "dropped by ada: told by hand");
    let journal = Journal::default();
    let dispatcher = deliver(database.clone(), &journal, hasty());
    all_delivered(&database).await;
    dispatcher.stop().await;
    assert_eq!(journal.of("a"), [2]);
}

async fn what_is_wrong_with_a_request_is_said_field_by_field(store: TestStore) {
    let database = open(&store).await;
    let api = api(&database);
    let id = Uuid::nil().to_string();
    let wrong = [
        ("page_size", listed(&api, 201, "").await.map(drop)),
        ("page_size", listed(&api, -1, "").await.map(drop)),
        ("page_token", listed(&api, 0, "x").await.map(drop)),
        ("event_id", shown(&api, "").await.map(drop)),
        ("event_id", shown(&api, &id.replace('-', "")).await.map(drop)),
        ("event_ids", replayed(&api, vec![], false).await.map(drop)),
        ("event_ids", replayed(&api, vec![id.clone()], true).await.map(drop)),
        (
            "event_ids",
            replayed(&api, vec![id.clone(); 101], false).await.map(drop),
        ),
        (
            "event_ids[1]",
            replayed(&api, vec![id.clone(), "7".into()], false).await.map(drop),
        ),
        ("event_id", dropped(&api, "7", "why").await),
        ("reason", dropped(&api, &id, "").await),
        ("reason", dropped(&api, &id, &"x".repeat(201)).await),
        ("reason", dropped(&api, &id, "a\nb").await),
    ];
    for (field, answer) in wrong {
        let status = answer.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        assert!(status.message().starts_with(&format!("{field}:")), "{status:?}");
    }
}

service_store::on_both_stores![
    pages_of_dead_letters_neither_skip_nor_repeat,
    what_is_replayed_is_delivered_and_what_is_no_dead_letter_is_told,
    what_is_dropped_is_never_delivered_and_the_later_ones_are,
    what_is_wrong_with_a_request_is_said_field_by_field,
];
