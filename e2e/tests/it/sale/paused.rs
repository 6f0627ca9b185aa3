//! A process that stands still (SIGSTOP) in the middle of purchases, and goes on long after others have done its work.

use std::time::Duration;

use e2e::{
    Cluster, ClusterOptions,
    market::{Buyer, Ended, Entry, Market, Watch, Wish},
    proxy::{Proxy, Weather},
    scrape, wait,
};
use proto::{
    ticket::v1::Event,
    user::v1::{Order, OrderFailure},
};
use rustix::process::Signal;
use service_store::testing::TestStore;
use tokio::task::JoinSet;

service_store::on_both_stores!(
    what_a_replica_still_believes_past_its_claims_changes_nothing,
    who_is_paused_past_the_end_of_its_hold_gets_the_money_back_and_no_seat,
);

/// A user service that shall be paused, and a ticket service behind a network.
struct Scene {
    cluster: Cluster,
    network: Proxy,
    market: Market,
    _kept: [TestStore; 2],
}

impl Scene {
    async fn start(store: TestStore, user_flags: [&str; 4]) -> Self {
        let (stores, kept) = super::stores(store);
        let mut cluster = Cluster::with(ClusterOptions {
            tickets: 0,
            stores: Some(stores),
            user_flags: user_flags.map(String::from).to_vec(),
            ..ClusterOptions::default()
        })
        .await;
        let network = Proxy::bind().await;
        cluster.start_ticket_behind("ticket-1", &network, &[]).await;
        let market = Market::of(&cluster);
        Self {
            cluster,
            network,
            market,
            _kept: kept,
        }
    }

    /// Stops user-1 at a moment at which `unsold` orders are paid for and not sold, and not in the middle of a write: one that keeps
    /// an SQLite file keeps it from everybody, until it goes on or is killed.
    async fn pause(&self, unsold: u64) {
        let one = self.cluster.process("user-1");
        wait::until("a moment to stop", || async {
            one.signal(Signal::STOP);
            let refusal = if self.market.is_writable().await {
                match self.market.unsold().await {
                    found if found >= unsold => return Ok(()),
                    found => format!("{found} are paid for and not sold"),
                }
            } else {
                "it writes".to_owned()
            };
            one.signal(Signal::CONT);
            // It catches up with what it has missed.
            tokio::time::sleep(Duration::from_millis(200)).await;
            Err(refusal)
        })
        .await;
    }

    /// Lets user-1 go on, and waits until it drives nothing any more. How many of its purchases it found to be another's.
    async fn go_on(&self) -> f64 {
        self.cluster.process("user-1").signal(Signal::CONT);
        wait::until("nothing to be under way", || async {
            let said = scrape(&self.cluster.admins["user-1"]).await;
            let value = |name: &str| {
                let line = said.lines().find(|line| line.starts_with(name))?;
                line.rsplit_once(' ')?.1.parse::<f64>().ok()
            };
            match value("tessera_purchases_under_way{") {
                Some(0.0) => value("tessera_purchases_overtaken_total{").ok_or("no such counter".to_owned()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    fn all_buy(&self, event: &Event, buyers: &[Buyer]) -> JoinSet<Entry> {
        let mut all = JoinSet::new();
        for buyer in buyers {
            let (market, event, buyer) = (self.market.clone(), event.clone(), buyer.clone());
            all.spawn(async move { market.buy(&buyer, &event, Wish::Best(1)).await });
        }
        all
    }

    async fn orders(&self, entries: &[Entry]) -> Vec<Order> {
        let mut orders = Vec::new();
        for entry in entries {
            orders.push(self.market.order(&entry.order_id).await);
        }
        orders
    }
}

const fn millis(from: u64, to: u64) -> Option<std::ops::Range<Duration>> {
    Some(Duration::from_millis(from)..Duration::from_millis(to))
}

/// It stops with money taken and confirmations on their way. Its claims lapse after half a second and its holds after four; two
/// other replicas end all of its purchases. When it goes on it believes that they are its own, and asks and writes by
/// that: nothing of it has any effect.
async fn what_a_replica_still_believes_past_its_claims_changes_nothing(store: TestStore) {
    let mut scene = Scene::start(store, ["--purchase-lease", "500ms", "--hold-ttl", "4s"]).await;
    let event = scene.market.event(4, 20).await;
    let buyers = scene.market.buyers(12, 1).await;
    let watch = Watch::begin(&scene.market, &event.id);
    scene.network.set(Weather {
        delay: millis(600, 1_500),
        ..Weather::default()
    });
    let all = scene.all_buy(&event, &buyers);
    scene.pause(3).await;
    for other in ["user-2", "user-3"] {
        scene.cluster.start_user_as(other, "127.0.0.1:0", &[]).await;
    }
    let entries = all.join_all().await;
    for entry in &entries {
        // Who was taken up too late has their money back.
        let fine = matches!(
            entry.ended,
            Ended::Sold { .. } | Ended::Nothing(OrderFailure::HoldExpired | OrderFailure::Unavailable)
        );
        assert!(fine, "{entry:?}");
    }
    scene.market.audit(&event, &buyers).await;
    let before = scene.orders(&entries).await;

    let overtaken = scene.go_on().await;
    assert!(
        overtaken >= 1.0,
        "it believed nothing that was wrong: nothing is tested"
    );
    assert_eq!(scene.orders(&entries).await, before);
    let seen = watch.end().await;
    scene.market.audit(&event, &buyers).await;
    assert!(seen.with_unsold > 10, "{seen:?}");
}

/// It stops with seats held and money taken, and confirmations that are long on their way. Nobody takes its purchases up: its
/// claims outlast the test. The holds lapse and others buy the very seats. Then it goes on where it was, hears that the holds are
/// gone, and gives the money back, once.
async fn who_is_paused_past_the_end_of_its_hold_gets_the_money_back_and_no_seat(store: TestStore) {
    const SEATS: u32 = 8;
    let mut scene = Scene::start(store, ["--purchase-lease", "10m", "--hold-ttl", "4s"]).await;
    let event = scene.market.event(1, SEATS).await;
    let late = scene.market.buyers(SEATS as usize, 1).await;
    let others = scene.market.buyers(SEATS as usize, 1).await;
    let watch = Watch::begin(&scene.market, &event.id);
    scene.network.set(Weather {
        // Longer than seats are held.
        delay: millis(10_000, 11_000),
        delayed: "/ConfirmHold",
        ..Weather::default()
    });
    let too_late = scene.all_buy(&event, &late);
    let free = || async {
        match scene.market.counts(&event.id).await {
            Ok(now) if now.seats_free == SEATS => Ok(()),
            Ok(now) => Err(format!("{now:?}")),
            Err(status) => Err(status.to_string()),
        }
    };
    scene.pause(u64::from(SEATS)).await;
    wait::until("the holds to lapse", free).await;
    scene.network.set(Weather::default());
    scene.cluster.start_user_as("user-2", "127.0.0.1:0", &[]).await;
    for entry in scene.all_buy(&event, &others).join_all().await {
        assert!(matches!(entry.ended, Ended::Sold { .. }), "{entry:?}");
    }

    scene.go_on().await;
    for entry in too_late.join_all().await {
        assert_eq!(entry.ended, Ended::Nothing(OrderFailure::HoldExpired), "{entry:?}");
    }
    watch.end().await;
    scene.market.audit(&event, &[late, others].concat()).await;
}
