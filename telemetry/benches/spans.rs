//! What spans cost, in nanoseconds: a piece of work begun and ended, and a call with one attempt as the balancer makes it (its metrics
//! included), where nothing is exported, in a trace that is not recorded, and in one that is. `cargo bench -p telemetry --bench spans`.
//!
//! Each arm is a process of its own, since what is installed stays; they take turns, and the least of the rounds is told: noise only
//! adds. Recorded spans go to a collector that is not there, so that what is measured is making and queueing them; the queue is
//! full most of the time, as under a flood.

use std::{
    hint::black_box,
    process::{Command, ExitCode},
    time::Instant,
};

use telemetry::{
    Config, LogFormat,
    client::{AttemptKind, CallSpan, Peer},
    propagation,
    work::{Kind, Work},
};

const ROUNDS: usize = 7;
const TIMES: u32 = 200_000;
const ARM: &str = "--arm";
/// Its name, its environment, and whether the caller's trace is recorded, as `traceparent` says it.
type Arm = (&'static str, &'static [(&'static str, &'static str)], &'static str);
const ARMS: [Arm; 3] = [
    ("nothing exported", &[], "01"),
    (
        "not recorded",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")],
        "00",
    ),
    (
        "recorded",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")],
        "01",
    ),
];

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let arm = args.iter().position(|arg| arg == ARM).and_then(|at| args.get(at + 1));
    let outcome = match arm {
        Some(flags) => measure(flags),
        None if args.iter().any(|arg| arg == "--bench") => compare(),
        // `cargo test --all-targets` runs this too, unoptimised: figures of that would mislead.
        None => {
            println!("skipped: run it with `cargo bench -p telemetry --bench spans`");
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

fn compare() -> Result<(), Failed> {
    let mut least = [[f64::INFINITY; 2]; ARMS.len()];
    for _ in 0..ROUNDS {
        for ((_, environment, flags), least) in ARMS.iter().zip(&mut least) {
            let output = Command::new(std::env::current_exe()?)
                .args([ARM, flags])
                .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
                .env("RUST_LOG", "off")
                .envs(environment.iter().copied())
                .output()?;
            let text = String::from_utf8(output.stdout)?;
            for (least, figure) in least.iter_mut().zip(text.split_whitespace()) {
                *least = least.min(figure.parse()?);
            }
        }
    }
    println!("ns, the least of {ROUNDS} rounds of {TIMES}   a span   a call and its attempt");
    for ((name, ..), [span, call]) in ARMS.iter().zip(least) {
        println!("  {name:<36} {span:>7.1} {call:>24.1}");
    }
    let goal = |name: &str, figure: f64, most: f64| {
        let verdict = if figure <= most { "met" } else { "MISSED" };
        println!("  {name:<36} {figure:>7.1}   goal <= {most}   {verdict}");
    };
    println!("goals");
    goal("a span that is not recorded", least[1][0], 40.0);
    goal("a span that is recorded", least[2][0], 400.0);
    Ok(())
}

fn measure(flags: &str) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let _guard = telemetry::init(Config {
        service_name: "bench".to_owned(),
        service_version: "0".to_owned(),
        instance_id: None,
        log_format: LogFormat::Json,
        default_filter: "off".to_owned(),
    })?;
    let mut headers = http::HeaderMap::new();
    let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
    headers.insert("traceparent", parent.parse()?);
    let parent = propagation::extract(&headers);
    let span = || drop(Work::begin(Kind::Internal, "work", black_box(&parent), Vec::new));
    let call = || {
        let call = CallSpan::start_in(black_box(&parent), "/pkg.Service/Method", "ticket-svc");
        let peer = Peer {
            address: "10.0.0.1:7101",
            instance_id: "t-1",
            zone: "z",
            version: "1.0.0",
        };
        call.attempt(1, AttemptKind::First, peer).finish(0);
        call.finish(0);
    };
    // The first rounds warm up and fill the queue.
    time(&span);
    time(&call);
    println!("{} {}", time(&span), time(&call));
    Ok(())
}

fn time(what: &impl Fn()) -> f64 {
    let begun = Instant::now();
    for _ in 0..TIMES {
        what();
    }
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
}
