//! What the platform promises while instances come, die and return, seen from outside.

use std::collections::BTreeSet;

use e2e::{Cluster, wait};

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_bought_through_discovery() {
    let cluster = Cluster::start().await;
    let demo = cluster
        .tessera(&["demo", "--seats", "3", "--output", "json"])
        .await
        .success()
        .json();
    let order = &demo["orders"][0];
    assert_eq!(order["state"], "SUCCEEDED", "{demo:#}");
    assert_eq!(order["seats"].as_array().map(Vec::len), Some(3), "{demo:#}");
    let instance = order["instance"].as_str().unwrap_or_default();
    assert!(
        cluster.tickets.contains_key(instance),
        "served by one of ours: {demo:#}"
    );

    let people = cluster.tessera(&["demo", "--seats", "2"]).await.success().stdout;
    assert!(people.contains("SUCCEEDED"), "{people}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_buyers_are_spread_over_all_instances_and_no_seat_is_sold_twice() {
    let cluster = Cluster::start().await;
    let demo = cluster
        .tessera(&["demo", "--buyers", "120", "--concurrency", "8", "--output", "json"])
        .await
        .success()
        .json();
    assert_eq!(demo["sold"], 120, "{demo:#}");
    assert_eq!(demo["failed"], 0, "{demo:#}");
    // How even it is says more about SQLite's write lock, which all three share, than about the balancer: nobody is left out.
    let spread = demo["instances"].as_object().expect("a spread");
    assert_eq!(
        spread.keys().collect::<BTreeSet<_>>(),
        cluster.tickets.keys().collect(),
        "{demo:#}"
    );
}

/// The balancer skips what it cannot reach at once, the registry expires the lease, and a restarted instance gets calls again.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_costs_no_call_and_returns() {
    let mut cluster = Cluster::start().await;
    let address = cluster.tickets["ticket-1"].clone();
    let buyers = cluster.command(&["demo", "--buyers", "200", "--concurrency", "8", "--output", "json"]);
    // Midway: some orders are through, most are not.
    first_orders(&cluster).await;
    cluster.kill("ticket-1").await;
    let demo = buyers.end().await.success().json();
    assert_eq!(demo["failed"], 0, "{:#}", demo["instances"]);
    assert_eq!(demo["sold"], 200, "{:#}", demo["instances"]);

    wait::until("the registry to expire the lease", || async {
        match instances(&cluster).await {
            ids if ids == ["ticket-2", "ticket-3"] => Ok(()),
            ids => Err(format!("{ids:?}")),
        }
    })
    .await;

    cluster.start_ticket("ticket-1", &address).await;
    wait::until("traffic on the returned instance", || async {
        let demo = cluster
            .tessera(&["demo", "--buyers", "12", "--concurrency", "4", "--output", "json"])
            .await
            .success()
            .json();
        let spread = demo["instances"].clone();
        if spread["ticket-1"].as_u64() > Some(0) {
            Ok(())
        } else {
            Err(spread.to_string())
        }
    })
    .await;
}

/// The registry is not in the path of a call: with it gone, what is known goes on being called, and providers re-register by
/// themselves when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn losing_the_registry_stops_no_call_and_nobody_has_to_be_restarted() {
    let mut cluster = Cluster::start().await;
    cluster.tessera(&["demo"]).await.success();
    let address = cluster.registry.clone();
    cluster.kill("registry").await;
    one_ticket_is_bought(&cluster).await;

    cluster.start_registry(&address).await;
    wait::until("all providers at the registry", || async {
        match instances(&cluster).await {
            ids if ids.len() == 3 => Ok(()),
            ids => Err(format!("{ids:?}")),
        }
    })
    .await;
    cluster.tessera(&["demo"]).await.success();
}

/// A user service that starts while the registry is away knows the ticket services from its disk.
///
/// It once began to hurt as soon as any file was there. That came to be the ticket services' own, which then had no keys yet and
/// knew the user service where it no longer was.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_starts_without_the_registry_calls_whom_it_knew() {
    let mut cluster = Cluster::start().await;
    let kept = cluster.data().join("discovery");
    wait::until("the instances to be on disk", || async {
        let files = std::fs::read_dir(&kept).map_err(|error| error.to_string())?;
        let mut names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        match names.any(|name| name.starts_with("ticket-svc")) {
            true => Ok(()),
            false => Err("no file"),
        }
        .map_err(str::to_owned)
    })
    .await;
    // Whoever has asked user-svc for its keys knows that this caller is known, and not one of those who may hold seats.
    let bearer = cluster.account(&[]).await.bearer;
    for address in cluster.tickets.values() {
        wait::until("every ticket service to have the keys", || async {
            let method = "tessera.ticket.v1.TicketService/HoldSeats";
            let denied = e2e::run(["call", address, method, "{}", "--bearer", &bearer]).await;
            match denied.code() {
                71 => Ok(()),
                _ => Err(denied.stderr),
            }
        })
        .await;
    }
    cluster.kill("registry").await;
    cluster.kill("user-1").await;
    cluster.start_user().await;
    one_ticket_is_bought(&cluster).await;
}

