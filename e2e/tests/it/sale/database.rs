//! The database of both services is restarted while tickets are bought.

use std::time::Duration;

use e2e::{
    Cluster, ClusterOptions, Stores,
    market::{Ended, Market, Watch, Wish},
    wait,
};
use service_store::testing::{Server, TestStore};
use tokio::task::JoinSet;

/// It ends as in a crash, twice, and comes back three seconds later. What was under way is undone or done; either way every
/// purchase has its one end, and nobody has to restart a service.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_in_the_middle_of_a_sale_loses_nothing() {
    let Some(server) = Server::start() else {
        return;
    };
    let (ticket, user) = (TestStore::on(&server), TestStore::on(&server));
    let cluster = Cluster::with(ClusterOptions {
        tickets: 2,
        users: 2,
        stores: Some(Stores {
            ticket: ticket.url(),
            user: user.url(),
        }),
        ..ClusterOptions::default()
    })
    .await;
    let market = Market::of(&cluster);
    let event = market.event(10, 40).await;
    let buyers = market.buyers(60, 10).await;
    let watch = Watch::begin(&market, &event.id);
    let mut all = JoinSet::new();
    for buyer in &buyers {
        let (market, event, buyer) = (market.clone(), event.clone(), buyer.clone());
        all.spawn(async move {
            let mut sold = 0;
            for _ in 0..5 {
                let ended = market.buy(&buyer, &event, Wish::Best(1)).await.ended;
                sold += usize::from(matches!(ended, Ended::Sold { .. }));
            }
            sold
        });
    }
    for seats in [20, 120] {
        wait::until("seats to be sold", || async {
            match market.counts(&event.id).await {
                Ok(now) if now.seats_sold > seats => Ok(()),
                Ok(now) => Err(format!("{} are sold", now.seats_sold)),
                Err(status) => Err(status.to_string()),
            }
        })
        .await;
        server.crash();
        // The fault itself.
        tokio::time::sleep(Duration::from_secs(3)).await;
        server.up();
    }
    assert!(!all.is_empty(), "all had bought before: nothing is tested");
    let sold: usize = all.join_all().await.into_iter().sum();
    let seen = watch.end().await;
    market.audit(&event, &buyers).await;
    assert!(sold > 200 && seen.unanswered > 0, "{sold} sold; {seen:?}");
}
