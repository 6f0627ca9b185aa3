//! The watch of the log: it ends and begins again as connections do, and tells every put once, in order.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{
    cluster::SharedCluster,
    failure::Failure,
    wire::{KeyValue, WatchCreate, end_of},
};

/// Responses that wait for the follower; beyond, etcd keeps them.
const WAITING: usize = 4;
/// Before it is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// What the watch has seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// In the order of their revisions.
    Puts(Vec<KeyValue>),
    /// etcd no longer has what was asked for. The last of this watch.
    Compacted,
}

/// A watch with its task.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) seen: mpsc::Receiver<Seen>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    /// Of the log from etcd's revision on.
    pub(super) fn open(cluster: &SharedCluster, from: i64) -> Self {
        Self::begin(cluster, from, Duration::ZERO)
    }

    /// The same a moment later, since something has just failed.
    pub(super) fn open_later(cluster: &SharedCluster, from: i64) -> Self {
        Self::begin(cluster, from, PAUSE)
    }

    fn begin(cluster: &SharedCluster, from: i64, pause: Duration) -> Self {
        let (tell, seen) = mpsc::channel(WAITING);
        let cluster = SharedCluster::clone(cluster);
        let task = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            run(cluster, from, tell).await;
        });
        Self {
            seen,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

async fn run(cluster: SharedCluster, mut from: i64, tell: mpsc::Sender<Seen>) {
    let log = cluster.keys.log();
    loop {
        let create = WatchCreate {
            key: Bytes::from(log.clone()),
            range_end: end_of(&log),
            start_revision: from,
            filters: vec![1],
            fragment: true,
        };
        match cluster.client.watch(create).await {
            Ok((generation, mut responses)) => {
                while let Some(response) = responses.next().await {
                    let response = match response {
                        Ok(response) => response,
                        Err(status) => {
                            debug!(failure = %Failure::of(&status), "the watch of the log has ended");
                            break;
                        }
                    };
                    if response.compact_revision > 0 {
                        // Nobody left to tell is no news either.
                        let _ = tell.send(Seen::Compacted).await;
                        return;
                    }
                    if response.canceled {
                        debug!(
                            reason = response.cancel_reason,
                            "etcd has cancelled the watch of the log"
                        );
                        break;
                    }
                    let puts: Vec<_> = response.events.into_iter().filter_map(|event| event.kv).collect();
                    let Some(last) = puts.last() else { continue };
                    from = last.mod_revision + 1;
                    if tell.send(Seen::Puts(puts)).await.is_err() {
                        return;
                    }
                }
                // The member may be the one that is cut off from the others. Calls may have left it already: they stay where
                // they are.
                cluster.client.turn_from(generation);
            }
            Err(failure) => debug!(%failure, "the log cannot be watched"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
