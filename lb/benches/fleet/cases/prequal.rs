//! Instances that share their machines with others: what they can do changes under the callers' eyes.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::{
    Failed,
    arms::{Arm, LB, TOWER},
    backend::{Instance, Nature, addresses, fleet},
    load::{Outcome, any_of, open_loop},
    report::{Report, median},
};

/// Each with a channel and a share of the calls of its own. A single caller has all the load in its own count of calls in flight,
/// and needs no instance to tell it; the paper's point is the load that others make.
const CALLERS: usize = 10;

const PREQUAL: Arm = Arm::lb("lb, Prequal", |builder| {
    builder.policy(lb::Policy::Prequal(lb::Prequal::default()))
});

/// All callers over one fleet: warmed up, then measured.
fn measure(runtime: &Runtime, arm: &Arm, instances: &[Instance], rate: f64, seed: u64) -> Result<Outcome, Failed> {
    runtime.block_on(async {
        let (mut calls, mut channels) = (Vec::new(), Vec::new());
        for _ in 0..CALLERS {
            let (call, channel) = arm.connect(&addresses(instances)).await?;
            calls.push(call);
            channels.extend(channel);
        }
        let call = any_of(calls);
        open_loop(&call, rate, Duration::from_secs(10), seed).await;
        let outcome = open_loop(&call, rate, Duration::from_secs(12), seed + 1).await;
        for channel in channels {
            channel.close().await;
        }
        Ok(outcome)
    })
}

/// Twenty that work on four calls of 40 ms at a time, 100 a second; from ten of them half of that is taken away, and after two
/// seconds from the other ten instead. All of them together can do 1,500 a second.
pub(super) fn prequal(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    const RATE: f64 = 0.9 * 1_500.0;
    report.title(&format!(
        "Prequal: twenty limited ones (40 ms, 4 at once), every other one halved in turns of 2 s; ten callers, {RATE} calls/s together, 0.9 of what can be done"
    ));
    let nature = Nature::takes(40).at_once(4).squeezed(Duration::from_secs(2));
    let instances = fleet(&[nature; 20])?;
    let mut ratios = Vec::new();
    for round in 0..2 {
        let p99 = |arm: &Arm| -> Result<f64, Failed> {
            let outcome = measure(runtime, arm, &instances, RATE, 10 * round)?;
            report.line(arm.name, &outcome, "");
            Ok(outcome.quantile_of_all(0.99))
        };
        let (ours, towers) = (p99(&PREQUAL)?, p99(&TOWER)?);
        if round == 0 {
            p99(&LB)?;
        }
        ratios.push(ours / towers);
    }
    report.at_most(
        "prequal",
        "p99 beside tower's p2c + peak EWMA, median of 2",
        median(ratios),
        0.6,
    );
    Ok(())
}
