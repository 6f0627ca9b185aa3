//! `tessera drain`, `undrain` and `weight`: thin calls of the registry's GovernanceService. What a decision does is the
//! registry's business; one that it cannot take yet is told as such.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use proto::registry::v1::{
    DrainRequest, DrainResponse, InstanceRef, SetWeightRequest, UndrainRequest,
    governance_service_client::GovernanceServiceClient,
};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};

use crate::{
    args::{Discovery, DrainArgs, InstanceName, UndrainArgs, Until, Weight, WeightArgs},
    channel::{self, Line},
    failure::{Exit, Failure},
    output::{self, Output},
    status,
};

/// A decision is one record in the registry's store. A registry that takes longer hangs, and an operator has to know.
pub(crate) const CALL: Duration = Duration::from_secs(10);

/// Takes an instance out of service.
pub(crate) async fn drain(args: &DrainArgs, output: Output) -> Result<(), Failure> {
    let until = end(args.until)?;
    let request = DrainRequest {
        instance: Some(reference(&args.instance.instance, &args.instance.discovery)),
        who: args.instance.who.clone(),
        why: args.instance.why.clone(),
        until: until.map(timestamp),
        ack_timeout: prost_types::Duration::try_from(args.ack_timeout).ok(),
    };
    let mut client = client(&args.instance.discovery)?;
    // The answer of one that waits for its callers in vain comes after that time.
    let patience = args.ack_timeout + CALL;
    let answer = bounded(patience, request.clone(), |request| client.drain(request))
        .await
        .map_err(|status| failure("drain instances", &status))?;
    let (late, unheard, may_return) = of_all_replicas(&args.instance.discovery, request, &answer, patience).await?;
    let name = &args.instance.instance;
    let document = json!({
        "instance": name.to_string(),
        "drained": true,
        "until": until.map(output::instant),
        "revision": answer.revision,
        "unacknowledged_watch_ids": late,
        "unheard_replicas": unheard,
        "watchers_may_return": may_return,
    });
    output.print(&document, || {
        let until = until_text(until);
        let revision = answer.revision;
        match late.len() {
            0 if !unheard.is_empty() => format!(
                "{name} is drained{until} (revision {revision}); callers at {} of the registry may not know yet.",
                output::count(unheard.len(), "other replica")
            ),
            0 if may_return => format!(
                "{name} is drained{until} (revision {revision}); the registry was restarted a moment ago, and callers that are on \
                 their way back to it may not know yet."
            ),
            0 => format!("{name} is drained{until}, and every caller knows (revision {revision})."),
            late => format!(
                "{name} is drained{until} (revision {revision}); not known yet of {}.",
                output::count(late, "caller")
            ),
        }
    })
}

/// The callers that may not know yet, the replicas that nobody has heard of, and whether callers may be on their way back after a
/// restart. Each replica knows its own callers alone, so each that has an address is asked: the drain is the same once more.
///
/// Also where the first names no others: a replica that has lost its store is not counted by them, and tells its callers what it
/// knew all the same. One that does not answer is named by its address.
async fn of_all_replicas(
    discovery: &Discovery,
    request: DrainRequest,
    first: &DrainResponse,
    patience: Duration,
) -> Result<(Vec<String>, Vec<String>, bool), Failure> {
    let mut may_return = first.watchers_may_return;
    let mut late = first.unacknowledged_watch_ids.clone();
    let mut heard = BTreeSet::from([first.replica.clone()]);
    let mut known: BTreeSet<String> = first.unheard_replicas.iter().cloned().collect();
    let mut silent = Vec::new();
    let mut asked = JoinSet::new();
    for url in discovery.registry.iter().filter(|_| discovery.registry.len() > 1) {
        let mut client = GovernanceServiceClient::new(channel::to_registry(
            std::slice::from_ref(url),
            &discovery.tls,
            &discovery.shown,
        )?);
        let request = request.clone();
        let url = url.to_string();
        asked.spawn(async move { (url, bounded(patience, request, |request| client.drain(request)).await) });
    }
    while let Some(told) = asked.join_next().await {
        // A task that was cancelled is one of a process that ends.
        let Ok((url, told)) = told else { continue };
        let Ok(told) = told else {
            silent.push(url);
            continue;
        };
        may_return |= told.watchers_may_return;
        if heard.insert(told.replica) {
            late.extend(told.unacknowledged_watch_ids);
        }
        known.extend(told.unheard_replicas);
    }
    let unheard = known.difference(&heard).cloned().chain(silent).collect();
    Ok((late, unheard, may_return))
}

/// Takes a drain back.
pub(crate) async fn undrain(args: &UndrainArgs, output: Output) -> Result<(), Failure> {
    let args = &args.instance;
    let request = UndrainRequest {
        instance: Some(reference(&args.instance, &args.discovery)),
        who: args.who.clone(),
        why: args.why.clone(),
    };
    let mut client = client(&args.discovery)?;
    let answer = bounded(CALL, request, |request| client.undrain(request))
        .await
        .map_err(|status| failure("undrain instances", &status))?;
    let name = &args.instance;
    let document = json!({ "instance": name.to_string(), "drained": false, "revision": answer.revision });
    output.print(&document, || {
        format!("{name} is not drained any more (revision {}).", answer.revision)
    })
}

