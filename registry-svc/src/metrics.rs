//! What the registry measures, by name.

use telemetry::metrics::{self, Counter, CounterFamily, Gauge, Histogram};

use crate::{hub::Cause, model::RemovalReason};

/// Seconds of a commit: from a fast NVMe drive to a disk that is about to fail.
const COMMIT_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Batches of one group: from a lone caller to as many as a group takes.
const GROUP_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0,
];

/// Revisions by which a watcher is behind: none, the rest of a group commit, and then by how much of the history.
const LAG_BUCKETS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0];

/// The series of one registry. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Instances that are registered.
    pub(crate) instances: Gauge,
    /// Leases that live.
    pub(crate) leases: Gauge,
    /// Instances that operators have laid something over, registered or not.
    pub(crate) overrides: Gauge,
    /// Watch streams that are open.
    pub(crate) watchers: Gauge,
    /// Revisions by which watchers were behind the present when they were told a change.
    pub(crate) watch_lag: Histogram,
    snapshots: CounterFamily,
    /// Seconds from handing a group to the disk until it is durable.
    pub(crate) commit_seconds: Histogram,
    /// Batches that became durable together.
    pub(crate) group_batches: Histogram,
    /// Mutations that wait for the driver.
    pub(crate) queue_length: Gauge,
    /// Bytes of them.
    pub(crate) queue_bytes: Gauge,
    /// Heartbeats.
    pub(crate) renewals: Counter,
    /// Leases whose heartbeats moved here from another replica.
    pub(crate) claims: Counter,
    /// Leases whose stream broke.
    pub(crate) suspected: Counter,
    /// Services of which leases are held back.
    pub(crate) protecting: Gauge,
    /// The leases.
    pub(crate) held_back: Gauge,
    /// 1 while the store has no room.
    pub(crate) no_room: Gauge,
    /// 1 while the store cannot be reached.
    pub(crate) away: Gauge,
    /// Seconds since the last contact while that is so.
    pub(crate) away_seconds: Gauge,
    /// Replicas that live.
    pub(crate) replicas: Gauge,
    /// 1 on the replica that ends what dead ones left behind.
    pub(crate) elected: Gauge,
    /// Batches of other replicas.
    pub(crate) followed: Counter,
    /// Instances whose lease lapsed.
    pub(crate) expired: Counter,
    removed: CounterFamily,
    shed: [Counter; Shed::ALL.len()],
    rollbacks: [Counter; Rollback::ALL.len()],
    protection: [Counter; Protecting::ALL.len()],
}

/// What happens to the self-preservation of a service in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protecting {
    /// It holds something back.
    Begun,
    /// The last that it held back was heard of.
    Recovered,
    /// The last that it held back lapsed with the trickle.
    Lapsed,
    /// The last that it held back had been for the longest time.
    TimedOut,
}

/// Why a change was refused that was not wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shed {
    /// Too much waits.
    Busy,
    /// The store has no room.
    NoRoom,
    /// The store cannot be reached.
    Away,
    /// The registry holds as much as it may.
    Full,
    /// One peer has half of all that waits.
    Peer,
    /// One registrant has as many instances as one may have.
    Quota,
}

/// Why what had been applied was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rollback {
    /// The store had no room.
    NoRoom,
    /// Another replica committed first.
    Overtaken,
    /// Another replica's commit was heard of in time.
    Followed,
}

impl Shed {
    const ALL: [Self; 6] = [
        Self::Busy,
        Self::NoRoom,
        Self::Away,
        Self::Full,
        Self::Peer,
        Self::Quota,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NoRoom => "no_room",
            Self::Away => "away",
            Self::Full => "full",
            Self::Peer => "peer",
            Self::Quota => "quota",
        }
    }
}

impl Rollback {
    const ALL: [Self; 3] = [Self::NoRoom, Self::Overtaken, Self::Followed];

    fn as_str(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::Overtaken => "overtaken",
            Self::Followed => "followed",
        }
    }
}

impl Protecting {
    const ALL: [Self; 4] = [Self::Begun, Self::Recovered, Self::Lapsed, Self::TimedOut];

    fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Recovered => "recovered",
            Self::Lapsed => "lapsed",
            Self::TimedOut => "timed_out",
        }
    }
}

