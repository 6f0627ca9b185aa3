//! `lb` beside tonic's own channels, over real sockets: throughput, client CPU per call, latency. `cargo bench -p lb`.
//!
//! The servers run in a child process (this binary again), so that the CPU measured is the client's alone. Arms alternate
//! within a round and ratios are taken within a round, since a busy machine drifts; medians of the rounds are shown.
//! `cargo bench -p lb -- --profile 10` runs nothing but `lb` over 10 backends, for a profiler to look at.
//! Closed loop with a fixed number of calls in flight: this compares costs, it does not predict latencies under a given load.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{
    Request, Response, Status,
    body::Body,
    client::GrpcService,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

const ROUNDS: usize = 7;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_millis(1800);
/// In the child's command line: serve on so many ports.
const SERVE: &str = "--serve";
/// Runs one arm for a while: over so many backends.
const PROFILE: &str = "--profile";

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let count_after = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1)?.parse().ok()
    };
    let outcome = match (count_after(SERVE), count_after(PROFILE)) {
        (Some(count), _) => serve(count),
        (None, Some(count)) => profile(count),
        (None, None) if args.iter().any(|arg| arg == "--bench") => compare(),
        // `cargo test --all-targets` runs this too, unoptimised: figures of that would mislead.
        (None, None) => {
            println!("skipped: run it with `cargo bench -p lb`");
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

// ---------------------------------------------------------------------------------------------------------- servers

struct Echo;

#[tonic::async_trait]
impl Health for Echo {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

fn serve(count: usize) -> Result<(), Failed> {
    let runtime = Runtime::new()?;
    let addresses = runtime.block_on(async {
        let mut addresses = Vec::new();
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?.to_string());
            // tonic's own `tcp_nodelay` does nothing for a listener that it did not bind; with Nagle's algorithm in the servers this
            // measured the 40 ms of a delayed ACK: a client that waits for all of its answers sends nothing to carry one.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = Server::builder().add_service(HealthServer::new(Echo));
            tokio::spawn(server.serve_with_incoming(incoming));
        }
        Ok::<_, std::io::Error>(addresses)
    })?;
    println!("{}", addresses.join(" "));
    std::io::stdout().flush()?;
    // The parent's end of the pipe closes when it ends, however it ends.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    runtime.shutdown_background();
    Ok(())
}

/// The servers' process; ends with this value.
struct Servers {
    child: Child,
    addresses: Vec<String>,
}

impl Servers {
    fn start(count: usize) -> Result<Self, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([SERVE, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        let addresses = line.split_whitespace().map(str::to_owned).collect();
        Ok(Self { child, addresses })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the servers' process: {error}");
        }
    }
}

// --------------------------------------------------------------------------------------------------------- measuring

/// One measurement of one arm.
#[derive(Clone, Copy)]
struct Sample {
    calls_per_second: f64,
    cpu_micros: f64,
    p50_micros: f64,
    p99_micros: f64,
}

/// CPU time that this process has used. In clock ticks of 10 ms, which over seconds is precise enough.
fn cpu_time() -> Result<Duration, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the command in parentheses and may contain spaces; utime and stime are the 14th and 15th.
    let after_command = stat.rsplit_once(')').ok_or("unreadable /proc/self/stat")?.1;
    let ticks: u64 = after_command
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap_or(0))
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

async fn load<C>(client: HealthClient<C>, in_flight: usize, duration: Duration) -> Result<Sample, Failed>
where
    C: GrpcService<Body> + Clone + Send + 'static,
    C::Future: Send,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<Failed> + Send,
{
    let stop = Arc::new(AtomicBool::new(false));
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (mut client, stop) = (client.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(4096);
                while !stop.load(Ordering::Relaxed) {
                    let request = HealthCheckRequest {
                        service: "tessera.ticket.v1.TicketService/some-sixty-bytes-of-text".to_owned(),
                    };
                    let begun = Instant::now();
                    client.check(request).await?;
                    latencies.push(begun.elapsed().as_secs_f64() * 1e6);
                }
                Ok::<_, Status>(latencies)
            })
        })
        .collect();
    tokio::time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies: Vec<f64> = Vec::new();
    for caller in callers {
        latencies.extend(caller.await??);
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time()? - cpu);
    latencies.sort_by(f64::total_cmp);
    let calls = latencies.len() as f64;
    let quantile = |q: f64| latencies.get((calls * q) as usize).copied().unwrap_or(f64::NAN);
    Ok(Sample {
        calls_per_second: calls / elapsed.as_secs_f64(),
        cpu_micros: cpu.as_secs_f64() * 1e6 / calls,
        p50_micros: quantile(0.5),
        p99_micros: quantile(0.99),
    })
}

async fn measure<C>(client: HealthClient<C>, in_flight: usize) -> Result<Sample, Failed>
where
    C: GrpcService<Body> + Clone + Send + 'static,
    C::Future: Send,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<Failed> + Send,
{
    load(client.clone(), in_flight, WARM_UP).await?;
    load(client, in_flight, MEASURED).await
}

