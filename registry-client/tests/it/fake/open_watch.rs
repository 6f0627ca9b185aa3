//! A watch that a client has opened, driven by the test.

use proto::registry::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::instance;

/// A watch that a client has opened.
pub(crate) struct OpenWatch {
    pub(crate) request: v1::WatchRequest,
    /// Told with every step.
    pub(crate) history: String,
    /// Told with every step.
    pub(crate) confidence: Option<v1::Confidence>,
    pub(super) steps: mpsc::Sender<Result<v1::WatchResponse, Status>>,
}

impl OpenWatch {
    pub(crate) async fn send(&self, revision: i64, change: v1::watch_response::Change) {
        let step = v1::WatchResponse {
            revision,
            confidence: self.confidence,
            change: Some(change),
            watch_id: "w".into(),
            history_id: self.history.clone(),
        };
        self.steps.send(Ok(step)).await.expect("the client still listens");
    }

    pub(crate) async fn snapshot(&self, revision: i64, ids: &[&str]) {
        self.snapshot_because(v1::snapshot::Cause::Initial, revision, ids).await;
    }

    pub(crate) async fn snapshot_because(&self, cause: v1::snapshot::Cause, revision: i64, ids: &[&str]) {
        let snapshot = v1::Snapshot {
            instances: ids.iter().map(|id| instance(id)).collect(),
            cause: cause.into(),
            more: false,
        };
        self.send(revision, v1::watch_response::Change::Snapshot(snapshot))
            .await;
    }

    /// A part of a snapshot that goes on, or the last one.
    pub(crate) async fn part(&self, revision: i64, ids: &[&str], more: bool) {
        let snapshot = v1::Snapshot {
            instances: ids.iter().map(|id| instance(id)).collect(),
            cause: v1::snapshot::Cause::Initial.into(),
            more,
        };
        self.send(revision, v1::watch_response::Change::Snapshot(snapshot))
            .await;
    }

    pub(crate) async fn put(&self, revision: i64, id: &str) {
        self.event(revision, v1::instance_event::Event::Put(instance(id))).await;
    }

    pub(crate) async fn removed(&self, revision: i64, id: &str, reason: v1::RemovalReason) {
        let removal = v1::Removal {
            service: "ticket-svc".into(),
            id: id.into(),
            reason: reason.into(),
            detail: "because".into(),
            removed_at: None,
        };
        self.event(revision, v1::instance_event::Event::Removed(removal)).await;
    }

    pub(crate) async fn bookmark(&self, revision: i64) {
        self.send(revision, v1::watch_response::Change::Bookmark(v1::Bookmark {}))
            .await;
    }

    async fn event(&self, revision: i64, event: v1::instance_event::Event) {
        let delta = v1::Delta {
            events: vec![v1::InstanceEvent { event: Some(event) }],
            ..Default::default()
        };
        self.send(revision, v1::watch_response::Change::Delta(delta)).await;
    }

    /// Ends the watch with an error.
    pub(crate) async fn fail(self, status: Status) {
        self.steps.send(Err(status)).await.expect("the client still listens");
    }

    /// Ends the watch in order.
    pub(crate) fn end(self) {}

    /// Resolves when the client has gone.
    pub(crate) async fn abandoned(&self) {
        crate::soon("the end of a watch", self.steps.closed()).await;
    }
}
