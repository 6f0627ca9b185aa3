//! `tessera agent`: registers a program that does not speak to the registry itself. It is probed instead of asked, and what
//! becomes of it is told in its name: UP, DOWN, DRAINING, gone.
//!
//! The order is what callers feel: nobody is sent to a program before it answers, nobody is sent to one that has stopped
//! answering, and a program that is to stop is told so only when its callers know.

mod child;
mod guard;
mod probe;
mod streak;

use std::time::Duration;

use registry_client::{InstanceStatus, Protocol, Registrar, Registration, Removal};

use self::{
    child::{Ended, Running},
    probe::{Miss, Probe},
    streak::{Streak, Turn},
};
use super::{End, discoverable};
use crate::{
    args::{AgentArgs, ProbeArgs, Spoken},
    failure::Failure,
    registry::{self, credentials, security},
};

pub(crate) use guard::run as guard;

/// Between two probes of a program that has not answered yet: callers wait for it, and it is one's own.
const READY_PACE: Duration = Duration::from_millis(250);

/// What the life of the agent ends with.
enum Last {
    /// The command has ended, and nobody had asked it to.
    Ended(Ended),
    /// The agent is asked to end.
    Asked,
    /// It makes no sense to go on.
    Failed(Failure),
}

/// Runs until the command ends or the agent is asked to.
pub(crate) async fn run(args: AgentArgs) -> Result<(), Failure> {
    let secured = security::follower(&args.tls)?;
    let tls = secured.as_ref().map(|secured| &secured.client);
    let probe = Probe::try_new(&args, tls)?;
    let urls = args.member.registry.iter().map(|url| url.as_str());
    let registry = registry::connect(urls, &args.member.namespace, tls)?;
    let shown = credentials::followed(&args.member.shown)?;
    let registry = match &shown {
        Some(shown) => credentials::with(registry, shown.token(), &args.member.shown)?,
        None => registry,
    };
    let end = End::watch(args.exit_with_parent)?;
    let registration = registration(&args);
    let mut command = match args.command.as_slice() {
        [] => None,
        command => Some(Running::start(command, args.drain_grace)?),
    };
    tracing::info!(
        service = args.service,
        instance = registration.instance_id(),
        endpoint = args.endpoint,
        pid = command.as_ref().and_then(Running::pid),
        "waiting until it answers"
    );
    let asked = end.asked();
    tokio::pin!(asked);
    let in_vain = tokio::select! {
        // An end that has come is told as such, not as the probe that failed for it.
        biased;
        ended = ended(&mut command) => Some(Last::Ended(ended)),
        () = &mut asked => Some(Last::Asked),
        ready = ready(&args, &probe) => ready.err().map(Last::Failed),
    };
    if let Some(last) = in_vain {
        return leave(&args, command, None, last).await;
    }
    let registrar = registry.register(registration);
    let last = tokio::select! {
        biased;
        ended = ended(&mut command) => Last::Ended(ended),
        () = &mut asked => Last::Asked,
        failure = attend(&args, &probe, &registrar) => Last::Failed(failure),
    };
    leave(&args, command, Some(registrar), last).await
}

/// Resolves when the command has ended; never where there is none.
async fn ended(command: &mut Option<Running>) -> Ended {
    match command {
        Some(command) => command.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits for the first probe that succeeds. A command is given so long; what somebody else runs is waited for.
async fn ready(args: &AgentArgs, probe: &Probe) -> Result<(), Failure> {
    let ProbeArgs {
        probe_interval,
        ready_within,
        ..
    } = args.probing;
    let begun = tokio::time::Instant::now();
    let mut missed: Option<Miss> = None;
    while let Err(miss) = probe.ask().await {
        if !args.command.is_empty() && begun.elapsed() >= ready_within {
            return Err(
                Failure::new(format!("the command did not get ready within {ready_within:?}"))
                    .why(miss)
                    .advice("look at its output, or pass another --endpoint, --probe or --ready-within"),
            );
        }
        if missed.as_ref() != Some(&miss) {
            tracing::info!(%miss, "not ready yet");
        }
        missed = Some(miss);
        tokio::time::sleep(READY_PACE.min(probe_interval)).await;
    }
    Ok(())
}

/// Tells the registry what the probes say, for ever; returns only when the registry will never take the instance.
async fn attend(args: &AgentArgs, probe: &Probe, registrar: &Registrar) -> Failure {
    if let Err(refused) = discoverable(Some(registrar)).await {
        return refused;
    }
    if !probe.asks() {
        return std::future::pending().await;
    }
    let mut streak = Streak::well(args.probing.probe_misses);
    loop {
        tokio::time::sleep(args.probing.probe_interval).await;
        let answer = probe.ask().await;
        match streak.observe(answer.is_ok()) {
            Some(Turn::Down) => {
                registrar.set_status(InstanceStatus::Down);
                let miss = answer.err();
                let miss = miss.as_ref().map(tracing::field::display);
                tracing::warn!(misses = args.probing.probe_misses, miss, "DOWN: it no longer answers");
            }
            Some(Turn::Up) => {
                registrar.set_status(InstanceStatus::Up);
                tracing::info!("UP: it answers again");
            }
            None => {}
        }
    }
}

/// The end, in the order that loses no call.
async fn leave(
    args: &AgentArgs,
    mut command: Option<Running>,
    registrar: Option<Registrar>,
    last: Last,
) -> Result<(), Failure> {
    match last {
        Last::Ended(ended) => {
            // Callers first: nothing answers there any more.
            if let Some(registrar) = registrar {
                registrar.deregister(Removal::Deregistered).await;
            }
            if let Some(command) = command {
                command.clear().await;
            }
            ended.by_itself()
        }
        Last::Asked => {
            if let Some(registrar) = &registrar {
                tokio::select! {
                    // Then there is nobody left to wait with.
                    _ = ended(&mut command) => {}
                    _ = registrar.drain(args.member.drain_linger) => {}
                }
            }
            let ended = match command {
                Some(command) => Some(command.stop(args.drain_grace).await),
                None => None,
            };
            if let Some(registrar) = registrar {
                registrar.deregister(Removal::Drained).await;
            }
            ended.map_or(Ok(()), |ended| ended.as_asked())
        }
        Last::Failed(failure) => {
            if let Some(command) = command {
                command.stop(args.drain_grace).await;
            }
            Err(failure)
        }
    }
}

fn registration(args: &AgentArgs) -> Registration {
    let member = &args.member;
    let protocol = match args.protocol {
        Spoken::Grpc => Protocol::Grpc,
        Spoken::Grpcs => Protocol::Grpcs,
        Spoken::Http => Protocol::Http,
    };
    let mut registration = Registration::new(&args.service, &args.endpoint)
        .protocol(protocol)
        .version(&args.version_label)
        .zone(&member.zone)
        .weight(args.weight)
        .heartbeat(member.heartbeat_interval, member.heartbeat_misses);
    if let Some(id) = &args.instance_id {
        registration = registration.id(id);
    }
    for (key, value) in &args.metadata {
        registration = registration.metadata(key, value);
    }
    registration
}
