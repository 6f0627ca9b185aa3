//! Backup while it serves, restore into a new store, go on from there: as `docs/stores.md` says, on both kinds of store.

use proto::user::v1::{ListStatementRequest, OrderState, TopUpRequest};
use service_store::testing::TestStore;
use tempfile::TempDir;
use user_svc::{Config, Users};

use crate::{
    fake::FakeTickets,
    fixture::{config, connect_as, euro, id, new_user, sign_in, two_seats},
};

async fn a_backup_taken_while_it_serves_is_a_service_again(store: TestStore) {
    let tickets = FakeTickets::start().await;
    let folder = TempDir::new().expect("a temporary folder");
    let settings = |store: &TestStore| Config {
        store: store.location(),
        ..config(&folder, &tickets)
    };
    let server = Users::start(settings(&store)).await.expect("it starts");
    let new = new_user();
    let created = connect_as(&server, None).await.create_user(new.clone()).await;
    let user = created.expect("new").into_inner().user.expect("the user");
    let session = sign_in(&server, &user.email).await;
    let mut client = connect_as(&server, Some(&session.session_token)).await;
    let top_up = |cents| TopUpRequest {
        request_id: id(),
        user_id: user.id.clone(),
        amount: euro(cents),
    };
    client.top_up(top_up(100_000)).await.expect("topped up");
    let purchase = two_seats(&user);
    let bought = client
        .buy_ticket(purchase.clone())
        .await
        .expect("bought")
        .into_inner()
        .order;
    let bought = bought.expect("an order");
    assert_eq!(bought.state(), OrderState::Succeeded, "{bought:?}");
    let paid = bought.total.as_ref().expect("a price").minor_units;

    let copy = TestStore::new(store.location().dialect()).expect("a second one");
    store.copy_into(&copy);
    // Not in the backup any more.
    client.top_up(top_up(1)).await.expect("topped up");
    server.stop().await;

    let server = Users::start(settings(&copy))
        .await
        .expect("it starts on what was restored");
    let session = sign_in(&server, &user.email).await;
    let mut client = connect_as(&server, Some(&session.session_token)).await;
    let request = ListStatementRequest {
        user_id: user.id.clone(),
        ..ListStatementRequest::default()
    };
    let told = client
        .list_statement(request)
        .await
        .expect("a statement")
        .into_inner()
        .entries;
    let changes: Vec<i64> = told.iter().map(|entry| entry.amount_minor_units).collect();
    assert_eq!(changes, [-paid, 100_000], "what there was at the backup");
    let repeated = client.buy_ticket(purchase).await.expect("the same").into_inner().order;
    assert_eq!(repeated, Some(bought), "bought once");
    server.stop().await;
    for store in [&store, &copy] {
        let wrong = user_svc::audit(store.location()).await.expect("audited");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

service_store::on_both_stores![a_backup_taken_while_it_serves_is_a_service_again];
