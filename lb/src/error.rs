//! Why a call, or the wait for a ready channel, failed. Which gRPC status that becomes is decided in `status`, alone.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{BroadcastResults, InvalidServiceConfig, endpoint::Endpoint};

/// Failures of a channel: those of the callee are the status it answered, and no business of this type.
///
/// A generated client shows each as a [`tonic::Status`]; see [`Error::never_processed`] for which may be repeated freely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody can be called: none is known, or none of the known ones takes calls.
    #[error("no instance of {service} to call after {waited:.1?}: {known} known, none takes calls ({discovery})")]
    NoInstances {
        /// The target's name.
        service: Arc<str>,
        /// How long was waited.
        waited: Duration,
        /// How many instances are known that do not take calls: draining, drained, of weight 0.
        known: usize,
        /// How the source of the instances is.
        discovery: String,
    },
    /// There are instances to call, and none is connected.
    #[error(
        "no instance of {service} is ready after {waited:.1?}: {} ({discovery})",
        Listed(endpoints)
    )]
    NotReady {
        /// The target's name.
        service: Arc<str>,
        /// How long was waited.
        waited: Duration,
        /// All instances that should be callable, each with why it is not.
        endpoints: Vec<EndpointFailure>,
        /// How the source of the instances is.
        discovery: String,
    },
    /// There are instances to call, and the call's route, by a forced rule or by its tag, leads to none of them.
    #[error(
        "no instance of {service} for {route} after {waited:.1?}: {others} others take calls, and this one may not go there ({discovery})"
    )]
    NoRoute {
        /// The target's name.
        service: Arc<str>,
        /// How long was waited.
        waited: Duration,
        /// The route in words, with the name of the rule.
        route: String,
        /// How many callable instances there are that the call must not go to.
        others: usize,
        /// How the source of the instances is.
        discovery: String,
    },
    /// There are connected instances, and each has as many calls open as it allows.
    #[error(
        "no instance of {service} has room for one more call after {waited:.1?}: {ready} connected, each with as many calls under way as it allows"
    )]
    NoRoom {
        /// The target's name.
        service: Arc<str>,
        /// How long was waited.
        waited: Duration,
        /// How many instances are connected.
        ready: usize,
    },
    /// The call's deadline has passed.
    #[error("the deadline passed while waiting for {waiting_for}")]
    DeadlineExceeded {
        /// The target's name.
        service: Arc<str>,
        /// What was waited for.
        waiting_for: String,
    },
    /// Every instance that was tried gave the request back unsent or refused it, more often than is worth trying.
    #[error("{service} did not take the call in {attempts} attempts; the last was refused by {address}: {reason}")]
    NotTaken {
        /// The target's name.
        service: Arc<str>,
        /// How often it was tried.
        attempts: u32,
        /// Who was tried last.
        address: Arc<str>,
        /// What came back from there.
        reason: String,
    },
    /// Too many calls of the method, or of the service, have failed or were slow; it is left alone for a while.
    #[error(
        "{} is not called for the next {retry_after:.1?}: too many calls failed or were slow",
        Circuit(service, method)
    )]
    CircuitOpen {
        /// The target's name.
        service: Arc<str>,
        /// The path of the method whose breaker is open; `None` if it is that of the whole service.
        method: Option<Box<str>>,
        /// When to come again.
        retry_after: Duration,
    },
    /// As many calls are under way on this channel as its latency allows.
    #[error("no more than {limit} calls of {service} are let out at a time")]
    ConcurrencyLimit {
        /// The target's name.
        service: Arc<str>,
        /// How many may be under way, at the moment.
        limit: u32,
    },
    /// So many calls were refused for overload that this one would probably be as well.
    #[error("{service} is overloaded: the call was not sent")]
    Throttled {
        /// The target's name.
        service: Arc<str>,
    },
    /// The request cannot be sent at all: a header that HTTP/2 forbids.
    #[error("the request to {service} cannot be sent: {source}")]
    Malformed {
        /// The target's name.
        service: Arc<str>,
        /// What HTTP/2 says of it.
        source: h2::Error,
    },
    /// A broadcast of a request that is a stream: it cannot be sent to everybody.
    #[error("a request to {service} that is a stream cannot be sent to every instance")]
    NotRepeatable {
        /// The target's name.
        service: Arc<str>,
    },
    /// Some of the instances have failed a broadcast.
    #[error("of a broadcast to {service}, {results}")]
    BroadcastFailed {
        /// The target's name.
        service: Arc<str>,
        /// What each of them said.
        results: BroadcastResults,
    },
    /// The connection or the stream broke after the request was sent: it may or may not have been processed.
    #[error("the call to {address} ({instance_id}) broke off: {source}")]
    BrokenOff {
        /// The instance's address.
        address: Arc<str>,
        /// The instance's id.
        instance_id: Arc<str>,
        /// What HTTP/2 says of it.
        source: h2::Error,
    },
}

