//! What the pool promises about removals, with connections to nobody.

use std::task::{Context, Wake, Waker};

use super::*;
use crate::endpoint::connection::Closed;

fn roster(ids: &[&str]) -> Roster {
    let backends = ids.iter().map(|id| Backend {
        key: Key {
            instance_id: (*id).into(),
            address: "127.0.0.1:1".into(),
            is_secured: false,
        },
        secured: None,
        authority: http::uri::Authority::from_static("127.0.0.1:1"),
        weight: 100,
        attributes: Arc::default(),
        epoch: 1,
        registry: 0,
    });
    Roster {
        backends: backends.collect(),
        known: ids.len(),
        passed_over: Vec::new(),
        unspoken: None,
        origin: Origin::Fixed,
    }
}

/// Asks, at the very moment a driver is told of the removal, whether a call could still begin.
struct Told {
    pool: Arc<Pool>,
    picked_before: Choice,
    could_begin: AtomicU64,
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        let late = self.picked_before.connection.try_room();
        if self.pool.pick(Wish::default()).is_some() || late.is_ok() {
            self.could_begin.store(1, Ordering::SeqCst);
        }
    }
}

/// A driver that has heard of the removal waits for the calls it can see and then cuts the connection. It was told before
/// the ready set was changed, and nothing turned away who had an older set in hand: such a call could be sent into a
/// connection that nobody would flush.
#[tokio::test]
async fn no_call_can_begin_once_the_driver_is_told_of_the_removal() {
    let pool = Arc::new(Pool::new(Policy::default()));
    let [newcomer] = &pool.apply(roster(&["a"]))[..] else {
        panic!("one")
    };
    pool.lines(&newcomer.endpoint, vec![Connection::idle(2).await]);
    let told = Arc::new(Told {
        picked_before: pool.pick(Wish::default()).expect("ready"),
        pool: Arc::clone(&pool),
        could_begin: AtomicU64::new(0),
    });
    let mut waits = Box::pin(told.picked_before.connection.clone().room());
    let (one, other) = (
        pool.place(Wish::default()).expect("room"),
        pool.place(Wish::default()).expect("room"),
    );
    let waker = Waker::from(Arc::clone(&told));
    let mut removed = Box::pin(newcomer.removed.cancelled());
    assert!(removed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(
        waits
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );

    pool.apply(roster(&[]));
    assert!(newcomer.removed.is_cancelled());
    assert_eq!(told.could_begin.load(Ordering::SeqCst), 0);
    drop((one, other));
    assert_eq!(waits.await.expect_err("turned away"), Closed);
}

/// Instances of which the last `second` are of version 2, all connected to nobody.
async fn versions(pool: &Arc<Pool>, first: usize, second: usize) -> Vec<Arc<Endpoint>> {
    let ids: Vec<String> = (0..first + second).map(|n| format!("i{n}")).collect();
    let mut roster = roster(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    for (at, backend) in roster.backends.iter_mut().enumerate() {
        let version = if at < first { "1.0.0" } else { "2.0.0" };
        backend.attributes = Arc::new(Attributes {
            version: version.to_owned(),
            semver: version.parse().ok(),
            ..Attributes::default()
        });
    }
    let mut endpoints = Vec::new();
    for newcomer in pool.apply(roster) {
        pool.lines(&newcomer.endpoint, vec![Connection::idle(100).await]);
        endpoints.push(newcomer.endpoint);
    }
    endpoints.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
    endpoints
}

fn to_the_second(pool: &Pool, is_forced: bool) -> Route {
    let to = crate::Subset::every().version("^2").expect("a range");
    let rule = crate::RouteRule::new("second", to);
    let rule = if is_forced { rule.forced() } else { rule };
    let routes = crate::Routes::try_new([rule]).expect("good");
    pool.set_routes(Table::new(&routes, &crate::route::Caller::default()));
    pool.route(None, "/s/M", &HeaderMap::new(), || 0)
}

fn met(pool: &Pool, route: &Route) -> String {
    let wish = Wish {
        route: Some(route),
        ..Wish::default()
    };
    pool.pick(wish).map_or_else(String::new, |choice| {
        choice.in_flight.endpoint().instance_id.to_string()
    })
}

/// The panic threshold looked at all instances together: with four of six in service there was no panic, and calls that a rule leads
/// to the other two found nobody until those came back.
#[tokio::test(start_paused = true)]
async fn a_route_whose_instances_are_all_ejected_still_leads_somewhere() {
    let pool = Arc::new(Pool::new(Policy::RoundRobin));
    let outlier = crate::OutlierDetection::default()
        .max_ejection_percent(100)
        .expect("valid");
    pool.set_care(Care {
        outlier: Some(outlier),
        slow_start: None,
    });
    let endpoints = versions(&pool, 4, 2).await;
    let forced = to_the_second(&pool, true);
    pool.suspects(&endpoints[4]);
    assert_eq!(met(&pool, &forced), "i5", "half of two is enough");
    pool.suspects(&endpoints[5]);
    let everybody: std::collections::BTreeSet<String> = (0..10).map(|_| met(&pool, &forced)).collect();
    assert_eq!(everybody.into_iter().collect::<Vec<_>>(), ["i4", "i5"]);
    let usual = Route::default();
    for _ in 0..12 {
        assert!(
            !["i4", "i5"].contains(&met(&pool, &usual).as_str()),
            "four of six are enough for all others"
        );
    }

    // Who may go elsewhere does, but for the one call by which somebody there is to prove itself.
    let free = to_the_second(&pool, false);
    for _ in 0..10 {
        assert!(["i0", "i1", "i2", "i3"].contains(&met(&pool, &free).as_str()));
    }
    pool.attend(Instant::now() + Duration::from_secs(31));
    let wish = Wish {
        route: Some(&free),
        ..Wish::default()
    };
    // Held: who was cancelled has proved nothing, and the next one would be sent there.
    let proving = [pool.pick(wish).expect("one"), pool.pick(wish).expect("other")];
    let ids = proving
        .each_ref()
        .map(|choice| &*choice.in_flight.endpoint().instance_id);
    assert_eq!(ids, ["i4", "i5"]);
    assert!(["i0", "i1", "i2", "i3"].contains(&met(&pool, &free).as_str()));
}

/// Only the usual view had a table: calls by a route paid for a look at every instance.
#[tokio::test]
async fn views_have_tables_of_their_own_which_outlive_changes_that_do_not_touch_them() {
    let pool = Arc::new(Pool::new(Policy::ConsistentHash(crate::ConsistentHash::default())));
    versions(&pool, 4, 2).await;
    let route = to_the_second(&pool, false);
    let table = |route| pool.ready.load().view(route).table().cloned();
    let (usual, second) = (
        table(None).expect("made at once"),
        table(Some(&route)).expect("made by the first"),
    );
    assert!(!Arc::ptr_eq(&usual, &second));
    pool.publish(&pool.book());
    assert!(Arc::ptr_eq(&usual, &table(None).expect("kept")));
    assert!(Arc::ptr_eq(&second, &table(Some(&route)).expect("kept")));
}

#[tokio::test]
async fn only_some_views_have_tables_and_keys_are_kept_together_in_all() {
    let pool = Arc::new(Pool::new(Policy::ConsistentHash(crate::ConsistentHash::default())));
    versions(&pool, 6, 0).await;
    let rules = (0..12).map(|n| {
        let method = crate::MethodMatch::Exact(format!("/s/{n}"));
        crate::RouteRule::new(n.to_string(), crate::Subset::every().version("^1").expect("a range")).method(method)
    });
    let routes = crate::Routes::try_new(rules).expect("good");
    pool.set_routes(Table::new(&routes, &crate::route::Caller::default()));
    let mut tables = 1;
    for n in 0..12 {
        let route = pool.route(None, &format!("/s/{n}"), &HeaderMap::new(), || 0);
        tables += usize::from(pool.ready.load().view(Some(&route)).table().is_some());
        let wish = Wish {
            key: Some(7),
            route: Some(&route),
            ..Wish::default()
        };
        let owner = || pool.pick(wish).expect("somebody").in_flight.endpoint().identity();
        assert_eq!(owner(), owner());
    }
    assert_eq!(tables, 8);
}
