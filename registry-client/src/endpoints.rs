//! The registry's endpoints, and which of them is the one to call. Fails over, but knows nothing of what is called.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use tokio::time::Instant;
use tonic::transport::{self, Uri};

use crate::{
    connections::Connections,
    dial::Dialer,
    error::Error,
    token::{Bearer, Token},
    wire::peer::Peer,
};

/// A registry that does not accept a connection in this time is taken for dead: another endpoint, or a later try, is better.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that is silent for so long is probed with an HTTP/2 PING, also while no call is open. Not more often: peers
/// answer too many pings with GOAWAY (gRFC A8).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A probe without an answer for so long means a dead connection. Together with the interval: a half-open watch is noticed
/// after 13 s at the latest.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A list of endpoints, never empty.
#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Entry>,
    /// Index of the endpoint to call first. It is shared by all users of a handle: what one of them learns about a dead
    /// endpoint spares the others their own attempt.
    preferred: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    address: Arc<str>,
    connections: Arc<Connections>,
}

impl Endpoints {
    /// Begins with a random one, so that a fleet spreads over the replicas of a registry.
    pub(crate) fn try_new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        tls: Option<&tls::Client>,
    ) -> Result<Self, Error> {
        let all = endpoints
            .into_iter()
            .map(|endpoint| Entry::try_new(endpoint.as_ref(), tls))
            .collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(Error::NoEndpoint);
        }
        let preferred = AtomicUsize::new(rand::rng().random_range(0..all.len()));
        Ok(Self { all, preferred })
    }

    /// The same endpoints, each of them shown this token on every call.
    pub(crate) fn bearing(&self, token: &Token) -> Self {
        let bearer = Bearer::new(Some(token.clone()));
        let entry = |entry: &Entry| Entry {
            address: entry.address.clone(),
            connections: Arc::new(entry.connections.bearing(bearer.clone())),
        };
        Self {
            all: self.all.iter().map(entry).collect(),
            preferred: AtomicUsize::new(self.preferred.load(Ordering::Relaxed)),
        }
    }

    /// The first endpoint to which everything is sent for all to read.
    pub(crate) fn in_the_clear(&self) -> Option<&str> {
        let clear = self.all.iter().find(|entry| entry.connections.are_in_the_clear());
        clear.map(|entry| &*entry.address)
    }

    pub(crate) fn prefer_first(&self) {
        self.preferred.store(0, Ordering::Relaxed);
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|entry| &*entry.address)
    }

    /// The endpoint to call now, and its index for [`avoid`](Self::avoid).
    pub(crate) fn preferred(&self, deadline: Duration) -> (usize, Peer) {
        self.at(self.preferred.load(Ordering::Relaxed), deadline)
    }

    /// The endpoint of an index, which is counted round and round, and its index.
    pub(crate) fn at(&self, index: usize, deadline: Duration) -> (usize, Peer) {
        let index = index % self.all.len();
        (index, self.peer(index, deadline))
    }

    /// The index that follows, round and round.
    pub(crate) fn after(&self, index: usize) -> usize {
        (index + 1) % self.all.len()
    }

    /// Moves on from an endpoint that failed, unless somebody else has done so already.
    pub(crate) fn avoid(&self, index: usize) {
        let next = self.after(index);
        let _ = self
            .preferred
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Calls the preferred endpoint, and the others in turn while the fault is the endpoint's.
    ///
    /// Each attempt gets an equal share of what is left of `budget`, so that one that hangs leaves time for the next. An
    /// attempt that failed in doubt is repeated elsewhere: every call that goes through here is idempotent.
    pub(crate) async fn call<T, F>(&self, budget: Duration, attempt: impl FnMut(Peer) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let first = self.preferred.load(Ordering::Relaxed);
        self.call_beginning_at(first, budget, attempt).await.1
    }

    /// As [`call`](Self::call), but begins with the endpoint after `avoided`, if one is given, and tells which one answered.
    pub(crate) async fn call_after<T, F>(
        &self,
        avoided: Option<usize>,
        budget: Duration,
        attempt: impl FnMut(Peer) -> F,
    ) -> (usize, Result<T, Error>)
    where
        F: Future<Output = Result<T, Error>>,
    {
        let preferred = || self.preferred.load(Ordering::Relaxed);
        let first = avoided.map_or_else(preferred, |index| (index + 1) % self.all.len());
        self.call_beginning_at(first, budget, attempt).await
    }

    async fn call_beginning_at<T, F>(
        &self,
        mut index: usize,
        budget: Duration,
        mut attempt: impl FnMut(Peer) -> F,
    ) -> (usize, Result<T, Error>)
    where
        F: Future<Output = Result<T, Error>>,
    {
        let end = Instant::now() + budget;
        let mut remaining = budget;
        let mut failed = Error::NoEndpoint;
        for left in (1..=self.all.len()).rev() {
            let share = remaining / u32::try_from(left).unwrap_or(u32::MAX);
            if share.is_zero() {
                break;
            }
            let peer = self.peer(index, share);
            let outcome = within(&peer, attempt(peer.clone())).await;
            match outcome {
                Err(error) if error.is_endpoints_fault() => {
                    self.avoid(index);
                    index = (index + 1) % self.all.len();
                    failed = error;
                    remaining = end.saturating_duration_since(Instant::now());
                }
                other => return (index, other),
            }
        }
        (index, Err(failed))
    }

    fn peer(&self, index: usize, deadline: Duration) -> Peer {
        let entry = &self.all[index % self.all.len()];
        Peer {
            address: entry.address.clone(),
            connections: entry.connections.clone(),
            deadline,
        }
    }
}

