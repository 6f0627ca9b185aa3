//! `tessera explain`: what became of an instance, as the registry's history has it. What is forgotten is said to be, not guessed.

use proto::registry::v1::{
    ExplainInstanceRequest, ExplainInstanceResponse, GovernanceDecision, Instance, InstanceStep, InstanceWatch,
    governance_decision::Kind,
};
use serde_json::{Value, json};

use crate::{
    args::{ExplainArgs, ExplainWhat, InstanceName},
    failure::Failure,
    govern, inspect,
    output::{self, Output, Table, plain},
};

/// Tells it.
pub(crate) async fn run(args: &ExplainArgs, output: Output) -> Result<(), Failure> {
    let name = match (&args.what, &args.instance) {
        (Some(ExplainWhat::Call(call)), _) => return inspect::balance::explain(call, output).await,
        (None, Some(name)) => name,
        (None, None) => return Err(Failure::usage("explain what?").advice("give SERVICE/ID, or `call SERVICE`")),
    };
    let request = ExplainInstanceRequest {
        instance: Some(govern::reference(name, &args.discovery)),
    };
    let mut client = govern::client(&args.discovery)?;
    let told = govern::bounded(govern::CALL, request, |request| client.explain_instance(request))
        .await
        .map_err(|status| govern::failure("explain instances", &status))?;
    output.print(&document(name, &told), || human(name, &told))
}

fn human(name: &InstanceName, told: &ExplainInstanceResponse) -> String {
    let mut text = format!("{name} {}.\n", now(told));
    for decision in told.r#override.iter().flat_map(|laid| &laid.decisions) {
        let weight = told.r#override.as_ref().and_then(|laid| laid.weight);
        text.push_str(&format!("{}.\n", decided(decision, weight)));
    }
    if !told.steps.is_empty() {
        let mut table = Table::new(["when (UTC)", "revision", "what", "who", "why"]);
        for step in &told.steps {
            table.row([
                moment(step.at.as_ref()).unwrap_or_default(),
                step.revision.to_string(),
                what(step),
                who(step),
                why(step),
            ]);
        }
        text.push_str(&format!("\n{}", table.render()));
    }
    if told.more_steps {
        text.push_str("What happened before is more than is told at once.\n");
    } else if told.compacted_revision > 0 {
        text.push_str(&format!(
            "What happened up to revision {} is forgotten.\n",
            told.compacted_revision
        ));
    }
    if !told.watches.is_empty() {
        let mut table = Table::new(["watcher", "watch", "told", "acknowledged", "at (UTC)"]);
        for watch in &told.watches {
            table.row(watcher(watch));
        }
        text.push_str(&format!("\n{}", table.render()));
    }
    text
}

/// What it is now, or how it left.
fn now(told: &ExplainInstanceResponse) -> String {
    match (&told.instance, &told.removal) {
        (Some(instance), _) => is_registered(instance),
        (None, Some(removal)) => {
            let reason = removal.reason().as_str_name().trim_start_matches("REMOVAL_REASON_");
            let at = moment(removal.removed_at.as_ref()).map_or_else(String::new, |at| format!(" at {at} UTC"));
            format!("is not registered: it left{at} ({reason})")
        }
        (None, None) => "is not registered".to_owned(),
    }
}

fn is_registered(instance: &Instance) -> String {
    let status = instance.status().as_str_name().trim_start_matches("INSTANCE_STATUS_");
    let address = instance.endpoints.first().map_or_else(String::new, |endpoint| {
        let host = plain(&endpoint.host);
        format!(" at {host}:{}", endpoint.port)
    });
    format!("is registered{address}, {status}, since revision {}", instance.epoch)
}

/// A decision that is in force.
fn decided(decision: &GovernanceDecision, weight: Option<u32>) -> String {
    let what = match decision.kind() {
        Kind::Drain => "Drained".to_owned(),
        Kind::Weight | Kind::Unspecified => format!("Weight {}", weight.unwrap_or_default()),
    };
    let until = moment(decision.until.as_ref()).map_or_else(String::new, |until| format!(" until {until} UTC"));
    let why = match decision.why.as_str() {
        "" => String::new(),
        why => format!(": {}", plain(why)),
    };
    format!(
        "{what} by {}{until} (revision {}){why}",
        plain(&decision.who),
        decision.revision
    )
}

fn what(step: &InstanceStep) -> String {
    let what = step.what().as_str_name().trim_start_matches("WHAT_");
    match step.reason().as_str_name().trim_start_matches("REMOVAL_REASON_") {
        "UNSPECIFIED" => what.to_owned(),
        reason => format!("{what} ({reason})"),
    }
}

/// An operator as the registry has put him on the record, anybody else by the address.
fn who(step: &InstanceStep) -> String {
    match (step.who.as_str(), step.peer.as_str()) {
        ("", "") => "the registry".to_owned(),
        ("", peer) => peer.to_owned(),
        (who, "") => who.to_owned(),
        (who, peer) => format!("{who} from {peer}"),
    }
}

