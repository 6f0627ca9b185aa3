//! Histories: many, one, those that once failed, and those with a planted bug.

mod planted;
mod stories;

use std::{collections::BTreeMap, env, str::FromStr};

use super::{Failure, Options, Summary, run, world::World};

/// Histories of each of the parallel tests, unless `TESSERA_SIM_SEEDS` says how many there are in all.
const SEEDS: u64 = 1_000;
/// The tests that share them: one for each core of a small machine.
const SHARDS: u64 = 2;

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    let value = text.parse().ok();
    assert!(value.is_some(), "{name} must be a number, is {text:?}");
    value
}

fn histories(shard: u64) {
    let all = setting("TESSERA_SIM_SEEDS").unwrap_or(SEEDS * SHARDS);
    let mut total = Summary::default();
    let mut failures: BTreeMap<&str, (usize, Box<Failure>)> = BTreeMap::new();
    for seed in (shard..all).step_by(usize::try_from(SHARDS).expect("small")) {
        match run(Options::new(seed)) {
            Ok(summary) => {
                total.revisions += summary.revisions;
                total.requests += summary.requests;
                total.events += summary.events;
            }
            // One bug breaks many histories: the first of each kind is told, and how many there are.
            Err(failure) => failures.entry(failure.violation.invariant).or_insert((0, failure)).0 += 1,
        }
    }
    println!("{total:?}");
    for (count, failure) in failures.values() {
        println!("{count} of the histories of this test fail like this:\n{failure}\n");
    }
    let kinds: Vec<_> = failures.iter().map(|(name, (_, first))| (name, first.seed)).collect();
    assert!(kinds.is_empty(), "broken, and the first seed of each: {kinds:?}");
}

#[test]
fn histories_of_even_seeds() {
    histories(0);
}

#[test]
fn histories_of_odd_seeds() {
    histories(1);
}

/// `TESSERA_SIM_SEED=n`, with `--nocapture`: one history in full.
#[test]
fn one_history() {
    let Some(seed) = setting("TESSERA_SIM_SEED") else {
        return;
    };
    let options = Options {
        whole: true,
        ..Options::new(seed)
    };
    let mut world = World::new(&options);
    println!("{:#?}", world.plan);
    let result = world.run();
    println!("{}", world.trace.text());
    if let Err(violation) = result {
        panic!("seed {seed} breaks `{}`: {}", violation.invariant, violation.what);
    }
}

/// A seed is a history: what cannot be repeated cannot be repaired.
#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..20 {
        let whole = |_| {
            let options = Options {
                whole: true,
                ..Options::new(seed)
            };
            let mut world = World::new(&options);
            let _ = world.run();
            world.trace.text()
        };
        let [first, second] = [0, 1].map(whole);
        assert!(first.lines().count() > 100, "seed {seed}: something happens");
        assert_eq!(first, second, "seed {seed}");
    }
}
