//! Heartbeats: how many a second, and what those of 100,000 instances cost.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use crate::{
    Failed,
    arena::Arena,
    closed_loop::{Bounds, Crew},
    etcd,
    http2::{Connection, Out, Peer},
    report::{Figure, Goal, Report, Series},
    server::{Kind, Server},
    stats::number,
    tessera::{self, Counter, Lease, Terms},
    throughput::hundreds,
};

const BOTH: [Kind; 2] = [Kind::Tessera, Kind::Etcd];
const ROUNDS: usize = 5;
const MEASURED: Duration = Duration::from_millis(1_200);
const CONNECTIONS: usize = 16;
const LEASES: u64 = 16_000;
/// Leases of one message where one carries many.
const MANY: usize = 100;
/// Messages that a stream has under way: it never waits for an answer.
const UNDER_WAY: usize = 64;
const UNDER_WAY_MANY: usize = 2;

/// Registers so many instances, each under a lease of its own.
async fn register(server: &Server, count: u64) -> Result<Vec<Lease>, Failed> {
    let work = tessera::Register::new(1, hundreds, Terms::LONG, Counter::default()).keeping();
    let mut crew = Crew::connect(server.address, CONNECTIONS, 16, |_| work.clone()).await?;
    crew.round(Bounds {
        time: Duration::from_secs(120),
        units: count,
    })
    .await?;
    Ok(crew.into_works().flat_map(|work| work.leases).collect())
}

/// Grants so many leases, without keys: what a renewal costs does not depend on them.
async fn grant(server: &Server, count: u64) -> Result<Vec<i64>, Failed> {
    let mut crew = Crew::connect(server.address, CONNECTIONS, 16, |_| etcd::Grant::new(etcd::TTL_LONG)).await?;
    crew.round(Bounds {
        time: Duration::from_secs(120),
        units: count,
    })
    .await?;
    Ok(crew.into_works().flat_map(|work| work.leases).collect())
}

/// A stream of heartbeats.
pub(crate) struct Beats {
    stream: u32,
    messages: Vec<Vec<u8>>,
    next: usize,
    open: usize,
    until: Instant,
    renewed: u64,
    count: fn(&[u8]) -> Result<u64, Failed>,
}

impl Beats {
    /// On a connection of its own, for a kind of server.
    pub(crate) async fn open(
        server: &Server,
        kind: Kind,
        messages: Vec<Vec<u8>>,
    ) -> Result<(Connection, Self), Failed> {
        let mut connection = Connection::open(server.address).await?;
        let (path, count): (_, fn(&[u8]) -> _) = match kind {
            Kind::Tessera => (tessera::KEEP_ALIVE, tessera::renewed),
            _ => (etcd::LEASE_KEEP_ALIVE, etcd::renewed),
        };
        let beats = Self {
            stream: connection.out.open(path),
            messages,
            next: 0,
            open: 0,
            until: Instant::now(),
            renewed: 0,
            count,
        };
        Ok((connection, beats))
    }

    fn beat(&mut self, out: &mut Out) {
        out.send(self.stream, &self.messages[self.next % self.messages.len()]);
        self.next += 1;
        self.open += 1;
    }

    /// As fast as they are answered, until this time.
    async fn flood(&mut self, connection: &mut Connection, under_way: usize, until: Instant) -> Result<u64, Failed> {
        (self.until, self.renewed) = (until, 0);
        for _ in 0..under_way {
            self.beat(&mut connection.out);
        }
        while self.open > 0 {
            connection.turn(self).await?;
        }
        Ok(self.renewed)
    }

    /// Each message once: how many leases were alive.
    pub(crate) async fn once(&mut self, connection: &mut Connection) -> Result<u64, Failed> {
        (self.until, self.renewed) = (Instant::now(), 0);
        for _ in 0..self.messages.len() {
            self.beat(&mut connection.out);
        }
        while self.open > 0 {
            connection.turn(self).await?;
        }
        Ok(self.renewed)
    }

