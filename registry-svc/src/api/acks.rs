//! AckWatch, AwaitWatchers, and the waiting that Drain shares with them.

use std::{sync::Arc, time::Duration};

use http::Extensions;
use proto::registry::v1 as wire;
use tokio::time::Instant;
use tonic::transport::server::TcpConnectInfo;
use tracing::info;

use super::{Api, caller::Caller, error::ApiError, instance, validate::Violations};
use crate::{
    access::{Principal, scope::Need},
    catalog::CatalogError,
    driver::Clock,
    hub::{AckError, Holder, Standing},
    limits,
    model::{Instance, Revision, WatchId},
};

/// How long a replica that is behind a revision is waited for before it is said not to have happened.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Watches that are logged when they have not acknowledged: enough to find out who they are.
const LOGGED: usize = 5;

/// Those who have not acknowledged, when nobody waits for them any longer.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Watches of this replica.
    pub(super) watches: Vec<String>,
    /// This replica's name among others; empty where it is alone.
    pub(super) replica: String,
    /// The others, whose watches are theirs to tell of.
    pub(super) others: Vec<String>,
    /// Watchers may be on their way back after a restart; of them nothing is known.
    pub(super) may_return: bool,
}

/// Who makes a request, for the watches that are theirs.
pub(super) fn holder(extensions: &Extensions) -> Holder {
    let connection = extensions.get::<TcpConnectInfo>();
    let principal = extensions.get::<Principal>();
    Holder {
        address: connection.and_then(TcpConnectInfo::remote_addr),
        principal: principal.map(|principal| principal.to_string().into()),
    }
}

/// Answers AckWatch.
pub(super) fn acknowledge(api: &Api, holder: &Holder, request: &wire::AckWatchRequest) -> Result<(), ApiError> {
    let mut violations = Violations::default();
    if request.watch_id.is_empty() {
        violations.add("watch_id", "required: as the watch's responses tell it");
    }
    let revision = u64::try_from(request.revision).map_err(|_| "must be 0 or a revision that was told");
    let revision = violations.check("revision", revision);
    let Some(revision) = revision.filter(|_| violations.is_empty()) else {
        return Err(violations.into_error());
    };
    let id = WatchId::parse(&request.watch_id).ok_or(AckError::UnknownWatch)?;
    let revision = Revision::new(revision);
    api.hub.acks().acknowledge(id, holder, revision, Clock::wall())?;
    Ok(())
}

/// Answers AwaitWatchers.
pub(super) async fn await_watchers(
    api: &Api,
    caller: &Caller,
    request: &wire::AwaitWatchersRequest,
) -> Result<wire::AwaitWatchersResponse, ApiError> {
    let mut violations = Violations::default();
    let key = instance::key(&mut violations, "", &request.namespace, &request.service, &request.id);
    let revision = u64::try_from(request.revision).ok().filter(|revision| *revision > 0);
    let revision = violations.check("revision", revision.ok_or("required: as UpdateInstance returned it"));
    let timeout = timeout(&mut violations, "timeout", request.timeout, limits::ACK_TIMEOUT_DEFAULT);
    let (Some(key), Some(revision), Some(timeout)) = (key, revision, timeout) else {
        return Err(violations.into_error());
    };
    caller.needs(Need::Register(&key.namespace, &key.service))?;
    let (asked, until) = (Revision::new(revision), Instant::now() + timeout);
    let present = || api.hub.look(|view| view.revision());
    // Another replica may have committed it a moment ago.
    if present() < asked && api.hub.is_replicated() {
        tokio::select! {
            // Whether it came is asked below.
            _ = tokio::time::timeout(timeout.min(CATCH_UP), api.hub.reached(asked)) => {}
            () = api.drain.wait() => return Err(ApiError::Draining),
        }
    }
    let present = present();
    if present < asked {
        return Err(ApiError::NotYet { asked, present });
    }
    let instance = api.hub.look(|view| view.get(&key));
    let instance = instance.ok_or_else(|| CatalogError::InstanceUnknown(key.to_string()))?;
    let late = wait(api, &instance, asked, until).await?;
    Ok(wire::AwaitWatchersResponse {
        unacknowledged_watch_ids: late.watches,
        unheard_replicas: late.others,
        replica: late.replica,
        watchers_may_return: late.may_return,
    })
}

/// How long to wait for watchers.
pub(super) fn timeout(
    violations: &mut Violations,
    field: &str,
    asked: Option<prost_types::Duration>,
    default: Duration,
) -> Option<Duration> {
    let Some(asked) = asked else { return Some(default) };
    let asked = violations.duration(field, asked)?;
    let max = limits::ACK_TIMEOUT_MAX;
    violations.check(field, if asked <= max { Ok(asked) } else { Err("at most 5 min") })
}

/// Waits until every watch that is told of the instance has acknowledged the revision, at most until then. After a restart first until
/// watchers are back, in whose absence nobody would be left to wait for.
pub(super) async fn wait(
    api: &Api,
    instance: &Arc<Instance>,
    revision: Revision,
    until: Instant,
) -> Result<Late, ApiError> {
    let acks = api.hub.acks();
    let acknowledged = async {
        acks.settled(api.clock.now().moment).await;
        acks.acknowledged(instance, revision).await;
    };
    tokio::select! {
        // Who has not is asked below.
        _ = tokio::time::timeout_at(until, acknowledged) => {}
        () = api.drain.wait() => return Err(ApiError::Draining),
    }
    // Our own drain ends all watches. Their clients know nothing more by it: they come back, to another replica.
    if api.drain.is_draining() {
        return Err(ApiError::Draining);
    }
    let may_return = !acks.is_settled(api.clock.now().moment);
    let mut watches = acks.told_of(instance);
    watches.retain(|standing| standing.acknowledged < revision);
    // In the order in which they began.
    watches.sort_unstable_by_key(|standing| (standing.since, standing.id));
    for Standing {
        id,
        peer,
        sent,
        acknowledged,
        ..
    } in watches.iter().take(LOGGED)
    {
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        info!(instance = %instance.key, %revision, watch = %id, peer, %sent, %acknowledged, "a watch has not acknowledged");
    }
    let named = watches.iter().take(limits::UNACKNOWLEDGED_NAMED);
    let watches = named.map(|standing| standing.id.to_string()).collect();
    let (replica, others) = replicas(api, until).await;
    Ok(Late {
        watches,
        replica,
        others,
        may_return,
    })
}

/// This replica and the others. Their watches are not on our board, and nobody is to believe that they have acknowledged.
async fn replicas(api: &Api, until: Instant) -> (String, Vec<String>) {
    if !api.hub.is_replicated() {
        return Default::default();
    }
    let patience = until.saturating_duration_since(Instant::now());
    match api.hub.acks().others(patience).await {
        Some((own, others)) => (own.to_string(), others.iter().map(ToString::to_string).collect()),
        // The store has not told who shares it.
        None => (String::new(), vec!["unknown".to_owned()]),
    }
}
