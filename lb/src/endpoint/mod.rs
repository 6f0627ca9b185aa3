//! One address that may be called: what everybody may know of it, and who keeps it connected.
//!
//! [`Endpoint`] is the shared record: identity, calls in flight, what the views show. The life itself is in `state` (pure)
//! and `driver` (its effects); `lines` are the connections that it has while it is ready. `link` keeps a connection moving (and alive: `keepalive`), `connection` and `stream` are what
//! calls use of it. Which endpoints exist is the pool's business.

mod backoff;
pub(crate) mod connection;
mod counts;
pub(crate) mod driver;
mod ending;
mod heard;
mod in_flight;
mod keepalive;
mod lines;
mod link;
#[cfg(test)]
mod raw_peer;
mod state;
pub(crate) mod stream;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::uri::{Authority, Scheme};
use telemetry::client::{Callee, Peer};
use tokio::{sync::Notify, time::Instant};

pub use backoff::{Backoff, InvalidBackoff};
pub(crate) use counts::{Counts, EJECTIONS, Further, RetryReason, Why};
pub(crate) use ending::Ending;
pub(crate) use in_flight::InFlight;
pub(crate) use lines::Dial;

use crate::{load::Load, pick::identity, pool::Attributes};

use crate::outlier::{Ejection, Record};

/// Where an endpoint of a [`Channel`](crate::Channel) is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum EndpointState {
    /// Known, and not connected since nobody calls: not dialled yet, or let go after [`Builder::idle_timeout`](crate::Builder::idle_timeout).
    Idle,
    /// A connect is under way.
    Connecting,
    /// Connected: takes calls.
    Ready,
    /// Could not be reached; will be dialled again after a pause.
    BackingOff,
    /// No longer in the set: finishes its calls, takes no new ones.
    Draining,
    /// Connected, but taken out of service since it failed; see [`OutlierDetection`](crate::OutlierDetection).
    Ejected,
    /// Connected, but it does not say that it serves: where a service config has gRPC's `healthCheckConfig`.
    Unhealthy,
}

/// One endpoint as [`Channel::endpoints`](crate::Channel::endpoints) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointView {
    /// `host:port`.
    pub address: String,
    /// The instance's id; of a fixed target, its address.
    pub instance_id: String,
    /// Where it is in its life.
    pub state: EndpointState,
    /// Calls under way, counted until the response has ended.
    pub in_flight: u32,
    /// Attempts that the instance has served since it is known here, those that ended with a business error included.
    pub served: u64,
    /// Attempts that it, or the way to it, has failed.
    pub failed: u64,
    /// Why it is out of service, if it is.
    pub ejection: Option<Ejection>,
    /// Why it was last lost or could not be reached, if that ever happened.
    pub last_error: Option<String>,
}

/// Who decides over an endpoint by what the ends of its attempts tell.
pub(crate) trait Overseer: fmt::Debug + Send + Sync {
    /// It has failed too often in a row.
    fn suspects(&self, endpoint: &Endpoint);
    /// The one call that it was to prove itself by has ended.
    fn has_proved(&self, endpoint: &Endpoint, ending: Ending);
}

/// The shared record of one endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) instance_id: Arc<str>,
    pub(crate) address: Arc<str>,
    pub(crate) authority: Authority,
    /// What spans say of it: a process that comes back under the same name may be another version.
    callee: ArcSwap<Callee>,
    /// Whose certificate is expected; `None` without TLS.
    secured: Option<tls::Expected>,
    identity: u64,
    load: Load,
    served: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    record: Record,
    /// Nobody, or nobody any more: then nothing follows from how attempts end.
    overseer: Option<Weak<dyn Overseer>>,
    further: Further,
    state: AtomicU8,
    /// Told when a draining endpoint's last call ends.
    idle: Notify,
    /// Told when the registry has news that make an early dial worth while.
    nudge: Notify,
    /// Told when a call found all its connections full.
    crowded: Notify,
    /// Told when nobody has called for long, and when somebody does again.
    rest: Notify,
    wake: Notify,
    last_error: Mutex<Option<String>>,
}

impl Endpoint {
    pub(crate) fn new(instance_id: Arc<str>, address: Arc<str>, authority: Authority) -> Self {
        Self {
            identity: identity(&instance_id),
            callee: ArcSwap::new(callee(&instance_id, &address, &Attributes::default())),
            instance_id,
            address,
            authority,
            secured: None,
            load: Load::default(),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            record: Record::new(),
            overseer: None,
            further: Further::default(),
            state: AtomicU8::new(EndpointState::Idle as u8),
            idle: Notify::new(),
            nudge: Notify::new(),
            crowded: Notify::new(),
            rest: Notify::new(),
            wake: Notify::new(),
            last_error: Mutex::new(None),
        }
    }

    /// To be spoken to with TLS, if somebody is expected there.
    pub(crate) fn secured(self, secured: Option<tls::Expected>) -> Self {
        Self { secured, ..self }
    }

    /// It says so of itself from now on.
    pub(crate) fn says(&self, labels: &Attributes) {
        self.callee.store(callee(&self.instance_id, &self.address, labels));
    }

    /// What spans of attempts say of it.
    pub(crate) fn callee(&self) -> Arc<Callee> {
        self.callee.load_full()
    }

