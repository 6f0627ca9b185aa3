//! The stream of a watch: pulls steps from its [`Watcher`] as fast as the client takes them.
//!
//! Nothing is queued here: the next step is looked up when HTTP/2 has room for it. A client that does not read holds the one
//! message that it was sent last, encoded; how much that may be for all watches of its connection is bounded by
//! [`super::backlog`].

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use proto::registry::v1 as wire;
use service_host::DrainSignal;
use telemetry::metrics::Gauge;
use tokio::time::Instant;
use tonic::Status;

use super::{
    Api,
    backlog::{Held, Share},
    error::ApiError,
    instance, lists,
    validate::Violations,
};
use crate::{
    catalog::Removal,
    hub::{Cause, Hub, Step, Told, WatchFrom, Watcher},
    model::{Revision, WallTime},
};

/// What a watch answers with.
pub(super) type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

/// One open watch.
#[derive(Debug)]
struct Open {
    watcher: Watcher,
    share: Share,
    /// Room for what was told last.
    held: Held,
    id: String,
    drain: DrainSignal,
    idle: Duration,
    bookmark_at: Instant,
    _counted: Counted,
}

/// Counts a watcher while it lives.
#[derive(Debug)]
struct Counted(Gauge);

/// Validates a request and begins the stream.
pub(super) fn begin(
    api: &Api,
    peer: Option<SocketAddr>,
    request: &wire::WatchRequest,
) -> Result<WatchStream, ApiError> {
    let mut violations = Violations::default();
    let selection = lists::selection(
        &mut violations,
        &request.namespace,
        &request.service,
        request.selector.as_ref(),
    );
    let after = u64::try_from(request.start_after_revision).map_err(|_| "must be 0 or a revision that was told");
    let after = violations.check("start_after_revision", after);
    let (Some(selection), Some(after)) = (selection, after) else {
        return Err(violations.into_error());
    };
    let watcher = api.hub.watch(selection, from(&api.hub, after, &request.history_id))?;
    // Those who began in the same moment shall not all be told "nothing" in the same moment.
    let idle = api.bookmark_interval.mul_f64(rand::random_range(0.9..1.1));
    let open = Open {
        watcher,
        share: api.backlog.join(peer),
        held: Held::default(),
        id: format!("{:032x}", rand::random::<u128>()),
        drain: api.drain.clone(),
        idle,
        bookmark_at: Instant::now() + idle,
        _counted: Counted::new(&api.metrics.watchers),
    };
    Ok(open.into_stream(Arc::clone(&api.hub)))
}

/// A revision of another history may be lower than ours or higher; either way it says nothing about this one.
fn from(hub: &Hub, after: u64, history_id: &str) -> WatchFrom {
    if after == 0 {
        WatchFrom::Nothing
    } else if history_id.is_empty() || history_id == hub.history_id().to_string() {
        WatchFrom::Revision(Revision::new(after))
    } else {
        WatchFrom::OtherHistory
    }
}

impl Open {
    fn into_stream(self, hub: Arc<Hub>) -> WatchStream {
        Box::pin(stream::unfold(Some(self), move |open| {
            let hub = Arc::clone(&hub);
            async move {
                let mut open = open?;
                match open.next().await {
                    Ok(step) => Some((Ok(response(step, &open.id, &hub)), Some(open))),
                    Err(end) => Some((Err(end.into()), None)),
                }
            }
        }))
    }

    /// Waits for something to tell and for room to tell it. An error ends the watch.
    async fn next(&mut self) -> Result<Step, ApiError> {
        // We are asked for more, so HTTP/2 has passed on what was told last but for a send buffer.
        self.held = Held::default();
        let step = self.step().await?;
        tokio::select! {
            held = self.share.hold(step.bytes()) => self.held = held,
            () = self.drain.wait() => return Err(ApiError::Draining),
        }
        Ok(step)
    }

