//! What a target says exists, as it changes: the rosters that the pool's keeper applies. Where each comes from (a list, a registry,
//! the disk, several of them) ends here.

use std::{path::Path, pin::Pin, sync::Arc, task::Poll};

use registry_client::{Health, Instance, InstanceStatus, Protocol, Snapshot, SnapshotState, Watcher};
use tls::Expected;

use super::{Source, parse_address};
use crate::{
    cache::{Kept, Saved, Told},
    explain::{Filter, Removed},
    pool::{Attributes, Backend, Key, Origin, PassedOver, Roster},
};

/// The rosters of a source, the latest at any time. For the pool's keeper alone.
pub(crate) struct Updates(Vec<Feed>);

/// One of the places that a source names.
struct Feed {
    heard: Heard,
    kept: Option<Kept>,
    /// Calls go by what is on disk and not by what was told last.
    by_disk: bool,
    last: Roster,
}

enum Heard {
    /// From a list, or from a watcher that is gone: the last good set stays.
    Final,
    Registry(Watcher, Spoken),
}

/// Which of an instance's addresses are called.
#[derive(Clone, Debug)]
pub(crate) enum Spoken {
    /// Those without TLS: dialling a TLS port in clear text would only produce a misleading error.
    Plain,
    /// Those with TLS, where that certificate is expected. An instance that offers none is not called: whoever asks for TLS
    /// must not be talked out of it by a registration.
    Tls(Expected),
}

impl Spoken {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Plain => Protocol::Grpc,
            Self::Tls(_) => Protocol::Grpcs,
        }
    }

    fn expected(&self) -> Option<Expected> {
        match self {
            Self::Plain => None,
            Self::Tls(expected) => Some(expected.clone()),
        }
    }
}

impl Source {
    /// Of a service, the instances that are spoken to with TLS, or those without; what a registry tells is kept under
    /// `cache_dir`. Must be called within a Tokio runtime.
    pub(crate) fn updates(self, with_tls: bool, cache_dir: Option<&Path>) -> Updates {
        Updates(match self {
            Self::Several(places) => places
                .into_iter()
                .map(|(_, source)| source.feed(with_tls, cache_dir))
                .collect(),
            source => vec![source.feed(with_tls, cache_dir)],
        })
    }

    fn feed(self, with_tls: bool, cache_dir: Option<&Path>) -> Feed {
        let empty = Roster {
            backends: Vec::new(),
            known: 0,
            passed_over: Vec::new(),
            unspoken: None,
            origin: Origin::Unasked,
        };
        let (heard, kept, last) = match self {
            Self::Fixed(backends) => {
                let roster = Roster {
                    known: backends.len(),
                    backends,
                    origin: Origin::Fixed,
                    ..empty
                };
                (Heard::Final, None, roster)
            }
            Self::Registry(discovery) => {
                let spoken = if with_tls {
                    Spoken::Tls(Expected::service(discovery.namespace(), discovery.service()))
                } else {
                    Spoken::Plain
                };
                let kept = cache_dir.map(|dir| {
                    let selector = discovery.selector();
                    let target = format!(
                        "{}/{} version={:?} group={:?} zone={:?} tag={:?} tls={with_tls}",
                        discovery.namespace(),
                        discovery.service(),
                        selector.version,
                        selector.group,
                        selector.zone,
                        selector.tag,
                    );
                    Kept::open(dir.to_owned(), discovery.service(), target)
                });
                (Heard::Registry(discovery.watch(), spoken), kept, empty)
            }
            // Refused when the target was made.
            Self::Several(_) => (Heard::Final, None, empty),
        };
        Feed {
            heard,
            kept,
            by_disk: false,
            last,
        }
    }
}

impl Updates {
    pub(crate) fn current(&mut self) -> Roster {
        self.0.iter_mut().for_each(Feed::look);
        self.merged()
    }

    /// The roster that was taken last is what calls go by from here on, and the source may tell.
    pub(crate) fn applied(&self) {
        for feed in &self.0 {
            // Who goes by the disk has not applied what the registry said.
            if let Heard::Registry(watcher, _) = &feed.heard
                && !feed.by_disk
            {
                watcher.applied();
            }
        }
    }