    /// Measured as the others of its channel.
    pub(crate) fn measured_by(self, load: Load) -> Self {
        Self { load, ..self }
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// By what consistent hashing knows it.
    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn overseen_by(self, overseer: Weak<dyn Overseer>) -> Self {
        Self {
            overseer: Some(overseer),
            ..self
        }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// What its requests call the way they go.
    pub(crate) fn scheme(&self) -> Scheme {
        match self.secured {
            Some(_) => Scheme::HTTPS,
            None => Scheme::HTTP,
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.load.occupancy().calls()
    }

    /// Counts one call, which begins `now`, until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, now: Instant) -> InFlight {
        self.load.occupancy().enter();
        let is_counted = self.load.begins();
        InFlight::new(Arc::clone(self), now, is_counted)
    }

    /// An attempt has ended, so long after it was picked.
    fn learns_of_end(&self, ending: Ending, _after: Duration) {
        match ending {
            Ending::Served => {
                self.served.fetch_add(1, Ordering::Relaxed);
                self.record.learns_of_success();
            }
            Ending::Failed => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if self.record.learns_of_failure()
                    && let Some(overseer) = self.overseer()
                {
                    overseer.suspects(self);
                }
            }
            // It does its work; with fewer instances in service the others would be overloaded all the more.
            Ending::Overloaded => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            Ending::Cancelled => {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The call by which it was to prove itself has ended.
    fn has_proved(&self, ending: Ending) {
        if let Some(overseer) = self.overseer() {
            overseer.has_proved(self, ending);
        }
    }

    fn overseer(&self) -> Option<Arc<dyn Overseer>> {
        self.overseer.as_ref()?.upgrade()
    }

    pub(crate) fn view(&self) -> EndpointView {
        EndpointView {
            address: self.address.to_string(),
            instance_id: self.instance_id.to_string(),
            state: self.state(),
            in_flight: self.in_flight(),
            served: self.served.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            ejection: None,
            last_error: self.last_error(),
        }
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// How many attempts have ended here, however.
    pub(crate) fn ended(&self) -> u64 {
        let counts = [&self.served, &self.failed, &self.cancelled];
        counts
            .iter()
            .fold(0, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)))
    }

    /// What attempts beyond the first of a call count here.
    pub(crate) fn further(&self) -> &Further {
        &self.further
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            served: self.served.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            further: self.further.arrived(),
            retried: self.further.retried(),
            ejected: self.further.ejected(),
        }
    }

    /// A call found all its connections full.
    pub(crate) fn crowd(&self) {
        self.crowded.notify_one();
    }

    /// Nobody has called for long: its connections may go until somebody does.
    pub(crate) fn rest(&self) {
        // One that is not connected would find the word when it is, and somebody may call by then.
        if self.state() == EndpointState::Ready {
            self.rest.notify_one();
        }
    }

    /// A call waits for anybody at all: it is connected again if it was let rest, and sooner if it is being left alone.
    pub(crate) fn wake(&self) {
        if matches!(self.state(), EndpointState::Idle | EndpointState::BackingOff) {
            self.wake.notify_one();
        }
    }

    fn state(&self) -> EndpointState {
        match self.state.load(Ordering::Relaxed) {
            1 => EndpointState::Connecting,
            2 => EndpointState::Ready,
            3 => EndpointState::BackingOff,
            4 => EndpointState::Draining,
            _ => EndpointState::Idle,
        }
    }

    fn show(&self, state: EndpointState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    fn lost(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Resolves when no call is under way. Only meaningful once no new ones can begin.
    async fn drained(&self) {
        self.load.occupancy().leave();
        while !self.load.occupancy().is_empty() {
            // `notify_one` leaves a permit, so nothing is missed between the check and the wait.
            self.idle.notified().await;
        }
    }
}

fn callee(instance_id: &str, address: &str, labels: &Attributes) -> Arc<Callee> {
    let peer = Peer {
        address,
        instance_id,
        zone: &labels.zone,
        version: &labels.version,
    };
    peer.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new(
            "a".into(),
            "127.0.0.1:1".into(),
            Authority::from_static("127.0.0.1:1"),
        ))
    }

    #[test]
    fn a_call_counts_until_its_guard_is_dropped() {
        let endpoint = endpoint();
        let (first, second) = (endpoint.begin(Instant::now()), endpoint.begin(Instant::now()));
        assert_eq!(endpoint.in_flight(), 2);
        drop(first);
        assert_eq!(endpoint.view().in_flight, 1);
        drop(second);
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[tokio::test]
    async fn drained_waits_for_the_last_call() {
        let endpoint = endpoint();
        let (first, second) = (endpoint.begin(Instant::now()), endpoint.begin(Instant::now()));
        let mut drained = tokio_test_task(endpoint.clone());
        assert!(!drained.is_finished());
        drop(first);
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(second);
        (&mut drained).await.expect("drains");
    }

    fn tokio_test_task(endpoint: Arc<Endpoint>) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { endpoint.drained().await })
    }

    #[test]
    fn every_state_is_shown_as_itself() {
        let endpoint = endpoint();
        use EndpointState::{BackingOff, Connecting, Draining, Idle, Ready};
        for state in [Idle, Connecting, Ready, BackingOff, Draining] {
            endpoint.show(state);
            assert_eq!(endpoint.view().state, state);
        }
    }
}
