//! The rounds, and what is told of them.

use crate::{
    Arm, Failed,
    collector::{self, Counted},
    process::Handle,
};

const ROUNDS: usize = 21;
/// Calls of an arm in a round: about a second.
const CALLS: usize = 10_000;

/// Of one arm in one round: microseconds.
#[derive(Clone, Copy)]
struct Figures {
    client: f64,
    server: f64,
    p99: f64,
}

struct Pair {
    arm: Arm,
    server: Handle,
    client: Handle,
    rounds: Vec<Figures>,
}

impl Pair {
    fn start(arm: Arm, endpoint: &str) -> Result<Self, Failed> {
        let (server, address) = Handle::server(arm, endpoint)?;
        let client = Handle::client(arm, endpoint, &address)?;
        Ok(Self {
            arm,
            server,
            client,
            rounds: Vec::new(),
        })
    }

    fn round(&mut self) -> Result<Figures, Failed> {
        let before = (self.client.processor_time()?, self.server.processor_time()?);
        let p99 = self.client.round(CALLS)?;
        let of_a_call = |nanos: f64| nanos / 1e3 / CALLS as f64;
        Ok(Figures {
            client: of_a_call(self.client.processor_time()? - before.0),
            server: of_a_call(self.server.processor_time()? - before.1),
            p99,
        })
    }

    fn median(&self, of: impl Fn(usize) -> f64) -> f64 {
        let mut all: Vec<f64> = (0..self.rounds.len()).map(of).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Measures all arms and tells.
pub(crate) fn run() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let counted = Counted::default();
    let endpoint = runtime.block_on(collector::start(counted.clone()))?;
    let mut pairs = Vec::new();
    for arm in Arm::ALL {
        pairs.push(Pair::start(arm, &endpoint)?);
    }
    for pair in &mut pairs {
        // Connections, caches and clocks; not counted.
        pair.round()?;
    }
    for round in 0..ROUNDS {
        let count = pairs.len();
        for turn in 0..count {
            let pair = &mut pairs[(turn + round) % count];
            let figures = pair.round()?;
            pair.rounds.push(figures);
        }
    }
    tell(&pairs, counted.spans());
    Ok(())
}

fn tell(pairs: &[Pair], spans: u64) {
    let Some((first, _)) = pairs.split_first() else { return };
    println!("\n{ROUNDS} rounds of {CALLS} calls, 8 at once; processor time in microseconds a call, medians");
    println!(
        "{:<14}{:>9}{:>9}{:>9}{:>10}{:>11}{:>8}",
        "arm", "client", "server", "p99", "CPU", "p99", "goal"
    );
    for pair in pairs {
        let of = |round: usize| pair.rounds[round];
        let base = |round: usize| first.rounds[round];
        let more = |ratio: f64| (ratio - 1.0) * 100.0;
        let cpu = pair.median(|n| (of(n).client + of(n).server) / (base(n).client + base(n).server));
        let p99 = pair.median(|n| of(n).p99 / base(n).p99);
        let verdict = match pair.arm.goal() {
            None => String::new(),
            Some(goal) if more(cpu) <= goal => format!("≤ {goal} %"),
            Some(goal) => format!("≤ {goal} % MISSED"),
        };
        println!(
            "{:<14}{:>9.2}{:>9.2}{:>9.0}{:>+8.1} %{:>+9.1} %  {verdict}",
            pair.arm.name(),
            pair.median(|n| of(n).client),
            pair.median(|n| of(n).server),
            pair.median(|n| of(n).p99),
            more(cpu),
            more(p99),
        );
    }
    println!("{spans} spans have come to the receiver");
}
