//! What a channel is opened to: a service that the registry knows, or a fixed list of addresses.
//!
//! A target says who exists. Who is reachable is found out by the pool.

use std::sync::Arc;

use http::uri::Authority;
use registry_client::Discovery;
use tls::Expected;

mod updates;

pub(crate) use updates::Updates;

use crate::{
    pool::{Backend, Key},
    route::Rank,
};

/// What a [`Channel`](crate::Channel) is opened to. Made from a [`Discovery`], or by [`Target::fixed`].
#[derive(Clone, Debug)]
pub struct Target {
    name: Arc<str>,
    source: Source,
}

/// One of the places of [`Target::several`]: a registry, most of the time. By itself it has weight 0, no zone, and is not preferred.
#[derive(Clone, Debug)]
pub struct RankedTarget {
    target: Target,
    rank: Rank,
}

/// Why a target was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTarget {
    /// A list without addresses could never be called.
    #[error("a fixed target needs at least one address")]
    Empty,
    /// Not of the form `host:port`.
    #[error("{address:?} is not an address: {reason}; write host:port, for example 127.0.0.1:7101 or [::1]:7101")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// One of several places is itself several: say all of them at once.
    #[error("one of several targets is itself several")]
    Nested,
    /// The same address twice would get twice the calls, which is what weights are for.
    #[error("{address} is listed twice")]
    Duplicate {
        /// The address.
        address: String,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Fixed(Vec<Backend>),
    Registry(Discovery),
    /// The same service in several places, none of them of this kind again.
    Several(Vec<(Rank, Source)>),
}

impl Target {
    /// These addresses and no others, all of the same weight. Each is `host:port`; a leading `http://` and a trailing `/` are
    /// accepted. With a leading `https://` it is spoken to with TLS ([`Builder::tls`](crate::Builder::tls)), and its certificate
    /// has to name the host. Names are resolved whenever a connection is made.
    ///
    /// ```
    /// let target = lb::Target::fixed(["127.0.0.1:7101", "[::1]:7102", "http://tickets.internal:7103"])?;
    ///
    /// let refused = lb::Target::fixed(["127.0.0.1"]).expect_err("there is no port");
    /// assert!(refused.to_string().contains("the port is missing"), "{refused}");
    /// # Ok::<(), lb::InvalidTarget>(())
    /// ```
    ///
    /// # Errors
    /// An empty list, an address that is not `host:port`, or the same address twice.
    pub fn fixed<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, InvalidTarget> {
        let mut backends: Vec<Backend> = Vec::new();
        for given in addresses {
            let given = given.as_ref();
            let (secured, bare) = match given.strip_prefix("https://") {
                Some(bare) => (Some(Expected::Host), bare),
                None => (None, given),
            };
            let (address, authority) = parse_address(bare).map_err(|reason| InvalidTarget::Address {
                address: given.to_owned(),
                reason,
            })?;
            if backends.iter().any(|backend| *backend.key.address == *address) {
                return Err(InvalidTarget::Duplicate { address });
            }
            let address: Arc<str> = address.into();
            let key = Key {
                instance_id: Arc::clone(&address),
                address,
                is_secured: secured.is_some(),
            };
            backends.push(Backend {
                key,
                authority,
                secured,
                weight: registry_client::DEFAULT_WEIGHT,
                attributes: Arc::default(),
                epoch: 0,
                registry: 0,
            });
        }
        if backends.is_empty() {
            return Err(InvalidTarget::Empty);
        }
        let addresses: Vec<&str> = backends.iter().map(|backend| &*backend.key.address).collect();
        Ok(Self {
            name: addresses.join(",").into(),
            source: Source::Fixed(backends),
        })
    }

    /// The same service in several places, each with a registry of its own. Each keeps its own last good set. Where a call goes is
    /// Dubbo's rule for several registries, among those that have somebody ready for it: to the preferred one; else to one in the
    /// caller's zone ([`Builder::zone`](crate::Builder::zone)); else to all in proportion to their weights, however many instances
    /// each has; else, all of weight 0, to the first. An instance that is known from several counts where it is named first.
    ///
    /// With one connected by TLS, all are called with TLS, and all believe the same CAs.
    ///
    /// # Errors
    /// An empty list, or a place that is itself several.
    pub fn several(places: impl IntoIterator<Item = RankedTarget>) -> Result<Self, InvalidTarget> {
        let places: Vec<RankedTarget> = places.into_iter().collect();
        let first = places.first().ok_or(InvalidTarget::Empty)?;
        if places
            .iter()
            .any(|place| matches!(place.target.source, Source::Several(_)))
        {
            return Err(InvalidTarget::Nested);
        }
        Ok(Self {
            name: Arc::clone(&first.target.name),
            source: Source::Several(
                places
                    .into_iter()
                    .map(|place| (place.rank, place.target.source))
                    .collect(),
            ),
        })
    }

