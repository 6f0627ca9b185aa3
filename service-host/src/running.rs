//! A server that serves, and how it ends.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{connection::InFlight, drain::DrainSignal, health::Health, listener::Accepting};

/// How long cut connections get to unwind; they have nothing to wait for, so this only bounds a bug.
const UNWIND: Duration = Duration::from_secs(1);

/// How long idle connections may take to close after their GOAWAY, or since any peer was last heard of. A good peer needs a
/// round trip; one that is stopped or cut off never answers, and must not use up the grace that is there for calls.
const IDLE_LINGER: Duration = Duration::from_secs(1);

/// A serving server. Dropped without [`Running::drain`] it stops at once and cuts every connection.
#[derive(Debug)]
pub struct Running {
    parts: Parts,
}

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) local_addr: SocketAddr,
    pub(crate) instance_id: String,
    pub(crate) health: Health,
    pub(crate) drain: DrainSignal,
    pub(crate) in_flight: InFlight,
    pub(crate) serving: Accepting,
    pub(crate) admin: Option<(Accepting, SocketAddr)>,
}

/// Why a server can no longer accept connections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {listener} listener at {address} has stopped: {reason}")]
pub struct Failure {
    /// `grpc` or `admin`.
    pub listener: &'static str,
    /// Where it listened.
    pub address: SocketAddr,
    /// What the operating system said, or that the task panicked.
    pub reason: String,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// How long it took.
    pub took: Duration,
    /// Connections that were closed by force: because the grace was over, or because they were idle and their peer did not
    /// answer to GOAWAY.
    pub connections_cut: usize,
    /// Calls that were unfinished at that moment.
    pub calls_cut: usize,
}

impl DrainReport {
    /// Whether every call was finished.
    pub fn is_clean(&self) -> bool {
        self.calls_cut == 0
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = Duration::from_millis(u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX));
        match (self.connections_cut, self.calls_cut) {
            (0, _) => write!(f, "drained in {took:?}"),
            (connections, calls) => {
                write!(
                    f,
                    "drained in {took:?}; cut {connections} connections with {calls} unfinished calls"
                )
            }
        }
    }
}

impl Running {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// The address served, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.parts.local_addr
    }

    /// The admin address, with the real port.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.parts.admin.as_ref().map(|(_, address)| *address)
    }

    /// The id that responses carry.
    pub fn instance_id(&self) -> &str {
        &self.parts.instance_id
    }

    /// Calls being answered now, streams included; health and reflection excluded.
    pub fn calls_in_flight(&self) -> usize {
        self.parts.in_flight.calls()
    }

    /// Reports one service (`pkg.Service`) as SERVING. The whole server, `""` and `/healthz`, is SERVING from the first one
    /// on. `""` here means all of them.
    pub fn set_serving(&self, service_name: &str) {
        self.parts.health.set(service_name, true);
    }

    /// Reports every service as SERVING.
    pub fn set_all_serving(&self) {
        self.parts.health.set("", true);
    }

    /// Reports every service as NOT_SERVING. Calls are still answered: this only asks callers to go elsewhere.
    pub fn set_not_serving(&self) {
        self.parts.health.set("", false);
    }

    /// Reports one service as NOT_SERVING.
    pub fn set_service_not_serving(&self, service_name: &str) {
        self.parts.health.set(service_name, false);
    }

    /// Fires when draining starts; for services that hold long streams.
    pub fn drain_signal(&self) -> DrainSignal {
        self.parts.drain.clone()
    }

    /// Resolves only if the server can no longer accept connections, which it never should; at once, whoever is connected.
    pub async fn failed(&mut self) -> Failure {
        let Parts {
            serving,
            admin,
            local_addr,
            ..
        } = &mut self.parts;
        match admin {
            Some((admin, address)) => tokio::select! {
                reason = serving.closed() => Failure { listener: "grpc", address: *local_addr, reason },
                reason = admin.closed() => Failure { listener: "admin", address: *address, reason },
            },
            None => Failure {
                listener: "grpc",
                address: *local_addr,
                reason: serving.closed().await,
            },
        }
    }

    /// Stops serving, in an order that loses no call that can be finished within `grace`:
    ///
    /// 1. health says NOT_SERVING (what has to happen elsewhere before, such as telling the registry, has happened);
    /// 2. the [`DrainSignal`] fires: services end their own long streams, the host ends health and reflection streams;
    /// 3. the listener closes and every connection gets GOAWAY: no new calls;
    /// 4. open calls finish, for at most `grace`; what is left is cut and counted (idle connections whose peers do not
    ///    answer are not waited for);
    /// 5. the admin endpoint stops last, so that the drain can be watched.
    pub async fn drain(mut self, grace: Duration) -> DrainReport {
        let started = Instant::now();
        self.set_not_serving();
        self.parts.drain.fire();
        self.parts.serving.stop_accepting();
        tracing::info!(calls = self.parts.in_flight.calls(), "GOAWAY: no new calls");
        let mut report = DrainReport {
            took: Duration::ZERO,
            connections_cut: 0,
            calls_cut: 0,
        };
        let Parts { serving, in_flight, .. } = &mut self.parts;
        let closed = tokio::select! {
            _ = serving.ended() => true,
            () = in_flight.none_for(IDLE_LINGER) => false,
            () = tokio::time::sleep(grace) => false,
        };
        if !closed {
            report.calls_cut = in_flight.calls();
            report.connections_cut = serving.cut(UNWIND).await;
        }
        if !report.is_clean() {
            tracing::warn!(
                connections = report.connections_cut,
                calls = report.calls_cut,
                grace_ms = grace.as_millis(),
                "cut what had not finished in time"
            );
        }
        self.parts.in_flight.handlers_ended(UNWIND).await;
        if let Some((admin, _)) = &mut self.parts.admin {
            admin.stop_accepting();
            admin.cut(UNWIND).await;
        }
        report.took = started.elapsed();
        report
    }
}
