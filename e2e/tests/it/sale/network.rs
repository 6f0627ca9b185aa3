//! Purchases over a network that repeats, delays, reorders and loses calls, and that is cut in the middle of confirmations.

use std::{ops::Range, sync::atomic::Ordering, time::Duration};

use e2e::{
    Cluster, ClusterOptions,
    market::{Buyer, Ended, Market, Watch, Wish},
    proxy::{Proxy, Weather},
    wait,
};
use proto::{ticket::v1::Event, user::v1::OrderFailure};
use tokio::task::JoinSet;

/// Two ticket services, each behind a network of its own, and one user service that calls them.
struct Apart {
    cluster: Cluster,
    networks: [Proxy; 2],
}

impl Apart {
    async fn start() -> Self {
        let mut cluster = Cluster::with(ClusterOptions {
            tickets: 0,
            ..ClusterOptions::default()
        })
        .await;
        let networks = [Proxy::bind().await, Proxy::bind().await];
        for (number, network) in networks.iter().enumerate() {
            cluster
                .start_ticket_behind(&format!("ticket-{}", number + 1), network, &[])
                .await;
        }
        Self { cluster, networks }
    }

    fn set(&self, weather: &Weather) {
        for network in &self.networks {
            network.set(weather.clone());
        }
    }

    fn sum(&self, count: impl Fn(&e2e::proxy::Done) -> u64) -> u64 {
        self.networks.iter().map(|network| count(network.done())).sum()
    }
}

/// So many buyers at a time. Every third one has money for one seat and wants two: what they hold is given back.
async fn crowd(market: &Market, event: &Event, count: usize) -> (Vec<Buyer>, JoinSet<(bool, Ended)>) {
    let mut buyers = market.buyers(count, 2).await;
    for buyer in buyers.iter_mut().step_by(3) {
        *buyer = market.buyer(1).await;
    }
    let mut all = JoinSet::new();
    for (number, buyer) in buyers.iter().cloned().enumerate() {
        let (market, event) = (market.clone(), event.clone());
        all.spawn(async move {
            let ended = market.buy(&buyer, &event, Wish::Best(2)).await.ended;
            (number % 3 == 0, ended)
        });
    }
    (buyers, all)
}

fn as_expected(ends: &[(bool, Ended)]) {
    for (poor, ended) in ends {
        match ended {
            Ended::Sold { .. } | Ended::Refunded { .. } => assert!(!poor, "sold to who cannot pay"),
            Ended::Nothing(OrderFailure::InsufficientFunds) => assert!(poor, "{ended:?}"),
            // The ticket service could not be asked for a while, or the seats were all held: a clean answer.
            Ended::Nothing(why) => assert!(
                matches!(
                    why,
                    OrderFailure::Unavailable | OrderFailure::SoldOut | OrderFailure::HoldExpired
                ),
                "{ended:?}"
            ),
        }
    }
}

const fn millis(range: Range<u64>) -> Range<Duration> {
    Duration::from_millis(range.start)..Duration::from_millis(range.end)
}

