//! What the registry measures, by name.

use telemetry::metrics::{self, Counter, CounterFamily, Gauge, Histogram};

use crate::model::RemovalReason;

/// Seconds of a commit: from a fast NVMe drive to a disk that is about to fail.
const COMMIT_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The series of one registry. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Instances that are registered.
    pub(crate) instances: Gauge,
    /// Leases that live.
    pub(crate) leases: Gauge,
    /// Watch streams that are open.
    pub(crate) watchers: Gauge,
    /// Seconds from handing a group to the disk until it is durable.
    pub(crate) commit_seconds: Histogram,
    /// Instances whose lease lapsed.
    pub(crate) expired: Counter,
    removed: CounterFamily,
}

impl Metrics {
    /// Registers the names.
    pub(crate) fn new() -> Self {
        Self {
            instances: metrics::gauge("tessera_registry_instances", "Instances that are registered", &[]).with(&[]),
            leases: metrics::gauge("tessera_registry_leases", "Leases that live", &[]).with(&[]),
            watchers: metrics::gauge("tessera_registry_watchers", "Watch streams that are open", &[]).with(&[]),
            commit_seconds: metrics::histogram(
                "tessera_registry_commit_seconds",
                "Seconds until a group of changes is durable",
                &[],
                COMMIT_BUCKETS,
            )
            .with(&[]),
            expired: metrics::counter("tessera_registry_expired", "Instances whose lease lapsed", &[]).with(&[]),
            removed: metrics::counter(
                "tessera_registry_removed",
                "Instances that left, by reason",
                &["reason"],
            ),
        }
    }

    /// The counter of a removal's reason.
    pub(crate) fn removed(&self, reason: RemovalReason) -> Counter {
        self.removed.with(&[reason.as_str()])
    }
}
