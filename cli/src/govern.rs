//! `tessera drain`, `undrain` and `weight`: thin calls of the registry's GovernanceService. What a decision does is the
//! registry's business; one that it cannot take yet is told as such.

use proto::registry::v1::{
    DrainRequest, InstanceRef, SetWeightRequest, UndrainRequest, governance_service_client::GovernanceServiceClient,
};
use serde_json::json;
use tonic::{Code, Status};

use crate::{
    args::{DrainArgs, InstanceArgs, Weight, WeightArgs},
    failure::{Exit, Failure},
    output::Output,
    status,
};

/// Takes an instance out of service.
pub(crate) async fn drain(args: &DrainArgs, output: Output) -> Result<(), Failure> {
    let request = DrainRequest {
        instance: Some(reference(&args.instance)),
        who: args.instance.who.clone(),
        why: args.why.clone(),
        until: None,
        ack_timeout: None,
    };
    let answer = client(&args.instance)?
        .drain(request)
        .await
        .map_err(|status| failure("drain instances", &status))?
        .into_inner();
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
    let answer = client(args)?
        .undrain(request)
        .await
        .map_err(|status| failure("undrain instances", &status))?
        .into_inner();
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
    let answer = client(&args.instance)?
        .set_weight(request)
        .await
        .map_err(|status| failure("set weights", &status))?
        .into_inner();
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
        _ => status::failure(&format!("the registry did not {deed}"), status),
    }
}