/// Every request of the saga is made twice, the second time up to three seconds later, when the purchase has long ended, and
/// each one takes its own time on the way. Each has one effect: nothing is sold or held by what nobody waits for any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_twice_late_and_in_another_order_happens_once() {
    let apart = Apart::start().await;
    let market = Market::of(&apart.cluster);
    let event = market.event(6, 20).await;
    let watch = Watch::begin(&market, &event.id);
    apart.set(&Weather {
        delay: Some(millis(0..150)),
        repeat: Some(millis(0..3_000)),
        ..Weather::default()
    });
    let (buyers, all) = crowd(&market, &event, 45).await;
    let ends = all.join_all().await;
    as_expected(&ends);
    // From here on nothing new is repeated; what was taken is still delivered.
    apart.set(&Weather::default());
    let before = apart.sum(|done| done.calls.load(Ordering::Relaxed));
    wait::until("the repeated calls to be made", || async {
        let made = apart.sum(|done| done.repeated.load(Ordering::Relaxed));
        // The reader's calls go on meanwhile, and those are not repeated any more.
        if made * 10 >= before * 9 {
            Ok(())
        } else {
            Err(format!("{made} of {before}"))
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = watch.end().await;
    market.audit(&event, &buyers).await;
    assert!(
        ends.iter().filter(|(_, end)| matches!(end, Ended::Sold { .. })).count() >= 25,
        "{ends:?}"
    );
    assert!(seen.reads > 10, "{seen:?}");
}

/// Three of ten answers are lost after the call was carried out. Nobody pays twice, no seat stays with nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_and_not_answered_is_found_again() {
    let apart = Apart::start().await;
    let market = Market::of(&apart.cluster);
    let event = market.event(6, 20).await;
    let watch = Watch::begin(&market, &event.id);
    apart.set(&Weather {
        lost_per_mille: 300,
        ..Weather::default()
    });
    let (buyers, all) = crowd(&market, &event, 45).await;
    let ends = all.join_all().await;
    apart.set(&Weather::default());
    as_expected(&ends);
    watch.end().await;
    market.audit(&event, &buyers).await;
    let lost = apart.sum(|done| done.lost.load(Ordering::Relaxed));
    assert!(lost > 20, "{lost} answers were lost: nothing is tested");
    assert!(
        ends.iter().filter(|(_, end)| matches!(end, Ended::Sold { .. })).count() >= 15,
        "{ends:?}"
    );
}

/// The network between the two is cut while purchases are confirmed, for longer than any attempt lasts. When it is back, all of
/// them end, and what was paid for is sold.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_the_middle_of_confirmations_heals() {
    let apart = Apart::start().await;
    let market = Market::of(&apart.cluster);
    let event = market.event(6, 20).await;
    let watch = Watch::begin(&market, &event.id);
    // Slow enough that many purchases are between two of their steps when the line is cut.
    apart.set(&Weather {
        delay: Some(millis(50..400)),
        ..Weather::default()
    });
    let (buyers, all) = crowd(&market, &event, 45).await;
    let first_sold = async || match market.counts(&event.id).await {
        Ok(now) if now.seats_sold > 4 => Ok(()),
        Ok(now) => Err(format!("{} are sold", now.seats_sold)),
        Err(status) => Err(status.to_string()),
    };
    wait::until("the first seats to be sold", first_sold).await;
    apart.set(&Weather {
        cut: true,
        ..Weather::default()
    });
    // The fault itself, not a wait for anything.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!all.is_empty(), "all had bought before the cut: nothing is tested");
    apart.set(&Weather::default());
    let ends = tokio::time::timeout(Duration::from_secs(60), all.join_all())
        .await
        .expect("every purchase ends within a minute after the cut");
    as_expected(&ends);
    let seen = watch.end().await;
    market.audit(&event, &buyers).await;
    assert!(
        seen.with_unsold > 10,
        "money was taken and nothing sold yet while the line was cut: {seen:?}"
    );
}

/// What is given back over a network that loses three of ten answers, makes every request twice and delays it: each order's seats
/// come back once, and so does its money; others buy the seats meanwhile and keep them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_comes_back_once_over_a_bad_network() {
    let apart = Apart::start().await;
    let market = Market::of(&apart.cluster);
    let event = market.event(4, 10).await;
    let (mut buyers, all) = crowd(&market, &event, 30).await;
    all.join_all().await;
    let lines = market.books().lines();
    let sold: Vec<_> = lines
        .into_iter()
        .filter(|line| matches!(line.ended, Ended::Sold { .. }))
        .collect();
    assert!(sold.len() >= 10, "{} were sold: nothing is tested", sold.len());
    apart.set(&Weather {
        delay: Some(millis(0..150)),
        repeat: Some(millis(0..3_000)),
        lost_per_mille: 300,
        ..Weather::default()
    });
    let mut refunds = JoinSet::new();
    for line in sold.into_iter().take(10) {
        let market = market.clone();
        refunds.spawn(async move { market.refund(&line).await });
    }
    let (others, more) = crowd(&market, &event, 15).await;
    buyers.extend(others);
    refunds.join_all().await;
    more.join_all().await;
    apart.set(&Weather::default());
    // What was taken to be repeated is still delivered.
    tokio::time::sleep(Duration::from_secs(3)).await;
    market.audit(&event, &buyers).await;
    let lost = apart.sum(|done| done.lost.load(Ordering::Relaxed));
    assert!(lost > 10, "{lost} answers were lost: nothing is tested");
}
