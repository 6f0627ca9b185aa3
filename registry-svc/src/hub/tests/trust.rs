//! How far answers can be trusted, and that watchers are told when that changes.

use std::{
    collections::BTreeSet,
    task::{Context, Waker},
    time::Duration,
};

use super::*;
use crate::model::ServiceKey;

fn protecting(services: &[&str]) -> Trust {
    let key = |service: &&str| {
        let scope = scope(service).scope;
        ServiceKey {
            namespace: scope.namespace,
            service: scope.service.expect("one"),
        }
    };
    Trust {
        protecting: Arc::new(services.iter().map(key).collect::<BTreeSet<_>>()),
        ..Trust::default()
    }
}

fn stale(millis: u64) -> Trust {
    Trust {
        stale_since: Some(now(millis).moment),
        ..Trust::default()
    }
}

fn confidence(hub: &Hub, service: &str, millis: u64) -> Confidence {
    hub.confidence(&scope(service).scope, now(millis).moment)
}

#[test]
fn the_gravest_doubt_is_told() {
    let hub = hub();
    assert_eq!(confidence(&hub, "a", 0), Confidence::Fresh);
    let mut trust = protecting(&["a"]);
    hub.set_trust(trust.clone());
    let told = ["a", "b", ""].map(|service| confidence(&hub, service, 0));
    let (protecting, fresh) = (Confidence::Protecting, Confidence::Fresh);
    assert_eq!(
        told,
        [protecting, fresh, protecting],
        "a namespace is as sure as its services"
    );
    trust.recovering = true;
    hub.set_trust(trust.clone());
    assert_eq!(confidence(&hub, "a", 0), Confidence::Recovering);
    trust.stale_since = Some(now(1_000).moment);
    hub.set_trust(trust);
    let age = Duration::from_millis(500);
    assert_eq!(confidence(&hub, "b", 1_500), Confidence::Stale { age });
}

#[test]
fn idle_watchers_are_told_of_a_change_by_a_bookmark() {
    let hub = hub();
    let mut watchers = ["a", "b", ""].map(|service| watching(&hub, service));
    let mut told = |trust| {
        hub.set_trust(trust);
        watchers.each_mut().map(|watcher| next(watcher).is_some())
    };
    assert_eq!(told(Trust::default()), [false; 3], "nothing has changed");
    assert_eq!(told(protecting(&["a"])), [true, false, true]);
    assert_eq!(told(protecting(&["a", "b"])), [false, true, false], "the others know");
    assert_eq!(told(stale(1)), [true; 3]);
    assert_eq!(told(stale(2)), [false; 3], "only the age is another one");
    assert_eq!(told(Trust::default()), [true; 3]);
}

#[test]
fn only_those_are_woken_whom_it_concerns() {
    let hub = hub();
    let mut watchers = ["a", "b", ""].map(|service| watching(&hub, service));
    hub.set_trust(protecting(&["a"]));
    let mut cx = Context::from_waker(Waker::noop());
    let woken = watchers
        .each_mut()
        .map(|watcher| watcher.poll_woken(&mut cx).is_ready());
    assert_eq!(woken, [true, false, true]);
}

/// A step that has something to tell tells the confidence too: there is no bookmark after it.
#[test]
fn a_delta_tells_the_new_confidence() {
    let hub = hub();
    let mut watcher = watching(&hub, "a");
    hub.set_trust(stale(0));
    churn(&hub, "a", 1);
    let step = watcher.try_next(now(250).moment).expect("a delta");
    let age = Duration::from_millis(250);
    assert_eq!(step.confidence, Confidence::Stale { age });
    assert!(matches!(step.told, Told::Delta(_)));
    assert_eq!(next(&mut watcher), None);
    let later = watcher.bookmark(now(1_000).moment).expect("always");
    assert_eq!(
        later.confidence,
        Confidence::Stale { age: age * 4 },
        "a bookmark tells the age of then"
    );
}