/// Bounds a call to a peer by the peer's deadline.
pub(crate) async fn within<T>(peer: &Peer, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let end = Instant::now() + peer.deadline;
    match tokio::time::timeout_at(end, call).await {
        // tonic watches the grpc-timeout that it sends, too, and may be the first to call it a day: with a transport error.
        Ok(Err(Error::Unreachable { .. })) if Instant::now() >= end => Err(peer.timed_out()),
        Ok(outcome) => outcome,
        Err(_) => Err(peer.timed_out()),
    }
}

impl Entry {
    /// From `http://host:port` or `https://host:port`, or `host:port` for short, which is the second with TLS and the first
    /// without.
    fn try_new(text: &str, tls: Option<&tls::Client>) -> Result<Self, Error> {
        let invalid = |problem: &str| Error::InvalidEndpoint {
            endpoint: text.to_owned(),
            problem: problem.to_owned(),
        };
        let trimmed = text.trim();
        let address = if trimmed.contains("://") {
            trimmed.to_owned()
        } else {
            let scheme = if tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{trimmed}")
        };
        let uri: Uri = address
            .parse()
            .map_err(|_| invalid("it is not a URI like http://127.0.0.1:7000"))?;
        let dialer = match (uri.scheme_str(), tls) {
            (Some("http"), _) => None,
            (Some("https"), Some(tls)) => Some(Dialer::new(tls.clone())),
            (Some("https"), None) => {
                return Err(invalid(
                    "for https:// give the CA bundle that has issued its certificate",
                ));
            }
            _ => return Err(invalid("its scheme must be http or https")),
        };
        if uri.port_u16().is_none_or(|port| port == 0) {
            return Err(invalid("it has no port; write http://host:7000"));
        }
        if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
            return Err(invalid("it must end after the port"));
        }
        let transport = transport::Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            // tonic switches this off; an unbounded count is RUSTSEC-2024-0003 seen from the client.
            .http2_max_local_error_reset_streams(Some(1024));
        Ok(Self {
            address: address.trim_end_matches('/').into(),
            connections: Arc::new(Connections::new(transport, dialer, Bearer::default())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_when_given() {
        let good = [
            ("http://127.0.0.1:7000", "http://127.0.0.1:7000"),
            ("http://127.0.0.1:7000/", "http://127.0.0.1:7000"),
            ("127.0.0.1:7000", "http://127.0.0.1:7000"),
            (" registry:7000 ", "http://registry:7000"),
            ("http://[::1]:7000", "http://[::1]:7000"),
        ];
        for (text, expected) in good {
            let endpoints = Endpoints::try_new([text], None).expect(text);
            assert_eq!(endpoints.addresses().collect::<Vec<_>>(), [expected], "{text}");
        }
        for text in [
            "",
            "http://",
            "registry",
            "http://registry",
            "https://registry:7000",
            "ftp://registry:7000",
            "http://registry:7000/v1",
            "http://registry:0",
            "http://registry:99999",
            "a b:7000",
        ] {
            let error = Endpoints::try_new([text], None).map(|_| ()).expect_err(text);
            assert!(matches!(error, Error::InvalidEndpoint { .. }), "{text}: {error}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        let none: [&str; 0] = [];
        assert_eq!(Endpoints::try_new(none, None).map(|_| ()), Err(Error::NoEndpoint));
    }

    #[tokio::test]
    async fn avoiding_moves_on_once_however_many_found_out() {
        let endpoints = Endpoints::try_new(["a:1", "b:1", "c:1"], None).expect("valid");
        endpoints.prefer_first();
        let (index, _) = endpoints.preferred(Duration::from_secs(1));
        endpoints.avoid(index);
        endpoints.avoid(index);
        endpoints.avoid(index);
        assert_eq!(endpoints.preferred(Duration::from_secs(1)).0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_hangs_leaves_time_for_the_next() {
        let endpoints = Endpoints::try_new(["a:1", "b:1"], None).expect("valid");
        endpoints.prefer_first();
        let begin = Instant::now();
        let answered = endpoints
            .call(Duration::from_secs(4), |peer| async move {
                if &*peer.address == "http://a:1" {
                    std::future::pending::<()>().await;
                }
                Ok(peer.address)
            })
            .await;
        assert_eq!(answered.as_deref(), Ok("http://b:1"));
        assert_eq!(begin.elapsed().as_secs(), 2);
        assert_eq!(
            endpoints.preferred(Duration::from_secs(1)).0,
            1,
            "and the next call begins there"
        );
    }

    #[tokio::test]
    async fn an_answer_ends_the_search_even_when_it_is_no() {
        let endpoints = Endpoints::try_new(["a:1", "b:1"], None).expect("valid");
        let mut calls = 0;
        let answered: Result<(), Error> = endpoints
            .call(Duration::from_secs(4), |peer| {
                calls += 1;
                async move {
                    Err(Error::Malformed {
                        endpoint: peer.address.to_string(),
                        problem: "nonsense".into(),
                    })
                }
            })
            .await;
        assert!(matches!(answered, Err(Error::Malformed { .. })));
        assert_eq!(calls, 1);
    }
}
