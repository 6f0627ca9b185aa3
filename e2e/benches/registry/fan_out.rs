//! One change, and when each of many watches has been told of it; also beside one that has stopped reading.

use std::time::Duration;

use crate::{
    Failed,
    arena::Arena,
    report::{Figure, Goal, Report, Series},
    server::Kind,
    stats::{millis, number, quantile},
    watchers::{Changer, Plan, Watchers},
};

const CONNECTIONS: usize = 100;
/// Between two changes: a change that meets the tail of the one before measures both.
const PAUSE: Duration = Duration::from_millis(5);
const SERVICE: u64 = 1;
/// Rounds before the first that counts.
const WARM_UP: usize = 10;
/// Changes of one opponent in a row, so that its caches are its own.
const IN_A_ROW: usize = 10;

/// 1,000 watches.
pub(crate) async fn to_1_000(report: &mut Report) -> Result<(), Failed> {
    let everyone = [Kind::Tessera, Kind::Etcd, Kind::ZooKeeper];
    let note = "UpdateInstance | Put | setData, event, getData again; own stream each on 100 connections, ZooKeeper: own session";
    figures(report, "last of 1,000 watchers told", &everyone, 10, 20, note).await
}

/// 5,000 watches.
pub(crate) async fn to_5_000(report: &mut Report) -> Result<(), Failed> {
    let both = [Kind::Tessera, Kind::Etcd];
    figures(report, "last of 5,000 watchers told", &both, 50, 12, "as above").await
}

async fn figures(
    report: &mut Report,
    name: &str,
    kinds: &[Kind],
    each: usize,
    blocks: usize,
    note: &str,
) -> Result<(), Failed> {
    let arena = Arena::start(kinds).await?;
    let mut sides = Vec::new();
    for &kind in kinds {
        let Some(server) = arena.get(kind) else { continue };
        let changer = Changer::new(server, kind, SERVICE).await?;
        let watchers = if kind == Kind::ZooKeeper {
            Watchers::sessions(server, CONNECTIONS * each).await?
        } else {
            Watchers::open(server, kind, plan(each, SERVICE)).await?
        };
        sides.push((kind, changer, watchers));
    }
    let (mut p50, mut p99) = (Series::default(), Series::default());
    let (mut all, mut cpu) = (Series::default(), Series::default());
    for block in 0..=blocks {
        for kind in arena.order(block) {
            let Some((_, changer, watchers)) = sides.iter_mut().find(|side| side.0 == kind) else {
                continue;
            };
            let mut lasts = Vec::new();
            let server = arena.get(kind).ok_or("takes part")?;
            let before = server.usage()?.cpu;
            for _ in 0..if block == 0 { WARM_UP } else { IN_A_ROW } {
                let told = millis(&watchers.change(changer).await?);
                lasts.push(quantile(&told, 1.0));
                tokio::time::sleep(PAUSE).await;
            }
            if block > 0 {
                p50.push(kind, quantile(&lasts, 0.5));
                lasts.iter().for_each(|&last| all.push(kind, last));
                let used = server.usage()?.cpu.saturating_sub(before);
                let told = number((CONNECTIONS * each * IN_A_ROW) as u64);
                cpu.push(kind, used.as_secs_f64() * 1e6 / told);
            }
        }
    }
    // Of so few changes a block has no 99th percentile of its own: one of all.
    for &kind in kinds {
        if !all.of(kind).is_empty() {
            p99.push(kind, quantile(all.of(kind), 0.99));
        }
    }
    report.add(
        Figure::new(format!("{name}, p50"), "ms", p50)
            .goal(Goal::PartOfEtcd(0.4))
            .note(note),
    );
    report.add(Figure::new(format!("{name}, p99"), "ms", p99).goal(Goal::PartOfEtcd(0.4)));
    // The median of ticks of 10 ms would be a coarse number.
    let mut mean = Series::default();
    for &kind in kinds {
        if !cpu.of(kind).is_empty() {
            let values = cpu.of(kind);
            mean.push(kind, values.iter().sum::<f64>() / number(values.len() as u64));
        }
    }
    report.add(Figure::new(format!("  CPU a watcher: {name}"), "us", mean));
    Ok(())
}

fn plan(each: usize, service: u64) -> Plan {
    Plan {
        connections: CONNECTIONS,
        each,
        service,
        spread: false,
        stalled_after: None,
    }
}

/// A stream gets this far and no further: its state and some twenty changes.
const STALLED_AFTER: u32 = 8_192;
const STALLED_BLOCKS: usize = 12;

/// Two services of 1,000 watches each on one registry, changed in turns; one watch of the second has stopped reading.
pub(crate) async fn stalled(report: &mut Report) -> Result<(), Failed> {
    let arena = Arena::start(&[Kind::Tessera, Kind::Etcd]).await?;
    let mut ratios = Series::default();
    for kind in arena.order(0) {
        let Some(server) = arena.get(kind) else { continue };
        let mut well = Changer::new(server, kind, SERVICE).await?;
        let mut ill = Changer::new(server, kind, SERVICE + 1).await?;
        let all_read = Watchers::open(server, kind, plan(10, SERVICE)).await?;
        let one_stalled = Plan {
            stalled_after: Some(STALLED_AFTER),
            ..plan(10, SERVICE + 1)
        };
        let one_stalled = Watchers::open(server, kind, one_stalled).await?;
        for block in 0..=STALLED_BLOCKS {
            let (mut without, mut with) = (Vec::new(), Vec::new());
            // The first block is long enough for the window to be used up.
            for _ in 0..if block == 0 { 60 } else { IN_A_ROW } {
                without.extend(millis(&all_read.change(&mut well).await?));
                tokio::time::sleep(PAUSE).await;
                with.extend(millis(&one_stalled.change(&mut ill).await?));
                tokio::time::sleep(PAUSE).await;
            }
            if block > 0 {
                ratios.push(kind, quantile(&with, 0.99) / quantile(&without, 0.99));
            }
        }
    }
    report.add(
        Figure::new("p99 of 999 watchers beside a stalled one", "ratio", ratios)
            .goal(Goal::AtMost(1.1))
            .note("to that of 1,000 watchers who all read, on the same server, changed in turns"),
    );
    Ok(())
}
