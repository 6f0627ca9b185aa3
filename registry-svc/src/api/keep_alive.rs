//! Heartbeats: one (Renew), or many on one stream (KeepAlive).
//!
//! A KeepAlive stream that breaks off is how the death of a process looks from here, long before its leases lapse: those that
//! it carried become suspect. A client that half-closes its side has said that all is well.
//!
//! Who is bound to certain services has each lease compared with them once a stream, and again when a name has come to it; after
//! that a heartbeat costs a look at what the stream remembers. What binds does not change while a stream lives: a token that is
//! taken back or says something else ends its streams, and so does the end of a certificate.

use std::pin::Pin;

use futures_util::{Stream, stream};
use proto::registry::v1 as wire;
use tonic::{Status, Streaming};

use super::{
    Api,
    error::{ApiError, jittered_delay},
    instance,
    lanes::Heartbeats,
    validate::Violations,
};
use crate::{
    access::Bounds,
    catalog::{Beat, Names, Owner, Renewed},
    driver::{Handle, NotRenewed},
    limits,
    model::{ByLease, LeaseId, SecretHash, ValueError},
};

/// What KeepAlive answers with.
pub(super) type KeepAliveStream = Pin<Box<dyn Stream<Item = Result<wire::KeepAliveResponse, Status>> + Send>>;

/// Answers Renew.
pub(super) async fn renew(
    api: &Api,
    heartbeats: &Heartbeats,
    bounds: Option<Bounds>,
    request: &wire::RenewRequest,
) -> Result<wire::RenewResponse, ApiError> {
    let mut violations = Violations::default();
    let claim = violations.claim(&request.lease_id, &request.lease_secret);
    let Some(claim) = claim else {
        return Err(violations.into_error());
    };
    let owner = claim.owner()?;
    let _round = heartbeats.round();
    let seat = heartbeats.seat().await?;
    let results = api.driver.renew(vec![owner], bounds, Some(seat)).await?;
    let result = results
        .first()
        .copied()
        .ok_or(ApiError::Bug("a renewal without a result"))?;
    let renewed = result.map_err(ApiError::from)?;
    Ok(wire::RenewResponse {
        ttl: Some(instance::duration(renewed.ttl)),
    })
}

/// A KeepAlive stream, and what it carries.
struct Open {
    api: Api,
    heartbeats: Heartbeats,
    requests: Streaming<wire::KeepAliveRequest>,
    carried: Carried,
    /// Once for the stream: to begin anew with each message takes locks that all streams share.
    drained: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The leases that were renewed on a stream, each with its last renewal there. Dropped before [`Carried::forget`] it makes them
/// suspect: a client that has gone drops the stream at whichever await it stands.
struct Carried {
    driver: Handle,
    /// What the caller is bound to.
    bounds: Option<Bounds>,
    heard: ByLease<Heard>,
}

/// What a stream remembers of a lease.
#[derive(Debug, Clone, Copy)]
struct Heard {
    beat: Beat,
    /// The names of the lease that are known to be within the caller's bounds; `None`: another has come since.
    covered: Option<Names>,
}

impl Carried {
    /// What has to be compared with these leases: nothing, once it has been.
    fn bounds_of<'a>(&self, mut owners: impl Iterator<Item = &'a Owner>) -> Option<Bounds> {
        let bounds = self.bounds.as_ref()?;
        let is_covered = |owner: &Owner| {
            self.heard
                .get(&owner.lease)
                .is_some_and(|heard| heard.covered.is_some())
        };
        (!owners.all(is_covered)).then(|| bounds.clone())
    }

    /// `is_compared`: this renewal was one within the caller's bounds.
    fn note(&mut self, lease: LeaseId, renewed: Renewed, is_compared: bool) {
        let Renewed { beat, names, .. } = renewed;
        if let Some(heard) = self.heard.get_mut(&lease) {
            heard.beat = beat;
            heard.covered = (is_compared || heard.covered == Some(names)).then_some(names);
        } else if self.heard.len() < limits::LEASES_PER_STREAM {
            let covered = is_compared.then_some(names);
            self.heard.insert(lease, Heard { beat, covered });
        }
    }

    /// The stream has ended as it should, or we have ended it.
    fn forget(&mut self) {
        self.heard.clear();
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if !self.heard.is_empty() {
            let heard = self.heard.drain().map(|(lease, heard)| (lease, heard.beat));
            self.driver.suspect(heard.collect());
        }
    }
}

/// Answers KeepAlive: one response a request, in order, until the client ends its side or the server drains.
pub(super) fn keep_alive(
    api: Api,
    heartbeats: Heartbeats,
    bounds: Option<Bounds>,
    requests: Streaming<wire::KeepAliveRequest>,
) -> KeepAliveStream {
    let carried = Carried {
        driver: api.driver.clone(),
        bounds,
        heard: ByLease::default(),
    };
    let drained = Box::pin(api.drain.clone().into_wait());
    let open = Open {
        api,
        heartbeats,
        requests,
        carried,
        drained,
    };
    Box::pin(stream::unfold(Some(open), |open| async move {
        let mut open = open?;
        match open.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(open))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Open {
    async fn next(&mut self) -> Result<Option<wire::KeepAliveResponse>, Status> {
        let request = tokio::select! {
            // Asked again below, where an answer is never there at once.
            biased;
            // What breaks the stream comes as an error here (`intake` sees to that), and then nothing is forgotten.
            request = self.requests.message() => request?,
            () = &mut self.drained => {
                self.carried.forget();
                return Err(ApiError::Draining.into());
            }
        };
        let Some(request) = request else {
            self.carried.forget();
            return Ok(None);
        };
        let answered = tokio::select! {
            biased;
            answered = round(&self.api, &self.heartbeats, request.renewals, &mut self.carried) => answered,
            // A round may wait for the store, which may take longer than the drain does.
            () = &mut self.drained => Err(ApiError::Draining),
        };
        match answered {
            Ok(response) => Ok(Some(response)),
            Err(error) => {
                self.carried.forget();
                Err(error.into())
            }
        }
    }
}

/// A wrong entry spoils nothing but itself: its owner registers again, the others live.
async fn round(
    api: &Api,
    heartbeats: &Heartbeats,
    renewals: Vec<wire::RenewRequest>,
    carried: &mut Carried,
) -> Result<wire::KeepAliveResponse, ApiError> {
    use wire::keep_alive_result::Outcome;
    let (limit, found) = (limits::RENEWALS_PER_ROUND, renewals.len());
    let _round = heartbeats.round();
    let mut violations = Violations::default();
    if found == 0 {
        violations.add("renewals", format!("required: 1 to {limit} renewals"));
    } else if found > limit {
        violations.add("renewals", ValueError::TooManyEntries { limit, found });
    }
    violations.finish()?;

    let owners: Vec<Option<Owner>> = renewals.iter().map(owner).collect();
    let known = owners.iter().flatten().copied().collect();
    let bounds = carried.bounds_of(owners.iter().flatten());
    let is_compared = bounds.is_some();
    let seat = heartbeats.seat().await?;
    let results = api.driver.renew(known, bounds, Some(seat)).await?;
    if results.contains(&Err(NotRenewed::Undecided)) {
        // The whole stream is better off at another replica.
        return Err(NotRenewed::Undecided.into());
    }
    let mut results = results.into_iter();
    let results = renewals.into_iter().zip(owners).map(|(renewal, owner)| {
        let renewed = owner.and_then(|owner| {
            let renewed = results.next()?.ok()?;
            carried.note(owner.lease, renewed, is_compared);
            Some(renewed)
        });
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
