//! `RegisterRequest` → [`Register`].

use std::{collections::HashMap, time::Duration};

use proto::registry::v1 as wire;
use uuid::Uuid;

use super::{
    error::ApiError,
    fingerprint::fingerprint,
    instance::{self, Wanted},
    validate::{Claim, Violations},
};
use crate::{
    catalog::{LeaseChoice, Register, Registered, RequestId},
    limits,
    model::{Draft, Heartbeat, LeaseId, LeaseSecret, ValueError},
};

/// Validates a request and draws what it leaves to us.
pub(super) fn command(request: wire::RegisterRequest) -> Result<Register, ApiError> {
    let mut violations = Violations::default();
    let request_id = request_id(&mut violations, &request.request_id);
    let wanted = instances(&mut violations, request.instances);
    let terms = terms(&mut violations, request.heartbeat_interval, request.misses_allowed);
    let claim = match (request.lease_id.as_str(), request.lease_secret.as_str()) {
        ("", "") => None,
        (lease, secret) => violations.claim(lease, secret),
    };
    let (Some(request_id), Some(wanted), Some(terms)) = (request_id, wanted, terms) else {
        return Err(violations.into_error());
    };
    violations.finish()?;

    // Over what the client said, before anything is drawn: a repeat says the same and would draw something else.
    let body = fingerprint(&(&wanted, terms, &request.lease_id, &request.lease_secret));
    let lease = choice(claim, request.lease_secret, terms)?;
    Ok(Register {
        request: request_id.map(|id| RequestId { id: id.as_u128(), body }),
        drafts: wanted.into_iter().map(drawn).collect(),
        lease,
    })
}

/// `Register`'s answer.
pub(super) fn reply(registered: Registered) -> wire::RegisterResponse {
    let revision = instance::number(registered.revision);
    wire::RegisterResponse {
        lease_id: registered.lease.to_string(),
        lease_secret: registered.secret.0,
        instance_ids: registered.ids.iter().map(ToString::to_string).collect(),
        epoch: revision,
        ttl: Some(instance::duration(registered.ttl)),
        revision,
    }
}

fn drawn(wanted: Wanted) -> Draft {
    wanted.draft(rand::random())
}

fn choice(claim: Option<Claim>, secret: String, terms: Option<Heartbeat>) -> Result<LeaseChoice, ApiError> {
    let Some(claim) = claim else {
        return Ok(LeaseChoice::Grant {
            id: LeaseId::from_random(rand::random()),
            secret: LeaseSecret::from_random(rand::random()),
            heartbeat: terms.map_or_else(default_terms, Ok)?,
        });
    };
    Ok(LeaseChoice::Join {
        owner: claim.owner()?,
        secret,
        heartbeat: terms,
    })
}

/// Empty is allowed: then a repeat registers again.
fn request_id(violations: &mut Violations, text: &str) -> Option<Option<Uuid>> {
    if text.is_empty() {
        return Some(None);
    }
    violations
        .check(
            "request_id",
            Uuid::try_parse(text).map_err(|_| "must be a UUID (RFC 9562), or empty"),
        )
        .map(Some)
}

fn instances(violations: &mut Violations, instances: Vec<wire::Instance>) -> Option<Vec<Wanted>> {
    const FIELD: &str = "instances";
    let (limit, found) = (limits::INSTANCES_PER_REGISTER, instances.len());
    if found == 0 {
        violations.add(FIELD, format!("required: 1 to {limit} instances"));
        return None;
    }
    if found > limit {
        violations.add(FIELD, ValueError::TooManyEntries { limit, found });
        return None;
    }
    let mut all = Vec::with_capacity(found);
    let mut seen = HashMap::new();
    for (index, instance) in instances.into_iter().enumerate() {
        let prefix = format!("{FIELD}[{index}]");
        let Some(wanted) = instance::wanted(violations, &prefix, instance) else {
            continue;
        };
        if let Some(id) = &wanted.id {
            let key = (wanted.namespace.clone(), wanted.service.clone(), id.clone());
            if let Some(first) = seen.insert(key, index) {
                let first = format!("{FIELD}[{first}]");
                violations.add(format!("{prefix}.id"), ValueError::Repeated { first });
            }
        }
        all.push(wanted);
    }
    (all.len() == found).then_some(all)
}

/// `Some(None)` where the request says nothing: a new lease has the defaults, a joined one keeps its own.
fn terms(
    violations: &mut Violations,
    interval: Option<prost_types::Duration>,
    misses: u32,
) -> Option<Option<Heartbeat>> {
    const INTERVAL: &str = "heartbeat_interval";
    if interval.is_none() && misses == 0 {
        return Some(None);
    }
    let interval: Duration = match interval {
        Some(interval) => violations.duration(INTERVAL, interval)?,
        None => limits::HEARTBEAT_DEFAULT,
    };
    let misses = if misses == 0 { limits::MISSES_DEFAULT } else { misses };
    match Heartbeat::try_new(interval, misses) {
        Ok(heartbeat) => Some(Some(heartbeat)),
        Err(error) => {
            let field = if matches!(error, ValueError::OutOfRange { .. }) {
                "misses_allowed"
            } else {
                INTERVAL
            };
            violations.add(field, error);
            None
        }
    }
}

fn default_terms() -> Result<Heartbeat, ApiError> {
    Heartbeat::try_new(limits::HEARTBEAT_DEFAULT, limits::MISSES_DEFAULT)
        .map_err(|_| ApiError::Bug("the default heartbeat breaks its own rule"))
}
