//! The cases: what goes wrong, who is compared, and what should come of it.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::{
    Failed,
    arms::{Arm, BALANCE_LIST, LB, TOWER},
    backend::{Instance, Nature, addresses, fleet},
    load::{Outcome, open_loop},
    report::{Report, median},
};

/// Enough for averages with a time constant of 10 s to settle.
const WARM_UP: Duration = Duration::from_secs(15);

type Case = (&'static str, fn(&Runtime, &mut Report) -> Result<(), Failed>);

const CASES: [Case; 8] = [
    ("slow-one", slow_one),
    ("slow-limited", slow_limited),
    ("slow-half", slow_half),
    ("killed", killed),
    ("restarted", restarted),
    ("failing-two", failing_two),
    ("nothing-ready", nothing_ready),
    ("all-failing", all_failing),
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

fn slow_one(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    report.title("one slow of ten: 5 ms, the last one 55 ms; 1,000 calls/s");
    let healthy = fleet(&[Nature::takes(5); 10])?;
    let mut natures = [Nature::takes(5); 10];
    natures[9] = Nature::takes(55);
    let slow = fleet(&natures)?;
    let (mut p99, mut p999) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let seed = 10 * round;
        let base = measure(runtime, &LB, &healthy, 1_000.0, Duration::from_secs(10), seed)?;
        report.line("lb, all healthy", &base, "");
        for arm in [&LB, &BALANCE_LIST, &TOWER] {
            let outcome = measure(runtime, arm, &slow, 1_000.0, Duration::from_secs(10), seed)?;
            report.line(
                arm.name,
                &outcome,
                &format!("slow one's share {:.2} %", outcome.share(9) * 100.0),
            );
            if std::ptr::eq(arm, &LB) || arm.name == LB.name {
                p99.push(outcome.quantile(0.99) / base.quantile(0.99));
                p999.push(outcome.quantile(0.999) / base.quantile(0.999));
            }
        }
    }
    report.at_most("slow-one", "p99 beside all healthy, median of 3", median(p99), 1.15);
    report.at_most("slow-one", "p99.9 beside all healthy, median of 3", median(p999), 1.5);
    Ok(())
}

fn slow_limited(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    let mut natures = [Nature::takes(5); 10];
    natures[9] = Nature::takes(50).at_once(8);
    let instances = fleet(&natures)?;
    for rate in [1_000.0, 3_000.0] {
        report.title(&format!(
            "the same, the slow one (50 ms) works on 8 at a time; {rate} calls/s"
        ));
        let mut worst = 0.0_f64;
        for run in 0..5 {
            let outcome = measure(runtime, &LB, &instances, rate, Duration::from_secs(8), run)?;
            report.line(
                LB.name,
                &outcome,
                &format!("slow one's share {:.2} %", outcome.share(9) * 100.0),
            );
            worst = worst.max(outcome.quantile(0.99));
        }
        for arm in [&BALANCE_LIST, &TOWER] {
            let outcome = measure(runtime, arm, &instances, rate, Duration::from_secs(8), 7)?;
            report.line(
                arm.name,
                &outcome,
                &format!("slow one's share {:.2} %", outcome.share(9) * 100.0),
            );
        }
        report.at_most(
            "slow-limited",
            &format!("worst p99 of 5 runs at {rate}/s, ms"),
            worst,
            10.0,
        );
    }
    Ok(())
}

fn slow_half(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    report.title("two slow of four: 5 and 55 ms; 400 calls/s");
    let healthy = fleet(&[Nature::takes(5); 4])?;
    let slow = fleet(&[Nature::takes(5), Nature::takes(5), Nature::takes(55), Nature::takes(55)])?;
    let mut ratios = Vec::new();
    for round in 0..3 {
        let base = measure(runtime, &LB, &healthy, 400.0, Duration::from_secs(10), round)?;
        report.line("lb, all healthy", &base, "");
        for arm in [&LB, &BALANCE_LIST, &TOWER] {
            let outcome = measure(runtime, arm, &slow, 400.0, Duration::from_secs(10), round)?;
            let share = outcome.share(2) + outcome.share(3);
            report.line(arm.name, &outcome, &format!("slow ones' share {:.2} %", share * 100.0));
            if arm.name == LB.name {
                ratios.push(outcome.quantile(0.99) / base.quantile(0.99));
            }
        }
    }
    report.at_most("slow-half", "p99 beside all healthy, median of 3", median(ratios), 1.3);
    Ok(())
}

/// SIGKILL to one of five, two seconds after the start of six.
fn killed(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
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
fn restarted(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
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

/// Two of twenty begin to fail at once. Without balancing a tenth of the calls would fail.
fn failing_two(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
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

fn nothing_ready(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
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

/// Every instance fails: retries must not multiply the load.
fn all_failing(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
    report.title("every one of five fails (UNAVAILABLE); failover, 500 calls/s, 15 s");
    let instances = fleet(&[Nature::failing(); 5])?;
    const SECONDS: f64 = 15.0;
    let (outcome, attempts) = runtime.block_on(async {
        let (call, channel) = FAILOVER.connect(&addresses(&instances)).await?;
        let outcome = open_loop(&call, 500.0, Duration::from_secs_f64(SECONDS), 2).await;
        let endpoints = channel.ok_or("lb has a channel")?.endpoints();
        let attempts: u64 = endpoints.iter().map(|endpoint| endpoint.served + endpoint.failed).sum();
        Ok::<_, Failed>((outcome, attempts))
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
