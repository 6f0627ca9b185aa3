//! Fleets in virtual time: the real pool and the real policies, over instances that are slow, dead, failing, flapping or new.
//!
//! A history is a seed: which policy, which instances, when calls come, how long each takes, what goes wrong and when. Nothing
//! waits for a real clock and nothing is dialled; an instance is its record and a connection to nobody, so that a history of
//! a minute takes milliseconds and thousands of them can be looked at. After every step each of `invariants` is asked; at the
//! end the faults are taken away, and the fleet has to be as good as new.
//!
//! `TESSERA_SIM_SEEDS=20000 cargo test -p lb --lib simulation` looks at more of them; `TESSERA_SIM_SEED=7` at one alone.

mod invariants;
mod plan;
mod world;

use self::{
    invariants::{INVARIANTS, Invariant},
    plan::Plan,
    world::World,
};

/// Histories that are looked at by default.
const SEEDS: u64 = 120;

/// Plays the history of that seed; the first broken invariant, and when.
fn play(seed: u64, invariants: &[Invariant], plant: Plant) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(Plan::of(seed), plant).await;
        while world.step().await {
            for invariant in invariants {
                (invariant.check)(&world).map_err(|broken| {
                    let (at, plan) = (world.elapsed(), world.plan());
                    format!("seed {seed}, after {at:?}: {}: {broken}\n{plan:?}", invariant.name)
                })?;
            }
        }
        Ok(())
    })
}

/// A bug that is put in on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    None,
    /// The end of every fifth call is not told.
    LeakedCall,
    /// A removed instance stays in the set.
    KeptRemoved,
    /// Calls go to the first instance, come what may.
    Sticky,
    /// A retry goes where the call has been.
    NotAvoided,
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("TESSERA_SIM_SEED") {
        Some(one) => one..one + 1,
        None => 0..number("TESSERA_SIM_SEEDS").unwrap_or(SEEDS),
    }
}

#[test]
fn every_history_keeps_every_invariant() {
    for seed in seeds() {
        if let Err(broken) = play(seed, INVARIANTS, Plant::None) {
            panic!("{broken}");
        }
    }
}

/// An invariant that nothing can break would be no check.
#[test]
fn each_planted_bug_is_found_by_the_invariant_that_is_there_for_it() {
    for (plant, name) in [
        (Plant::LeakedCall, "calls are counted"),
        (Plant::KeptRemoved, "nobody who is gone is called"),
        (Plant::Sticky, "the healthy share evenly"),
        (Plant::NotAvoided, "a retry goes elsewhere"),
    ] {
        let alone: Vec<Invariant> = INVARIANTS
            .iter()
            .filter(|invariant| invariant.name == name)
            .copied()
            .collect();
        assert_eq!(alone.len(), 1, "{name}");
        let found = (0..200).any(|seed| play(seed, &alone, plant).is_err());
        assert!(found, "{plant:?} is not noticed by {name:?}");
    }
}
