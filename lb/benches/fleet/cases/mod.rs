//! The cases: what goes wrong, who is compared, and what should come of it.

mod failing;
mod gone;
mod prequal;
mod slow;

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::{
    Failed,
    arms::Arm,
    backend::{Instance, addresses},
    load::{Outcome, open_loop},
    report::Report,
};

/// Enough for averages with a time constant of 10 s to settle.
const WARM_UP: Duration = Duration::from_secs(15);

type Case = (&'static str, fn(&Runtime, &mut Report) -> Result<(), Failed>);

const CASES: [Case; 10] = [
    ("slow-one", slow::slow_one),
    ("slow-limited", slow::slow_limited),
    ("slow-half", slow::slow_half),
    ("killed", gone::killed),
    ("restarted", gone::restarted),
    ("failing-two", failing::failing_two),
    ("nothing-ready", gone::nothing_ready),
    ("all-failing", failing::all_failing),
    ("overload", failing::overload),
    ("prequal", prequal::prequal),
];

/// Runs the cases whose names begin with any of `wanted`; all, if there is none.
pub(crate) fn run(wanted: &[&str]) -> Result<(), Failed> {
    let runtime = Runtime::new()?;
    let mut report = Report::default();
    for (name, case) in CASES {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted)) {
            case(&runtime, &mut report)?;
        }
    }
    report.summary();
    Ok(())
}

/// Retries on other instances, as a caller of idempotent methods would have them.
fn failover(builder: lb::Builder) -> lb::Builder {
    builder.mode(lb::Mode::Failover(lb::RetryPolicy::default()))
}

const FAILOVER: Arm = Arm::lb("lb, failover", failover);

/// One arm over one fleet: warmed up, then measured.
fn measure(
    runtime: &Runtime,
    arm: &Arm,
    instances: &[Instance],
    rate: f64,
    duration: Duration,
    seed: u64,
) -> Result<Outcome, Failed> {
    runtime.block_on(async {
        let (call, channel) = arm.connect(&addresses(instances)).await?;
        open_loop(&call, rate, WARM_UP, seed).await;
        let outcome = open_loop(&call, rate, duration, seed + 1).await;
        if let Some(channel) = channel {
            channel.close().await;
        }
        Ok(outcome)
    })
}
