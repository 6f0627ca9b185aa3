//! Instances that answer and fail, or have more to do than they can.

use std::time::Duration;

use tokio::{runtime::Runtime, time::Instant};

use super::FAILOVER;
use crate::{
    Failed,
    arms::{BALANCE_LIST, LB, TOWER},
    backend::{Nature, addresses, fleet},
    load::open_loop,
    report::Report,
};

/// Two of twenty begin to fail at once. Without balancing a tenth of the calls would fail.
pub(super) fn failing_two(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    report.title("two of twenty fail at once (UNAVAILABLE); 5 ms, 1,000 calls/s");
    let mut natures = [Nature::takes(5); 20];
    natures[4] = Nature::failing();
    natures[13] = Nature::failing();
    let instances = fleet(&natures)?;
    for arm in [&FAILOVER, &LB, &BALANCE_LIST, &TOWER] {
        let outcome = runtime.block_on(async {
            let (call, _channel) = arm.connect(&addresses(&instances)).await?;
            Ok::<_, Failed>(open_loop(&call, 1_000.0, Duration::from_secs(20), 2).await)
        })?;
        let would_fail = outcome.calls() as f64 * 0.1;
        let avoided = 1.0 - outcome.failed() as f64 / would_fail;
        report.line(
            arm.name,
            &outcome,
            &format!("{:.1} % of would-be failures avoided", avoided * 100.0),
        );
        if arm.name == FAILOVER.name || arm.name == LB.name {
            report.at_least("failing-two", &format!("avoided, {}", arm.name), avoided, 0.99);
        }
    }
    Ok(())
}

/// Every instance fails: retries must not multiply the load.
pub(super) fn all_failing(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    report.title("every one of five fails (UNAVAILABLE); failover, 500 calls/s, 15 s");
    let instances = fleet(&[Nature::failing(); 5])?;
    const SECONDS: f64 = 15.0;
    let (outcome, attempts) = runtime.block_on(async {
        let (call, channel) = FAILOVER.connect(&addresses(&instances)).await?;
        let channel = channel.ok_or("lb has a channel")?;
        let attempts = || -> u64 {
            let endpoints = channel.endpoints();
            endpoints.iter().map(|endpoint| endpoint.served + endpoint.failed).sum()
        };
        // A new channel may make the retries of one second at once, as one that was quiet for a second may: else the first calls
        // of a process could not be repeated. The goal is about the rate, so it counts when those are spent.
        open_loop(&call, 500.0, Duration::from_secs(1), 1).await;
        let before = attempts();
        let outcome = open_loop(&call, 500.0, Duration::from_secs_f64(SECONDS), 2).await;
        Ok::<_, Failed>((outcome, attempts() - before))
    })?;
    let most = 1.2 * outcome.calls() as f64 + 10.0 * SECONDS;
    report.line(FAILOVER.name, &outcome, &format!("{attempts} attempts"));
    report.at_most(
        "all-failing",
        "attempts beside 1.2 x calls + 10/s",
        attempts as f64 / most,
        1.0,
    );
    Ok(())
}

/// Twice of what five can do, for ten seconds; they refuse what they cannot get done. Then half of what they can do again.
pub(super) fn overload(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    // 200 calls/s each.
    let nature = Nature::takes(20).at_once(4).queue(8);
    const CAN: f64 = 1_000.0;
    const LONG: Duration = Duration::from_secs(10);
    report
        .title("overload: five that can do 1,000 calls/s together get 2,000/s for 10 s (UNAVAILABLE), and 500/s again");
    for arm in [&FAILOVER, &LB] {
        let instances = fleet(&[nature; 5])?;
        let (during, calls, attempts, after, recovered) = runtime.block_on(async {
            let (call, channel) = arm.connect(&addresses(&instances)).await?;
            let channel = channel.ok_or("lb has a channel")?;
            let before = open_loop(&call, CAN / 2.0, LONG, 1).await;
            let during = open_loop(&call, 2.0 * CAN, LONG, 2).await;
            // All since the channel was made: a call that needs no retry pays for one of another call some seconds later.
            let calls = (before.calls() + during.calls()) as u64;
            let attempts = calls + channel.fault_counts().retries;
            let (ended, mut after, mut recovered) = (Instant::now(), None, f64::INFINITY);
            // Recovered is who has been good for three seconds in a row, from the first of them on.
            let mut good = 0;
            while good < 3 && ended.elapsed() < Duration::from_secs(33) {
                let since = ended.elapsed().as_secs_f64();
                let second = open_loop(&call, CAN / 2.0, Duration::from_secs(1), 3).await;
                let goodput = second.latencies.len() as f64 / second.calls() as f64;
                good = if goodput >= 0.95 { good + 1 } else { 0 };
                recovered = match good {
                    0 => f64::INFINITY,
                    1 => since,
                    _ => recovered,
                };
                after = Some(second);
            }
            Ok::<_, Failed>((during, calls, attempts, after.ok_or("nothing was after it")?, recovered))
        })?;
        report.line(
            &format!("{}, during", arm.name),
            &during,
            &format!("{attempts} attempts of {calls} calls since the beginning"),
        );
        report.line(
            &format!("{}, last second after", arm.name),
            &after,
            &format!("good again after {recovered:.1} s"),
        );
        let most = 1.2 * calls as f64 + 10.0 * 2.0 * LONG.as_secs_f64();
        report.at_most(
            "overload",
            &format!("attempts beside 1.2 x calls + 10/s, {}", arm.name),
            attempts as f64 / most,
            1.0,
        );
        report.at_most(
            "overload",
            &format!("seconds until 95 % are answered, {}", arm.name),
            recovered,
            30.0,
        );
    }
    Ok(())
}
