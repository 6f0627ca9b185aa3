//! What must hold of ejections, breakers and budgets after every step: by the numbers of the plan and the counts of `ledger`.

use tokio::time::Instant;

use super::{
    invariants::Invariant,
    world::{Phase, World},
};

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "nobody out of service is called",
        check: nobody_out,
    },
    Invariant {
        name: "one call at a time proves",
        check: one_probe,
    },
    Invariant {
        name: "only so many are ejected",
        check: cap,
    },
    Invariant {
        name: "who fails in a row is out",
        check: rows,
    },
    Invariant {
        name: "everybody comes back",
        check: everybody_back,
    },
    Invariant {
        name: "the breaker lets through what it should",
        check: breaker_admits,
    },
    Invariant {
        name: "the breaker opens",
        check: breaker_opens,
    },
    Invariant {
        name: "the budget is not exceeded",
        check: budget,
    },
    Invariant {
        name: "the budget is not withheld",
        check: withheld,
    },
    Invariant {
        name: "the throttle holds",
        check: throttle,
    },
];

/// Whether, before this step, so few were in service that everybody may be called.
pub(super) fn was_panic(world: &World) -> bool {
    let Some(config) = world.plan.outlier else { return false };
    let in_service = world.callable().filter(|(at, _)| world.before[*at] == Phase::InService);
    in_service.count() * 100 < world.callable().count() * usize::from(config.panic_threshold_percent)
}

fn is_out(phase: Phase) -> bool {
    matches!(phase, Phase::Ejected | Phase::OnProbation | Phase::Proving)
}

fn nobody_out(world: &World) -> Result<(), String> {
    let Some(at) = world.picked.as_ref().and_then(|picked| picked.instance) else {
        return Ok(());
    };
    match world.before[at] {
        Phase::InService => Ok(()),
        // By the call that it is to prove itself by.
        Phase::OnProbation if world.now[at] == Phase::Proving => Ok(()),
        _ if was_panic(world) => Ok(()),
        phase => Err(format!("instance {at} was picked, and it is {phase:?}")),
    }
}

fn one_probe(world: &World) -> Result<(), String> {
    let Some((picked, at)) = world
        .picked
        .as_ref()
        .and_then(|picked| Some((picked, picked.instance?)))
    else {
        return Ok(());
    };
    if picked.was_proving && !was_panic(world) && world.before[at] != Phase::InService {
        return Err(format!("instance {at} was proving itself, and got one more call"));
    }
    Ok(())
}

/// gRFC A50 looks before each ejection whether the share is reached: so it is the share rounded up, and one at least unless it is zero.
fn cap(world: &World) -> Result<(), String> {
    let Some(config) = world.plan.outlier else {
        return Ok(());
    };
    let now = &world.now;
    let newly = |at: usize| is_out(now[at]) && world.before.get(at).is_some_and(|before| !is_out(*before));
    if !(0..now.len()).any(newly) {
        // The set may have become smaller since.
        return Ok(());
    }
    let all = now.iter().filter(|phase| **phase != Phase::Gone).count();
    let out = now.iter().filter(|phase| is_out(**phase)).count();
    let most = (all * usize::from(config.max_ejection_percent)).div_ceil(100);
    if out > most {
        return Err(format!("{out} of {all} are out of service, {most} may be"));
    }
    Ok(())
}

fn rows(world: &World) -> Result<(), String> {
    let (Some(config), Some(at)) = (world.plan.outlier, world.suspect) else {
        return Ok(());
    };
    let all = world.before.iter().filter(|phase| **phase != Phase::Gone).count();
    let out = world.before.iter().filter(|phase| is_out(**phase)).count();
    let may = out < (all * usize::from(config.max_ejection_percent)).div_ceil(100);
    if may && world.before[at] == Phase::InService && world.now[at] == Phase::InService {
        return Err(format!(
            "instance {at} has failed too often in a row, and is in service"
        ));
    }
    Ok(())
}

fn everybody_back(world: &World) -> Result<(), String> {
    if !world.is_over() {
        return Ok(());
    }
    if let Some(at) = (0..world.instances.len()).find(|at| is_out(world.now[*at])) {
        return Err(format!("instance {at} has long been well, and is {:?}", world.now[at]));
    }
    match &world.breaker {
        Some(breaker) if breaker.level() != 0 => Err("all is well, and the breaker is not closed".to_owned()),
        _ => Ok(()),
    }
}

fn breaker_admits(world: &World) -> Result<(), String> {
    let Some(circuit) = &world.circuit else { return Ok(()) };
    if circuit.is_overrun() {
        return Err("half-open, and more than its probes are out".to_owned());
    }
    match &circuit.met {
        Some(met) if met.level == 0 && !met.let_through => Err("closed, and a call was turned away".to_owned()),
        Some(met) if met.level == 2 && met.let_through != met.is_due => Err(format!(
            "open, its time {} over, and a call was {}",
            if met.is_due { "is" } else { "is not" },
            if met.let_through { "let through" } else { "turned away" }
        )),
        _ => Ok(()),
    }
}

fn breaker_opens(world: &World) -> Result<(), String> {
    match &world.circuit {
        Some(circuit) if circuit.is_overdue(Instant::now()) => Err("too many have failed, and it is closed".to_owned()),
        _ => Ok(()),
    }
}

/// At most what the calls have paid in, and the allowance of the time; that of its first second it has from the beginning.
fn budget(world: &World) -> Result<(), String> {
    let (ledger, terms) = (&world.ledger, world.plan.retries);
    let paid = ledger.calls as f64 * f64::from(terms.thousandths) / 1000.0;
    let most = paid + f64::from(terms.per_second) * (world.elapsed().as_secs_f64() + 1.0);
    if ledger.granted as f64 > most + 1e-6 {
        return Err(format!("{} retries after {} calls", ledger.granted, ledger.calls));
    }
    Ok(())
}

/// Whoever has not repeated anything for a second may, whatever was before.
fn withheld(world: &World) -> Result<(), String> {
    match &world.ledger.asked {
        Some(asked) if !asked.granted && asked.is_rare && asked.is_calm && world.plan.retries.per_second > 0 => {
            Err("the first retry for a second was withheld".to_owned())
        }
        _ => Ok(()),
    }
}

fn throttle(world: &World) -> Result<(), String> {
    match &world.ledger.asked {
        Some(asked) if asked.granted && !asked.is_calm => {
            Err("half of the throttle's tokens are gone, and there was a retry".to_owned())
        }
        _ => Ok(()),
    }
}
