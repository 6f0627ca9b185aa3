//! `tessera watch`: every change of a service's instances as it happens, one line each. The raw watch of the registry,
//! resumed by hand where it broke, so that nothing is told twice.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use registry_client::{Error, Instance, InstanceEvent, Registry, SnapshotCause, WatchStep};
use serde_json::{Value, json};

use crate::{
    args::WatchArgs,
    failure::Failure,
    instances,
    output::{self, Output},
    registry, signals,
};

/// How long after a broken watch the next one is tried: a person is looking.
const RETRY: Duration = Duration::from_secs(1);

/// One thing that happened, in both languages.
struct Line {
    json: Value,
    human: String,
}

/// Prints until interrupted. Fails only when the registry was never reached, or refuses.
pub(crate) async fn run(args: &WatchArgs, output: Output) -> Result<(), Failure> {
    let registry = registry::open(&args.discovery)?;
    let shutdown = signals::install()?;
    tokio::select! {
        outcome = watch(&registry, &args.service, output) => outcome,
        () = shutdown.wait() => Ok(()),
    }
}

async fn watch(registry: &Registry, service: &str, output: Output) -> Result<(), Failure> {
    let mut revision = 0;
    let mut history = String::new();
    let mut reached = false;
    loop {
        let mut steps = registry.resume_watch(service, revision, history.as_str());
        let mut broken = None;
        while let Some(step) = steps.next().await {
            match step {
                Ok(step) => {
                    reached = true;
                    revision = step.revision();
                    history = steps.history_id().to_owned();
                    for line in lines(&step) {
                        print(&line, output)?;
                    }
                }
                Err(error) => broken = Some(error),
            }
        }
        match broken {
            Some(error) if !reached || !error.is_retryable() => return Err(registry::failure(registry, &error)),
            // It lost its history, or is another one: begin anew rather than never.
            Some(Error::Answered(answer)) if answer.code == tonic::Code::OutOfRange => revision = 0,
            Some(error) => output::note(&format!(
                "tessera: the watch broke ({}); resuming after revision {revision}",
                output::plain(&error.to_string())
            )),
            None => output::note(&format!(
                "tessera: the registry ended the watch; resuming after revision {revision}"
            )),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn print(line: &Line, output: Output) -> Result<(), Failure> {
    let now = Timestamp::now();
    let mut json = line.json.clone();
    json["time"] = output::instant(now).into();
    output.print(&json, || format!("{}  {}", now.strftime("%H:%M:%S%.3fZ"), line.human))
}

/// What a step tells. Bookmarks tell nothing to people, but machines resume from them.
fn lines(step: &WatchStep) -> Vec<Line> {
    match step {
        WatchStep::Snapshot {
            revision,
            instances,
            cause,
            confidence,
        } => vec![Line {
            json: json!({
                "event": "snapshot",
                "revision": revision,
                "cause": cause.to_string(),
                "confidence": confidence.to_string(),
                "instances": instances.iter().map(instances::as_json).collect::<Vec<_>>(),
            }),
            human: snapshot(*revision, *cause, instances),
        }],
        WatchStep::Delta { revision, events, .. } => events.iter().map(|event| delta(*revision, event)).collect(),
        WatchStep::Bookmark { .. } => Vec::new(),
    }
}

fn snapshot(revision: i64, cause: SnapshotCause, instances: &[Instance]) -> String {
    let why = match cause {
        SnapshotCause::Compacted => " (the registry no longer has what happened meanwhile)",
        SnapshotCause::Coalesced => " (this watch was slow; its changes were merged)",
        SnapshotCause::HistoryChanged => " (the registry has begun anew)",
        _ => "",
    };
    let count = output::count(instances.len(), "instance");
    let mut text = format!("SNAPSHOT   revision {revision}, {count}{why}");
    for instance in instances {
        text.push_str(&format!("\n                 {}", in_words(instance)));
    }
    text
}

fn delta(revision: i64, event: &InstanceEvent) -> Line {
    match event {
        InstanceEvent::Put(instance) => {
            // Nothing but its registration has the revision of its epoch.
            let what = if instance.epoch == instance.revision {
                "came"
            } else {
                "changed"
            };
            Line {
                json: json!({
                    "event": what,
                    "revision": revision,
                    "instance": instances::as_json(instance),
                }),
                human: format!(
                    "{:<9}  revision {revision}, {}",
                    what.to_uppercase(),
                    in_words(instance)
                ),
            }
        }
        InstanceEvent::Removed {
            service,
            id,
            reason,
            detail,
            removed_at,
        } => Line {
            json: json!({
                "event": "left",
                "revision": revision,
                "service": service,
                "id": id,
                "reason": reason.to_string(),
                "detail": detail,
                "removed_at": removed_at.and_then(instances::timestamp).map(output::instant),
            }),
            human: {
                let detail = if detail.is_empty() {
                    String::new()
                } else {
                    format!(": {detail}")
                };
                output::plain(&format!(
                    "LEFT       revision {revision}, {service}/{id} {reason}{detail}"
                ))
            },
        },
    }
}

fn in_words(instance: &Instance) -> String {
    output::plain(&format!(
        "{}/{} {} at {}, weight {}",
        instance.service,
        instance.id,
        instances::status(instance),
        instance.grpc_address().unwrap_or_else(|| "no gRPC address".to_owned()),
        instance.weight,
    ))
}

#[cfg(test)]
mod tests {
    use registry_client::RemovalReason;

    use super::*;

    #[test]
    fn an_instance_that_registers_came_and_one_that_differs_changed() {
        let mut instance = Instance::new("ticket-svc", "ticket-1", "127.0.0.1:7101");
        instance.epoch = 5;
        instance.revision = 5;
        let came = delta(5, &InstanceEvent::Put(instance.clone().into()));
        assert_eq!(
            came.human,
            "CAME       revision 5, ticket-svc/ticket-1 UP at 127.0.0.1:7101, weight 100"
        );
        instance.revision = 6;
        assert_eq!(delta(6, &InstanceEvent::Put(instance.into())).json["event"], "changed");
    }

    #[test]
    fn who_leaves_says_why() {
        let left = delta(
            7,
            &InstanceEvent::Removed {
                service: "ticket-svc".to_owned(),
                id: "ticket-1".to_owned(),
                reason: RemovalReason::Expired,
                detail: "no heartbeat for 15 s".to_owned(),
                removed_at: None,
            },
        );
        assert_eq!(
            left.human,
            "LEFT       revision 7, ticket-svc/ticket-1 EXPIRED: no heartbeat for 15 s"
        );
        assert_eq!(left.json["reason"], "EXPIRED");
    }
}