    /// Each message once in `period`, evenly, until this time.
    async fn paced(&mut self, connection: &mut Connection, begin: Instant, until: Instant) -> Result<u64, Failed> {
        (self.until, self.renewed) = (begin, 0);
        let gap = PERIOD / u32::try_from(self.messages.len())?;
        let mut due = begin;
        while due < until {
            connection.flush().await?;
            let mut sleep = pin!(tokio::time::sleep_until(due.into()));
            tokio::select! {
                () = &mut sleep => {
                    self.beat(&mut connection.out);
                    due += gap;
                }
                read = connection.read(self) => read?,
            }
        }
        while self.open > 0 {
            connection.turn(self).await?;
        }
        Ok(self.renewed)
    }
}

impl Peer for Beats {
    fn message(&mut self, out: &mut Out, _: u32, message: &[u8]) -> Result<(), Failed> {
        let renewed = (self.count)(message)?;
        if renewed == 0 {
            return Err("a heartbeat of a lease that is gone".into());
        }
        self.renewed += renewed;
        self.open -= 1;
        if out.read_at < self.until {
            self.beat(out);
        }
        Ok(())
    }

    fn ended(&mut self, _: &mut Out, _: u32) -> Result<(), Failed> {
        Err("a stream of heartbeats was ended".into())
    }
}

async fn beats(
    server: &Server,
    kind: Kind,
    connections: usize,
    messages: Vec<Vec<u8>>,
) -> Result<Vec<(Connection, Beats)>, Failed> {
    let mut all = Vec::new();
    for part in messages.chunks(messages.len().div_ceil(connections)) {
        all.push(Beats::open(server, kind, part.to_vec()).await?);
    }
    Ok(all)
}

/// Renewals a second over streams.
pub(crate) async fn throughput(report: &mut Report) -> Result<(), Failed> {
    let arena = Arena::start(&BOTH).await?;
    let server = arena.tessera()?;
    let leases = register(server, LEASES).await?;
    let mut many = beats(server, Kind::Tessera, CONNECTIONS, tessera::heartbeats(&leases, MANY)).await?;
    let mut ones = beats(server, Kind::Tessera, CONNECTIONS, tessera::heartbeats(&leases, 1)).await?;
    let mut etcds = match arena.get(Kind::Etcd) {
        Some(server) => {
            let leases = grant(server, LEASES).await?;
            beats(server, Kind::Etcd, CONNECTIONS, etcd::heartbeats(&leases)).await?
        }
        None => Vec::new(),
    };
    let (mut streamed, mut single) = (Flooded::default(), Flooded::default());
    for round in 0..=ROUNDS {
        for kind in arena.order(round) {
            let server = arena.get(kind).ok_or("takes part")?;
            let (many, one) = if kind == Kind::Etcd {
                let both = flood(server, &mut etcds, UNDER_WAY).await?;
                (both, both)
            } else {
                let many = flood(server, &mut many, UNDER_WAY_MANY).await?;
                (many, flood(server, &mut ones, UNDER_WAY).await?)
            };
            if round > 0 {
                streamed.push(kind, many);
                single.push(kind, one);
            }
        }
    }
    streamed.report(report, "renewals, 100 leases a message", |rates| {
        rates.goal(Goal::AtLeast(200_000.0)).note(
            "KeepAlive | LeaseKeepAlive, which carries one lease a message; 16 streams that never wait for an answer",
        )
    });
    single.report(report, "renewals, 1 lease a message", |rates| rates);
    Ok(())
}

/// What the rounds of a flood have shown.
#[derive(Default)]
struct Flooded {
    rates: Series,
    /// Of the server, in microseconds a renewal.
    cpu: Series,
}

impl Flooded {
    fn push(&mut self, kind: Kind, (rate, cpu): (f64, f64)) {
        self.rates.push(kind, rate);
        self.cpu.push(kind, cpu);
    }

