//! Events of a whole cluster: through NATS to whoever listens, with deaths on both sides; and dead letters in an operator's hands.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use e2e::{
    Cluster, ClusterOptions,
    market::{Buyer, Market, Wish},
    scrape,
    wait::until,
};
use outbox::testing::{Message, NatsServer};
use proto::ticket::v1::Event;

/// Kinds by key, in the stream's order.
fn by_key(messages: &[Message]) -> BTreeMap<String, Vec<String>> {
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in messages {
        let text = |name: &str| message.event[name].as_str().expect("text").to_owned();
        by_key.entry(text("subject")).or_default().push(text("type"));
    }
    by_key
}

async fn bought(market: &Market, buyer: &Buyer, event: &Event) -> String {
    let entry = market.buy(buyer, event, Wish::Best(1)).await;
    assert_eq!(entry.ended.seats().len(), 1, "{entry:?}");
    entry.order_id
}

/// NATS is killed while people buy, and each service dies between the hand-over and the note of it. Every order and every hold is in the
/// stream, in order, and nothing is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_bought_is_in_the_stream_once_whoever_dies() {
    let Some(nats) = NatsServer::start().await else { return };
    let mut cluster = Cluster::with(ClusterOptions {
        tickets: 1,
        env: vec![("TESSERA_EVENTS", nats.url())],
        ..ClusterOptions::default()
    })
    .await;
    let market = Market::of(&cluster);
    let event = market.event(2, 10).await;
    let buyer = market.buyer(20).await;
    let mut orders = vec![bought(&market, &buyer, &event).await];
    until("the first order is in the stream", || async {
        let known = by_key(&nats.messages().await);
        known.contains_key(&orders[0]).then_some(()).ok_or("it is not there")
    })
    .await;

    nats.crash();
    for _ in 0..3 {
        orders.push(bought(&market, &buyer, &event).await);
    }
    for name in ["user-1", "ticket-1"] {
        let admin = cluster.admins[name].clone();
        until("it says that NATS is away", || async {
            let figures = scrape(&admin).await;
            let is_away = figures.lines().any(|line| line == "tessera_outbox_broker_away{} 1.0");
            is_away.then_some(()).ok_or("it does not")
        })
        .await;
    }
    nats.up().await;
    // What waits would be handed over by the next ones as soon as they begin, and it is there that they are to die.
    for role in ["user", "ticket"] {
        until("nothing waits any more", || async {
            let left = sql(&cluster, role, "SELECT count(*) FROM outbox WHERE state = 0");
            if left == "0" { Ok(()) } else { Err(left) }
        })
        .await;
    }

    for (name, place) in [("user-1", "outbox.send.after"), ("ticket-1", "outbox.send.after")] {
        cluster.kill(name).await;
        start(&mut cluster, name, &[("TESSERA_FAIL_AT", format!("{place}:1"))]).await;
        let buying = tokio::spawn({
            let (market, buyer, event) = (market.clone(), buyer.clone(), event.clone());
            async move { bought(&market, &buyer, &event).await }
        });
        let died = cluster.ended(name).await;
        assert!(died.stderr.contains(place), "{}", died.stderr);
        start(&mut cluster, name, &[]).await;
        orders.push(buying.await.expect("bought"));
    }

    // An order's id is its hold's as well: the events of both services meet under it.
    let whole = |kinds: &[String]| {
        let seats: Vec<_> = kinds.iter().filter(|kind| kind.starts_with("seat.")).collect();
        let of_order: Vec<_> = kinds.iter().filter(|kind| kind.starts_with("order.")).collect();
        seats == ["seat.held", "seat.sold"] && of_order == ["order.succeeded"]
    };
    until("everything is in the stream", || async {
        let known = by_key(&nats.messages().await);
        let missing: Vec<_> = orders
            .iter()
            .filter(|&order| !known.get(order).is_some_and(|kinds| whole(kinds)))
            .map(|order| format!("{order}: {:?}", known.get(order)))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing.join("; "))
        }
    })
    .await;
    let messages = nats.messages().await;
    let ids: BTreeSet<&str> = messages
        .iter()
        .filter_map(|message| message.event["id"].as_str())
        .collect();
    assert_eq!(ids.len(), messages.len(), "nothing twice");
}