    async fn step(&mut self) -> Result<Step, ApiError> {
        loop {
            // First, so that a watcher with a long history to catch up on ends too.
            if self.drain.is_draining() {
                return Err(ApiError::Draining);
            }
            if let Some(step) = self.watcher.try_next() {
                self.bookmark_at = Instant::now() + self.idle;
                return Ok(step);
            }
            tokio::select! {
                () = self.watcher.changed() => {}
                () = self.drain.wait() => {}
                () = tokio::time::sleep_until(self.bookmark_at) => {
                    self.bookmark_at = Instant::now() + self.idle;
                    // Looked again by then: the revision has moved on by what others did.
                    if let Some(step) = self.watcher.try_next() {
                        return Ok(step);
                    }
                    return Ok(self.watcher.bookmark());
                }
            }
        }
    }
}

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.add(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

fn response(step: Step, watch_id: &str, hub: &Hub) -> wire::WatchResponse {
    use wire::watch_response::Change;
    let (revision, change) = match step {
        Step::Snapshot {
            revision,
            cause,
            instances,
        } => {
            let cause = match cause {
                Cause::Initial => wire::snapshot::Cause::Initial,
                Cause::Compacted => wire::snapshot::Cause::Compacted,
                Cause::Coalesced => wire::snapshot::Cause::Coalesced,
                Cause::HistoryChanged => wire::snapshot::Cause::HistoryChanged,
            };
            let instances = instances.iter().map(|instance| instance::to_wire(instance)).collect();
            (
                revision,
                Change::Snapshot(wire::Snapshot {
                    instances,
                    cause: cause.into(),
                }),
            )
        }
        Step::Delta { revision, at, events } => {
            let events = events.into_iter().map(|told| event(told, at)).collect();
            (revision, Change::Delta(wire::Delta { events }))
        }
        Step::Bookmark { revision } => (revision, Change::Bookmark(wire::Bookmark {})),
    };
    wire::WatchResponse {
        revision: instance::number(revision),
        confidence: Some(instance::confidence(hub.confidence())),
        change: Some(change),
        watch_id: watch_id.to_owned(),
        history_id: hub.history_id().to_string(),
    }
}

fn event(told: Told, at: WallTime) -> wire::InstanceEvent {
    use wire::instance_event::Event;
    let event = match told {
        Told::Put(instance) => Event::Put(instance::to_wire(&instance)),
        Told::Removed(Removal {
            key, reason, detail, ..
        }) => Event::Removed(wire::Removal {
            service: key.service.to_string(),
            id: key.id.to_string(),
            reason: instance::reason(reason).into(),
            detail: detail.to_string(),
            removed_at: Some(instance::timestamp(at)),
        }),
    };
    wire::InstanceEvent { event: Some(event) }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};
    use tonic::Code;

    use super::*;
    use crate::{
        api::Backlog,
        fixtures::{WALL, draft, scope},
        history::HistoryLimits,
        model::{HistoryId, LeaseId, Metadata},
    };

    const LARGE: usize = 600;

    /// A hub with some 9 MiB of instances.
    fn hub() -> Arc<Hub> {
        let instances: Vec<_> = (0..LARGE)
            .map(|n| {
                let mut draft = draft("a", &n.to_string(), "");
                let pairs = (0..15).map(|key| (format!("k{key}"), "v".repeat(1_024)));
                draft.spec.metadata = Metadata::try_new(pairs).expect("fits");
                Arc::new(draft.registered(Revision::new(1), LeaseId::from_random(1), WALL))
            })
            .collect();
        let limits = HistoryLimits {
            revisions: 10,
            bytes: usize::MAX,
        };
        let (id, revision) = (HistoryId::default(), Revision::new(1));
        let confidence = crate::model::Confidence::Fresh;
        Arc::new(Hub::restore(
            limits,
            id,
            revision,
            revision,
            &instances,
            Vec::new(),
            confidence,
        ))
    }

    /// Watches that were opened and never read held a whole snapshot each, encoded, however many there were.
    #[tokio::test]
    async fn unread_watches_of_a_connection_hold_a_bounded_part_and_nobody_else_up() {
        let (hub, backlog, drain) = (hub(), Backlog::default(), DrainSignal::new());
        let gauge = crate::metrics::Metrics::new().watchers;
        let watch = |port: u16| {
            let open = Open {
                watcher: hub.watch(scope("a"), WatchFrom::Nothing).expect("watches"),
                share: backlog.join(Some(SocketAddr::from(([127, 0, 0, 1], port)))),
                held: Held::default(),
                id: "watch".into(),
                drain: drain.clone(),
                idle: Duration::from_secs(3_600),
                bookmark_at: Instant::now() + Duration::from_secs(3_600),
                _counted: Counted::new(&gauge),
            };
            open.into_stream(Arc::clone(&hub))
        };
        let told = |response: Option<Option<Result<wire::WatchResponse, Status>>>| match response??.ok()?.change? {
            wire::watch_response::Change::Snapshot(snapshot) => Some(snapshot.instances.len()),
            other => panic!("not a snapshot: {other:?}"),
        };
        let mut unread = watch(1);
        assert_eq!(told(unread.next().now_or_never()), Some(LARGE));
        let mut waiting: Vec<_> = (0..10).map(|_| watch(1)).collect();
        for watch in &mut waiting {
            assert!(watch.next().now_or_never().is_none(), "there is no room yet");
        }
        assert_eq!(told(watch(2).next().now_or_never()), Some(LARGE), "another connection");

        // One that is read asks for more, which makes room for the next; so does one that hangs up.
        assert!(unread.next().now_or_never().is_none(), "there is nothing new");
        assert_eq!(told(waiting[0].next().now_or_never()), Some(LARGE));
        assert!(waiting[1].next().now_or_never().is_none());
        drop(waiting.remove(0));
        assert_eq!(told(waiting[0].next().now_or_never()), Some(LARGE));

        drain.fire();
        let end = waiting[1].next().now_or_never().expect("does not wait for room");
        assert_eq!(end.expect("an end").expect_err("drains").code(), Code::Unavailable);
    }
}
