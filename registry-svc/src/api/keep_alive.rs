//! Heartbeats: one (Renew), or many on one stream (KeepAlive).

use std::pin::Pin;

use futures_util::{Stream, stream};
use proto::registry::v1 as wire;
use tonic::{Status, Streaming};

use super::{
    Api,
    error::{ApiError, jittered_delay},
    instance,
    validate::Violations,
};
use crate::{
    catalog::{CatalogError, Owner},
    limits,
    model::{LeaseId, SecretHash, ValueError},
};

/// What KeepAlive answers with.
pub(super) type KeepAliveStream = Pin<Box<dyn Stream<Item = Result<wire::KeepAliveResponse, Status>> + Send>>;

/// Answers Renew.
pub(super) async fn renew(api: &Api, request: &wire::RenewRequest) -> Result<wire::RenewResponse, ApiError> {
    let mut violations = Violations::default();
    let claim = violations.claim(&request.lease_id, &request.lease_secret);
    let Some(claim) = claim else {
        return Err(violations.into_error());
    };
    let results = api.driver.renew(vec![claim.owner()?]).await?;
    let result = results
        .first()
        .copied()
        .ok_or(ApiError::Bug("a renewal without a result"))?;
    let renewed = result.map_err(CatalogError::from)?;
    Ok(wire::RenewResponse {
        ttl: Some(instance::duration(renewed.ttl)),
    })
}

/// Answers KeepAlive: one response a request, in order, until the client ends its side or the server drains.
pub(super) fn keep_alive(api: Api, requests: Streaming<wire::KeepAliveRequest>) -> KeepAliveStream {
    Box::pin(stream::unfold(Some((api, requests)), |open| async move {
        let (api, mut requests) = open?;
        match next(&api, &mut requests).await {
            Ok(Some(response)) => Some((Ok(response), Some((api, requests)))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

async fn next(
    api: &Api,
    requests: &mut Streaming<wire::KeepAliveRequest>,
) -> Result<Option<wire::KeepAliveResponse>, Status> {
    let request = tokio::select! {
        request = requests.message() => request?,
        () = api.drain.wait() => return Err(ApiError::Draining.into()),
    };
    match request {
        Some(request) => Ok(Some(round(api, request.renewals).await?)),
        None => Ok(None),
    }
}

/// A wrong entry spoils nothing but itself: its owner registers again, the others live.
async fn round(api: &Api, renewals: Vec<wire::RenewRequest>) -> Result<wire::KeepAliveResponse, ApiError> {
    use wire::keep_alive_result::Outcome;
    let (limit, found) = (limits::RENEWALS_PER_ROUND, renewals.len());
    let mut violations = Violations::default();
    if found == 0 {
        violations.add("renewals", format!("required: 1 to {limit} renewals"));
    } else if found > limit {
        violations.add("renewals", ValueError::TooManyEntries { limit, found });
    }
    violations.finish()?;

    let owners: Vec<Option<Owner>> = renewals.iter().map(owner).collect();
    let known = owners.iter().flatten().copied().collect();
    let mut results = api.driver.renew(known).await?.into_iter();
    let results = renewals.into_iter().zip(owners).map(|(renewal, owner)| {
        let renewed = owner.and_then(|_| results.next()?.ok());
        let outcome = match renewed {
            Some(renewed) => Outcome::Ttl(instance::duration(renewed.ttl)),
            None => Outcome::RegisterAgainAfter(instance::duration(jittered_delay())),
        };
        // Echoed to match it up, but not what could never have been one of ours.
        let lease_id = if renewal.lease_id.len() <= limits::LEASE_TEXT_CHARS {
            renewal.lease_id
        } else {
            String::new()
        };
        wire::KeepAliveResult {
            lease_id,
            outcome: Some(outcome),
        }
    });
    Ok(wire::KeepAliveResponse {
        results: results.collect(),
    })
}

fn owner(renewal: &wire::RenewRequest) -> Option<Owner> {
    // Hashing a megabyte a thousand times is not a favour to do for a stranger.
    if renewal.lease_secret.len() > limits::LEASE_TEXT_CHARS {
        return None;
    }
    let lease = LeaseId::parse(&renewal.lease_id)?;
    Some(Owner {
        lease,
        secret: SecretHash::of(&renewal.lease_secret),
    })
}
