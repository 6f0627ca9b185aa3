//! Death at every edge of a purchase: before and after each call, each commit, and each event that is sent.
//!
//! A process is started so that it dies at one named place (`TESSERA_FAIL_AT`), as kill -9 would end it there: no destructor, no
//! flush, no goodbye. Buyers buy meanwhile and go on asking. It is started again, everything ends, and the books are held
//! against the services. `TESSERA_CRASH_RUNS` says how often at each place (1 by default); 100 is what a release is tried with.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use e2e::{
    Cluster, ClusterOptions,
    market::{Buyer, Market, Wish},
    proxy::{Proxy, Weather},
};
use proto::ticket::v1::Event;
use service_store::{Dialect, testing::TestStore};
use tokio::task::JoinSet;

/// Clusters at a time, and what they keep their records in. Mostly they wait: for a process to start, for a claim to lapse.
const GROUNDS: [Dialect; 4] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Sqlite, Dialect::Postgres];

fn runs() -> usize {
    std::env::var("TESSERA_CRASH_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(1)
}

/// All places of both services, each so often as is asked for.
fn places() -> VecDeque<(&'static str, usize)> {
    let only = std::env::var("TESSERA_CRASH_AT").unwrap_or_default();
    let all = user_svc::FAILPOINTS.iter().chain(ticket_svc::FAILPOINTS);
    all.filter(|place| place.contains(&only))
        .map(|place| (*place, runs()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_edge_of_a_purchase_loses_nothing() {
    let places = Arc::new(Mutex::new(places()));
    let mut grounds = JoinSet::new();
    for dialect in GROUNDS {
        let Some(store) = TestStore::new(dialect) else {
            continue;
        };
        let places = Arc::clone(&places);
        grounds.spawn(async move {
            let mut ground = Ground::start(store).await;
            loop {
                let next = places.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((place, runs)) = next else { break };
                ground.crash_at(place, runs).await;
            }
        });
    }
    grounds.join_all().await;
}

/// A cluster to be killed in, with buyers whose purchases take every way through the saga.
struct Ground {
    cluster: Cluster,
    /// Between the user and the ticket service.
    network: Proxy,
    market: Market,
    /// Money for whatever they want.
    rich: Vec<Buyer>,
    /// Money for one seat; they want two, and what they hold is given back.
    poor: Vec<Buyer>,
    /// The databases.
    _kept: [TestStore; 2],
}

impl Ground {
    async fn start(store: TestStore) -> Self {
        let (stores, kept) = super::stores(store);
        let mut cluster = Cluster::with(ClusterOptions {
            tickets: 0,
            stores: Some(stores),
            ..ClusterOptions::default()
        })
        .await;
        let network = Proxy::bind().await;
        cluster.start_ticket_behind("ticket-1", &network, &[]).await;
        let market = Market::of(&cluster);
        let rich = market.buyers(2, 10_000).await;
        let poor = market.buyers(2, 1).await;
        Self {
            cluster,
            network,
            market,
            rich,
            poor,
            _kept: kept,
        }
    }

    /// Lets the service that `place` is in die there, so often.
    async fn crash_at(&mut self, place: &'static str, runs: usize) {
        let seats = u32::try_from(runs).expect("few") * 4;
        let event = self.market.event(seats.div_ceil(50), 50).await;
        // A refund takes a hold that lapses between debit and confirmation.
        let refunds = place.contains(".refund.");
        for run in 0..runs {
            // The first purchase to come by, or one of the others.
            let nth = 1 + run % if refunds { 2 } else { 4 };
            self.crash(place, nth, refunds, &event).await;
        }
        self.network.set(Weather::default());
        let buyers = [self.rich.as_slice(), self.poor.as_slice()].concat();
        self.market.audit(&event, &buyers).await;
    }

    async fn crash(&mut self, place: &'static str, nth: usize, refunds: bool, event: &Event) {
        let hold_ttl = ("TESSERA_HOLD_TTL", if refunds { "1s" } else { "2m" }.to_owned());
        let dies = ("TESSERA_FAIL_AT", format!("{place}:{nth}"));
        let is_user = user_svc::FAILPOINTS.contains(&place);
        if is_user {
            self.cluster.kill("user-1").await;
            self.start_user(&[hold_ttl.clone(), dies]).await;
        } else {
            self.cluster.kill("ticket-1").await;
            self.start_ticket(&[dies]).await;
        }
        self.network.set(if refunds {
            Weather {
                delay: Some(Duration::from_millis(1_200)..Duration::from_millis(1_600)),
                delayed: "/ConfirmHold",
                ..Weather::default()
            }
        } else {
            Weather::default()
        });
        let mut all = JoinSet::new();
        let wishes = self.rich.iter().map(|buyer| (buyer, 1));
        for (buyer, seats) in wishes.chain(self.poor.iter().map(|buyer| (buyer, 2))) {
            let (market, event, buyer) = (self.market.clone(), event.clone(), buyer.clone());
            all.spawn(async move { market.buy(&buyer, &event, Wish::Best(seats)).await });
        }
        let died = self.cluster.ended(if is_user { "user-1" } else { "ticket-1" }).await;
        assert!(
            died.stderr.contains(&format!("fail point {place}: aborts")),
            "it ended otherwise: {}\n{}",
            died.status,
            died.stderr
        );
        if is_user {
            self.start_user(&[hold_ttl]).await;
        } else {
            self.start_ticket(&[]).await;
        }
        tokio::time::timeout(Duration::from_secs(60), all.join_all())
            .await
            .unwrap_or_else(|_| panic!("{place}:{nth}: a purchase has not ended a minute after the restart"));
    }

    async fn start_user(&mut self, env: &[(&'static str, String)]) {
        self.cluster.start_user_as("user-1", "127.0.0.1:0", env).await;
    }

    async fn start_ticket(&mut self, env: &[(&'static str, String)]) {
        self.cluster.start_ticket_behind("ticket-1", &self.network, env).await;
    }
}