/// Why [`Builder::connect`](crate::Builder::connect) has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The config that the code gives cannot be used.
    #[error("the service config is refused")]
    ServiceConfig(#[source] InvalidServiceConfig),
    /// The service config's file cannot be read.
    #[error("cannot read the service config {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in the file cannot be used.
    #[error("the service config {} is refused", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: InvalidServiceConfig,
    },
    /// `check` is set, and nobody can be called.
    #[error("nobody can be called, and the check at the start asks for somebody")]
    NotReady(#[source] Error),
}

/// A callable instance that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointFailure {
    /// `host:port`.
    pub address: String,
    /// The last thing that went wrong; nothing when the first connect is still under way.
    pub error: Option<String>,
}

impl Error {
    pub(crate) fn broken_off(endpoint: &Endpoint, source: h2::Error) -> Self {
        Self::BrokenOff {
            address: Arc::clone(&endpoint.address),
            instance_id: Arc::clone(&endpoint.instance_id),
            source,
        }
    }

    /// Whether the request certainly reached no handler, so that even a call that is not idempotent may be repeated.
    #[must_use]
    pub fn never_processed(&self) -> bool {
        matches!(
            self,
            Self::NoInstances { .. }
                | Self::NotReady { .. }
                | Self::NoRoute { .. }
                | Self::NoRoom { .. }
                | Self::NotTaken { .. }
                | Self::CircuitOpen { .. }
                | Self::ConcurrencyLimit { .. }
                | Self::Throttled { .. }
        )
    }
}

/// What is not called: a method of a service, or all of it.
struct Circuit<'a>(&'a str, &'a Option<Box<str>>);

impl fmt::Display for Circuit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(service, None) => f.write_str(service),
            Self(service, Some(method)) => write!(f, "{method} of {service}"),
        }
    }
}

/// A bounded list: an error message about a thousand instances helps nobody.
struct Listed<'a>(&'a [EndpointFailure]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        write!(f, "{} known", self.0.len())?;
        for failure in self.0.iter().take(SHOWN) {
            let error = failure.error.as_deref().unwrap_or("still connecting");
            write!(f, "; {}: {error}", failure.address)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_why_and_stays_short() {
        let failures = |count: usize| {
            (0..count)
                .map(|n| EndpointFailure {
                    address: format!("h:{n}"),
                    error: (n > 0).then(|| "refused".to_owned()),
                })
                .collect()
        };
        let error = |count| Error::NotReady {
            service: "tickets".into(),
            waited: Duration::from_secs(3),
            endpoints: failures(count),
            discovery: "fixed".to_owned(),
        };
        assert_eq!(
            error(2).to_string(),
            "no instance of tickets is ready after 3.0s: 2 known; h:0: still connecting; h:1: refused (fixed)"
        );
        assert!(error(100).to_string().ends_with("; h:4: refused; and 95 more (fixed)"));
    }
}
