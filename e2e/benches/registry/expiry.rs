//! 10,000 leases fall silent together: how long after their time to live the last watch has been told.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::{
    Failed,
    arena::Arena,
    closed_loop::{Bounds, Crew, Work},
    etcd,
    http2::Connection,
    renewals::Beats,
    report::{Figure, Goal, Report, Series},
    server::{Kind, Server},
    stats::number,
    tessera::{self, Counter, Terms},
    watchers::{Plan, Watchers},
};

const DOOMED: u64 = 10_000;
const LIVING: u64 = 90_000;
const SERVICES: u64 = 100;
const ROUNDS: u64 = 3;
/// Long enough to register all of them before the first lapses, on all opponents.
const TTL: Duration = Duration::from_secs(6);
const TERMS: Terms = Terms {
    interval_millis: 2_000,
    misses: 3,
};

/// 10,000 of our 100,000 leases, spread over 100 services with a watch each; etcd has those 10,000 alone.
pub(crate) async fn figures(report: &mut Report) -> Result<(), Failed> {
    let mut late = Series::default();
    for _ in 0..ROUNDS {
        // A registry of its own: two tenths within one window are above the threshold of self-preservation, which would slow
        // the second.
        let arena = Arena::start(&[Kind::Tessera]).await?;
        let server = arena.tessera()?;
        // In the same services: what lapses is a tenth of each.
        let living = tessera::Register::new(1, spread, Terms::LONG, Counter::default());
        drop(work(server, LIVING, living).await?);
        let watchers = watch(server, Kind::Tessera).await?;
        let counter = Counter::default();
        counter.set(2 * LIVING);
        let doomed = tessera::Register::new(1, spread, TERMS, counter).keeping();
        let leases: Vec<_> = work(server, DOOMED, doomed)
            .await?
            .flat_map(|work| work.leases)
            .collect();
        let beats = Beats::open(server, Kind::Tessera, tessera::heartbeats(&leases, 1_000)).await?;
        late.push(Kind::Tessera, lapse(&watchers, leases.len(), vec![beats]).await?);
    }
    let arena = Arena::start(&[Kind::Etcd]).await?;
    if let Some(server) = arena.get(Kind::Etcd) {
        let watchers = watch(server, Kind::Etcd).await?;
        let ttl = i64::try_from(TTL.as_secs())?;
        let doomed = etcd::Register::new(1, spread, ttl, Counter::default()).keeping();
        let leases: Vec<_> = work(server, DOOMED, doomed)
            .await?
            .flat_map(|work| work.leases)
            .collect();
        let mut beats = Vec::new();
        for part in leases.chunks(leases.len().div_ceil(16)) {
            beats.push(Beats::open(server, Kind::Etcd, etcd::heartbeats(part)).await?);
        }
        late.push(Kind::Etcd, lapse(&watchers, leases.len(), beats).await?);
    }
    report.add(
        Figure::new("10,000 leases lapse, last watcher told after", "s", late)
            .goal(Goal::AtMost(0.5))
            .note(
                "after their time to live; 10,000 of 100,000, 100 watchers of 100 services; etcd: those 10,000 alone",
            ),
    );
    Ok(())
}

fn spread(number: u64) -> u64 {
    number % SERVICES
}

async fn work<W: Work + Clone>(server: &Server, count: u64, work: W) -> Result<impl Iterator<Item = W>, Failed> {
    let mut crew = Crew::connect(server.address, 16, 16, |_| work.clone()).await?;
    let bounds = Bounds {
        time: Duration::from_secs(120),
        units: count,
    };
    crew.round(bounds).await?;
    Ok(crew.into_works())
}

async fn watch(server: &Server, kind: Kind) -> Result<Watchers, Failed> {
    let plan = Plan {
        connections: 10,
        each: usize::try_from(SERVICES / 10)?,
        service: 0,
        spread: true,
        stalled_after: None,
    };
    Watchers::open(server, kind, plan).await
}

/// Renews all of them at once, for the last time. A lease that is due before its last renewal was answered is not late; the
/// streams stay open, for their end would say that the owners are gone.
async fn lapse(watchers: &Watchers, leases: usize, mut members: Vec<(Connection, Beats)>) -> Result<f64, Failed> {
    watchers.tally.reset();
    let beats = members.iter_mut().map(|(connection, beats)| beats.once(connection));
    let renewed: u64 = try_join_all(beats).await?.into_iter().sum();
    let due = Instant::now() + TTL;
    if renewed != leases as u64 {
        return Err(format!("{renewed} of {leases} leases were alive").into());
    }
    watchers
        .tally
        .until("removals", |tally| tally.removed() >= leases)
        .await?;
    let last = watchers.tally.last().ok_or("nothing was told")?;
    // Told before: some were due before the last.
    Ok(number(u64::try_from(last.saturating_duration_since(due).as_millis())?) / 1e3)
}
