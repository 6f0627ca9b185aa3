//! More buyers than seats, all at once.

use std::time::Duration;

use e2e::{
    Cluster, ClusterOptions,
    market::{Ended, Market, Watch, Wish},
};
use proto::user::v1::OrderFailure;
use service_store::testing::TestStore;
use tokio::task::JoinSet;

/// A row of ten rows of ten.
const SEATS: u32 = 100;

/// How many buyers: 2,000 with TESSERA_BUYERS=2000, fewer where hashing their passwords would be most of the time.
fn crowd() -> usize {
    std::env::var("TESSERA_BUYERS")
        .ok()
        .and_then(|buyers| buyers.parse().ok())
        .unwrap_or(300)
}

/// How long they go on asking: they are served one after the other, by what the machine has left.
fn patience() -> Duration {
    Duration::from_secs(150) + Duration::from_millis(300) * u32::try_from(crowd()).expect("not that many")
}

service_store::on_both_stores!(
    who_picks_a_seat_gets_it_or_a_clean_answer,
    who_takes_the_best_gets_it_or_hears_that_it_is_sold_out,
);

/// Everybody comes at once and picks a seat from the plan, so that many pick the same ones: whoever does not get theirs is told
/// that it is taken and picks another one, until they have one or none is left. All seats are sold then, each once.
async fn who_picks_a_seat_gets_it_or_a_clean_answer(store: TestStore) {
    let (stores, _kept) = super::stores(store);
    let cluster = Cluster::with(ClusterOptions {
        users: 2,
        stores: Some(stores),
        ..ClusterOptions::default()
    })
    .await;
    let market = Market::of(&cluster).with_patience(patience());
    let event = market.event(10, SEATS / 10).await;
    let buyers = market.buyers(crowd(), 1).await;
    let watch = Watch::begin(&market, &event.id);
    let mut all = JoinSet::new();
    for (number, buyer) in buyers.iter().cloned().enumerate() {
        let (market, event) = (market.clone(), event.clone());
        all.spawn(async move {
            // Each begins somewhere else on the plan and goes on from there, so that everybody meets everybody.
            for step in 0..SEATS as usize {
                let seat = (number * 37 + step) % SEATS as usize;
                let wish = Wish::Seats(vec![format!("A/{}/{}", seat / 10 + 1, seat % 10 + 1)]);
                match market.buy(&buyer, &event, wish).await.ended {
                    Ended::Sold { .. } => return true,
                    Ended::Nothing(why) => assert_eq!(why, OrderFailure::SeatTaken),
                    Ended::Refunded { .. } => unreachable!("nobody gives anything back"),
                }
                if market.counts(&event.id).await.is_ok_and(|event| event.seats_free == 0) {
                    return false;
                }
            }
            false
        });
    }
    let lucky = all.join_all().await.into_iter().filter(|lucky| *lucky).count();
    let seen = watch.end().await;
    eprintln!("{} buyers; {seen:?}; {:?}", crowd(), market.books().rough());
    market.audit(&event, &buyers).await;
    let sold = market.counts(&event.id).await.expect("counts").seats_sold;
    // Everybody who found no free seat left gave up; had one come back after that, nobody would have been there to take it.
    assert_eq!(sold as usize, lucky);
    assert_eq!(sold, SEATS, "{seen:?}");
    assert!(seen.reads > 10 && seen.with_held > 0, "{seen:?}");
}

/// Everybody wants any seat: exactly as many are sold as there are, and everybody else is told that there is none.
async fn who_takes_the_best_gets_it_or_hears_that_it_is_sold_out(store: TestStore) {
    let (stores, _kept) = super::stores(store);
    let cluster = Cluster::with(ClusterOptions {
        users: 2,
        stores: Some(stores),
        ..ClusterOptions::default()
    })
    .await;
    let market = Market::of(&cluster).with_patience(patience());
    let event = market.event(10, SEATS / 10).await;
    let buyers = market.buyers(crowd(), 1).await;
    let watch = Watch::begin(&market, &event.id);
    let mut all = JoinSet::new();
    for buyer in &buyers {
        let (market, event, buyer) = (market.clone(), event.clone(), buyer.clone());
        all.spawn(async move { market.buy(&buyer, &event, Wish::Best(1)).await.ended });
    }
    let ends = all.join_all().await;
    let seen = watch.end().await;
    eprintln!("{} buyers; {seen:?}; {:?}", crowd(), market.books().rough());
    market.audit(&event, &buyers).await;
    let sold = ends.iter().filter(|end| matches!(end, Ended::Sold { .. })).count();
    assert_eq!(sold, SEATS as usize, "{seen:?}");
    let others: Vec<_> = ends.iter().filter(|end| !matches!(end, Ended::Sold { .. })).collect();
    assert!(
        others.iter().all(|end| **end == Ended::Nothing(OrderFailure::SoldOut)),
        "{others:?}"
    );
    assert!(seen.reads > 10 && seen.with_held > 0, "{seen:?}");
}
