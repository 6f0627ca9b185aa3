//! Death at every edge of a purchase and of its refund: before and after each call, each commit, and each event that is sent.
//!
//! A process is started so that it dies at one named place (`TESSERA_FAIL_AT`), as kill -9 would end it there: no destructor, no
//! flush, no goodbye. Buyers buy all the while and go on asking, and the money is read all the while. It is started again, to
//! die there again, so often as `TESSERA_CRASH_RUNS` says. Then it lives, everything ends, and the books are held against the
//! services. By default each place is tried once, on one of the stores; `TESSERA_CRASH_RUNS=100`, which is what a release is tried
//! with, tries each a hundred times on both. `TESSERA_CRASH_AT` tries only places whose names contain it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{
    Cluster, ClusterOptions,
    market::{Buyer, Ended, Market, Watch, Wish},
    proxy::{Proxy, Weather},
};
use proto::{ticket::v1::Event, user::v1::OrderFailure};
use service_store::{Dialect, testing::TestStore};
use tokio::task::JoinSet;

/// Clusters at a time, and what they keep their records in. Mostly they wait: for a process to start, for a claim to lapse.
const GROUNDS: [Dialect; 4] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Sqlite, Dialect::Postgres];

/// After so many deaths a cluster begins anew: whoever reads all books again and again reads fewer.
const WORN_OUT: usize = 100;

/// Between two purchases of a buyer, so that a hundred deaths take thousands of them and not more.
const PAUSE: Duration = Duration::from_millis(100);

/// Places yet to be tried.
type Places = Arc<Mutex<VecDeque<&'static str>>>;