    /// The next roster; never for a source that does not change. Cancel safe.
    pub(crate) async fn next(&mut self) -> Roster {
        {
            let mut changes: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::with_capacity(self.0.len());
            for feed in &mut self.0 {
                changes.push(Box::pin(feed.changes()));
            }
            std::future::poll_fn(|cx| {
                let is_ready =
                    |change: &mut Pin<Box<dyn Future<Output = ()> + Send + '_>>| change.as_mut().poll(cx).is_ready();
                if changes.iter_mut().any(is_ready) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
        self.current()
    }

    /// Writes to disk what is still to be written.
    pub(crate) async fn close(&mut self) {
        for kept in self.0.iter_mut().filter_map(|feed| feed.kept.as_mut()) {
            kept.close().await;
        }
    }

    fn merged(&self) -> Roster {
        if let [only] = &self.0[..] {
            return only.last.clone();
        }
        let mut all = Roster {
            backends: Vec::new(),
            known: 0,
            passed_over: Vec::new(),
            unspoken: None,
            origin: Origin::Several(self.0.iter().map(|feed| feed.last.origin.clone()).collect()),
        };
        let mut seen = std::collections::BTreeSet::new();
        for (registry, feed) in self.0.iter().enumerate() {
            all.known += feed.last.known;
            all.passed_over.extend(feed.last.passed_over.iter().cloned());
            all.unspoken = all.unspoken.or_else(|| feed.last.unspoken.clone());
            for backend in &feed.last.backends {
                if seen.insert(backend.key.clone()) {
                    all.backends.push(Backend {
                        registry,
                        ..backend.clone()
                    });
                }
            }
        }
        all
    }
}

impl Feed {
    /// Resolves when another look may show something else. Cancel safe.
    async fn changes(&mut self) {
        let turns = async {
            match &mut self.kept {
                Some(kept) => kept.turns().await,
                None => std::future::pending().await,
            }
        };
        let is_over = match &mut self.heard {
            Heard::Final => {
                turns.await;
                false
            }
            Heard::Registry(watcher, _) => tokio::select! {
                changed = watcher.changed() => changed.is_err(),
                () = turns => false,
            },
        };
        if is_over {
            self.look();
            self.heard = Heard::Final;
        }
    }

    fn look(&mut self) {
        let Heard::Registry(watcher, spoken) = &mut self.heard else {
            return;
        };
        let snapshot = watcher.borrow_and_update();
        let roster = roster_of(&snapshot, spoken);
        self.by_disk = false;
        if let Some(kept) = &mut self.kept {
            // One that says of some that it no longer shows them is in doubt itself.
            let is_fresh = snapshot.state == SnapshotState::Fresh && snapshot.unconfirmed == 0;
            kept.learns(&roster.backends, snapshot.revision, is_fresh);
            if let Some(saved) = kept.instead_of(told_by(&snapshot)) {
                self.by_disk = true;
                self.last = roster_from_disk(saved, spoken, roster.origin);
                return;
            }
        }
        self.last = roster;
    }
}

fn told_by(snapshot: &Snapshot) -> Told {
    let is_heard = snapshot.state == SnapshotState::Fresh;
    match &snapshot.state {
        _ if !snapshot.instances.is_empty() => Told::Somebody,
        SnapshotState::Connecting => Told::NotYet,
        SnapshotState::Stale { .. } if snapshot.revision == 0 => Told::Unreachable,
        _ => Told::Nobody { is_heard },
    }
}

fn roster_from_disk(saved: &Saved, spoken: &Spoken, instead_of: Origin) -> Roster {
    let expected = |backend: &Backend| Backend {
        secured: spoken.expected(),
        ..backend.clone()
    };
    Roster {
        backends: saved.backends.iter().map(expected).collect(),
        known: saved.backends.len(),
        passed_over: Vec::new(),
        unspoken: None,
        origin: Origin::Disk {
            at: saved.at,
            revision: saved.revision,
            instead_of: Box::new(instead_of),
        },
    }
}

/// Who of a snapshot can be called, and what to say of the rest.
fn roster_of(snapshot: &Snapshot, spoken: &Spoken) -> Roster {
    let protocol = spoken.protocol();
    let mut unspoken = 0;
    let mut passed_over: Vec<PassedOver> = snapshot
        .instances
        .iter()
        .filter(|instance| !instance.is_callable())
        .map(|instance| passed_over_by(instance, why_not(instance)))
        .collect();
    let backends = snapshot
        .callable()
        .filter_map(|instance| {
            let endpoint = instance.endpoints.iter().find(|endpoint| endpoint.protocol == protocol);
            let Some(endpoint) = endpoint else {
                unspoken += 1;
                passed_over.push(passed_over_by(instance, not_spoken(spoken)));
                return None;
            };
            let (address, authority) = parse_address(&endpoint.authority())
                .inspect_err(|reason| {
                    tracing::warn!(instance = %instance.id, address = %endpoint.authority(), reason, "not callable");
                    passed_over.push(passed_over_by(instance, Removed::new(Filter::Protocol, *reason)));
                })
                .ok()?;
            let key = Key {
                instance_id: instance.id.as_str().into(),
                address: address.into(),
                is_secured: protocol == Protocol::Grpcs,
            };
            Some(Backend {
                key,
                authority,
                secured: spoken.expected(),
                weight: instance.weight,
                attributes: Arc::new(attributes_of(instance)),
                epoch: instance.epoch,
                registry: 0,
            })
        })
        .collect();
    let revision = snapshot.revision;
    let origin = match &snapshot.state {
        SnapshotState::Connecting => Origin::Connecting,
        SnapshotState::Fresh => Origin::Fresh { revision },
        SnapshotState::Stale { since, reason } => Origin::Stale {
            since: *since,
            reason: reason.clone(),
            revision,
        },
    };
    let unspoken = match (unspoken, spoken) {
        (0, _) => None,
        (n, Spoken::Plain) => Some(format!(
            "{n} of them take calls with TLS only, and this caller has no CA bundle"
        )),
        (n, Spoken::Tls(_)) => Some(format!(
            "{n} of them take calls without TLS only, and this caller asks for it"
        )),
    };
    Roster {
        backends,
        known: snapshot.instances.len(),
        passed_over,
        unspoken,
        origin,
    }
}

fn passed_over_by(instance: &Instance, removed: Removed) -> PassedOver {
    PassedOver {
        instance_id: instance.id.as_str().into(),
        address: instance.grpc_address().unwrap_or_default(),
        weight: instance.weight,
        attributes: Arc::new(attributes_of(instance)),
        removed,
    }
}

/// Why an instance takes no calls: what [`Instance::is_callable`] asks, one by one.
fn why_not(instance: &Instance) -> Removed {
    if instance.drained {
        let decision = instance.governed.as_ref().and_then(|laid| laid.drain_decision.as_ref());
        let why = decision.map_or_else(
            || "an operator has taken it out of service".to_owned(),
            |decision| match &*decision.why {
                "" => format!("by {}", decision.who),
                why => format!("by {}: {why}", decision.who),
            },
        );
        Removed::new(Filter::Drain, why)
    } else if instance.status != InstanceStatus::Up {
        Removed::new(Filter::Status, format!("it says that it is {}", instance.status))
    } else if instance.health == Health::Failing {
        Removed::new(Filter::Status, "the registry's probes of it fail")
    } else if instance.weight == 0 {
        Removed::new(Filter::Weight, "it gets no share of the calls")
    } else {
        Removed::new(Filter::Protocol, "it has no gRPC address")
    }
}

fn not_spoken(spoken: &Spoken) -> Removed {
    let why = match spoken {
        Spoken::Plain => "it takes calls with TLS only, and this caller has no CA bundle",
        Spoken::Tls(_) => "it takes calls without TLS only, and this caller asks for it",
    };
    Removed::new(Filter::Protocol, why)
}

fn attributes_of(instance: &Instance) -> Attributes {
    Attributes {
        semver: instance.version.parse().ok(),
        version: instance.version.clone(),
        group: instance.group.clone(),
        zone: instance.zone.clone(),
        tag: instance.tag.clone(),
        metadata: instance.metadata.clone(),
        started_at: instance.started_at,
    }
}

#[cfg(test)]
mod tests {
    use registry_client::{Endpoint, InstanceStatus};

    use super::*;

    #[test]
    fn only_callable_instances_make_the_roster() {
        let good = Instance::new("s", "good", "10.0.0.1:1");
        let draining = Instance {
            status: InstanceStatus::Draining,
            ..Instance::new("s", "draining", "10.0.0.2:1")
        };
        let drained = Instance {
            drained: true,
            ..Instance::new("s", "drained", "10.0.0.3:1")
        };
        let weightless = Instance {
            weight: 0,
            ..Instance::new("s", "weightless", "10.0.0.4:1")
        };
        let mut tls = Instance::new("s", "tls", "10.0.0.5:1");
        tls.endpoints = vec![Endpoint::grpc("10.0.0.5:1").with_protocol(Protocol::Grpcs)];
        let portless = Instance::new("s", "portless", "10.0.0.6");
        let mut both = Instance::new("s", "both", "10.0.0.7:1");
        both.endpoints
            .push(Endpoint::grpc("10.0.0.7:2").with_protocol(Protocol::Grpcs));
        let snapshot = Snapshot::fresh(7, [good, draining, drained, weightless, tls, portless, both]);
        let called = |roster: &Roster| -> Vec<(String, String)> {
            let named = |backend: &Backend| (backend.key.instance_id.to_string(), backend.key.address.to_string());
            roster.backends.iter().map(named).collect()
        };
        let pair = |id: &str, address: &str| (id.to_owned(), address.to_owned());
        let roster = roster_of(&snapshot, &Spoken::Plain);
        assert_eq!(
            called(&roster),
            [pair("good", "10.0.0.1:1"), pair("both", "10.0.0.7:1")]
        );
        assert_eq!(roster.known, 7);
        let unspoken = roster.unspoken.expect("one speaks TLS only");
        assert!(unspoken.starts_with("1 of them take calls with TLS only"), "{unspoken}");
        assert_eq!(roster.origin.to_string(), "the registry answers, at revision 7");

        // With TLS nobody is called without.
        let ticket = Expected::service("default", "s");
        let roster = roster_of(&snapshot, &Spoken::Tls(ticket.clone()));
        assert_eq!(called(&roster), [pair("tls", "10.0.0.5:1"), pair("both", "10.0.0.7:2")]);
        assert!(
            roster
                .backends
                .iter()
                .all(|backend| backend.secured.as_ref() == Some(&ticket))
        );
        let unspoken = roster.unspoken.expect("others do not speak it");
        assert!(unspoken.contains("without TLS only"), "{unspoken}");
    }
}
