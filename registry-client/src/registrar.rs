//! Keeps an instance registered: one task a registration, which performs what the state machine in `state` decides and does
//! not decide itself.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use tokio::{sync::watch, task::JoinHandle, time};
use tracing::{debug, info, warn};

use crate::{
    endpoints::{Endpoints, within},
    error::{Error, LeaseVerdict},
    model::{Drained, InstanceStatus, Late, Removal, Says},
    registration::Registration,
    registry::Registry,
    wire::peer::Peer,
};

use state::{Action, Desired, Machine, Outcome};

pub use state::RegistrarStatus;

mod state;

/// How long leaving may take, and how long a drain waits to be heard: a process that stops must not hang on its registry.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long an instance goes on answering where nobody can tell it whether its callers know: what a watch takes to tell them.
const BLIND_LINGER: Duration = Duration::from_millis(300);
/// What a registry's answer may take beyond the time that it was given to wait.
const ANSWER: Duration = Duration::from_millis(500);

/// The longest that a registry waits for watchers.
const MAX_PATIENCE: Duration = Duration::from_secs(300);

/// The contract's largest weight.
const MAX_WEIGHT: u32 = 1_000;

/// An instance that is being kept registered.
///
/// Drop ends the heartbeats without a word, as a crash would: the lease lapses. To leave in order, [`drain`](Self::drain) and
/// [`deregister`](Self::deregister).
#[derive(Debug)]
pub struct Registrar {
    registry: Registry,
    service: String,
    instance_id: Arc<str>,
    desired: watch::Sender<Desired>,
    status: watch::Receiver<RegistrarStatus>,
    task: Task,
}

/// Ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Registrar {
    pub(crate) fn start(registry: Registry, mut registration: Registration) -> Self {
        if registration.instance.id.is_empty() {
            // The registry would choose a new one at every registration.
            let fresh = Registration::new(&registration.instance.service, "");
            registration.instance.id = fresh.instance.id;
        }
        registration.instance.namespace = registry.namespace().to_owned();
        let instance = &registration.instance;
        let instance_id: Arc<str> = instance.id.as_str().into();
        let (desired, desired_seen) = watch::channel(Desired {
            says: Says {
                status: instance.status,
                weight: instance.weight,
                metadata: instance.metadata.clone(),
            },
            leave: None,
        });
        let (status_told, status) = watch::channel(RegistrarStatus::Registering);
        let (handle, service) = (registry.clone(), instance.service.clone());
        let driver = Driver {
            registry,
            registration,
            desired: desired_seen,
            status: status_told,
            denied_by: None,
            rng: rand::make_rng(),
        };
        Self {
            registry: handle,
            service,
            instance_id,
            desired,
            status,
            task: Task(tokio::spawn(driver.run())),
        }
    }

    /// The id under which the instance is registered, known before the first answer.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// How the registration stands.
    #[must_use]
    pub fn status(&self) -> RegistrarStatus {
        self.status.borrow().clone()
    }

    /// Follows [`status`](Self::status). What it is now may count as unseen: look before you wait.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<RegistrarStatus> {
        self.status.clone()
    }

    /// Waits until the registry holds the instance, at most `timeout`. The registrar goes on trying in any case.
    ///
    /// # Errors
    ///
    /// At once the registry's answer when it refuses what no later try will cure (a malformed name, a missing right);
    /// [`Error::NotRegistered`] with the last reason after `timeout`.
    pub async fn registered(&self, timeout: Duration) -> Result<(), Error> {
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| match status {
            RegistrarStatus::Registering => false,
            RegistrarStatus::Retrying { reason, .. } => !reason.is_retryable(),
            RegistrarStatus::Registered { .. } | RegistrarStatus::Draining { .. } | RegistrarStatus::Left => true,
        });
        match time::timeout(timeout, settled).await {
            Ok(Ok(settled)) => match &*settled {
                RegistrarStatus::Retrying { reason, .. } => Err(reason.clone()),
                RegistrarStatus::Left => Err(Error::Closed),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::NotRegistered {
                after: timeout,
                last: match self.status() {
                    RegistrarStatus::Retrying { reason, .. } => reason.to_string(),
                    _ => "the registry has not answered yet".to_owned(),
                },
            }),
        }
    }

    /// Says another weight, now and at every later registration. 0 to 1000; what is above becomes 1000, since nobody is here
    /// to be told of a refusal.
    pub fn set_weight(&self, weight: u32) {
        self.change(|says| says.weight = weight.min(MAX_WEIGHT));
    }

    /// Says another status, now and at every later registration.
    pub fn set_status(&self, status: InstanceStatus) {
        self.change(|says| says.status = status);
    }

    /// Replaces the metadata, now and at every later registration.
    pub fn set_metadata(&self, metadata: BTreeMap<String, String>) {
        self.change(|says| says.metadata = metadata);
    }

    /// Says DRAINING, waits until the registry has heard it (at most 2 s), and then until every watcher has acknowledged it, at
    /// most `patience` (and at most 5 min). The instance still takes what they send meanwhile. Stays DRAINING through
    /// re-registrations.
    ///
    /// Where the registry is away, too old to know who has acknowledged, or has begun so lately that not all of its watchers may be
    /// back, it goes on for 300 ms at the least, or `patience` if that is less: what watchers take to hear of it when all is well.
    pub async fn drain(&self, patience: Duration) -> Drained {
        let drained = self.drain_within(patience).await;
        let (service, instance) = (&self.service, &self.instance_id);
        match &drained {
            Drained::Acknowledged => info!(service, %instance, "acknowledged: no watcher calls this instance any more"),
            Drained::Late(late) => {
                warn!(service, %instance, %late, "not acknowledged by all; they will notice when it stops");
            }
            Drained::Unheard => {
                warn!(service, %instance, "the registry cannot tell who knows; callers will notice when it stops");
            }
        }
        drained
    }

    async fn drain_within(&self, patience: Duration) -> Drained {
        self.set_status(InstanceStatus::Draining);
        let mut status = self.status.clone();
        let heard =
            status.wait_for(|status| matches!(status, RegistrarStatus::Draining { .. } | RegistrarStatus::Left));
        let heard = time::timeout(FAREWELL, heard).await;
        let revision = heard.ok().and_then(Result::ok).and_then(|status| match *status {
            RegistrarStatus::Draining { revision, .. } => Some(revision),
            _ => None,
        });
        let begun = time::Instant::now();
        let Some(revision) = revision else {
            // Perhaps only its answer was lost.
            time::sleep_until(begun + BLIND_LINGER.min(patience)).await;
            return Drained::Unheard;
        };
        let drained = self.acknowledged(revision, patience.min(MAX_PATIENCE)).await;
        let is_blind = match &drained {
            Drained::Acknowledged => false,
            // Of the watches of replicas that have not told of theirs nothing is known.
            Drained::Late(late) => late.watches.is_empty(),
            Drained::Unheard => true,
        };
        if is_blind {
            // They are given the time that they need as a rule.
            time::sleep_until(begun + BLIND_LINGER.min(patience)).await;
        }
        drained
    }

    /// Waits until all have acknowledged, or for so long. Each replica knows its own watches, so all are asked at once; those that
    /// are not among our endpoints are named by the others, and those that are and cannot tell by their addresses: one that the
    /// others do not count any more, because it has lost its store, still tells its watchers what it knew.
    async fn acknowledged(&self, revision: i64, patience: Duration) -> Drained {
        let endpoints = self.registry.shared_endpoints();
        let asked = (0..endpoints.addresses().count()).map(|index| {
            let (_, peer) = endpoints.at(index, patience + ANSWER);
            let names = (self.registry.namespace().to_owned(), self.service.clone());
            let id = self.instance_id.to_string();
            async move {
                let told = within(&peer, peer.await_watchers(names.0, names.1, id, revision, patience)).await;
                (peer.address.to_string(), told)
            }
        });
        let (mut answers, mut blind) = (Vec::new(), Vec::new());
        let mut is_known = false;
        for (address, answer) in join_all(asked).await {
            match answer {
                Ok(told) => {
                    if told.watchers_may_return {
                        blind.push(address);
                    } else {
                        is_known = true;
                    }
                    answers.push((told.replica, told.late));
                }
                Err(error) => {
                    debug!(instance = %self.instance_id, %error, "the registry does not tell of its watchers");
                    blind.push(address);
                }
            }
        }
        let mut late = Late::of_all(answers);
        if late.watches.is_empty() && !is_known {
            return Drained::Unheard;
        }
        late.replicas.extend(blind);
        if late.is_empty() {
            Drained::Acknowledged
        } else {
            Drained::Late(late)
        }
    }

    /// Leaves for good: tells the registry once, best effort, and ends the task. Takes at most 2 s.
    pub async fn deregister(mut self, removal: Removal) {
        self.desired.send_modify(|desired| desired.leave = Some(removal));
        if time::timeout(FAREWELL, &mut self.task.0).await.is_err() {
            warn!(
                instance = %self.instance_id,
                "the registry has not heard that this instance leaves; it will expire with its lease"
            );
            self.task.0.abort();
            // An aborted task ends at its next await.
            let _ = (&mut self.task.0).await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Says)) {
        self.desired.send_if_modified(|desired| {
            let before = desired.says.clone();
            change(&mut desired.says);
            desired.says != before
        });
    }
}