async fn tonic_arm(addresses: &[String], in_flight: usize) -> Result<Sample, Failed> {
    let endpoint = |address: &String| Endpoint::from_shared(format!("http://{address}"));
    let channel = match addresses {
        [one] => endpoint(one)?.connect().await?,
        many => Channel::balance_list(many.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?.into_iter()),
    };
    measure(HealthClient::new(channel), in_flight).await
}

async fn lb_arm(addresses: &[String], in_flight: usize) -> Result<Sample, Failed> {
    let channel = lb::Channel::builder(lb::Target::fixed(addresses)?).build();
    channel.ready(Duration::from_secs(5)).await?;
    measure(HealthClient::new(channel), in_flight).await
}

// -------------------------------------------------------------------------------------------------------- comparing

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn profile(count: usize) -> Result<(), Failed> {
    let servers = Servers::start(count)?;
    for _ in 0..4 {
        let sample = Runtime::new()?.block_on(lb_arm(&servers.addresses, 256))?;
        println!(
            "{:.0} calls/s, {:.2} us of CPU per call",
            sample.calls_per_second, sample.cpu_micros
        );
    }
    Ok(())
}

/// One comparison, and what it should come to (this project's goals, not limits of nature).
struct Case {
    backends: usize,
    in_flight: usize,
    theirs: &'static str,
    least_throughput: f64,
    most_cpu: f64,
}

const CASES: [Case; 3] = [
    Case {
        backends: 1,
        in_flight: 256,
        theirs: "tonic Channel",
        least_throughput: 0.97,
        most_cpu: f64::INFINITY,
    },
    Case {
        backends: 10,
        in_flight: 256,
        theirs: "tonic Channel::balance_list",
        least_throughput: 1.2,
        most_cpu: 0.85,
    },
    // Nothing to gain from one call at a time; shown because batching must not be paid for here.
    Case {
        backends: 1,
        in_flight: 1,
        theirs: "tonic Channel",
        least_throughput: 0.0,
        most_cpu: f64::INFINITY,
    },
];

fn compare() -> Result<(), Failed> {
    let runtime = Runtime::new()?;
    println!("medians of {ROUNDS} rounds of {MEASURED:?} each, after {WARM_UP:?} of warm-up\n");
    println!("backends  in flight  client                     calls/s   CPU us/call    p50 us    p99 us");
    let mut verdicts = Vec::new();
    for case in &CASES {
        let servers = Servers::start(case.backends)?;
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let tonic = || runtime.block_on(tonic_arm(&servers.addresses, case.in_flight));
            let lb = || runtime.block_on(lb_arm(&servers.addresses, case.in_flight));
            // Who goes first alternates: the second of a pair finds warmer caches, or a hotter machine.
            if round % 2 == 0 {
                theirs.push(tonic()?);
                ours.push(lb()?);
            } else {
                ours.push(lb()?);
                theirs.push(tonic()?);
            }
        }
        for (name, samples) in [(case.theirs, &theirs), ("lb::Channel", &ours)] {
            let of = |field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
            println!(
                "{:>8}{:>11}  {name:<27}{:>7.0}{:>14.2}{:>10.0}{:>10.0}",
                case.backends,
                case.in_flight,
                of(|s| s.calls_per_second),
                of(|s| s.cpu_micros),
                of(|s| s.p50_micros),
                of(|s| s.p99_micros)
            );
        }
        let ratios = |field: fn(&Sample) -> f64| -> Vec<f64> {
            ours.iter()
                .zip(&theirs)
                .map(|(ours, theirs)| field(ours) / field(theirs))
                .collect()
        };
        let (throughput, cpu) = (ratios(|s| s.calls_per_second), ratios(|s| s.cpu_micros));
        println!("{:>21}per round, throughput {throughput:.2?}", "");
        println!("{:>21}per round, CPU        {cpu:.2?}\n", "");
        verdicts.push((case, median(throughput), median(cpu)));
    }
    println!("backends  in flight  throughput, lb / tonic       client CPU per call, lb / tonic");
    let word = |met: bool| if met { "met" } else { "MISSED" };
    for (case, throughput, cpu) in verdicts {
        let throughput = if case.least_throughput > 0.0 {
            let least = case.least_throughput;
            format!("{throughput:.2} (goal >= {least}: {})", word(throughput >= least))
        } else {
            format!("{throughput:.2}")
        };
        let cpu = if case.most_cpu.is_finite() {
            format!("{cpu:.2} (goal <= {}: {})", case.most_cpu, word(cpu <= case.most_cpu))
        } else {
            format!("{cpu:.2}")
        };
        println!("{:>8}{:>11}  {throughput:<29}{cpu}", case.backends, case.in_flight);
    }
    Ok(())
}
