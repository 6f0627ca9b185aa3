//! `UpdateInstanceRequest` → [`Update`], `DeregisterRequest` → [`Deregister`].

use proto::registry::v1 as wire;

use super::{error::ApiError, instance, validate::Violations};
use crate::{
    catalog::{Deregister, Update},
    limits,
    model::{Detail, Epoch, InstanceId, Metadata, RemovalReason, Revision, ValueError},
};

/// Validates `UpdateInstance`.
pub(super) fn update(request: wire::UpdateInstanceRequest) -> Result<Update, ApiError> {
    const MASK: &str = "update_mask";
    const MASK_RULE: &str = "must name any of \"weight\", \"status\" and \"metadata\"";
    let mut violations = Violations::default();
    let claim = violations.claim(&request.lease_id, &request.lease_secret);
    let epoch = u64::try_from(request.epoch).ok().filter(|epoch| *epoch > 0);
    let epoch = violations.check("epoch", epoch.ok_or("required: the epoch that Register returned"));
    let Some(said) = request.instance else {
        violations.add("instance", "required");
        return Err(violations.into_error());
    };
    let key = instance::key(&mut violations, "instance", &said.namespace, &said.service, &said.id);

    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        violations.add(MASK, MASK_RULE);
    }
    let (mut weight, mut status, mut metadata) = (None, None, None);
    let mut said_metadata = Some(said.metadata);
    for path in &paths {
        match path.as_str() {
            "weight" => weight = instance::weight(&mut violations, "instance.weight", said.weight),
            "status" => status = instance::status(&mut violations, "instance.status", said.status),
            "metadata" => {
                if let Some(pairs) = said_metadata.take() {
                    metadata = violations.check("instance.metadata", Metadata::try_new(pairs.into_iter()));
                }
            }
            _ => {
                violations.add(MASK, MASK_RULE);
                break;
            }
        }
    }
    let (Some(claim), Some(key), Some(epoch)) = (claim, key, epoch) else {
        return Err(violations.into_error());
    };
    violations.finish()?;
    let epoch = Epoch::of(Revision::new(epoch));
    Ok(Update {
        owner: claim.owner()?,
        key,
        epoch,
        weight,
        status,
        metadata,
    })
}

/// Validates `Deregister`.
pub(super) fn deregister(request: &wire::DeregisterRequest) -> Result<Deregister, ApiError> {
    let mut violations = Violations::default();
    let claim = violations.claim(&request.lease_id, &request.lease_secret);
    let found = request.instance_ids.len();
    let mut ids = Vec::new();
    if found > limits::INSTANCES_PER_LEASE {
        violations.add(
            "instance_ids",
            ValueError::TooManyEntries {
                limit: limits::INSTANCES_PER_LEASE,
                found,
            },
        );
    } else {
        for (index, id) in request.instance_ids.iter().enumerate() {
            ids.extend(violations.check(format!("instance_ids[{index}]"), InstanceId::try_new(id)));
        }
    }
    let reason = match wire::RemovalReason::try_from(request.reason) {
        Ok(wire::RemovalReason::Unspecified | wire::RemovalReason::Deregistered) => Ok(RemovalReason::Deregistered),
        Ok(wire::RemovalReason::Drained) => Ok(RemovalReason::Drained),
        _ => Err("must be DEREGISTERED or DRAINED: the other reasons are the registry's to give"),
    };
    let reason = violations.check("reason", reason);
    let detail = violations.check("detail", Detail::try_new(&request.detail));
    let (Some(claim), Some(reason), Some(detail)) = (claim, reason, detail) else {
        return Err(violations.into_error());
    };
    violations.finish()?;
    Ok(Deregister {
        owner: claim.owner()?,
        // The caller's, who is known to the RPC.
        within: None,
        ids,
        reason,
        detail,
    })
}
