//! What calls share without a lock, or with a short one, in every order in which threads can meet in it (loom, under the C11 memory
//! model): breaker, budget and throttle of retries, the record of an instance, and its leaving while an old snapshot still has it.
//!
//! The files are the crate's own, taken in here a second time with loom's atomics in the place of the standard library's: all
//! that they need of the crate is named below. `arc-swap` and tokio's primitives cannot be taken in; what is looked at is the
//! protocol around them. loom takes `SeqCst` for less than it is, so nothing here relies on it.
//!
//! Run with the others by `cargo test -p lb`; one alone by `cargo test -p lb --test interleavings -- budget`.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "of the files that are taken in only a part is used, and their unit tests are not run"
)]

mod instances;
mod protection;
mod retries;

/// In the place of `src/sync.rs`.
mod sync {
    pub(crate) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    };
}

#[path = "../../src/endpoint/backoff.rs"]
mod backoff;
#[path = "../../src/breaker/mod.rs"]
mod breaker;
#[path = "../../src/retry/budget.rs"]
mod budget;
#[path = "../../src/retry/invalid.rs"]
mod invalid;
#[path = "../../src/load/occupancy.rs"]
mod occupancy;
#[path = "../../src/range.rs"]
mod range;
#[path = "../../src/outlier/record.rs"]
mod record;
#[path = "../../src/retry/throttle.rs"]
mod throttle;
#[path = "../../src/window.rs"]
mod window;

use backoff::Backoff;
use invalid::InvalidRetry;

/// What is looked at, by name.
const MODELS: &[(&str, fn())] = &[
    (
        "breaker: half-open lets its probes through and no more",
        protection::probes,
    ),
    (
        "breaker: all probes good close it, whatever ends late",
        protection::closes,
    ),
    (
        "breaker: one bad probe opens it, whatever ends meanwhile",
        protection::opens,
    ),
    ("breaker: a cancelled probe makes room for one", protection::gives_back),
    ("record: a ticket is for one call", protection::ticket),
    ("record: a row of failures is told to one call", protection::row),
    ("budget: what was paid in is spent once", retries::deposits),
    ("budget: a second that turns makes nothing of nothing", retries::seconds),
    ("budget: the allowance is spent once", retries::allowance),
    ("throttle: no failure and no success is lost", retries::throttle),
    (
        "occupancy: a call on an old snapshot meets nothing that is gone",
        instances::old_snapshot,
    ),
    (
        "occupancy: whoever waits for the last call is told",
        instances::last_call,
    ),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = MODELS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())));
    for (name, model) in chosen {
        if args.iter().any(|arg| arg == "--list") {
            println!("{name}: test");
            continue;
        }
        // Three threads of some steps each have millions of orders; nearly all of them differ by switches that change nothing, and a
        // bug that needs more than three forced ones is yet to be seen (CHESS, Musuvathi and Qadeer, 2007).
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
        println!("{name} ... ok");
    }
}
