//! Breakers, and the records by which instances are judged.

use std::{sync::Arc, time::Duration};

use loom::thread;
use tokio::time::Instant;

use crate::{
    Backoff,
    breaker::{Breaker, CircuitBreaker, Permit},
    record::Record,
};

const OPEN: Duration = Duration::from_secs(5);

/// A breaker that is half-open from `later` on, a call that was let through before it opened, and `later`.
fn half_open(probes: u32) -> (Arc<Breaker>, Permit, Instant) {
    let config = CircuitBreaker::default()
        .minimum_calls(1)
        .and_then(|config| config.probes(probes))
        .expect("in their ranges")
        .open(Backoff::doubling(OPEN, OPEN, 0.0));
    let (breaker, begun) = (Arc::new(Breaker::new(config)), Instant::now());
    let old = breaker.admit(begun).expect("closed");
    let bad = breaker.admit(begun).expect("closed");
    bad.ends(true, Duration::ZERO, begun);
    (breaker, old, begun + OPEN)
}

pub(super) fn probes() {
    let (breaker, _old, later) = half_open(2);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.admit(later).ok())
        })
        .collect();
    let mut out = vec![breaker.admit(later).ok()];
    out.extend(threads.into_iter().map(|thread| thread.join().expect("no panic")));
    assert_eq!(out.iter().flatten().count(), 2, "of three calls two are its probes");
    assert!(breaker.admit(later).is_err(), "and they are out");
}

pub(super) fn closes() {
    let (breaker, old, later) = half_open(2);
    let probes = [breaker.admit(later), breaker.admit(later)].map(|probe| probe.expect("half-open"));
    let threads = probes.map(|probe| thread::spawn(move || probe.ends(false, Duration::ZERO, later)));
    old.ends(true, Duration::ZERO, later);
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(breaker.level(), 0, "it is closed");
    assert!(breaker.admit(later).is_ok(), "and lets through");
}

pub(super) fn opens() {
    let (breaker, old, later) = half_open(2);
    let [good, bad] = [breaker.admit(later), breaker.admit(later)].map(|probe| probe.expect("half-open"));
    let threads = [
        thread::spawn(move || good.ends(false, Duration::ZERO, later)),
        thread::spawn(move || bad.ends(true, Duration::ZERO, later)),
    ];
    old.ends(false, Duration::ZERO, later);
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(breaker.level(), 2, "it is open");
    assert!(breaker.admit(later).is_err(), "and lets nobody through");
}

pub(super) fn gives_back() {
    let (breaker, old, later) = half_open(1);
    let cancelled = breaker.admit(later).expect("half-open");
    let other = {
        let breaker = Arc::clone(&breaker);
        thread::spawn(move || breaker.admit(later).ok())
    };
    // One that was let through before it opened has no place to give back.
    let giving = thread::spawn(move || drop((cancelled, old)));
    let out = [breaker.admit(later).ok(), other.join().expect("no panic")];
    giving.join().expect("no panic");
    let count = out.iter().flatten().count();
    assert!(count <= 1, "the place of one was taken by {count}");
    assert_eq!(
        breaker.admit(later).is_ok(),
        count == 0,
        "and is free if nobody took it"
    );
}

pub(super) fn ticket() {
    let record = Arc::new(Record::new());
    record.offer();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let record = Arc::clone(&record);
            thread::spawn(move || u32::from(record.claim()))
        })
        .collect();
    let mine = u32::from(record.claim());
    let all: u32 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert_eq!(mine + all, 1);
}

pub(super) fn row() {
    let record = Arc::new(Record::new());
    record.watch(Some(2));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let record = Arc::clone(&record);
            thread::spawn(move || u32::from(record.learns_of_failure()))
        })
        .collect();
    let told: u32 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert_eq!(told, 1, "two failures are a row, and one of them ends it");
    assert_eq!(record.take(), (0, 2));
}
