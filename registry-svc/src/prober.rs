//! Asks instances that want it whether they are well, and has the registry tell what came of it.
//!
//! It is the one part of the registry that dials what clients register, so it dials little: where a registration came from, or where
//! the operator allows it ([`Allowed`]); at most [`IN_FLIGHT`] at a time, each bounded by its timeout; and one bit comes of it, which
//! nobody learns a banner or an open port from. With several replicas an instance is probed by the one that hears its heartbeats.
//!
//! `schedule` decides when and what it comes to, `allowed` where, `wire` asks; this file is their driver.

mod allowed;
mod schedule;
mod wire;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

pub(crate) use allowed::{Allowed, Refused};
pub use allowed::{Cidr, InvalidCidr};
use schedule::Schedule;
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::{
    catalog::{Command, Judge},
    driver::{Clock, Handle},
    hub::Hub,
    model::{Draft, Epoch, Instance, InstanceKey, Probe, Protocol, Spec},
};

/// Probes under way, and verdicts that wait for the store. Should all of them hang they are over in ten seconds.
const IN_FLIGHT: usize = 64;
/// Probes under way of what was registered from one address: one registrant whose instances hang must not keep the others' from
/// being asked. Those beyond are asked an interval later.
const IN_FLIGHT_OF_ONE: usize = 16;
/// How long a registration waits for names to be looked up. What is not known by then is looked at before each probe anyway.
const LOOK_UP: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Prober {
    /// Tells which instances want to be probed.
    pub(crate) hub: Arc<Hub>,
    /// Makes what came of it a revision.
    pub(crate) driver: Handle,
    /// Decides when.
    pub(crate) clock: Clock,
    /// Decides where.
    pub(crate) allowed: Arc<Allowed>,
    /// Asks where TLS is spoken; `None`: those endpoints are not asked.
    pub(crate) tls: Option<tls::Client>,
}

/// What a registry can ask in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Clear text alone.
    Plain,
    /// TLS as well.
    Tls,
}

/// Room for the probes of what was registered from each address.
type Shares = HashMap<Option<IpAddr>, Arc<Semaphore>>;

/// What has ended.
#[derive(Debug)]
enum Flight {
    /// A probe.
    Probed {
        key: InstanceKey,
        epoch: Epoch,
        passed: bool,
    },
    /// A verdict is made known, or could not be.
    Told { key: InstanceKey, epoch: Epoch },
}

/// Whom of these a registration may not have probed, and why. Of the addresses of a name none may be among those that are never
/// allowed, and one at least must be allowed; one that cannot be looked up is looked up again before each probe.
pub(crate) async fn refused(drafts: &[Draft], allowed: &Allowed) -> Option<(InstanceKey, Refused)> {
    let look = async {
        for draft in drafts {
            let (Some(probe), Some((_, host, port))) = (&draft.spec.probe, endpoint(&draft.spec)) else {
                continue;
            };
            let (mut is_allowed, mut is_foreign) = (false, false);
            for address in wire::addresses(host, port).await {
                match allowed.check(address, probe.from()) {
                    Ok(_) => is_allowed = true,
                    Err(Refused::Foreign) => is_foreign = true,
                    Err(refused) => return Some((draft.key.clone(), refused)),
                }
            }
            if is_foreign && !is_allowed {
                return Some((draft.key.clone(), Refused::Foreign));
            }
        }
        None
    };
    tokio::time::timeout(LOOK_UP, look).await.unwrap_or(None)
}

/// The endpoint that is probed, which is the one that balancers call: how, where, on which port.
pub(crate) fn endpoint(spec: &Spec) -> Option<(Protocol, &str, u16)> {
    let is_grpc = |protocol| matches!(protocol, Protocol::Grpc | Protocol::Grpcs);
    let first = spec.endpoints.iter().find(|endpoint| is_grpc(endpoint.protocol))?;
    Some((first.protocol, first.host, u16::try_from(first.port.get()).ok()?))
}

impl Prober {
    /// What it can ask in.
    pub(crate) fn speaks(&self) -> Speaks {
        match self.tls {
            Some(_) => Speaks::Tls,
            None => Speaks::Plain,
        }
    }

    /// One that another replica has taken, or this registry when it still had a CA bundle. What it has not asked it has
    /// nothing to say of.
    fn can_ask(&self, instance: &Instance) -> bool {
        let is_secured = matches!(endpoint(&instance.spec), Some((Protocol::Grpcs, ..)));
        !is_secured || self.speaks() == Speaks::Tls
    }

