//! Callers whose registry is away for a minute, and one of them that is restarted meanwhile: `cargo bench -p e2e --bench away`.
//!
//! The registry, five instances and the caller are processes of their own. The registry is stopped by SIGSTOP, which is the worse
//! way to be away: it takes connections and says nothing. Half a minute later the caller ends and another one begins, which has
//! nothing but the set on disk to go by. A call of either that fails is a goal missed.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use e2e::registry::RegistryProcess;
use rand::RngExt as _;
use registry_client::{Registration, Registry};
use rustix::process::Signal;
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinSet, time::Instant};
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const SERVICE: &str = "away-svc";
const INSTANCES: usize = 5;
/// Calls a second.
const RATE: f64 = 200.0;
/// Half of the registry's absence.
const HALF: Duration = Duration::from_secs(30);
/// Before it goes, and after it is back.
const AROUND: Duration = Duration::from_secs(5);
/// In a command line: what the process is to be.
const INSTANCE: &str = "--instance";
const CALLER: &str = "--caller";

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [INSTANCE] => with_runtime(instance()),
        [CALLER, registry, dir] => with_runtime(caller(registry, Path::new(dir))),
        _ if args.contains(&"--bench") => with_runtime(away()),
        // `cargo test --all-targets` runs this too, and has no minute to spare.
        _ => {
            println!("skipped: run it with `cargo bench -p e2e --bench away`");
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn with_runtime(future: impl Future<Output = Result<bool, Failed>>) -> Result<bool, Failed> {
    Runtime::new()?.block_on(future)
}

/// The whole course. Whether the goal was met.
async fn away() -> Result<bool, Failed> {
    let registry = RegistryProcess::start().await;
    let address = format!("http://{}", registry.address());
    let (client, dir) = (Registry::connect([&address])?, tempfile::tempdir()?);
    let (mut instances, mut registrars) = (Vec::new(), Vec::new());
    for _ in 0..INSTANCES {
        let mut instance = Role::start(&[INSTANCE])?;
        let registrar = client.register(Registration::new(SERVICE, instance.line()?));
        registrar.registered(Duration::from_secs(10)).await?;
        instances.push(instance);
        registrars.push(registrar);
    }
    let folder = dir.path().display().to_string();
    let mut first = Role::start(&[CALLER, &address, &folder])?;
    tokio::time::sleep(AROUND).await;
    registry.signal(Signal::STOP);
    tokio::time::sleep(HALF).await;
    let before = first.result()?;
    let mut second = Role::start(&[CALLER, &address, &folder])?;
    tokio::time::sleep(HALF).await;
    registry.signal(Signal::CONT);
    tokio::time::sleep(AROUND).await;
    let after = second.result()?;
    println!(
        "the registry is away for {} s (SIGSTOP); {RATE} calls/s to {INSTANCES} instances",
        2 * HALF.as_secs()
    );
    println!("  {:<34}{:>8}{:>8}{:>18}", "", "calls", "failed", "first answer, ms");
    for (name, result) in [
        ("known before it went", &before),
        ("restarted while it was away", &after),
    ] {
        println!(
            "  {name:<34}{:>8}{:>8}{:>18.0}",
            result.calls, result.failed, result.first_ms
        );
    }
    let met = before.failed + after.failed == 0 && before.calls > 0 && after.calls > 0;
    println!(
        "\ngoals\n  away          failed calls: {:<40}goal <= 0       {}",
        before.failed + after.failed,
        if met { "met" } else { "MISSED" }
    );
    drop((registrars, instances));
    Ok(met)
}

/// A process of this binary in one of its other roles; killed with this value.
struct Role {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

/// What a caller has seen.
struct Calls {
    calls: u64,
    failed: u64,
    /// From the start of its channel to the first answer.
    first_ms: f64,
}

impl Role {
    fn start(args: &[&str]) -> Result<Self, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, out })
    }

    fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Ends a caller, and reads what it has seen.
    fn result(&mut self) -> Result<Calls, Failed> {
        drop(self.child.stdin.take());
        let line = self.line()?;
        let fields: Vec<&str> = line.split(' ').collect();
        let [calls, failed, first_ms] = fields[..] else {
            return Err(format!("a caller says {line:?}").into());
        };
        self.child.wait()?;
        Ok(Calls {
            calls: calls.parse()?,
            failed: failed.parse()?,
            first_ms: first_ms.parse()?,
        })
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It has ended, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resolves when whoever started this process says so, or ends.
fn end() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    end
}

fn say(line: &str) -> Result<(), Failed> {
    println!("{line}");
    Ok(std::io::stdout().flush()?)
}

/// Answers health checks.
async fn instance() -> Result<bool, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&listener.local_addr()?.to_string())?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let end = end();
    Server::builder()
        .add_service(health)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async { drop(end.await) })
        .await?;
    Ok(true)
}

/// Calls at random moments until it is told to end; then says how that went.
async fn caller(registry: &str, dir: &Path) -> Result<bool, Failed> {
    let begun = Instant::now();
    let discovery = Registry::connect([registry])?.discover(SERVICE);
    let channel = lb::Channel::builder(discovery).cache_dir(dir).build();
    let client = HealthClient::new(channel.clone());
    let (mut calls, mut under_way) = (0_u64, JoinSet::new());
    let (mut failed, mut first) = (0_u64, None);
    let mut end = std::pin::pin!(end());
    let mut next = begun;
    loop {
        tokio::select! {
            biased;
            _ = &mut end => break,
            () = tokio::time::sleep_until(next) => {
                let mut client = client.clone();
                under_way.spawn(async move { client.check(HealthCheckRequest::default()).await.map(drop) });
                calls += 1;
                let uniform: f64 = rand::rng().random_range(f64::EPSILON..1.0);
                next += Duration::from_secs_f64(-uniform.ln() / RATE);
            }
            Some(ended) = under_way.join_next() => note(ended, begun, &mut failed, &mut first),
        }
    }
    while let Some(ended) = under_way.join_next().await {
        note(ended, begun, &mut failed, &mut first);
    }
    channel.close().await;
    let first_ms = first.map_or(f64::NAN, |first: Duration| first.as_secs_f64() * 1e3);
    say(&format!("{calls} {failed} {first_ms}"))?;
    Ok(true)
}

fn note(
    ended: Result<Result<(), tonic::Status>, tokio::task::JoinError>,
    begun: Instant,
    failed: &mut u64,
    first: &mut Option<Duration>,
) {
    match ended {
        Ok(Ok(())) => {
            first.get_or_insert_with(|| begun.elapsed());
        }
        Ok(Err(status)) => {
            eprintln!("failed after {:?}: {status}", begun.elapsed());
            *failed += 1;
        }
        Err(_) => *failed += 1,
    }
}
