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
    model::{Draft, Heartbeat, LeaseId, LeaseSecret, Terms, ValueError},
    prober::Speaks,
};

/// Validates a request to a registry that probes so, and draws what it leaves to us.
pub(super) fn command(request: wire::RegisterRequest, probes: Speaks) -> Result<Register, ApiError> {
    let mut violations = Violations::default();
    let request_id = request_id(&mut violations, &request.request_id);
    let wanted = instances(&mut violations, request.instances, probes);
    let joins = !(request.lease_id.is_empty() && request.lease_secret.is_empty());
    let terms = terms(
        &mut violations,
        request.heartbeat_interval,
        request.misses_allowed,
        joins,
    );
    let claim = if joins {
        violations.claim(&request.lease_id, &request.lease_secret)
    } else {
        None
    };
    let (Some(request_id), Some(wanted), Some(terms)) = (request_id, wanted, terms) else {
        return Err(violations.into_error());
    };
    violations.finish()?;

    // Over what the client said, before anything is drawn: a repeat says the same and would draw something else.
    let request_id = request_id.map(|id| RequestId {
        id: id.as_u128(),
        body: fingerprint(&(&wanted, terms, &request.lease_id, &request.lease_secret)),
    });
    let lease = choice(claim, request.lease_secret, terms)?;
    Ok(Register {
        request: request_id,
        drafts: wanted.into_iter().map(drawn).collect(),
        lease,
        registrant: None,
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

fn choice(claim: Option<Claim>, secret: String, terms: Terms) -> Result<LeaseChoice, ApiError> {
    let Some(claim) = claim else {
        return Ok(LeaseChoice::Grant {
            id: LeaseId::from_random(rand::random()),
            secret: LeaseSecret::from_random(rand::random()),
            heartbeat: terms
                .over(Heartbeat::DEFAULT)
                .map_err(|_| ApiError::Bug("terms that were checked break their rule"))?,
        });
    };
    Ok(LeaseChoice::Join {
        owner: claim.owner()?,
        secret,
        terms,
        // The caller's, who is known to the RPC.
        within: None,
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

fn instances(violations: &mut Violations, instances: Vec<wire::Instance>, probes: Speaks) -> Option<Vec<Wanted>> {
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
        let Some(wanted) = instance::wanted(violations, &prefix, instance, probes) else {
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

/// What the request leaves out is, for a new lease, the default, and for one that is joined, the lease's own, which only the
/// catalog knows.
fn terms(
    violations: &mut Violations,
    interval: Option<prost_types::Duration>,
    misses: u32,
    joins: bool,
) -> Option<Terms> {
    const INTERVAL: &str = "heartbeat_interval";
    let interval: Option<Duration> = match interval {
        Some(interval) => Some(violations.duration(INTERVAL, interval)?),
        None => None,
    };
    let misses = (misses > 0).then_some(misses);
    let terms = Terms { interval, misses };
    let over = if joins { Heartbeat::LONGEST } else { Heartbeat::DEFAULT };
    match terms.over(over) {
        Ok(_) => Some(terms),
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