    fn report(self, report: &mut Report, what: &str, rates: impl FnOnce(Figure) -> Figure) {
        report.add(rates(Figure::new(what, "1/s", self.rates)));
        report.add(Figure::new(format!("  CPU: {what}"), "us", self.cpu));
    }
}

/// Renewals a second, and the server's microseconds for each.
async fn flood(server: &Server, members: &mut [(Connection, Beats)], under_way: usize) -> Result<(f64, f64), Failed> {
    let before = server.usage()?.cpu;
    let begun = Instant::now();
    let runs = members
        .iter_mut()
        .map(|(connection, beats)| beats.flood(connection, under_way, begun + MEASURED));
    let renewed: u64 = try_join_all(runs).await?.into_iter().sum();
    let took = begun.elapsed().as_secs_f64();
    let cpu = server.usage()?.cpu.saturating_sub(before);
    Ok((number(renewed) / took, cpu.as_secs_f64() * 1e6 / number(renewed)))
}

const PERIOD: Duration = Duration::from_secs(5);
const MANY_LEASES: u64 = 100_000;
const MANY_CONNECTIONS: usize = 100;
/// Three periods.
const WATCHED: Duration = Duration::from_secs(15);

/// CPU of the server while 100,000 leases are renewed every 5 s.
pub(crate) async fn cpu(report: &mut Report) -> Result<(), Failed> {
    let arena = Arena::start(&BOTH).await?;
    let server = arena.tessera()?;
    let leases = register(server, MANY_LEASES).await?;
    let many = share(server, Kind::Tessera, tessera::heartbeats(&leases, MANY)).await?;
    let one = share(server, Kind::Tessera, tessera::heartbeats(&leases, 1)).await?;
    let etcds = match arena.get(Kind::Etcd) {
        Some(server) => {
            let leases = grant(server, MANY_LEASES).await?;
            Some(share(server, Kind::Etcd, etcd::heartbeats(&leases)).await?)
        }
        None => None,
    };
    report.add(
        Figure::single("CPU, 100,000 leases each 5 s, 100 a message", "% core", many, etcds)
            .goal(Goal::AtMost(10.0))
            .note("utime + stime of the server over 15 s; 100 connections, evenly paced; etcd: one lease a message, and for what it does not manage in time what it would need"),
    );
    report.add(Figure::single(
        "CPU, 100,000 leases each 5 s, 1 a message",
        "% core",
        one,
        etcds,
    ));
    Ok(())
}

async fn share(server: &Server, kind: Kind, messages: Vec<Vec<u8>>) -> Result<f64, Failed> {
    let mut members = beats(server, kind, MANY_CONNECTIONS, messages).await?;
    let begin = Instant::now();
    let until = begin + WATCHED;
    let before = server.usage()?.cpu;
    let runs = members.iter_mut().enumerate().map(|(index, (connection, beats))| {
        // Spread over the first gap, so that connections do not speak in unison.
        let gap = PERIOD / u32::try_from(beats.messages.len()).unwrap_or(1);
        let offset = gap.mul_f64(number(index as u64) / number(MANY_CONNECTIONS as u64));
        beats.paced(connection, begin + offset, until)
    });
    let renewed: u64 = try_join_all(runs).await?.into_iter().sum();
    let used = server.usage()?.cpu.saturating_sub(before);
    let took = begin.elapsed();
    // Of a server that does not keep the pace: what those renewals cost that it has answered.
    let pace = number(renewed) / (number(MANY_LEASES) * 3.0) * WATCHED.as_secs_f64() / took.as_secs_f64();
    if kind == Kind::Tessera && pace < 0.95 {
        return Err(format!("{renewed} renewals in {took:?} is not the pace that is asked for").into());
    }
    Ok(used.as_secs_f64() / took.as_secs_f64() / pace * 100.0)
}