fn runs() -> Option<usize> {
    std::env::var("TESSERA_CRASH_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
}

/// All places of both services.
fn places() -> Places {
    let only = std::env::var("TESSERA_CRASH_AT").unwrap_or_default();
    let all = user_svc::FAILPOINTS.iter().chain(ticket_svc::FAILPOINTS);
    let wanted = all.filter(|place| place.contains(&only)).copied().collect();
    Arc::new(Mutex::new(wanted))
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_edge_of_a_purchase_loses_nothing() {
    let (on_file, mut on_server) = (places(), places());
    if runs().is_none() {
        // Either tries what the other has not.
        on_server = Arc::clone(&on_file);
    }
    let mut grounds = JoinSet::new();
    for dialect in GROUNDS {
        let places = match dialect {
            Dialect::Sqlite => Arc::clone(&on_file),
            Dialect::Postgres => Arc::clone(&on_server),
        };
        grounds.spawn(try_all(dialect, places));
    }
    grounds.join_all().await;
}

/// What leads past a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Buyers with enough money, and buyers with too little.
    Buy,
    /// A hold that lapses between debit and confirmation: the money goes back at once.
    Lapse,
    /// Buyers who give back what they have bought.
    GiveBack,
}

impl Way {
    fn to(place: &str) -> Self {
        let among = |parts: &[&str]| parts.iter().any(|part| place.contains(part));
        if among(&[".ask.", ".revoke.", ".repay."]) {
            Self::GiveBack
        } else if among(&[".refund."]) {
            Self::Lapse
        } else {
            Self::Buy
        }
    }
}

async fn try_all(dialect: Dialect, places: Places) {
    let mut ground: Option<Ground> = None;
    loop {
        let next = places.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(place) = next else { break };
        let mut fresh = match ground.take().filter(|ground| ground.deaths < WORN_OUT) {
            Some(ground) => ground,
            None => match TestStore::new(dialect) {
                Some(store) => Ground::start(store).await,
                None => break,
            },
        };
        let began = Instant::now();
        let purchases = fresh.crash_at(place, runs().unwrap_or(1)).await;
        eprintln!(
            "{place} on {}: {} deaths, {purchases} purchases, {:.0?}",
            dialect.name(),
            runs().unwrap_or(1),
            began.elapsed()
        );
        ground = Some(fresh);
    }
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
    deaths: usize,
    /// The databases.
    _kept: [TestStore; 2],
}

/// Where a process is to die, and how it is started meanwhile.
struct Doom {
    place: &'static str,
    is_user: bool,
    hold_ttl: (&'static str, String),
}

impl Ground {
    async fn start(store: TestStore) -> Self {
        let (stores, kept) = super::stores(store);
        let mut cluster = Cluster::with(ClusterOptions {
            tickets: 0,
            stores: Some(stores),
            user_flags: ["--purchase-lease", "500ms"].map(String::from).to_vec(),
            ..ClusterOptions::default()
        })
        .await;
        let network = Proxy::bind().await;
        cluster.start_ticket_behind("ticket-1", &network, &[]).await;
        let market = Market::of(&cluster);
        let rich = market.buyers(2, 20_000).await;
        let poor = market.buyers(2, 1).await;
        Self {
            cluster,
            network,
            market,
            rich,
            poor,
            deaths: 0,
            _kept: kept,
        }
    }

    /// Lets the service that `place` is in die there, so often. How many purchases there were.
    async fn crash_at(&mut self, place: &'static str, runs: usize) -> usize {
        let seats = u32::try_from(runs * 40).expect("few").clamp(100, 10_000);
        let event = self.market.event(seats.div_ceil(50), 50).await;
        let way = Way::to(place);
        let lapses = way == Way::Lapse;
        if lapses {
            self.network.set(Weather {
                delay: Some(Duration::from_millis(1_200)..Duration::from_millis(1_600)),
                delayed: "/ConfirmHold",
                ..Weather::default()
            });
        }
        let doom = Doom {
            place,
            is_user: user_svc::FAILPOINTS.contains(&place),
            hold_ttl: ("TESSERA_HOLD_TTL", if lapses { "1s" } else { "2m" }.to_owned()),
        };
        self.cluster.kill(doom.process()).await;
        let watch = match way {
            Way::GiveBack => Watch::begin_with_returns(&self.market, &event.id),
            Way::Buy | Way::Lapse => Watch::begin(&self.market, &event.id),
        };
        let (enough, crowd) = self.crowd(&event, way);
        for run in 0..runs {
            // The first one to come by, or one of the others.
            let nth = 1 + run % if way == Way::Buy { 4 } else { 2 };
            self.die(&doom, nth).await;
        }
        self.live(&doom).await;
        enough.store(true, Ordering::Relaxed);
        let purchases: usize = tokio::time::timeout(Duration::from_secs(60), crowd.join_all())
            .await
            .unwrap_or_else(|_| panic!("{place}: a purchase has not ended a minute after the restart"))
            .into_iter()
            .sum();
        self.network.set(Weather::default());
        watch.end().await;
        let buyers = [self.rich.as_slice(), self.poor.as_slice()].concat();
        self.market.audit(&event, &buyers).await;
        self.deaths += runs;
        purchases
    }

    /// All buyers, each buying until it is enough.
    fn crowd(&self, event: &Event, way: Way) -> (Arc<AtomicBool>, JoinSet<usize>) {
        let (enough, mut all) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        let wishes = self.rich.iter().map(|buyer| (buyer, 1));
        for (buyer, seats) in wishes.chain(self.poor.iter().map(|buyer| (buyer, 2))) {
            let (market, event, buyer, enough) =
                (self.market.clone(), event.clone(), buyer.clone(), Arc::clone(&enough));
            all.spawn(async move {
                for purchases in 1.. {
                    let entry = market.buy(&buyer, &event, Wish::Best(seats)).await;
                    assert_ne!(entry.ended, Ended::Nothing(OrderFailure::SoldOut), "too few seats");
                    if way == Way::GiveBack && matches!(entry.ended, Ended::Sold { .. }) {
                        market.refund(&entry).await;
                    }
                    if enough.load(Ordering::Relaxed) {
                        return purchases;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                0
            });
        }
        (enough, all)
    }

    async fn die(&mut self, doom: &Doom, nth: usize) {
        let env = [
            doom.hold_ttl.clone(),
            ("TESSERA_FAIL_AT", format!("{}:{nth}", doom.place)),
        ];
        if doom.is_user {
            self.cluster.start_doomed_user(doom.process(), &env).await;
        } else {
            self.cluster
                .start_doomed_ticket(doom.process(), &self.network, &env)
                .await;
        }
        let died = self.cluster.ended(doom.process()).await;
        assert!(
            died.stderr.contains(&format!("fail point {}: aborts", doom.place)),
            "it ended otherwise: {}\n{}",
            died.status,
            died.stderr
        );
    }

    async fn live(&mut self, doom: &Doom) {
        let env = [doom.hold_ttl.clone()];
        if doom.is_user {
            self.cluster.start_user_as(doom.process(), "127.0.0.1:0", &env).await;
        } else {
            self.cluster
                .start_ticket_behind(doom.process(), &self.network, &env)
                .await;
        }
    }
}

impl Doom {
    fn process(&self) -> &'static str {
        if self.is_user { "user-1" } else { "ticket-1" }
    }
}
