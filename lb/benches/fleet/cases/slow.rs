//! Instances that are slower than the others.

use std::time::Duration;

use tokio::runtime::Runtime;

use super::measure;
use crate::{
    Failed,
    arms::{BALANCE_LIST, LB, TOWER},
    backend::{Nature, fleet},
    report::{Report, median},
};

pub(super) fn slow_one(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
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

pub(super) fn slow_limited(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
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

pub(super) fn slow_half(runtime: &Runtime, report: &mut Report) -> Result<(), Failed> {
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
