//! `tessera drain`, `undrain` and `weight`: thin calls of the registry's GovernanceService. What a decision does is the
//! registry's business; one that it cannot take yet is told as such.

use std::time::Duration;

use proto::registry::v1::{
    DrainRequest, InstanceRef, SetWeightRequest, UndrainRequest, governance_service_client::GovernanceServiceClient,
};
use serde_json::json;
use tonic::{Code, Request, Response, Status};

use crate::{
    args::{DrainArgs, InstanceArgs, Weight, WeightArgs},
    failure::{Exit, Failure},
    output::Output,
    status,
};

/// A decision is one record in the registry's store. A registry that takes longer hangs, and an operator has to know.
const CALL: Duration = Duration::from_secs(10);
/// How long a drain waits until every caller knows. Below `CALL`, so that the answer names those who do not.
const ACKNOWLEDGED: Duration = Duration::from_secs(8);

/// Takes an instance out of service.
pub(crate) async fn drain(args: &DrainArgs, output: Output) -> Result<(), Failure> {
    let request = DrainRequest {
        instance: Some(reference(&args.instance)),
        who: args.instance.who.clone(),
        why: args.why.clone(),
        until: None,
        ack_timeout: prost_types::Duration::try_from(ACKNOWLEDGED).ok(),
    };
    let mut client = client(&args.instance)?;
    let answer = bounded(request, |request| client.drain(request))
        .await
        .map_err(|status| failure("drain instances", &status))?;
    let late = answer.unacknowledged_watch_ids;
    let name = &args.instance.instance;
    let document = json!({
        "instance": name.to_string(),
        "drained": true,
        "revision": answer.revision,
        "unacknowledged_watch_ids": late,
    });
    output.print(&document, || match late.len() {
        0 => format!(
            "{name} is drained, and every caller knows (revision {}).",
            answer.revision
        ),
        late => format!(
            "{name} is drained (revision {}); {late} callers have not said yet that they know.",
            answer.revision
        ),
    })
}

/// Takes a drain back.
pub(crate) async fn undrain(args: &InstanceArgs, output: Output) -> Result<(), Failure> {
    let request = UndrainRequest {
        instance: Some(reference(args)),
        who: args.who.clone(),
    };
    let mut client = client(args)?;
    let answer = bounded(request, |request| client.undrain(request))
        .await
        .map_err(|status| failure("undrain instances", &status))?;
    let name = &args.instance;
    let document = json!({ "instance": name.to_string(), "drained": false, "revision": answer.revision });
    output.print(&document, || {
        format!("{name} is back in service (revision {}).", answer.revision)
    })
}

/// Lays a weight over an instance's own.
pub(crate) async fn weight(args: &WeightArgs, output: Output) -> Result<(), Failure> {
    let request = SetWeightRequest {
        instance: Some(reference(&args.instance)),
        weight: match args.weight {
            Weight::Own => None,
            Weight::Fixed(weight) => Some(weight),
        },
        who: args.instance.who.clone(),
        why: String::new(),
        until: None,
    };
    let mut client = client(&args.instance)?;
    let answer = bounded(request, |request| client.set_weight(request))
        .await
        .map_err(|status| failure("set weights", &status))?;
    let name = &args.instance.instance;
    let now = answer
        .instance
        .and_then(|instance| instance.r#override)
        .and_then(|laid| laid.weight);
    let document = json!({ "instance": name.to_string(), "weight": now, "revision": answer.revision });
    output.print(&document, || match now {
        Some(weight) => format!("{name} has weight {weight} now (revision {}).", answer.revision),
        None => format!("{name} has its own weight again (revision {}).", answer.revision),
    })
}

fn reference(args: &InstanceArgs) -> InstanceRef {
    InstanceRef {
        namespace: args.discovery.namespace.clone(),
        service: args.instance.service.clone(),
        id: args.instance.id.clone(),
    }
}

/// The registry is not in the registry: its replicas are a fixed target.
fn client(args: &InstanceArgs) -> Result<GovernanceServiceClient<lb::Channel>, Failure> {
    let addresses = args.discovery.registry.iter().map(|url| url.authority());
    Ok(GovernanceServiceClient::new(crate::channel::fixed(addresses)?))
}

/// The deadline holds even against a registry that does not keep it.
async fn bounded<M, T, F>(message: M, call: impl FnOnce(Request<M>) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    match tokio::time::timeout(CALL, call(request)).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} s",
            CALL.as_secs()
        ))),
    }
}

fn failure(deed: &str, status: &Status) -> Failure {
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
        let status = bounded((), |request| {
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
