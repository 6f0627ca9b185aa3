//! Instances that are killed, restarted, or not there at all.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::FAILOVER;
use crate::{
    Failed,
    arms::{Arm, BALANCE_LIST, LB, TOWER},
    backend::{Nature, addresses, fleet},
    load::open_loop,
    report::Report,
};

/// SIGKILL to one of five, two seconds after the start of six.
pub(super) fn killed(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    report.title("one of five is killed (SIGKILL) and stays dead; 5 ms, 1,000 calls/s, 6 s");
    for arm in [&FAILOVER, &LB, &BALANCE_LIST, &TOWER] {
        let mut instances = fleet(&[Nature::takes(5); 5])?;
        let (outcome, in_flight) = runtime.block_on(async {
            let (call, channel) = arm.connect(&addresses(&instances)).await?;
            open_loop(&call, 1_000.0, Duration::from_secs(3), 1).await;
            let running = tokio::spawn(async move { open_loop(&call, 1_000.0, Duration::from_secs(6), 2).await });
            tokio::time::sleep(Duration::from_secs(2)).await;
            let victim = instances[0].address.to_string();
            let in_flight = channel.map_or(0, |channel| {
                let endpoints = channel.endpoints();
                let victim = endpoints.iter().find(|endpoint| endpoint.address == victim);
                victim.map_or(0, |victim| victim.in_flight)
            });
            instances[0].kill()?;
            Ok::<_, Failed>((running.await?, in_flight))
        })?;
        report.line(
            arm.name,
            &outcome,
            &format!("{in_flight} in flight there when it was killed"),
        );
        if arm.name == FAILOVER.name {
            report.at_most("killed", "failed calls, with failover", outcome.failed() as f64, 0.0);
        } else if arm.name == LB.name {
            // The look at the count and the kill are not one moment: some 5 more calls a fifth of 1,000/s x 5 ms.
            let most = f64::from(in_flight) + 5.0;
            report.at_most("killed", "failed calls, without retries", outcome.failed() as f64, most);
        }
    }
    Ok(())
}

/// Every instance stops in order and is back 300 ms later, one after the other; nobody is told.
pub(super) fn restarted(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    report
        .title("rolling restart of five, fixed list, no notice: each stops in order, 300 ms away; 5 ms, 1,000 calls/s");
    for arm in [&LB, &BALANCE_LIST, &TOWER] {
        let mut instances = fleet(&[Nature::takes(5); 5])?;
        let outcome = runtime.block_on(async {
            let (call, _channel) = arm.connect(&addresses(&instances)).await?;
            open_loop(&call, 1_000.0, Duration::from_secs(2), 1).await;
            let running = tokio::spawn(async move { open_loop(&call, 1_000.0, Duration::from_secs(8), 2).await });
            for instance in &mut instances {
                tokio::time::sleep(Duration::from_secs(1)).await;
                tokio::task::block_in_place(|| instance.stop())?;
                tokio::time::sleep(Duration::from_millis(300)).await;
                instance.again()?;
            }
            Ok::<_, Failed>(running.await?)
        })?;
        report.line(arm.name, &outcome, "");
        if arm.name == LB.name {
            report.at_most(
                "restarted",
                "failed calls, no retries configured",
                outcome.failed() as f64,
                0.0,
            );
        }
    }
    Ok(())
}

pub(super) fn nothing_ready(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    report.title("nobody is there: the error within the set time (1 s), and the recovery");
    const SET: Duration = Duration::from_secs(1);
    let mut instances = fleet(&[Nature::takes(1); 3])?;
    for instance in &mut instances {
        instance.stop()?;
    }
    let arm = Arm::lb("lb", |builder| builder.ready_timeout(SET));
    let (late, recovery) = runtime.block_on(async {
        let (call, _channel) = arm.connect(&addresses(&instances)).await?;
        let mut late = 0.0_f64;
        for _ in 0..5 {
            let begun = Instant::now();
            if call().await.is_ok() {
                return Err("somebody answered".into());
            }
            late = late.max((begun.elapsed().as_secs_f64() - SET.as_secs_f64()).abs() * 1e3);
        }
        instances[0].again()?;
        let begun = Instant::now();
        while call().await.is_err() {}
        Ok::<_, Failed>((late, begun.elapsed().as_secs_f64() * 1e3))
    })?;
    report.note(&format!(
        "errors at most {late:.1} ms beside the set time; answered {recovery:.0} ms after the first was back"
    ));
    report.at_most("nothing-ready", "error beside the set time, ms", late, 50.0);
    report.at_most("nothing-ready", "recovery, ms", recovery, 250.0);
    Ok(())
}
