//! What the logs and the counters are told of what happened.

use std::time::Duration;

use telemetry::{
    KeyValue, semconv,
    work::{Kind, Work},
};
use tracing::{debug, info};

use super::{core::Core, count, group::Group};
use crate::{
    catalog::{Batch, Change, LeaseChange},
    metrics::Protecting,
    model::{Now, RemovalReason, Revision},
};

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

impl Core {
    /// We have committed it. Of all replicas one says so.
    pub(super) fn report(&self, batch: &Batch) {
        let revision = batch.revision.get();
        for change in &batch.changes {
            match change {
                Change::Put { instance, .. } => {
                    debug!(instance = %instance.key, revision, "instance registered or changed")
                }
                Change::Removed(removal) => {
                    let (instance, reason) = (&removal.key, removal.reason.as_str());
                    info!(%instance, reason, detail = %removal.detail, revision, "instance removed");
                    self.metrics.removed(removal.reason).inc();
                    if removal.reason == RemovalReason::Expired {
                        self.metrics.expired.inc();
                    }
                }
            }
        }
        for change in &batch.overrides {
            let (instance, act) = (&change.key, change.act.as_str());
            let who = change.who.as_ref().map_or("", |who| who.as_str());
            info!(%instance, act, who, why = %change.why, revision, "override changed");
        }
        for change in &batch.leases {
            if let LeaseChange::Ended(lease) = change {
                debug!(%lease, revision, "lease ended");
            }
        }
    }

    /// A span for each call that waited for this commit, in its own trace.
    pub(super) fn trace_commit(&self, group: &Group, took: Duration) {
        let batches = group.batches();
        for batch in batches {
            let Some(trace) = batch.trace else { continue };
            let system = if self.is_shared() {
                "etcd"
            } else {
                semconv::DB_SYSTEM_EMBEDDED
            };
            Work::record(Kind::Store, "COMMIT", &trace.context(), took, || {
                let mut attributes = vec![
                    KeyValue::new(semconv::DB_SYSTEM_NAME, system),
                    KeyValue::new(semconv::DB_OPERATION_NAME, "COMMIT"),
                    KeyValue::new(semconv::REVISION, signed(batch.revision)),
                ];
                if batches.len() > 1 {
                    let size = i64::try_from(batches.len()).unwrap_or(i64::MAX);
                    attributes.push(KeyValue::new(semconv::DB_OPERATION_BATCH_SIZE, size));
                }
                attributes
            });
        }
    }

    /// Another replica has committed it, and counts it.
    pub(super) fn report_followed(&self, batch: &Batch) {
        let revision = batch.revision.get();
        for change in &batch.changes {
            if let Change::Removed(removal) = change {
                let (instance, reason) = (&removal.key, removal.reason.as_str());
                debug!(%instance, reason, detail = %removal.detail, revision, "instance removed by another replica");
            }
        }
    }

    /// What is there now.
    pub(super) fn measure(&mut self, now: Now) {
        let metrics = &self.metrics;
        metrics.instances.set(count(self.catalog.instances()));
        metrics.leases.set(count(self.catalog.leases()));
        metrics.overrides.set(count(self.catalog.overrides()));
        let (before, protection) = (self.protection, self.catalog.protection());
        metrics.protecting.set(count(protection.services));
        metrics.held_back.set(count(protection.held_back));
        for (event, before, total) in [
            (Protecting::Begun, before.begun, protection.begun),
            (
                Protecting::Recovered,
                before.ended_recovered,
                protection.ended_recovered,
            ),
            (Protecting::Lapsed, before.ended_lapsed, protection.ended_lapsed),
            (Protecting::TimedOut, before.ended_timed_out, protection.ended_timed_out),
        ] {
            metrics.protection(event).inc_by(total - before);
        }
        self.protection = protection;
        let away = self.absence.as_ref().map(|absence| now.moment.since(absence.since));
        metrics.away.set(if away.is_some() { 1.0 } else { 0.0 });
        metrics.away_seconds.set(away.unwrap_or_default().as_secs_f64());
        metrics.no_room.set(if self.room.is_short() { 1.0 } else { 0.0 });
    }
}
