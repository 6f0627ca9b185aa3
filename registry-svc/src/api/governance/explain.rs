//! What became of an instance: the hub's story of it, as the wire has it.

use proto::registry::v1::{self as wire, instance_step::What as Kind};

use super::decide;
use crate::{
    access::scope::Need,
    api::{caller::Caller, error::ApiError, instance, validate::Violations},
    catalog::{CatalogError, OverrideChange},
    hub::{Episode, Hub, Story, What},
    limits,
    model::{Act, Health, Instance, InstanceKey, LeaseId, Moment, Status, Who},
};

/// Answers `ExplainInstance`.
pub(super) fn explain(
    hub: &Hub,
    caller: &Caller,
    now: Moment,
    request: wire::ExplainInstanceRequest,
) -> Result<wire::ExplainInstanceResponse, ApiError> {
    let mut violations = Violations::default();
    let key = decide::reference(&mut violations, request.instance);
    let Some(key) = key else {
        return Err(violations.into_error());
    };
    violations.finish()?;
    // Addresses of clients are for those who run them.
    caller.needs(Need::Operate(&key.namespace))?;
    let story = hub.story(&key, now, limits::STEPS);
    if story.instance.is_none() && story.laid.is_none() && story.episodes.is_empty() {
        return Err(unknown(&key, &story).into());
    }
    let watches = watches(hub, &story);
    Ok(wire::ExplainInstanceResponse { watches, ..told(story) })
}

/// The watches that are told of it, those that began first first. One that is not there is told to those who were told of it last.
fn watches(hub: &Hub, story: &Story) -> Vec<wire::InstanceWatch> {
    let last = story.episodes.iter().find_map(|episode| match &episode.what {
        What::Registered(instance) | What::Updated { instance, .. } => Some(instance),
        What::Removed { .. } | What::Governed(_) => None,
    });
    let Some(instance) = story.instance.as_ref().or(last) else {
        return Vec::new();
    };
    let mut standings = hub.acks().told_of(instance);
    standings.sort_unstable_by_key(|standing| (standing.since, standing.id));
    let told = standings.into_iter().take(limits::WATCHES_TOLD);
    told.map(|standing| wire::InstanceWatch {
        watch_id: standing.id.to_string(),
        peer: standing.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        told_revision: instance::number(standing.sent),
        told_at: standing.sent_at.map(instance::timestamp),
        acknowledged_revision: instance::number(standing.acknowledged),
        acknowledged_at: standing.acknowledged_at.map(instance::timestamp),
    })
    .collect()
}

fn unknown(key: &InstanceKey, story: &Story) -> CatalogError {
    let forgotten = match story.compacted.get() {
        0 => String::new(),
        compacted => format!("; what happened up to revision {compacted} is forgotten"),
    };
    CatalogError::InstanceUnknown(format!("{key}, and the history has nothing of it{forgotten}"))
}

fn told(story: Story) -> wire::ExplainInstanceResponse {
    let removal = match (&story.instance, story.episodes.iter().find_map(removal)) {
        (None, removal) => removal,
        (Some(_), _) => None,
    };
    wire::ExplainInstanceResponse {
        instance: story.instance.map(|instance| instance::to_wire(&instance)),
        removal,
        r#override: story.laid.map(|laid| instance::override_to_wire(&laid)),
        steps: story.episodes.iter().map(step).collect(),
        more_steps: story.has_more,
        compacted_revision: instance::number(story.compacted),
        watches: Vec::new(),
        revision: instance::number(story.revision),
        confidence: Some(instance::confidence(story.confidence)),
    }
}

fn removal(episode: &Episode) -> Option<wire::Removal> {
    let What::Removed { removal, .. } = &episode.what else {
        return None;
    };
    Some(wire::Removal {
        service: removal.key.service.to_string(),
        id: removal.key.id.to_string(),
        reason: instance::reason(removal.reason).into(),
        detail: removal.detail.to_string(),
        removed_at: Some(instance::timestamp(episode.at)),
    })
}

