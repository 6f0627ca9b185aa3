//! The two processes of a pair: what they do, and the handle by which the bench holds one.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use service_host::{Config, Host};
use tonic::service::Routes;

use crate::{Arm, CALL, Failed, SERVE, echo};

/// Calls under way at a time.
const AT_ONCE: usize = 8;
/// Bytes of a message: an order, a seat.
const MESSAGE: usize = 64;

/// What a process holds for as long as it lives.
struct Installed {
    _telemetry: telemetry::Guard,
}

/// Installs what the arm has. Must be called within the runtime.
fn install(arm: Arm, role: &str) -> Result<Installed, Failed> {
    // In every arm: without a subscriber the `tracing` calls of h2 cost more than with one that wants none of them, and telemetry
    // would come out cheaper than nothing.
    let telemetry = telemetry::init(telemetry::Config {
        service_name: format!("bench-{role}"),
        service_version: String::new(),
        instance_id: None,
        log_format: telemetry::LogFormat::Json,
        default_filter: "error".to_owned(),
    })?;
    if arm == Arm::Statistics {
        let taker = telemetry::stats::install(&format!("bench-{role}")).ok_or("statistics are taken")?;
        // It ends with the process.
        drop(tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_secs(1));
            loop {
                every.tick().await;
                std::hint::black_box(taker.take());
            }
        }));
    }
    Ok(Installed { _telemetry: telemetry })
}

fn arm(args: &[String]) -> Result<Arm, Failed> {
    Ok(args.first().and_then(|name| Arm::of(name)).ok_or("no arm is named")?)
}

/// Serves until stdin ends.
pub(crate) fn serve(args: &[String]) -> Result<(), Failed> {
    let arm = arm(args)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let _installed = install(arm, "server")?;
        let host = Host::bind(Config::new("bench", ([127, 0, 0, 1], 0).into())).await?;
        let address = host.local_addr();
        let running = host.serve(Routes::new(echo::Echo), &[]);
        running.set_all_serving();
        println!("{address}");
        tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count()).await?;
        Ok(())
    })
}

/// Makes as many calls as each line of stdin says, and answers the p99 in microseconds; until stdin ends.
pub(crate) fn call(args: &[String]) -> Result<(), Failed> {
    let arm = arm(args)?;
    let address = args.get(1).ok_or("no address is named")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let _entered = runtime.enter();
    let _installed = install(arm, "client")?;
    let channel = lb::Channel::builder(lb::Target::fixed([address.as_str()])?).build();
    runtime.block_on(channel.ready(Duration::from_secs(10)))?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let calls: usize = line?.trim().parse()?;
        println!("{}", runtime.block_on(round(&channel, calls))?);
    }
    Ok(())
}

async fn round(channel: &lb::Channel, calls: usize) -> Result<u128, Failed> {
    let begun = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (channel, begun) = (channel.clone(), Arc::clone(&begun));
            tokio::spawn(async move {
                let message = Bytes::from_static(&[7; MESSAGE]);
                let mut took = Vec::with_capacity(calls / AT_ONCE * 2);
                while begun.fetch_add(1, Ordering::Relaxed) < calls {
                    let start = Instant::now();
                    echo::say(&channel, message.clone()).await?;
                    took.push(start.elapsed());
                }
                Ok::<_, tonic::Status>(took)
            })
        })
        .collect();
    let mut all = Vec::with_capacity(calls);
    for worker in workers {
        all.extend(worker.await??);
    }
    all.sort_unstable();
    Ok(all.get(all.len() * 99 / 100).copied().unwrap_or_default().as_micros())
}

/// A process of a pair; killed with this value.
pub(crate) struct Handle {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Handle {
    /// Starts a server; its address.
    pub(crate) fn server(arm: Arm, endpoint: &str) -> Result<(Self, String), Failed> {
        let mut server = Self::start(arm, endpoint, &[SERVE, &arm.name()])?;
        let address = server.line()?;
        Ok((server, address))
    }

    /// Starts a client of that address.
    pub(crate) fn client(arm: Arm, endpoint: &str, address: &str) -> Result<Self, Failed> {
        let mut client = Self::start(arm, endpoint, &[CALL, &arm.name(), address])?;
        client.line()?;
        Ok(client)
    }

    fn start(arm: Arm, endpoint: &str, args: &[&str]) -> Result<Self, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
        if let Arm::Sampled(percent) = arm {
            command
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
                .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
                .env("OTEL_TRACES_SAMPLER_ARG", (f64::from(percent) / 100.0).to_string());
        }
        let mut child = command.spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, stdin, stdout })
    }

    /// Has a client make calls; the p99 in microseconds.
    pub(crate) fn round(&mut self, calls: usize) -> Result<f64, Failed> {
        writeln!(self.stdin, "{calls}")?;
        Ok(self.line()?.parse()?)
    }

    fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        match line.trim() {
            "" => Err("a process of the bench has ended".into()),
            line => Ok(line.to_owned()),
        }
    }

    /// Processor time of all its threads so far, in nanoseconds. None of them ends while it is measured.
    pub(crate) fn processor_time(&self) -> Result<f64, Failed> {
        let mut sum = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread of the blocking pool may have ended since it was listed.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let spent = text.split(' ').next().unwrap_or_default();
            sum += spent.parse::<f64>()?;
        }
        Ok(sum)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