fn why(step: &InstanceStep) -> String {
    let parts = [step.detail.as_str(), step.why.as_str()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}

fn watcher(watch: &InstanceWatch) -> [String; 5] {
    let revision = |revision: i64| {
        if revision > 0 {
            revision.to_string()
        } else {
            String::new()
        }
    };
    [
        watch.peer.clone(),
        watch.watch_id.clone(),
        revision(watch.told_revision),
        revision(watch.acknowledged_revision),
        moment(watch.acknowledged_at.as_ref()).unwrap_or_default(),
    ]
}

fn timestamp(at: Option<&prost_types::Timestamp>) -> Option<jiff::Timestamp> {
    at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok())
}

fn moment(at: Option<&prost_types::Timestamp>) -> Option<String> {
    timestamp(at).map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn document(name: &InstanceName, told: &ExplainInstanceResponse) -> Value {
    let instant = |at: Option<&prost_types::Timestamp>| timestamp(at).map(output::instant);
    let decision = |decision: &GovernanceDecision| {
        json!({
            "kind": decision.kind().as_str_name().trim_start_matches("KIND_"),
            "who": decision.who,
            "why": decision.why,
            "until": instant(decision.until.as_ref()),
            "at": instant(decision.at.as_ref()),
            "revision": decision.revision,
        })
    };
    let step = |step: &InstanceStep| {
        json!({
            "revision": step.revision,
            "at": instant(step.at.as_ref()),
            "what": step.what().as_str_name().trim_start_matches("WHAT_"),
            "reason": (step.reason != 0)
                .then(|| step.reason().as_str_name().trim_start_matches("REMOVAL_REASON_")),
            "who": step.who,
            "peer": step.peer,
            "lease_id": step.lease_id,
            "why": step.why,
            "detail": step.detail,
        })
    };
    let watch = |watch: &InstanceWatch| {
        json!({
            "watch_id": watch.watch_id,
            "peer": watch.peer,
            "told_revision": watch.told_revision,
            "told_at": instant(watch.told_at.as_ref()),
            "acknowledged_revision": watch.acknowledged_revision,
            "acknowledged_at": instant(watch.acknowledged_at.as_ref()),
        })
    };
    json!({
        "instance": name.to_string(),
        "registered": told.instance.is_some(),
        "epoch": told.instance.as_ref().map(|instance| instance.epoch),
        "override": told.r#override.as_ref().map(|laid| json!({
            "drained": laid.drained,
            "weight": laid.weight,
            "decisions": laid.decisions.iter().map(decision).collect::<Vec<_>>(),
        })),
        "steps": told.steps.iter().map(step).collect::<Vec<_>>(),
        "more_steps": told.more_steps,
        "compacted_revision": told.compacted_revision,
        "watches": told.watches.iter().map(watch).collect::<Vec<_>>(),
        "revision": told.revision,
    })
}

#[cfg(test)]
mod tests {
    use proto::registry::v1::{GovernanceOverride, RemovalReason, instance_step::What};

    use super::*;

    fn told() -> ExplainInstanceResponse {
        let at = Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        });
        ExplainInstanceResponse {
            r#override: Some(GovernanceOverride {
                drained: true,
                decisions: vec![GovernanceDecision {
                    kind: Kind::Drain.into(),
                    who: "ann".into(),
                    why: "disk\u{1b}[31m is failing".into(),
                    revision: 7,
                    ..GovernanceDecision::default()
                }],
                ..GovernanceOverride::default()
            }),
            steps: vec![
                InstanceStep {
                    revision: 9,
                    at,
                    what: What::Removed.into(),
                    reason: RemovalReason::Expired.into(),
                    why: "no renewal within 15s".into(),
                    ..InstanceStep::default()
                },
                InstanceStep {
                    revision: 7,
                    at,
                    what: What::Drained.into(),
                    who: "ann".into(),
                    peer: "10.0.0.7:4711".into(),
                    why: "disk is failing".into(),
                    ..InstanceStep::default()
                },
            ],
            compacted_revision: 5,
            revision: 9,
            ..ExplainInstanceResponse::default()
        }
    }

    #[test]
    fn people_are_told_a_timeline() {
        let name: InstanceName = "ticket-svc/ticket-2".parse().expect("a name");
        let text = human(&name, &told());
        for expected in [
            "ticket-svc/ticket-2 is not registered.",
            "Drained by ann (revision 7): disk is failing.",
            "2023-11-14 22:13:20",
            "REMOVED (EXPIRED)",
            "the registry",
            "ann from 10.0.0.7:4711",
            "What happened up to revision 5 is forgotten.",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(!text.contains("[31m"), "{text}");
    }

    #[test]
    fn machines_are_told_all_of_it() {
        let name: InstanceName = "ticket-svc/ticket-2".parse().expect("a name");
        let document = document(&name, &told());
        assert_eq!(document["steps"][0]["reason"], "EXPIRED");
        assert_eq!(document["steps"][1]["reason"], Value::Null);
        assert_eq!(document["override"]["decisions"][0]["kind"], "DRAIN");
        assert_eq!(
            (&document["registered"], &document["compacted_revision"]),
            (&json!(false), &json!(5))
        );
    }
}
