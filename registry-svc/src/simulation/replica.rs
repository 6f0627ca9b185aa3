//! A registry process: it is down, runs, or is stopped with its sockets filling up.
//!
//! What runs is the driver's own core, over the real catalog and the real hub.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Plant, Time,
    plan::Plan,
    request::{Request, Ticket},
    rng::Rng,
    store::Store,
    truth::Truth,
};
use crate::{
    catalog::{Beat, Catalog, Protection, Renewed, Settings},
    driver::{Answer, Core, NotRenewed, Settings as Rules},
    history::HistoryLimits,
    hub::{Hub, Restored, Trust},
    metrics::Metrics,
    model::{Confidence, HistoryId, LeaseId, Moment, Now, ReplicaId, Revision, WallTime},
    store::{News, Verdict},
};

/// What the leases of a dead registry are given beyond their time to live.
pub(super) const ORPHAN_GRACE: Duration = Duration::from_secs(1);
/// How long a registry that does not reach the store answers heartbeats as if it did: between
/// [`CONTACT`](super::store::CONTACT) and [`SESSION`](super::store::SESSION).
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long a lease may stay silent, beyond its interval, after its stream broke.
pub(super) const SUSPECT_AFTER: Duration = Duration::from_millis(300);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replica {
    /// Counts its lives; what was meant for an earlier one is dropped.
    pub(super) life: u64,
    /// What runs.
    pub(super) process: Option<Process>,
    /// Seconds by which its wall clock is wrong.
    pub(super) wall_skew: i64,
}

/// One life of it.
#[derive(Debug)]
pub(super) struct Process {
    /// What decides.
    pub(super) core: Core,
    /// What readers see.
    pub(super) hub: Arc<Hub>,
    /// When it was started.
    pub(super) since: Time,
    /// Stopped until then.
    pub(super) stopped: Option<Time>,
    /// What has come while it was stopped.
    pub(super) waiting: VecDeque<Delivery>,
    /// For when its timer is set.
    pub(super) wakes: Option<Time>,
    /// Heartbeats that wait for theirs.
    pub(super) rounds: Vec<Round>,
    /// Changes that wait for their answers.
    pub(super) pending: Vec<Pending>,
    /// The last heartbeat of each lease, by the stream that carried it.
    pub(super) beats: BTreeMap<LeaseId, Beat>,
    /// Its own.
    pub(super) draws: Rng,
}

/// A heartbeat that waits for its answer.
#[derive(Debug)]
pub(super) struct Round {
    /// Of which request.
    pub(super) ticket: Ticket,
    /// Of which leases.
    pub(super) leases: Vec<LeaseId>,
    /// Where the answer comes.
    pub(super) results: oneshot::Receiver<Vec<Result<Renewed, NotRenewed>>>,
}

/// A change that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    /// Of which request.
    pub(super) ticket: Ticket,
    /// The lease that it would be registered under.
    pub(super) lease: Option<LeaseId>,
    /// Where the answer comes.
    pub(super) answer: oneshot::Receiver<Answer>,
}

/// What comes to a process.
#[derive(Debug)]
pub(super) enum Delivery {
    /// From a client.
    Request(Rc<Request>),
    /// A stream that carried the heartbeats of this lease broke.
    Broken(LeaseId),
    /// From the store, after so long.
    Verdict(Verdict, Duration),
    /// From the store.
    News(News),
    /// From its timer.
    Pulse,
}

impl Process {
    /// Loads what the store has and serves it.
    pub(super) fn boot(id: ReplicaId, truth: &Truth, store: &Store, plan: &Plan, plant: Plant, draws: Rng) -> Self {
        let head = match plant {
            Plant::ForgetOnRestart => Revision::new(truth.head().get().saturating_sub(3)),
            _ => truth.head(),
        };
        let state = truth.state(head).expect("the head is durable");
        let mut instances: Vec<_> = state.instances.values().map(Arc::clone).collect();
        let mut overrides = state.overrides();
        if plant == Plant::ForgetOverrides {
            overrides.clear();
            for instance in &mut instances {
                Arc::make_mut(instance).governance = None;
            }
        }
        if plant == Plant::BringBack {
            overrides.extend(truth.lifted());
        }
        let mut leases: Vec<_> = state.leases.values().map(|record| record.as_ref().clone()).collect();
        if plant == Plant::ShortLivesAfterRestart {
            for record in &mut leases {
                record.heartbeat = crate::fixtures::heartbeat(100);
            }
        }
        let start = Moment::after_start(Duration::ZERO);
        let settings = Settings {
            own: id,
            orphan_grace: ORPHAN_GRACE,
            protection: Protection {
                enabled: plant != Plant::ProtectNobody,
                ..plan.protection
            },
            ..Settings::default()
        };
        let catalog = Catalog::restore(settings, head, leases, &instances, start).with_overrides(overrides.clone());
        let past = truth
            .after(store.compacted)
            .iter()
            .map(|entry| entry.batch.as_ref().clone());
        let past = past.filter(|batch| batch.revision <= head).collect();
        let limits = match plant {
            Plant::KeepHistory => HistoryLimits {
                revisions: 5_000,
                bytes: 1 << 30,
            },
            _ => plan.history,
        };
        let hub = Hub::restore(Restored {
            limits,
            history_id: HistoryId::from_random(1),
            revision: head,
            compacted: store.compacted,
            instances: &instances,
            overrides,
            history: past,
            trust: Trust {
                recovering: catalog.confidence() == Confidence::Recovering,
                protecting: catalog.protecting(),
                stale_since: None,
            },
            is_replicated: plan.replicas > 1,
        });
        let hub = Arc::new(hub.with_parts_of(plan.part_bytes));
        let rules = Rules {
            suspect_after: Some(SUSPECT_AFTER),
            patience: PATIENCE,
        };
        Self {
            core: Core::new(catalog, Arc::clone(&hub), Metrics::new(), rules, start),
            hub,
            since: truth.now,
            stopped: None,
            waiting: VecDeque::new(),
            wakes: None,
            rounds: Vec::new(),
            pending: Vec::new(),
            beats: BTreeMap::new(),
            draws,
        }
    }

    /// What its clocks show.
    pub(super) fn clock(&self, now: Time, skew: i64) -> Now {
        Now {
            moment: Moment::after_start(now - self.since),
            wall: WallTime {
                seconds: 1_700_000_000 + i64::try_from(now.as_secs()).unwrap_or_default() + skew,
                nanos: now.subsec_nanos(),
            },
        }
    }

    /// What waited while it was stopped, as it finds it: each kind in order, the kinds in any order. Heartbeats that have
    /// knocked are taken before anything that may expire, as the driver's loop does.
    pub(super) fn take_waiting(&mut self, rng: &mut Rng) -> Vec<Delivery> {
        let mut kinds: [VecDeque<Delivery>; 4] = Default::default();
        for delivery in self.waiting.drain(..) {
            let kind = match &delivery {
                Delivery::Request(request) if request.is_renewal() => 0,
                Delivery::Request(_) | Delivery::Broken(_) => 1,
                Delivery::News(_) => 2,
                Delivery::Verdict(..) | Delivery::Pulse => 3,
            };
            kinds[kind].push_back(delivery);
        }
        let mut taken = Vec::new();
        while kinds.iter().any(|kind| !kind.is_empty()) {
            let kind = rng.below(kinds.len());
            if let Some(delivery) = kinds[kind].pop_front() {
                if kind == 3 {
                    taken.extend(kinds[0].drain(..));
                }
                taken.push(delivery);
            }
        }
        taken
    }
}
