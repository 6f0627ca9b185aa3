//! Values for the unit tests: short to write, valid by construction.

pub(crate) mod descriptors;
mod log;

use std::{sync::Arc, time::Duration};

pub(crate) use log::SharedLog;

use crate::{
    catalog::{Deregister, LeaseChoice, Owner, Register},
    history::HistoryLimits,
    hub::{Hub, Restored, Scope, Selection, Trust},
    model::{
        Confidence, Detail, Draft, Endpoint, Heartbeat, Host, Instance, InstanceId, InstanceKey, Label, Labels,
        LeaseId, LeaseSecret, Metadata, Moment, Namespace, Now, Port, Profile, Protocol, RemovalReason, ServiceName,
        Spec, Status, Terms, Version, WallTime, Weight, Zone,
    },
};

/// The wall clock of the tests; nothing depends on it.
pub(crate) const WALL: WallTime = WallTime {
    seconds: 1_700_000_000,
    nanos: 0,
};

/// So many milliseconds after the start.
pub(crate) fn now(millis: u64) -> Now {
    Now {
        moment: Moment::after_start(Duration::from_millis(millis)),
        wall: WALL,
    }
}

pub(crate) fn key(service: &str, id: &str) -> InstanceKey {
    InstanceKey::new(
        Namespace::try_new("").expect("the default"),
        ServiceName::try_new(service).expect("a name"),
        InstanceId::try_new(id).expect("an id"),
    )
}

/// A minimal instance in a zone, or in none for "".
pub(crate) fn draft(service: &str, id: &str, zone: &str) -> Draft {
    let endpoint = Endpoint {
        protocol: Protocol::Grpc,
        host: Host::try_new("127.0.0.1").expect("a host"),
        port: Port::try_new(7101).expect("a port"),
    };
    Draft {
        key: key(service, id),
        spec: Spec {
            endpoints: [endpoint].into_iter().collect(),
            profile: Arc::new(Profile {
                labels: Labels {
                    version: Version::try_new("1.0.0").expect("a version"),
                    group: Label::try_new("").expect("none"),
                    zone: Zone::try_new(zone).expect("a zone"),
                    tag: Label::try_new("").expect("none"),
                },
                grpc_services: Box::default(),
            }),
            weight: Weight::try_new(100).expect("a weight"),
            status: Status::Up,
            probe: None,
            metadata: Metadata::default(),
        },
        started_at: None,
    }
}

/// A time to live of `interval` times 5.
pub(crate) fn heartbeat(interval_millis: u64) -> Heartbeat {
    Heartbeat::try_new(Duration::from_millis(interval_millis), 5).expect("a heartbeat")
}

/// Lease number `n` and its secret, as if drawn.
pub(crate) fn owner(n: u128) -> Owner {
    Owner {
        lease: LeaseId::from_random(n),
        secret: LeaseSecret::from_random(n).hash(),
    }
}

/// A registration under the new lease number `n`.
pub(crate) fn grant(n: u128, heartbeat: Heartbeat, drafts: Vec<Draft>) -> Register {
    let lease = LeaseChoice::Grant {
        id: LeaseId::from_random(n),
        secret: LeaseSecret::from_random(n),
        heartbeat,
    };
    Register {
        request: None,
        drafts,
        lease,
        registrant: None,
    }
}

/// A registration under the lease number `n`, which keeps its terms.
pub(crate) fn join(n: u128, drafts: Vec<Draft>) -> Register {
    let secret = LeaseSecret::from_random(n).reveal();
    Register {
        request: None,
        drafts,
        lease: LeaseChoice::Join {
            owner: owner(n),
            secret,
            terms: Terms::default(),
            within: None,
        },
        registrant: None,
    }
}

/// Ends some instances of the lease number `n`, or all.
pub(crate) fn end(n: u128, ids: &[&str]) -> Deregister {
    Deregister {
        owner: owner(n),
        within: None,
        ids: ids.iter().map(|id| InstanceId::try_new(id).expect("an id")).collect(),
        reason: RemovalReason::Deregistered,
        detail: Detail::of(""),
    }
}

/// All of a service, or of the default namespace for "".
pub(crate) fn scope(service: &str) -> Selection {
    let service = (!service.is_empty()).then(|| ServiceName::try_new(service).expect("a name"));
    Selection::all(Scope {
        namespace: Namespace::try_new("").expect("the default"),
        service,
    })
}

/// A hub at the beginning of a history, with these instances, that keeps a hundred revisions.
pub(crate) fn hub(instances: &[Arc<Instance>], recovering: bool) -> Hub {
    let limits = HistoryLimits {
        revisions: 100,
        bytes: usize::MAX,
    };
    Hub::restore(Restored {
        instances,
        trust: Trust {
            recovering,
            ..Trust::default()
        },
        ..Restored::empty(limits)
    })
}

/// What readers of the default namespace are told.
pub(crate) fn confidence(hub: &Hub, now: Now) -> Confidence {
    hub.confidence(&scope("").scope, now.moment)
}
