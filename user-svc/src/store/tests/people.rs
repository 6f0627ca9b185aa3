//! Sessions, keys and what becomes of accounts, on either kind of store; above all two who do the same thing at once.

use std::time::Duration;

use identity::Roles;
use service_store::{SystemClock, testing::TestStore};
use tokio::task::JoinSet;

use super::*;
use crate::{
    domain::{
        session::{MOST_SESSIONS, RefreshToken},
        signing::Schedule,
    },
    store::{NewProfile, NewSession},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A store with a clock as it is: sessions have ends.
async fn fixture(place: &TestStore) -> (Store, User) {
    let store = Store::open(place.location(), Arc::new(SystemClock))
        .await
        .expect("the store opens");
    let user = store
        .create_user(id(), &new_user("ada@example.org"), "hash")
        .await
        .expect("new")
        .user;
    (store, user)
}

async fn session(store: &Store, user: &User, secret: u8) -> RefreshToken {
    let token = RefreshToken::first(id(), [secret; 16], [secret; 32]);
    let new = NewSession {
        id: token.session,
        user_id: user.id,
        hashes: token.hashes(),
        user_agent: "a test".into(),
    };
    store.open_session(&new, HOUR).await.expect("opened");
    token
}

fn names<'a>(new: Option<&'a Email>, password_hash: Option<&'static str>, keep: Option<Uuid>) -> NewProfile<'a> {
    NewProfile {
        display_name: None,
        email: new,
        password_hash,
        keep,
    }
}

async fn of_many_who_refresh_at_once_one_is_served(place: TestStore) {
    let (store, user) = fixture(&place).await;
    let token = session(&store, &user, 1).await;
    let mut at_once = JoinSet::new();
    for secret in 10..20 {
        let (store, token) = (store.clone(), token.clone());
        at_once.spawn(async move {
            let next = token.next([secret; 32]);
            store.refresh_session(&token, &next, HOUR).await.map(|_| ())
        });
    }
    let answers = at_once.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    // The others showed what was used up: the session is gone, for whoever won as well.
    assert!(!store.session_is_open(token.session, user.id).await.expect("asked"));
}

async fn a_refresh_moves_the_end_but_not_beyond_the_longest(place: TestStore) {
    let (store, user) = fixture(&place).await;
    let first = session(&store, &user, 1).await;
    let next = first.next([2; 32]);
    let long = Duration::from_secs(1000 * 24 * 3600);
    let (again, now, end) = store.refresh_session(&first, &next, long).await.expect("good");
    assert_eq!(again.id, user.id);
    assert!(
        end < now.after(Duration::from_secs(91 * 24 * 3600)),
        "90 days after it was opened"
    );
    assert_eq!(store.sessions(user.id).await.expect("listed").len(), 1);
    let made_up = RefreshToken::first(first.session, [9; 16], [9; 32]);
    let refused = store.refresh_session(&made_up, &next, HOUR).await;
    assert_eq!(refusal(refused), Refusal::SessionEnded);
    assert!(
        store.session_is_open(first.session, user.id).await.expect("asked"),
        "it ends nothing"
    );
}

async fn an_account_has_so_many_sessions_and_ended_ones_are_none(place: TestStore) {
    let (store, user) = fixture(&place).await;
    let ended = RefreshToken::first(id(), [0; 16], [0; 32]);
    let new = NewSession {
        id: ended.session,
        user_id: user.id,
        hashes: ended.hashes(),
        user_agent: String::new(),
    };
    store.open_session(&new, Duration::ZERO).await.expect("opened");
    assert!(!store.session_is_open(ended.session, user.id).await.expect("asked"));
    assert_eq!(
        store.revoke_sessions(user.id, &[ended.session]).await.expect("revoked"),
        0
    );
    for secret in 0..30 {
        session(&store, &user, secret).await;
    }
    assert_eq!(store.sessions(user.id).await.expect("listed").len(), MOST_SESSIONS);
    assert_eq!(store.revoke_sessions(user.id, &[]).await.expect("revoked"), 20);
    assert!(store.sessions(user.id).await.expect("listed").is_empty());
}

async fn one_of_many_processes_makes_the_next_key(place: TestStore) {
    let (store, _) = fixture(&place).await;
    let schedule = Schedule {
        rotation: HOUR,
        token_lifetime: HOUR,
    };
    let mut at_once = JoinSet::new();
    for document in 0..10_u8 {
        let store = store.clone();
        at_once.spawn(async move { store.turn_keys(&schedule, &[document]).await });
    }
    for turned in at_once.join_all().await {
        turned.expect("turned");
    }
    let keys = store.signing_keys().await.expect("read");
    assert_eq!(keys.iter().map(|key| key.place.generation).collect::<Vec<_>>(), [1]);
    assert_eq!(keys[0].document.len(), 1);
}

async fn an_address_goes_to_one_of_two_who_want_it_at_once(place: TestStore) {
    let (store, ada) = fixture(&place).await;
    let bob = store
        .create_user(id(), &new_user("bob@example.org"), "hash")
        .await
        .expect("new")
        .user;
    let wanted = Email::try_new("both@example.org").expect("an address");
    let change = |user: &User| {
        let (store, id, wanted) = (store.clone(), user.id, wanted.clone());
        async move {
            store
                .change_user(id, &names(Some(&wanted), None, None), Some("hash"))
                .await
        }
    };
    let (one, other) = tokio::join!(change(&ada), change(&bob));
    let mut lost = [one, other].into_iter().filter_map(Result::err);
    assert!(matches!(lost.next(), Some(StoreError::Refused(Refusal::EmailTaken))));
    assert!(lost.next().is_none());
}

async fn a_change_counts_only_for_the_password_that_was_checked(place: TestStore) {
    let (store, user) = fixture(&place).await;
    let (kept, ended) = (session(&store, &user, 1).await, session(&store, &user, 2).await);
    let new = names(None, Some("new hash"), Some(kept.session));
    store.change_user(user.id, &new, Some("hash")).await.expect("right");
    assert!(store.session_is_open(kept.session, user.id).await.expect("asked"));
    assert!(!store.session_is_open(ended.session, user.id).await.expect("asked"));
    let late = store.change_user(user.id, &new, Some("hash")).await;
    assert_eq!(refusal(late), Refusal::CredentialsWrong);
    let late = store.delete_user(user.id, false, Some("hash")).await;
    assert_eq!(refusal(late), Refusal::CredentialsWrong);
}

/// A purchase that begins while its account is deleted either comes first, and the account stays, or finds no account.
async fn an_account_is_deleted_or_buys_and_never_both(place: TestStore) {
    let (store, _) = fixture(&place).await;
    for round in 0..20 {
        let new = new_user(&format!("{round}@example.org"));
        let user = store.create_user(id(), &new, "hash").await.expect("new").user;
        let order = NewOrder {
            id: id(),
            user_id: user.id,
            event_id: id(),
            selection: Selection::BestAvailable {
                quantity: Quantity::try_new(1).expect("in range"),
                section: None,
            },
        };
        let (store, trace) = (&store, Trace::default());
        let (deleted, bought) = tokio::join!(
            store.delete_user(user.id, false, None),
            store.record_order(&order, &trace)
        );
        match (deleted, bought) {
            (Ok(()), bought) => assert_eq!(refusal(bought), Refusal::UserUnknown(user.id)),
            (deleted, Ok(_)) => assert_eq!(refusal(deleted), Refusal::OrdersUnfinished),
            both => panic!("{both:?}"),
        }
    }
}

async fn a_deleted_account_is_nobody_s_and_its_address_free(place: TestStore) {
    let (store, user) = fixture(&place).await;
    let open = session(&store, &user, 1).await;
    store.top_up(id(), user.id, euro(500)).await.expect("topped up");
    assert_eq!(
        refusal(store.delete_user(user.id, false, None).await),
        Refusal::WalletNotEmpty
    );
    assert!(
        store.session_is_open(open.session, user.id).await.expect("asked"),
        "nothing has changed"
    );
    store.delete_user(user.id, true, None).await.expect("given up");
    assert!(!store.session_is_open(open.session, user.id).await.expect("asked"));
    let unknown = Refusal::UserUnknown(user.id);
    assert_eq!(refusal(store.user(user.id).await), unknown);
    assert_eq!(refusal(store.delete_user(user.id, true, None).await), unknown);
    assert_eq!(refusal(store.set_roles(user.id, Roles::OPERATOR).await), unknown);
    let address = Email::try_new("ada@example.org").expect("an address");
    assert!(store.user_with_email(&address).await.expect("asked").is_none());
    store
        .create_user(id(), &new_user("ada@example.org"), "hash")
        .await
        .expect("free");
    let new = NewSession {
        id: id(),
        user_id: user.id,
        hashes: open.hashes(),
        user_agent: String::new(),
    };
    assert_eq!(refusal(store.open_session(&new, HOUR).await), Refusal::SessionEnded);
}

async fn roles_are_kept_and_losing_one_ends_the_sessions(place: TestStore) {
    let (store, user) = fixture(&place).await;
    assert_eq!(user.roles, Roles::BUYER);
    let open = session(&store, &user, 1).await;
    store.set_roles(user.id, Roles::OF_PEOPLE).await.expect("set");
    assert_eq!(store.user(user.id).await.expect("the user").roles, Roles::OF_PEOPLE);
    assert!(store.session_is_open(open.session, user.id).await.expect("asked"));
    store.set_roles(user.id, Roles::NONE).await.expect("set");
    assert_eq!(store.user(user.id).await.expect("the user").roles, Roles::NONE);
    assert!(!store.session_is_open(open.session, user.id).await.expect("asked"));
}

service_store::on_both_stores![
    of_many_who_refresh_at_once_one_is_served,
    a_refresh_moves_the_end_but_not_beyond_the_longest,
    an_account_has_so_many_sessions_and_ended_ones_are_none,
    one_of_many_processes_makes_the_next_key,
    an_address_goes_to_one_of_two_who_want_it_at_once,
    a_change_counts_only_for_the_password_that_was_checked,
    an_account_is_deleted_or_buys_and_never_both,
    a_deleted_account_is_nobody_s_and_its_address_free,
    roles_are_kept_and_losing_one_ends_the_sessions,
];