impl Metrics {
    /// Registers the names.
    pub(crate) fn new() -> Self {
        let shed = metrics::counter(
            "tessera_registry_shed",
            "Changes and reads that were refused though nothing was wrong with them, by reason",
            &["reason"],
        );
        let rollbacks = metrics::counter(
            "tessera_registry_rollbacks",
            "Times that what waited for the store was taken back and applied again, by cause",
            &["cause"],
        );
        let protection = metrics::counter(
            "tessera_registry_protection",
            "Beginnings and ends of self-preservation of a service in a zone",
            &["event"],
        );
        Self {
            overrides: gauge(
                "tessera_registry_overrides",
                "Instances that operators have drained or given a weight, registered or not",
            ),
            instances: gauge("tessera_registry_instances", "Instances that are registered"),
            leases: gauge("tessera_registry_leases", "Leases that live"),
            watchers: gauge("tessera_registry_watchers", "Watch streams that are open"),
            watch_lag: metrics::histogram(
                "tessera_registry_watch_lag_revisions",
                "Revisions by which a watcher was behind when it was told a change",
                &[],
                LAG_BUCKETS,
            )
            .with(&[]),
            snapshots: metrics::counter(
                "tessera_registry_watch_snapshots",
                "Snapshots that watchers were told, by cause",
                &["cause"],
            ),
            commit_seconds: metrics::histogram(
                "tessera_registry_commit_seconds",
                "Seconds until the store has answered for a group of changes",
                &[],
                COMMIT_BUCKETS,
            )
            .with(&[]),
            group_batches: metrics::histogram(
                "tessera_registry_group_batches",
                "Revisions that became durable together",
                &[],
                GROUP_BUCKETS,
            )
            .with(&[]),
            queue_length: gauge("tessera_registry_queue_length", "Changes that wait to be taken up"),
            queue_bytes: gauge(
                "tessera_registry_queue_bytes",
                "Bytes of the changes that wait to be taken up, roughly",
            ),
            renewals: counter("tessera_registry_renewals", "Heartbeats"),
            claims: counter(
                "tessera_registry_claims",
                "Leases whose heartbeats moved here from another replica",
            ),
            suspected: counter("tessera_registry_suspected", "Leases whose KeepAlive stream broke"),
            protecting: gauge(
                "tessera_registry_protecting_services",
                "Services of which leases are held back",
            ),
            held_back: gauge("tessera_registry_protection_held_back", "Leases that are held back"),
            no_room: gauge("tessera_registry_store_no_room", "1 while the store has no room"),
            away: gauge("tessera_registry_store_away", "1 while the store cannot be reached"),
            away_seconds: gauge(
                "tessera_registry_store_away_seconds",
                "Seconds since the last contact with a store that cannot be reached",
            ),
            replicas: gauge("tessera_registry_replicas", "Replicas of this registry that live"),
            elected: gauge(
                "tessera_registry_elected",
                "1 on the replica that ends what dead ones left behind",
            ),
            followed: counter(
                "tessera_registry_followed",
                "Revisions that other replicas have committed",
            ),
            expired: counter("tessera_registry_expired", "Instances whose lease lapsed"),
            removed: metrics::counter(
                "tessera_registry_removed",
                "Instances that left, by reason; counted by the replica that committed it",
                &["reason"],
            ),
            shed: Shed::ALL.map(|reason| shed.with(&[reason.as_str()])),
            rollbacks: Rollback::ALL.map(|cause| rollbacks.with(&[cause.as_str()])),
            protection: Protecting::ALL.map(|event| protection.with(&[event.as_str()])),
        }
    }

    /// The counter of an event of self-preservation.
    pub(crate) fn protection(&self, event: Protecting) -> &Counter {
        &self.protection[event as usize]
    }

    /// The counter of a snapshot's cause.
    pub(crate) fn snapshots(&self, cause: Cause) -> Counter {
        self.snapshots.with(&[match cause {
            Cause::Initial => "initial",
            Cause::Compacted => "compacted",
            Cause::Coalesced => "coalesced",
            Cause::HistoryChanged => "history_changed",
        }])
    }

    /// The counter of a removal's reason.
    pub(crate) fn removed(&self, reason: RemovalReason) -> Counter {
        self.removed.with(&[reason.as_str()])
    }

    /// The counter of a refusal's reason.
    pub(crate) fn shed(&self, reason: Shed) -> &Counter {
        &self.shed[reason as usize]
    }

    /// The counter of a rollback's cause.
    pub(crate) fn rollback(&self, cause: Rollback) -> &Counter {
        &self.rollbacks[cause as usize]
    }
}

fn counter(name: &'static str, help: &'static str) -> Counter {
    metrics::counter(name, help, &[]).with(&[])
}

fn gauge(name: &'static str, help: &'static str) -> Gauge {
    metrics::gauge(name, help, &[]).with(&[])
}
