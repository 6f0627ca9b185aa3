//! The stream of WatchAvailability. What is told, and when, `availability` knows.

use futures_util::{Stream, stream};
use proto::ticket::v1::{self, WatchAvailabilityResponse, watch_availability_response};
use service_host::DrainSignal;
use tonic::Status;

use super::convert;
use crate::{
    availability::{Update, Watcher},
    domain::event::Event,
    error,
};

/// Ends with UNAVAILABLE when the instance drains.
pub(super) fn updates(
    watcher: Watcher,
    drain: DrainSignal,
    applied: i64,
) -> impl Stream<Item = Result<WatchAvailabilityResponse, Status>> + Send + 'static {
    stream::unfold(Some((watcher, drain)), move |state| async move {
        let (mut watcher, drain) = state?;
        let update = tokio::select! {
            () = drain.wait() => Err(error::draining()),
            update = watcher.next(applied) => update.map_err(Status::from),
        };
        let update = update.map(|update| told(watcher.event(), &update));
        let next = update.is_ok().then_some((watcher, drain));
        Some((update, next))
    })
}

fn told(event: &Event, update: &Update) -> WatchAvailabilityResponse {
    use watch_availability_response::Update as Told;
    let update = match update {
        Update::Snapshot(map) => Told::Snapshot(convert::seat_map(event, map)),
        Update::Delta { from, to } => Told::Delta(convert::delta(event, from, to)),
        Update::Bookmark(map) => Told::Bookmark(v1::AvailabilityBookmark { revision: map.revision }),
    };
    WatchAvailabilityResponse { update: Some(update) }
}
