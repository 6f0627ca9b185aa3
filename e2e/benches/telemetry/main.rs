//! What telemetry costs a call: `cargo bench -p e2e --bench telemetry`, or `make bench-telemetry`.
//!
//! For each arm a server (`service-host`) and a client (`lb`) in processes of their own, this binary again, all started before the first
//! figure. In each round every arm makes the same calls, one arm after the other and each round in another order, so that what the
//! machine does meanwhile meets all of them. Compared is within a round, with the arm that exports and counts nothing, and the
//! median of the rounds is told: processor time of client and server for a call, from the kernel's own account, and p99.

mod collector;
mod echo;
mod process;
mod report;

use std::process::ExitCode;

/// The one that the binary has, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// In the command line of a server or client; the arm follows.
pub(crate) const SERVE: &str = "--serve";
pub(crate) const CALL: &str = "--call";

/// What is installed in both processes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    /// A subscriber for logs, as everywhere.
    Nothing,
    /// Traces, of which so many of 100 are sampled.
    Sampled(u32),
    /// Statistics alone, taken every second.
    Statistics,
}

impl Arm {
    /// The one that others are compared with comes first.
    pub(crate) const ALL: [Self; 5] = [
        Self::Nothing,
        Self::Sampled(0),
        Self::Sampled(1),
        Self::Sampled(100),
        Self::Statistics,
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Sampled(percent) => format!("sampling-{percent}"),
            Self::Statistics => "statistics".to_owned(),
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arm| arm.name() == name)
    }

    /// What its processor time may be beyond that of the first, in percent; `None` for the first.
    pub(crate) fn goal(self) -> Option<f64> {
        match self {
            Self::Nothing => None,
            Self::Sampled(0) => Some(2.0),
            Self::Sampled(1) => Some(3.0),
            Self::Sampled(_) => Some(20.0),
            Self::Statistics => Some(1.0),
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).map(|at| &args[at + 1..]);
    let outcome = if let Some(args) = after(SERVE) {
        process::serve(args)
    } else if let Some(args) = after(CALL) {
        process::call(args)
    } else if args.iter().any(|arg| arg == "--bench") {
        report::run()
    } else {
        // `cargo test --all-targets` runs this too, unoptimised: figures of that would mislead.
        println!("skipped: run it with `cargo bench -p e2e --bench telemetry`");
        Ok(())
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