/// What the task owns.
struct Driver {
    registry: Registry,
    registration: Registration,
    desired: watch::Receiver<Desired>,
    status: watch::Sender<RegistrarStatus>,
    /// The endpoint that did not know the lease when it was asked last. It may be a replica that is behind.
    denied_by: Option<usize>,
    rng: StdRng,
}

impl Driver {
    async fn run(mut self) {
        let Registration {
            heartbeat_interval,
            misses_allowed,
            ..
        } = self.registration;
        let is_replicated = self.registry.endpoints().count() > 1;
        let mut machine = Machine::new(heartbeat_interval, misses_allowed, is_replicated, now());
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let action = machine.next(now(), &desired, &mut self.rng);
            let may_be_given_up = matches!(action, Action::Renew { .. } | Action::Update { .. });
            let mut changes = self.desired.clone();
            let mut leaving = self.desired.clone();
            let outcome = match action {
                Action::Done => break,
                Action::Wait { until } => {
                    tokio::select! {
                        () = time::sleep_until(until.into()) => {}
                        changed = changes.changed() => if changed.is_err() { break },
                    }
                    continue;
                }
                call => tokio::select! {
                    outcome = self.perform(call) => outcome,
                    // An owner that leaves does not wait for a hanging heartbeat; one that merely changes its mind does, or
                    // changes in quick succession would let nothing through. A registration is not given up: whether it took
                    // effect would be in doubt.
                    () = told_to_leave(&mut leaving), if may_be_given_up => continue,
                },
            };
            let Some(outcome) = outcome else { continue };
            let instance = &self.registration.instance.id;
            debug!(instance, ?outcome, "registry answered");
            if let Outcome::Deregistered(Err(error)) = &outcome {
                warn!(instance, %error, "not deregistered; the instance will expire with its lease");
            }
            machine.apply(now(), outcome, &mut self.rng);
            self.publish(machine.status());
        }
        self.publish(machine.status());
    }

    async fn perform(&mut self, action: Action) -> Option<Outcome> {
        let endpoints = self.registry.shared_endpoints();
        let call_timeout = self.registry.call_timeout();
        let Registration {
            instance,
            heartbeat_interval,
            misses_allowed,
        } = &self.registration;
        Some(match action {
            Action::Register { request_id, says } => {
                let instance = says.laid_over(instance.clone());
                let call = |peer: Peer| {
                    let (request_id, instance) = (request_id.clone(), instance.clone());
                    async move {
                        peer.register(request_id, instance, *heartbeat_interval, *misses_allowed)
                            .await
                    }
                };
                self.denied_by = None;
                Outcome::Registered(endpoints.call(call_timeout, call).await)
            }
            Action::Renew { lease, within } => {
                let call = |peer: Peer| {
                    let lease = lease.clone();
                    async move { peer.renew(lease).await }
                };
                let answer = endpoints
                    .call_after(self.denied_by, call_timeout.min(within), call)
                    .await;
                Outcome::Renewed(judged(&mut self.denied_by, endpoints, answer))
            }
            Action::Update {
                lease,
                epoch,
                field,
                says,
                within,
            } => {
                let instance = says.laid_over(instance.clone());
                let call = |peer: Peer| {
                    let (lease, instance) = (lease.clone(), instance.clone());
                    async move { peer.update(lease, instance, field, epoch).await }
                };
                let answer = endpoints
                    .call_after(self.denied_by, call_timeout.min(within), call)
                    .await;
                Outcome::Updated(judged(&mut self.denied_by, endpoints, answer))
            }
            Action::Deregister { lease, removal } => {
                let call = |peer: Peer| {
                    let lease = lease.clone();
                    async move { peer.deregister(lease, removal).await }
                };
                Outcome::Deregistered(endpoints.call(FAREWELL, call).await)
            }
            Action::Wait { .. } | Action::Done => return None,
        })
    }

    /// Tells how the registration stands, and logs it when the kind of standing is another one: once, not at each attempt.
    fn publish(&self, status: RegistrarStatus) {
        let before = self.status.borrow().clone();
        if before == status {
            return;
        }
        // Every heartbeat confirms the same; only what differs wakes those who follow it.
        self.status.send_replace(status.clone());
        if std::mem::discriminant(&before) == std::mem::discriminant(&status) {
            return;
        }
        let (service, instance) = (&self.registration.instance.service, &self.registration.instance.id);
        match &status {
            RegistrarStatus::Registering => {}
            RegistrarStatus::Registered { epoch, revision, .. } => {
                info!(service, instance, epoch, revision, "registered")
            }
            RegistrarStatus::Draining { revision, .. } => {
                info!(service, instance, revision, "DRAINING in the registry")
            }
            RegistrarStatus::Retrying { reason, .. } => {
                warn!(service, instance, error = %reason, "registration in trouble; trying for ever");
            }
            RegistrarStatus::Left => {
                let reason = self.desired.borrow().leave.map(|removal| removal.to_string());
                info!(service, instance, reason, "left the registry");
            }
        }
    }
}

/// Remembers who did not know the lease, so that somebody else is asked next. Whom another one proves wrong is behind, and nobody's
/// choice.
fn judged<T>(
    denied_by: &mut Option<usize>,
    endpoints: &Endpoints,
    (endpoint, answer): (usize, Result<T, Error>),
) -> Result<T, Error> {
    match &answer {
        Ok(_) => {
            if let Some(wrong) = denied_by.take()
                && wrong != endpoint
            {
                endpoints.avoid(wrong);
            }
        }
        Err(error) if error.lease_verdict() == LeaseVerdict::Unknown => *denied_by = Some(endpoint),
        Err(_) => {}
    }
    answer
}

/// Resolves when the owner leaves; never when it is merely dropped, which ends the task by itself.
async fn told_to_leave(desired: &mut watch::Receiver<Desired>) {
    if desired.wait_for(|desired| desired.leave.is_some()).await.is_err() {
        std::future::pending().await
    }
}

fn now() -> Instant {
    // tokio's clock, which tests may hold.
    time::Instant::now().into_std()
}