/// Lays a weight over an instance's own.
pub(crate) async fn weight(args: &WeightArgs, output: Output) -> Result<(), Failure> {
    let until = end(args.until)?;
    let weight = match args.weight {
        Weight::Own if until.is_some() => {
            let failure = Failure::usage("the instance's own weight has no end");
            return Err(failure.advice("leave --until out"));
        }
        Weight::Own => None,
        Weight::Fixed(weight) => Some(weight),
    };
    let request = SetWeightRequest {
        instance: Some(reference(&args.instance.instance, &args.instance.discovery)),
        weight,
        who: args.instance.who.clone(),
        why: args.instance.why.clone(),
        until: until.map(timestamp),
    };
    let mut client = client(&args.instance.discovery)?;
    let answer = bounded(CALL, request, |request| client.set_weight(request))
        .await
        .map_err(|status| failure("set weights", &status))?;
    let name = &args.instance.instance;
    let document = json!({
        "instance": name.to_string(),
        "weight": weight,
        "until": until.map(output::instant),
        "revision": answer.revision,
    });
    output.print(&document, || match weight {
        Some(weight) => format!(
            "{name} has weight {weight} now{} (revision {}).",
            until_text(until),
            answer.revision
        ),
        None => format!("{name} has its own weight again (revision {}).", answer.revision),
    })
}

/// When a decision ends; a moment that no calendar has is a mistake in typing.
fn end(until: Option<Until>) -> Result<Option<Timestamp>, Failure> {
    let Some(until) = until else { return Ok(None) };
    match until.moment(Timestamp::now()) {
        Some(moment) => Ok(Some(moment)),
        None => Err(Failure::usage("--until is beyond all calendars").advice("give at most 366d")),
    }
}

fn until_text(until: Option<Timestamp>) -> String {
    until.map_or_else(String::new, |until| {
        format!(" until {}", until.strftime("%Y-%m-%d %H:%M:%S UTC"))
    })
}

fn timestamp(moment: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: moment.as_second(),
        nanos: moment.subsec_nanosecond(),
    }
}

/// The instance as the wire names it.
pub(crate) fn reference(instance: &InstanceName, discovery: &Discovery) -> InstanceRef {
    InstanceRef {
        namespace: discovery.namespace.clone(),
        service: instance.service.clone(),
        id: instance.id.clone(),
    }
}

pub(crate) fn client(discovery: &Discovery) -> Result<GovernanceServiceClient<Line>, Failure> {
    let line = channel::to_registry(&discovery.registry, &discovery.tls, &discovery.shown)?;
    Ok(GovernanceServiceClient::new(line))
}

/// The deadline holds even against a registry that does not keep it.
pub(crate) async fn bounded<M, T, F>(
    deadline: Duration,
    message: M,
    call: impl FnOnce(Request<M>) -> F,
) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    match tokio::time::timeout(deadline, call(request)).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} s",
            deadline.as_secs()
        ))),
    }
}

/// What to tell of a call that failed.
pub(crate) fn failure(deed: &str, status: &Status) -> Failure {
    match status.code() {
        Code::Unimplemented => Failure::new(format!("the registry cannot {deed} yet"))
            .why("its GovernanceService answers UNIMPLEMENTED")
            .advice("for now stop the instance with SIGTERM, which drains it")
            .exit(Exit::Grpc(Code::Unimplemented)),
        Code::Unavailable => Failure::new("the registry cannot be reached")
            .why(status.message())
            .advice("start a cluster with `tessera up`, or pass --registry")
            .exit(Exit::Grpc(Code::Unavailable)),
        // There is no flag to wait longer with, and the decision may have been taken.
        Code::DeadlineExceeded => Failure::new(format!("the registry did not {deed}"))
            .why(format!("DEADLINE_EXCEEDED: {}", status.message()))
            .advice("look at its log; `tessera instances` shows whether it was done all the same")
            .exit(Exit::Grpc(Code::DeadlineExceeded)),
        _ => status::failure(&format!("the registry did not {deed}"), status),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// A registry that had been stopped (SIGSTOP) held an operator's command for ever.
    #[tokio::test(start_paused = true)]
    async fn a_registry_that_hangs_is_not_waited_for() {
        let begun = Instant::now();
        let status = bounded(CALL, (), |request| {
            assert!(request.metadata().contains_key("grpc-timeout"));
            std::future::pending::<Result<Response<()>, Status>>()
        })
        .await
        .expect_err("no answer");
        assert_eq!(begun.elapsed(), CALL);
        let failure = failure("drain instances", &status);
        assert!(failure.to_string().contains("no answer within 10 s"), "{failure}");
    }
}