fn step(episode: &Episode) -> wire::InstanceStep {
    let mut step = wire::InstanceStep {
        revision: instance::number(episode.revision),
        at: Some(instance::timestamp(episode.at)),
        peer: text(episode.by.as_ref()),
        ..Default::default()
    };
    match &episode.what {
        What::Registered(instance) => {
            step.set_what(Kind::Registered);
            step.lease_id = instance.lease.to_string();
            step.detail = listens(instance);
        }
        What::Updated { instance, former } => {
            step.set_what(Kind::Updated);
            step.lease_id = instance.lease.to_string();
            step.detail = changed(instance, former.as_deref());
        }
        What::Removed { removal, lease } => {
            step.set_what(Kind::Removed);
            step.set_reason(instance::reason(removal.reason));
            step.lease_id = lease.as_ref().map(LeaseId::to_string).unwrap_or_default();
            step.why = removal.detail.to_string();
        }
        What::Governed(change) => govern(&mut step, change),
    }
    step
}

fn govern(step: &mut wire::InstanceStep, change: &OverrideChange) {
    // What ends by itself nobody has decided.
    if !matches!(change.act, Act::DrainEnded | Act::WeightEnded | Act::Forgotten) {
        step.who = text(change.who.as_ref());
    }
    step.why = change.why.to_string();
    let (kind, detail) = match change.act {
        Act::Drained => (Kind::Drained, String::new()),
        Act::Undrained => (Kind::Undrained, String::new()),
        Act::WeightSet(weight) => (Kind::WeightSet, format!("weight {}", weight.get())),
        Act::WeightCleared => (Kind::WeightSet, "its own weight".to_owned()),
        Act::DrainEnded => (Kind::OverrideEnded, "the drain's time was over".to_owned()),
        Act::WeightEnded => (Kind::OverrideEnded, "the weight's time was over".to_owned()),
        Act::Forgotten => (Kind::OverrideEnded, "forgotten".to_owned()),
    };
    step.set_what(kind);
    step.detail = detail;
}

fn text(who: Option<&Who>) -> String {
    who.map(Who::to_string).unwrap_or_default()
}

/// Where a registration says that it is reached.
fn listens(instance: &Instance) -> String {
    let first = instance.spec.endpoints.iter().next();
    let mut text = first.map_or_else(String::new, |endpoint| {
        let host = endpoint.host;
        match host.contains(':') {
            true => format!("at [{host}]:{}", endpoint.port.get()),
            false => format!("at {host}:{}", endpoint.port.get()),
        }
    });
    let version = instance.spec.labels.version.as_str();
    if !version.is_empty() {
        text.push_str(&format!(", version {version}"));
    }
    text
}

/// What an update changed; where the history does not have what was before, what it says now.
fn changed(instance: &Instance, former: Option<&Instance>) -> String {
    let now = &instance.spec;
    let Some((before, health)) = former.map(|former| (&former.spec, former.health)) else {
        return format!("now {}, weight {}", status(now.status), now.weight.get());
    };
    let mut changes = Vec::new();
    if health != instance.health {
        changes.push(match instance.health {
            Health::Failing => "probes fail".to_owned(),
            Health::Passing => "probes pass".to_owned(),
            Health::Unprobed => "not probed".to_owned(),
        });
    }
    if before.status != now.status {
        changes.push(format!("{} to {}", status(before.status), status(now.status)));
    }
    if before.weight != now.weight {
        changes.push(format!("weight {} to {}", before.weight.get(), now.weight.get()));
    }
    if before.metadata != now.metadata {
        changes.push("metadata".to_owned());
    }
    changes.join(", ")
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Starting => "STARTING",
        Status::Up => "UP",
        Status::Draining => "DRAINING",
        Status::Down => "DOWN",
    }
}