    /// Probes until it is stopped; what is under way then is dropped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        // `None` where it was stopped, which is all that ends it.
        let _ = stop.run_until_cancelled(self.work()).await;
    }

    async fn work(&self) {
        let mut schedule = Schedule::default();
        let mut flights = JoinSet::new();
        let mut shares = Shares::default();
        loop {
            let now = self.clock.now().moment;
            shares.retain(|_, share| share.available_permits() < IN_FLIGHT_OF_ONE);
            for (key, instance) in self.hub.probed().take() {
                match instance {
                    Some(instance) => schedule.put(instance, now, rand::random()),
                    None => schedule.remove(&key),
                }
            }
            let due = schedule.take_due(now, IN_FLIGHT.saturating_sub(flights.len()));
            if !due.is_empty() && !self.start(due, &mut schedule, &mut flights, &mut shares).await {
                return;
            }
            let wake = schedule.next_due().filter(|_| flights.len() < IN_FLIGHT);
            tokio::select! {
                () = self.hub.probed().changed() => {}
                Some(ended) = flights.join_next() => self.land(ended, &mut schedule, &mut flights),
                () = tokio::time::sleep_until(self.clock.instant(wake.unwrap_or(now))), if wake.is_some() => {}
            }
        }
    }

    /// Sends off those that are ours. False where the registry is going away.
    async fn start(
        &self,
        due: Vec<Arc<Instance>>,
        schedule: &mut Schedule,
        flights: &mut JoinSet<Flight>,
        shares: &mut Shares,
    ) -> bool {
        let leases = due.iter().map(|instance| instance.lease).collect();
        let Ok(ours) = self.driver.hears(leases).await else {
            return false;
        };
        for (instance, is_ours) in due.into_iter().zip(ours) {
            let from = instance.spec.probe.as_deref().and_then(Probe::from);
            let share = shares
                .entry(from)
                .or_insert_with(|| Arc::new(Semaphore::new(IN_FLIGHT_OF_ONE)));
            let is_asked = is_ours && self.can_ask(&instance);
            let Some(place) = Arc::clone(share).try_acquire_owned().ok().filter(|_| is_asked) else {
                let now = self.clock.now().moment;
                schedule.later(&instance.key, instance.epoch, now, rand::random());
                continue;
            };
            let (allowed, tls) = (Arc::clone(&self.allowed), self.tls.clone());
            flights.spawn(async move {
                let _place = place;
                let passed = wire::passes(&instance, &allowed, tls.as_ref()).await;
                Flight::Probed {
                    key: instance.key.clone(),
                    epoch: instance.epoch,
                    passed,
                }
            });
        }
        true
    }

    fn land(&self, ended: Result<Flight, JoinError>, schedule: &mut Schedule, flights: &mut JoinSet<Flight>) {
        let now = self.clock.now().moment;
        match ended {
            Ok(Flight::Probed { key, epoch, passed }) => {
                let Some(verdict) = schedule.ended(&key, epoch, passed, now, rand::random()) else {
                    return;
                };
                let driver = self.driver.clone();
                let judge = Judge {
                    key: verdict.key,
                    epoch: verdict.epoch,
                    health: verdict.health,
                };
                flights.spawn(async move {
                    if let Err(error) = driver.submit(Command::Judge(judge)).await {
                        // The next probe comes to the same.
                        debug!(%key, %error, "what a probe came to could not be made known");
                    }
                    Flight::Told { key, epoch }
                });
            }
            Ok(Flight::Told { key, epoch }) => schedule.later(&key, epoch, now, rand::random()),
            Err(panic) => error!(%panic, "a probe has panicked; its instance is probed when it registers again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        fixtures::{WALL, draft},
        model::{Endpoint, Host, LeaseId, Port, Revision},
    };

    /// A name that stood for an allowed address when it was registered, and for another one when it is probed. What is judged is the
    /// address that is about to be dialled.
    #[tokio::test]
    async fn a_name_that_now_stands_for_another_address_is_not_dialled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let hits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hits);
        let accepting = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let probe = |from: &'static str| async move {
            let mut draft = draft("a-svc", "1", "");
            let host = Host::try_new("localhost").expect("a name");
            let endpoint = Endpoint {
                protocol: Protocol::Grpc,
                host,
                port: Port::try_new(port.into()).expect("a port"),
            };
            draft.spec.endpoints = [endpoint].into_iter().collect();
            let probe = Probe::try_new(None, Some(Duration::from_millis(500)), 1, None).expect("a probe");
            draft.spec.probe = Some(Arc::new(probe.asked_from(from.parse().ok())));
            let instance = draft.registered(Revision::new(1), LeaseId::from_random(1), WALL);
            wire::passes(&instance, &Allowed::default(), None).await
        };
        assert!(!probe("192.0.2.1").await);
        assert_eq!(hits.load(Ordering::Relaxed), 0);
        assert!(!probe("127.0.0.1").await, "it accepts, and does not answer");
        // Once, and once more because what broke had never answered.
        assert!(hits.load(Ordering::Relaxed) > 0, "but where it may, it does dial");
        accepting.abort();
    }
}
