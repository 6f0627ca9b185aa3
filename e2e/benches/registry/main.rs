//! The registry beside a live etcd and, where installed, ZooKeeper: `make bench-registry`, or one figure of it with
//! `cargo bench -p e2e --bench registry -- fanout`. docs/benchmarks.md says how it is measured.
//!
//! This process generates the load. It runs on one thread and on the cores that the servers have, whatever it takes is taken
//! from them, and it takes the same from each: see `http2`.

mod arena;
mod closed_loop;
mod etcd;
mod expiry;
mod fan_out;
mod http2;
mod machine;
mod payload;
mod renewals;
mod report;
mod server;
mod size;
mod stats;
mod tessera;
mod throughput;
mod watchers;
mod zookeeper;

use std::process::ExitCode;

use machine::Machine;
use report::Report;
use server::Kind;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

/// Whatever ends a figure early.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The names of the figures, in the order in which they are taken.
const FIGURES: [&str; 11] = [
    "unary",
    "batched",
    "reads",
    "renewals",
    "cpu",
    "fanout1000",
    "fanout5000",
    "stalled",
    "expiry",
    "idle",
    "million",
];
/// Leaves the others out: for a profiler.
const ALONE: &str = "--alone";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this too, unoptimised: figures of that would mislead.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("skipped: run it with `cargo bench -p e2e --bench registry`");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let unknown = |name: &&&str| !FIGURES.iter().any(|figure| figure.starts_with(**name));
    if let Some(unknown) = wanted.iter().find(unknown) {
        eprintln!("no figure is called {unknown}; there are {}", FIGURES.join(", "));
        return ExitCode::from(2);
    }
    if args.iter().any(|arg| arg == ALONE) {
        Kind::leave_others_out();
    }
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[&str]) -> Result<(), Failed> {
    for (kind, package) in [(Kind::Etcd, "etcd-server"), (Kind::ZooKeeper, "zookeeper")] {
        if !kind.is_installed() {
            println!("{kind:?} is left out: not installed (Debian: {package}), or not wanted");
        }
    }
    // One thread: the generator never takes more than one of the cores, and nothing of it waits for a lock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    Report::head();
    let outcome = LocalSet::new().block_on(&runtime, async {
        // Dropped by a signal, the figure takes its servers with it.
        tokio::select! {
            outcome = figures(wanted, &mut report) => outcome,
            signal = asked_to_stop() => Err(signal?.into()),
        }
    });
    report.write()?;
    outcome
}

/// Takes them all: one that fails is said and counted, and the next one follows.
async fn figures(wanted: &[&str], report: &mut Report) -> Result<(), Failed> {
    let mut failed = Vec::new();
    for name in FIGURES {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted)) {
            let machine = Machine::look()?;
            if let Err(error) = figure(name, report).await {
                println!("{name}: FAILED: {error}");
                failed.push(name);
            }
            report.others(machine.others()?);
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("figures without a result: {}", failed.join(", ")).into())
    }
}

async fn asked_to_stop() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| "interrupted"),
        _ = terminate.recv() => Ok("terminated"),
    }
}

async fn figure(name: &str, report: &mut Report) -> Result<(), Failed> {
    match name {
        "unary" => throughput::unary(report).await,
        "batched" => throughput::batched(report).await,
        "reads" => throughput::reads(report).await,
        "renewals" => renewals::throughput(report).await,
        "cpu" => renewals::cpu(report).await,
        "fanout1000" => fan_out::to_1_000(report).await,
        "fanout5000" => fan_out::to_5_000(report).await,
        "stalled" => fan_out::stalled(report).await,
        "expiry" => expiry::figures(report).await,
        "idle" => size::idle(report).await,
        _ => size::million(report).await,
    }
}
