//! Who people are, told from service to service: ticket-svc checks tokens that user-svc signs, with keys that it asks for.

use e2e::{Account, Cluster, ClusterOptions, Ended, wait};
use serde_json::json;

async fn create_event(cluster: &Cluster, who: &Account) -> Ended {
    let request = json!({
        "requestId": uuid::Uuid::new_v4().to_string(),
        "event": {
            "title": "Late Beethoven", "venue": "Kammersaal", "startsAt": "2096-01-01T20:00:00Z",
            "sections": [{
                "name": "A", "rows": 1, "seatsPerRow": 1, "price": { "currencyCode": "EUR", "minorUnits": "2500" },
            }],
        },
    });
    let method = "tessera.ticket.v1.TicketService/CreateEvent";
    let request = request.to_string();
    // By its address: neither registry nor user service have a part in it.
    e2e::run([
        "call",
        &cluster.tickets["ticket-1"],
        method,
        &request,
        "--bearer",
        &who.bearer,
    ])
    .await
}

async fn until_known(cluster: &Cluster, who: &Account) {
    wait::until("the keys", || async {
        let ended = create_event(cluster, who).await;
        if ended.code() == 0 { Ok(()) } else { Err(ended.stderr) }
    })
    .await;
}

fn options() -> ClusterOptions {
    ClusterOptions {
        tickets: 1,
        ..ClusterOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_know_people_while_the_user_service_is_away() {
    let mut cluster = Cluster::with(options()).await;
    let (organiser, buyer) = (cluster.account(&["organiser"]).await, cluster.account(&[]).await);
    until_known(&cluster, &organiser).await;
    let refused = create_event(&cluster, &buyer).await;
    assert_eq!(refused.code(), 64 + 7, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("ROLE_MISSING") && refused.stderr.contains("SetRoles"),
        "{}",
        refused.stderr
    );
    cluster.kill("user-1").await;
    create_event(&cluster, &organiser).await.success();
}

/// A ticket service that started alone learns whom to believe when a user service comes, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn tickets_wait_for_the_first_keys() {
    let mut cluster = Cluster::with(ClusterOptions { users: 0, ..options() }).await;
    let list = "tessera.ticket.v1.TicketService/ListEvents";
    e2e::run(["call", &cluster.tickets["ticket-1"], list, "{}"])
        .await
        .success();
    let nobody = Account {
        id: String::new(),
        email: String::new(),
        bearer: "some.unknown.token".to_owned(),
    };
    let asked = create_event(&cluster, &nobody).await;
    assert_eq!(asked.code(), 64 + 14, "{}", asked.stderr);
    assert!(
        asked.stderr.contains("KEYS_MISSING") && asked.stderr.contains("try again"),
        "{}",
        asked.stderr
    );
    cluster.start_user().await;
    let organiser = cluster.account(&["organiser"]).await;
    until_known(&cluster, &organiser).await;
}
