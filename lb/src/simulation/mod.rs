//! Fleets in virtual time: the real pool, policies, ejections, breaker and retry budget, over instances that are slow, dead,
//! failing, flapping or new.
//!
//! A history is a seed: which policy, which instances, when calls come, how long each takes, what goes wrong and when. Nothing
//! waits for a real clock and nothing is dialled; an instance is its record and a connection to nobody, so that a history of
//! a minute takes milliseconds and thousands of them can be looked at. After every step each of `invariants` is asked; at the
//! end the faults are taken away, and the fleet has to be as good as new.
//!
//! `TESSERA_SIM_SEEDS=20000 cargo test -p lb --lib simulation` looks at more of them; `TESSERA_SIM_SEED=7` at one alone.

mod calls;
mod invariants;
mod ledger;
mod plan;
mod protection;
mod world;

use self::{invariants::Invariant, plan::Plan, world::World};

/// Histories that are looked at by default.
const SEEDS: u64 = 60;

/// Plays the history of that seed; the first broken invariant, and when.
fn play(seed: u64, invariants: &[&Invariant], plant: Plant) -> Result<(), String> {
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
    /// Everybody may be ejected.
    Uncapped,
    /// Nobody sees to what time brings.
    Unattended,
    /// A call that the breaker turns away is made all the same.
    BreakerIgnored,
    /// A retry that the budget or the throttle refuses is made all the same.
    BudgetIgnored,
}

fn invariants() -> impl Iterator<Item = &'static Invariant> {
    invariants::INVARIANTS.iter().chain(protection::INVARIANTS)
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
    let all: Vec<_> = invariants().collect();
    for seed in seeds() {
        if let Err(broken) = play(seed, &all, Plant::None) {
            panic!("{broken}");
        }
    }
}

/// A history that failed can be looked at again.
#[test]
fn the_same_seed_is_the_same_history() {
    let is_never: &[&Invariant] = &[&Invariant {
        name: "nothing is ever retried",
        check: |world| match world.ledger.granted {
            0..20 => Ok(()),
            _ => Err(format!("{} calls", world.ledger.calls)),
        },
    }];
    for seed in 0..20 {
        assert_eq!(play(seed, is_never, Plant::None), play(seed, is_never, Plant::None));
    }
}

/// An invariant that nothing can break would be no check.
#[test]
fn each_planted_bug_is_found_by_the_invariant_that_is_there_for_it() {
    for (plant, name) in [
        (Plant::LeakedCall, "calls are counted"),
        (Plant::LeakedCall, "nothing is left in the end"),
        (Plant::KeptRemoved, "nobody who is gone is called"),
        (Plant::Sticky, "the healthy share evenly"),
        (Plant::NotAvoided, "a retry goes elsewhere"),
        (Plant::Uncapped, "only so many are ejected"),
        (Plant::Unattended, "everybody comes back"),
        (Plant::BreakerIgnored, "the breaker lets through what it should"),
        (Plant::BudgetIgnored, "the budget is not exceeded"),
        (Plant::BudgetIgnored, "the throttle holds"),
    ] {
        let alone: Vec<_> = invariants().filter(|invariant| invariant.name == name).collect();
        assert_eq!(alone.len(), 1, "{name}");
        let found = (0..200).any(|seed| play(seed, &alone, plant).is_err());
        assert!(found, "{plant:?} is not noticed by {name:?}");
    }
}
