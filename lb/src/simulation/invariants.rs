//! What must hold after every step of every history.

use super::{
    calls::Picked,
    protection::was_panic,
    world::{Instance, Phase, World},
};

/// A property, and how to look whether it holds.
#[derive(Clone, Copy)]
pub(super) struct Invariant {
    pub(super) name: &'static str,
    pub(super) check: fn(&World) -> Result<(), String>,
}

pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "nobody who is gone is called",
        check: nobody_gone,
    },
    Invariant {
        name: "somebody is called while anybody is there",
        check: somebody,
    },
    Invariant {
        name: "calls are counted",
        check: counted,
    },
    Invariant {
        name: "nothing is left in the end",
        check: nothing_left,
    },
    Invariant {
        name: "a retry goes elsewhere",
        check: elsewhere,
    },
    Invariant {
        name: "failing fast attracts nobody",
        check: no_sinkhole,
    },
    Invariant {
        name: "the healthy share evenly",
        check: even,
    },
];

fn nobody_gone(world: &World) -> Result<(), String> {
    let Some(Picked { instance: Some(at), .. }) = world.picked else {
        return Ok(());
    };
    let instance = &world.instances[at];
    if instance.removed || !instance.connected {
        let what = if instance.removed { "removed" } else { "not connected" };
        return Err(format!("instance {at} was picked, and it is {what}"));
    }
    Ok(())
}

fn somebody(world: &World) -> Result<(), String> {
    match world.picked {
        Some(Picked { instance: None, .. }) if world.callable().next().is_some() => {
            Err("nobody was picked, and there are some to call".to_owned())
        }
        _ => Ok(()),
    }
}

fn counted(world: &World) -> Result<(), String> {
    for (at, instance) in world.instances.iter().enumerate() {
        let counted = instance.endpoint.in_flight();
        if counted != instance.open {
            return Err(format!(
                "instance {at} counts {counted} calls, and {} are open",
                instance.open
            ));
        }
    }
    Ok(())
}

fn nothing_left(world: &World) -> Result<(), String> {
    if !world.is_over() {
        return Ok(());
    }
    let counts = |(_, instance): &(usize, &Instance)| instance.endpoint.in_flight() > 0;
    match world.instances.iter().enumerate().find(counts) {
        Some((at, _)) => Err(format!("every call has ended, and instance {at} counts one")),
        None => Ok(()),
    }
}

fn elsewhere(world: &World) -> Result<(), String> {
    let Some(Picked {
        instance: Some(at),
        tried,
        ..
    }) = &world.picked
    else {
        return Ok(());
    };
    let everybody = was_panic(world);
    let is_open = |other: usize| everybody || world.before[other] == Phase::InService;
    let is_another = |(other, _): (usize, _)| !tried.contains(&other) && is_open(other);
    if tried.contains(at) && world.callable().any(is_another) {
        return Err(format!("a call that instances {tried:?} had before went to {at}"));
    }
    Ok(())
}

/// Failing is fast, and what is fast looks good to whoever measures latency (linkerd2-proxy#4537).
fn no_sinkhole(world: &World) -> Result<(), String> {
    let (picks, fair) = world.failing;
    // Where weights differ, if only since some are new, two are drawn by weight, and both draws may be the same one: a heavy instance has its part of that.
    let is_even = world.plan().weighs_evenly() && !world.plan().slow_start;
    let most = if is_even { 0.5 } else { 0.9 };
    if world.is_over() && world.measures_latency() && fair >= 100.0 && picks > most * fair {
        return Err(format!(
            "{picks} first attempts went to failing instances, {fair:.0} would be fair"
        ));
    }
    Ok(())
}

/// In proportion to weight where the policy goes by it; by three times at most where it does not, or goes by what it measures.
fn even(world: &World) -> Result<(), String> {
    if !world.is_over() {
        return Ok(());
    }
    let count = world.callable().count() as f64;
    for (at, instance) in world.callable() {
        let fair = world.settled / count;
        // Weights are between half and twice the usual one. Six standard deviations are one history in a billion.
        let noise = 6.0 * fair.sqrt();
        let (least, most) = (fair / 4.0 - noise, fair * 3.0 + noise);
        if instance.picks < least || instance.picks > most {
            return Err(format!(
                "instance {at} (weight {}) had {} of {} calls, {count} were there",
                instance.weight, instance.picks, world.settled
            ));
        }
    }
    Ok(())
}
