//! Requests of operators → [`Govern`].

use std::time::Duration;

use proto::registry::v1 as wire;

use crate::{
    api::{acks, error::ApiError, instance, validate::Violations},
    catalog::{Decision, Govern},
    limits,
    model::{Detail, InstanceKey, WallTime, Weight, Who},
};

/// Validates `Drain`, and says how long to wait for watchers.
pub(super) fn drain(request: wire::DrainRequest, now: WallTime) -> Result<(Govern, Duration), ApiError> {
    let mut violations = Violations::default();
    let until = until(&mut violations, request.until, now);
    let default = limits::DRAIN_ACK_TIMEOUT_DEFAULT;
    let ack_timeout = acks::timeout(&mut violations, "ack_timeout", request.ack_timeout, default);
    let asked = Asked {
        instance: request.instance,
        who: &request.who,
        why: &request.why,
    };
    let decision = until.map(|until| Decision::Drain { until });
    let govern = govern(violations, asked, decision.filter(|_| ack_timeout.is_some()))?;
    let ack_timeout = ack_timeout.ok_or(ApiError::Bug("what is wrong was not told"))?;
    Ok((govern, ack_timeout))
}

/// Validates `Undrain`.
pub(super) fn undrain(request: wire::UndrainRequest) -> Result<Govern, ApiError> {
    let asked = Asked {
        instance: request.instance,
        who: &request.who,
        why: &request.why,
    };
    govern(Violations::default(), asked, Some(Decision::Undrain))
}

/// Validates `SetWeight`.
pub(super) fn set_weight(request: wire::SetWeightRequest, now: WallTime) -> Result<Govern, ApiError> {
    let mut violations = Violations::default();
    let decision = match request.weight {
        None => {
            if request.until.is_some() {
                violations.add("until", "has no meaning without a weight: leave it out");
            }
            Some(Decision::OwnWeight)
        }
        Some(weight) => {
            let weight = violations.check("weight", Weight::try_new(weight));
            let until = until(&mut violations, request.until, now);
            weight
                .zip(until)
                .map(|(weight, until)| Decision::SetWeight { weight, until })
        }
    };
    let asked = Asked {
        instance: request.instance,
        who: &request.who,
        why: &request.why,
    };
    govern(violations, asked, decision)
}

/// What all of them ask alike.
struct Asked<'a> {
    instance: Option<wire::InstanceRef>,
    who: &'a str,
    why: &'a str,
}

fn govern(mut violations: Violations, asked: Asked<'_>, decision: Option<Decision>) -> Result<Govern, ApiError> {
    let key = reference(&mut violations, asked.instance);
    let who = violations.check("who", Who::try_new(asked.who));
    let why = violations.check("why", Detail::try_new(asked.why));
    let (Some(key), Some(who), Some(why), Some(decision)) = (key, who, why, decision) else {
        return Err(violations.into_error());
    };
    violations.finish()?;
    Ok(Govern {
        key,
        decision,
        who,
        why,
    })
}

/// The instance that is meant; required.
pub(super) fn reference(violations: &mut Violations, reference: Option<wire::InstanceRef>) -> Option<InstanceKey> {
    let Some(wire::InstanceRef { namespace, service, id }) = reference else {
        violations.add("instance", "required");
        return None;
    };
    instance::key(violations, "instance", &namespace, &service, &id)
}

/// When a decision ends; to come, and not too far away.
fn until(
    violations: &mut Violations,
    until: Option<prost_types::Timestamp>,
    now: WallTime,
) -> Option<Option<WallTime>> {
    let Some(until) = until else { return Some(None) };
    let until = violations.time("until", until)?;
    let latest = now.seconds.saturating_add_unsigned(limits::UNTIL_MAX.as_secs());
    if until <= now || until.seconds > latest {
        violations.add(
            "until",
            "must be in the future, by at most 366 days; leave it out for no end",
        );
        return None;
    }
    Some(Some(until))
}
