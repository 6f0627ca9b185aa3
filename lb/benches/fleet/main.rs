//! `lb` against fleets that misbehave, beside tonic's and tower's balancers: slow, dead, restarting, failing, overloaded
//! instances. `cargo bench -p lb --bench fleet`, or one case: `... --bench fleet -- slow-one`.
//!
//! Open loop: calls begin at random moments at a given rate, whatever becomes of the earlier ones, so that a stall is seen by
//! all that it would have met. Every instance is a process of its own (this binary again) that sleeps, holds a semaphore or
//! fails; on shared cores, instances that compute would hide every difference. Arms take turns.

mod answers;
mod arms;
mod backend;
mod cases;
mod load;
mod report;
mod reports;

use std::process::ExitCode;

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.iter().position(|arg| arg == backend::FLAG) {
        Some(at) => answers::serve(&args[at + 1..]),
        None if args.iter().any(|arg| arg == "--bench") => {
            let wanted: Vec<&str> = args
                .iter()
                .map(String::as_str)
                .filter(|arg| !arg.starts_with("--"))
                .collect();
            cases::run(&wanted)
        }
        // `cargo test --all-targets` runs this too, unoptimised: figures of that would mislead.
        None => {
            println!("skipped: run it with `cargo bench -p lb --bench fleet`");
            Ok(())
        }
    };
    outcome.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