/// An empty disk is not an empty service: whoever calls keeps the set that it knows until the providers are back in it, which
/// they are by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_comes_back_on_an_empty_disk_stops_no_call() {
    let mut cluster = Cluster::start().await;
    let address = cluster.registry.clone();
    let buyers = cluster.command(&["demo", "--buyers", "400", "--concurrency", "4", "--output", "json"]);
    first_orders(&cluster).await;
    cluster.kill("registry").await;
    cluster.wipe_registry();
    cluster.start_registry(&address).await;
    let before = sold(&cluster).await;
    assert!(
        before < 400,
        "all were through before the registry was back: nothing is tested"
    );
    wait::until("all providers at the registry", || async {
        match instances(&cluster).await {
            ids if ids.len() == 3 => Ok(()),
            ids => Err(format!("{ids:?}")),
        }
    })
    .await;
    let demo = buyers.end().await.success().json();
    assert_eq!((&demo["failed"], &demo["sold"]), (&0.into(), &400.into()), "{demo:#}");
    cluster.tessera(&["demo"]).await.success();
}

/// Rolling restart: each provider leaves by SIGTERM and returns, under load, and no call fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_call() {
    let mut cluster = Cluster::start().await;
    let buyers = cluster.command(&["demo", "--buyers", "300", "--concurrency", "6", "--output", "json"]);
    for name in ["ticket-1", "ticket-2", "ticket-3"] {
        let address = cluster.tickets[name].clone();
        cluster.stop(name).await.success();
        cluster.start_ticket(name, &address).await;
        wait::until("it to be registered", || async {
            match instances(&cluster).await {
                ids if ids.len() == 3 => Ok(()),
                ids => Err(format!("{ids:?}")),
            }
        })
        .await;
    }
    let demo = buyers.end().await.success().json();
    assert_eq!(demo["failed"], 0, "{:#}", demo["instances"]);
}

async fn first_orders(cluster: &Cluster) {
    wait::until("the first orders", || async {
        match sold(cluster).await {
            0..10 => Err("too few orders yet"),
            _ => Ok(()),
        }
    })
    .await;
}

/// How many seats are sold, by the word of a ticket service that no test kills.
async fn sold(cluster: &Cluster) -> u64 {
    let list_events = "tessera.ticket.v1.TicketService/ListEvents";
    let listed = e2e::run(["call", &cluster.tickets["ticket-2"], list_events, "{}"]).await;
    let events = listed.json()["events"].as_array().cloned().unwrap_or_default();
    let seats = events.iter().filter_map(|event| event["seatsSold"].as_u64());
    seats.sum()
}

async fn instances(cluster: &Cluster) -> Vec<String> {
    let listed = cluster.tessera(&["instances", "ticket-svc", "--output", "json"]).await;
    let listed = serde_json::from_str::<serde_json::Value>(&listed.stdout).unwrap_or_default();
    let rows = listed["instances"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .filter_map(|row| row["id"].as_str().map(str::to_owned))
        .collect()
}

/// Somebody signs up, gets money and buys a ticket, told nothing by the registry.
async fn one_ticket_is_bought(cluster: &Cluster) {
    let user = cluster.user.clone();
    let account = cluster.account(&[]).await;
    let (buyer, bearer) = (account.id, account.bearer);
    let call = |address: &str, method: &str, body: String| {
        let (address, method, bearer) = (address.to_owned(), method.to_owned(), bearer.clone());
        async move {
            e2e::run([
                "call", &address, &method, &body, "--output", "json", "--bearer", &bearer,
            ])
            .await
            .success()
            .json()
        }
    };
    let id = || uuid::Uuid::new_v4();
    let amount = r#"{"currencyCode":"EUR","minorUnits":"5000000"}"#;
    let body = format!(r#"{{"requestId":"{}","userId":"{buyer}","amount":{amount}}}"#, id());
    call(&user, "tessera.user.v1.UserService/TopUp", body).await;
    let method = "tessera.ticket.v1.TicketService/ListEvents";
    let events = call(&cluster.tickets["ticket-2"], method, "{}".to_owned()).await;
    let event = events["events"][0]["id"].as_str().expect("an event").to_owned();
    let body = format!(
        r#"{{"requestId":"{}","userId":"{buyer}","eventId":"{event}","bestAvailable":{{"quantity":1}}}}"#,
        id()
    );
    let order = call(&user, "tessera.user.v1.UserService/BuyTicket", body).await;
    assert_eq!(order["order"]["state"], "ORDER_STATE_SUCCEEDED", "{order:#}");
}