/// What a service's file says.
fn sql(cluster: &Cluster, role: &str, statement: &str) -> String {
    let told = Command::new("sqlite3")
        .arg(cluster.data().join(format!("{role}.db")))
        .args(["-cmd", ".timeout 10000", statement])
        .output();
    let told = told.expect("sqlite3 runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).expect("text").trim().to_owned()
}

async fn start(cluster: &mut Cluster, name: &str, env: &[(&'static str, String)]) {
    match name {
        "user-1" => cluster.start_user_as(name, "127.0.0.1:0", env).await,
        _ => cluster.start_ticket_as(name, "127.0.0.1:0", env).await,
    }
}

/// Wrong addresses are told at once, and what is secret in them is not.
#[tokio::test]
async fn an_address_that_is_none_is_refused_without_repeating_it() {
    for role in ["user", "ticket"] {
        let args = [role, "--events", "http://me:s3cret@nats", "--listen", "127.0.0.1:0"];
        let refused = e2e::run(args).await;
        assert_eq!(refused.code(), 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("nats:// or tls://"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
    }
}

/// An event that failed for good is found, looked at, and sent on its way; another one is given up. What was told of before is not
/// told again: the mail's row is there once.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_replays_and_drops_dead_letters() {
    let cluster = Cluster::with(ClusterOptions {
        tickets: 1,
        ..ClusterOptions::default()
    })
    .await;
    let market = Market::of(&cluster);
    let event = market.event(1, 4).await;
    let buyer = market.buyer(4).await;
    let orders = [
        bought(&market, &buyer, &event).await,
        bought(&market, &buyer, &event).await,
    ];
    let sql = |statement: &str| sql(&cluster, "user", statement);
    until("both were told of", || async {
        let mails = sql("SELECT count(*) FROM mails");
        if mails == "2" { Ok(()) } else { Err(mails) }
    })
    .await;
    until("and that was noted", || async {
        let left = sql("SELECT count(*) FROM outbox WHERE state = 0");
        if left == "0" { Ok(()) } else { Err(left) }
    })
    .await;
    sql("UPDATE outbox SET state = 2, delivered_at = NULL, attempts = 12, error = 'mail: nobody home'");

    let operator = cluster.account(&["operator"]).await.bearer;
    let events = async |args: &[&str]| {
        let more = ["--bearer", &operator, "--output", "json"];
        cluster.tessera(&[&["events"], args, &more].concat()).await
    };
    let listed = events(&["dead", "user-svc"]).await.success().json();
    let listed = listed["dead_letters"].as_array().expect("a list").clone();
    let keys: Vec<_> = listed
        .iter()
        .map(|letter| letter["key"].as_str().expect("text"))
        .collect();
    assert_eq!(keys, orders);
    assert_eq!(listed[0]["kind"], "order.succeeded");
    assert_eq!(listed[0]["error"], "mail: nobody home");
    let ids: Vec<&str> = listed
        .iter()
        .map(|letter| letter["event_id"].as_str().expect("text"))
        .collect();
    let shown = events(&["show", "user-svc", ids[0]]).await.success().json();
    assert_eq!(shown["body"]["order_id"], orders[0].as_str());

    let replayed = events(&["replay", "user-svc", ids[0]]).await.success().json();
    assert_eq!(replayed["replayed"], 1);
    until("it is delivered", || async {
        let state = sql(&format!("SELECT state FROM outbox WHERE key = '{}'", orders[0]));
        if state == "1" { Ok(()) } else { Err(state) }
    })
    .await;
    assert_eq!(sql("SELECT count(*) FROM mails"), "2", "no mail twice");

    events(&["drop", "user-svc", ids[1], "--why", "sent by hand"])
        .await
        .success();
    let note = sql(&format!("SELECT error FROM outbox WHERE key = '{}'", orders[1]));
    assert!(note.ends_with(": sent by hand"), "{note}");
    assert_eq!(
        events(&["dead", "user-svc"]).await.success().json()["dead_letters"],
        serde_json::json!([])
    );
    assert_eq!(
        events(&["replay", "user-svc", "--all"]).await.success().json()["replayed"],
        0
    );
    let ticket = events(&["dead", "ticket-svc"]).await.success().json();
    assert_eq!(ticket["dead_letters"], serde_json::json!([]));

    // What is wrong is said.
    let again = events(&["replay", "user-svc", ids[1]]).await;
    assert_eq!(again.code(), 69, "{}", again.stderr);
    assert!(again.stderr.contains("DEAD_LETTER_UNKNOWN"), "{}", again.stderr);
    for (args, what) in [
        (vec!["replay", "user-svc", "7"], "event_ids[0]"),
        (vec!["drop", "user-svc", ids[0], "--why", ""], "reason"),
    ] {
        let refused = events(&args).await;
        assert_eq!(refused.code(), 67, "{}", refused.stderr);
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
    }
    assert_eq!(events(&["replay", "user-svc"]).await.code(), 2, "which?");
    let buyer = cluster.account(&[]).await.bearer;
    let refused = cluster
        .tessera(&["events", "dead", "user-svc", "--bearer", &buyer])
        .await;
    assert_eq!(refused.code(), 71, "{}", refused.stderr);
}