    /// Of a fixed target: `expected` is at the addresses that begin with `https://`, by their certificates. Default: their hosts.
    #[must_use]
    pub fn expecting(mut self, expected: &Expected) -> Self {
        if let Source::Fixed(backends) = &mut self.source {
            for backend in backends.iter_mut().filter(|backend| backend.secured.is_some()) {
                backend.secured = Some(expected.clone());
            }
        }
        self
    }

    /// What the registry of the service was connected with.
    pub(crate) fn tls(&self) -> Option<tls::Client> {
        self.source.discovery()?.tls().cloned()
    }

    /// The service's name; of a fixed target, its addresses.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn into_parts(self) -> (Arc<str>, Source) {
        (self.name, self.source)
    }
}

impl RankedTarget {
    /// A place without a rank: the first of those is called when none with a rank can be.
    pub fn new(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            rank: Rank::default(),
        }
    }

    /// It is called as long as it has anybody. Of several preferred ones, the first.
    #[must_use]
    pub fn preferred(mut self) -> Self {
        self.rank.is_preferred = true;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.rank.zone = Some(zone.into()).filter(|zone| !zone.is_empty());
        self
    }

    /// Its share of the calls against the other places. Default: 0, none as long as another one has a weight.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.rank.weight = weight;
        self
    }
}

impl From<Discovery> for Target {
    fn from(discovery: Discovery) -> Self {
        Self {
            name: discovery.service().into(),
            source: Source::Registry(discovery),
        }
    }
}

impl Source {
    /// What is known of each of several places; nothing of one alone.
    pub(crate) fn ranks(&self) -> Vec<Rank> {
        match self {
            Self::Several(places) => places.iter().map(|(rank, _)| rank.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Where the service is found, if anywhere.
    pub(crate) fn discovery(&self) -> Option<&Discovery> {
        match self {
            Self::Fixed(_) => None,
            Self::Registry(discovery) => Some(discovery),
            Self::Several(places) => places.iter().find_map(|(_, source)| source.discovery()),
        }
    }
}

/// `host:port` in its plain form, and as the authority of a request.
pub(crate) fn parse_address(given: &str) -> Result<(String, Authority), &'static str> {
    let address = given.strip_prefix("http://").unwrap_or(given);
    let address = address.strip_suffix('/').unwrap_or(address);
    if address.contains('/') {
        return Err("a path has no place in it");
    }
    if address.contains('@') {
        return Err("credentials have no place in it");
    }
    let authority: Authority = address.parse().map_err(|_| "it does not read as host:port")?;
    match authority.port().map(|port| port.as_u16()) {
        None => Err("the port is missing"),
        Some(0) => Err("port 0 cannot be called"),
        Some(_) if authority.host().is_empty() => Err("the host is missing"),
        Some(_) => Ok((address.to_owned(), authority)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(addresses: &[&str]) -> String {
        Target::fixed(addresses).expect_err("must be refused").to_string()
    }

    #[test]
    fn bad_addresses_are_refused_with_the_reason() {
        for (address, reason) in [
            ("127.0.0.1", "the port is missing"),
            ("127.0.0.1:0", "port 0"),
            ("127.0.0.1:70000", "port"),
            (":7101", "host"),
            ("", "host:port"),
            ("https://a", "the port is missing"),
            ("ftp://a:1", "path"),
            ("http://a:1/path", "path"),
            ("me@a:1", "credentials"),
            ("a b:1", "host:port"),
            ("::1:7101", "host:port"),
        ] {
            let message = refused(&[address]);
            assert!(
                message.contains(reason) && message.contains(&format!("{address:?}")),
                "{address}: {message}"
            );
        }
        assert!(refused(&[]).contains("at least one"));
        assert!(refused(&["a:1", "http://a:1"]).contains("a:1 is listed twice"));
    }

    #[test]
    fn good_addresses_are_brought_to_one_form() {
        let target = Target::fixed(["http://tickets:7101/", "[::1]:7102", "https://users:7200"]).expect("good");
        assert_eq!(target.name(), "tickets:7101,[::1]:7102,users:7200");
        let Source::Fixed(backends) = target.source else {
            panic!("fixed")
        };
        let secured: Vec<bool> = backends.iter().map(|backend| backend.key.is_secured).collect();
        assert_eq!(secured, [false, false, true]);
    }
}
