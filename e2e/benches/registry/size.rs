//! Memory and restarts: an idle registry, idle watch streams, a million instances.

use std::time::{Duration, Instant};

use prost::Message as _;

use crate::{
    Failed,
    arena::Arena,
    closed_loop::{Bounds, Crew, Work},
    etcd,
    http2::Connection,
    report::{Figure, Goal, Report},
    server::{Kind, Server},
    stats::number,
    tessera::{self, Counter, Terms},
    throughput::hundreds,
    watchers::{Changer, Plan, Watchers},
};

const MEGABYTE: f64 = 1e6;
/// What was allocated for the last call has been given back by then.
const SETTLED: Duration = Duration::from_secs(2);
const BOTH: [Kind; 2] = [Kind::Tessera, Kind::Etcd];

/// Resident bytes of an idle registry, and of idle watch streams.
pub(crate) async fn idle(report: &mut Report) -> Result<(), Failed> {
    let arena = Arena::start(&BOTH).await?;
    let (mut empty, mut stream, mut connection) = (Vec::new(), Vec::new(), Vec::new());
    for kind in arena.order(0) {
        let Some(server) = arena.get(kind) else { continue };
        tokio::time::sleep(SETTLED).await;
        empty.push(resident(server)? / MEGABYTE);

        let _changer = Changer::new(server, kind, 1).await?;
        let plan = Plan {
            connections: 100,
            each: 100,
            service: 1,
            spread: false,
            stalled_after: None,
        };
        let before = resident(server)?;
        let mut connections = Vec::new();
        for _ in 0..plan.connections {
            connections.push(Connection::open(server.address).await?);
        }
        tokio::time::sleep(SETTLED).await;
        let connected = resident(server)?;
        let watchers = Watchers::on(connections, kind, plan).await?;
        tokio::time::sleep(SETTLED).await;
        let watched = resident(server)?;
        drop(watchers);
        connection.push((connected - before) / number(plan.connections as u64));
        stream.push((watched - connected) / number((plan.connections * plan.each) as u64));
    }
    let pair = |values: &[f64]| (values.first().copied().unwrap_or(f64::NAN), values.get(1).copied());
    let (ours, etcds) = pair(&empty);
    report.add(Figure::single("resident, idle", "MB", ours, etcds).goal(Goal::AtMost(20.0)));
    let (ours, etcds) = pair(&stream);
    report.add(
        Figure::single("resident, per idle watch stream", "B", ours, etcds)
            .goal(Goal::AtMost(6_000.0))
            .note("10,000 streams on 100 connections, one service with one instance of 256 B"),
    );
    let (ours, etcds) = pair(&connection);
    report.add(Figure::single(
        "resident, per connection without streams",
        "B",
        ours,
        etcds,
    ));
    Ok(())
}

const MILLION: u64 = 1_000_000;
const BATCH: u64 = 64;

/// A million instances of 256 bytes: resident size, and kill -9 to the first answer.
pub(crate) async fn million(report: &mut Report) -> Result<(), Failed> {
    let arena = Arena::start(&BOTH).await?;
    let (mut rates, mut held, mut restarts, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (kind, server) in arena.into_servers() {
        let begun = Instant::now();
        match kind {
            Kind::Tessera => {
                let work = tessera::Register::new(BATCH, hundreds, Terms::LONG, Counter::default());
                fill(&server, work).await?;
            }
            _ => {
                let work = etcd::Register::new(BATCH, hundreds, etcd::TTL_LONG, Counter::default());
                fill(&server, work).await?;
            }
        }
        rates.push(number(MILLION) / begun.elapsed().as_secs_f64());
        tokio::time::sleep(SETTLED).await;
        held.push(resident(&server)? / MEGABYTE);
        let (server, ready) = server.restart().await?;
        let begun = Instant::now();
        let mut connection = Connection::open(server.address).await?;
        let answer = match kind {
            Kind::Tessera => {
                let request = tessera::list(4_321).encode_to_vec();
                connection.call(tessera::LIST_INSTANCES, &request).await?
            }
            _ => connection.call(etcd::RANGE, &etcd::probe(4_321)).await?,
        };
        tessera::enough(answer.len(), 100 * crate::payload::RECORD)?;
        restarts.push((ready + begun.elapsed()).as_secs_f64());
        tokio::time::sleep(SETTLED).await;
        again.push(resident(&server)? / MEGABYTE);
    }
    let figure = |name: &str, unit, values: &[f64]| {
        let ours = values.first().copied().unwrap_or(f64::NAN);
        Figure::single(name, unit, ours, values.get(1).copied())
    };
    report.add(
        figure("resident, 1,000,000 instances", "MB", &held)
            .goal(Goal::AtMost(400.0))
            .note("256 B each, 64 a lease, 10,000 services; as it is after they were registered"),
    );
    report.add(figure("  after a restart", "MB", &again));
    report.add(figure("restart to the first answer, 1,000,000", "s", &restarts).goal(Goal::AtMost(3.0)));
    report.add(figure("  how fast they were registered", "1/s", &rates));
    Ok(())
}

async fn fill<W: Work + Clone>(server: &Server, work: W) -> Result<(), Failed> {
    let mut crew = Crew::connect(server.address, 5, 5, |_| work.clone()).await?;
    let bounds = Bounds {
        time: Duration::from_secs(180),
        units: MILLION,
    };
    crew.round(bounds).await.map(drop)
}

fn resident(server: &Server) -> Result<f64, Failed> {
    Ok(number(server.usage()?.resident))
}
