//! What a channel is opened to: a service that the registry knows, or a fixed list of addresses.
//!
//! A target says who exists. Who is reachable is found out by the pool.

use std::sync::Arc;

use http::uri::Authority;
use registry_client::{Discovery, Instance, Protocol, Snapshot, SnapshotState, Watcher};
use tls::Expected;

use crate::pool::{Attributes, Backend, Key, Origin, Roster};

/// What a [`Channel`](crate::Channel) is opened to. Made from a [`Discovery`], or by [`Target::fixed`].
#[derive(Clone, Debug)]
pub struct Target {
    name: Arc<str>,
    source: Source,
}

/// Why a fixed target was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
}

/// The rosters of a source, the latest at any time. For the pool's keeper alone.
pub(crate) enum Updates {
    Fixed(Roster),
    Registry(Watcher, Spoken),
    /// The watcher is gone: the last good set stays.
    Ended(Roster),
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
        match &self.source {
            Source::Fixed(_) => None,
            Source::Registry(discovery) => discovery.tls().cloned(),
        }
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

impl From<Discovery> for Target {
    fn from(discovery: Discovery) -> Self {
        Self {
            name: discovery.service().into(),
            source: Source::Registry(discovery),
        }
    }
}

impl Source {
    /// Where the service is found, if anywhere.
    pub(crate) fn discovery(&self) -> Option<&Discovery> {
        match self {
            Self::Fixed(_) => None,
            Self::Registry(discovery) => Some(discovery),
        }
    }

    /// Of a service, the instances that are spoken to with TLS, or those without. Must be called within a Tokio runtime.
    pub(crate) fn updates(self, with_tls: bool) -> Updates {
        match self {
            Self::Fixed(backends) => Updates::Fixed(Roster {
                known: backends.len(),
                backends,
                unspoken: None,
                origin: Origin::Fixed,
            }),
            Self::Registry(discovery) => {
                let spoken = if with_tls {
                    Spoken::Tls(Expected::service(discovery.namespace(), discovery.service()))
                } else {
                    Spoken::Plain
                };
                Updates::Registry(discovery.watch(), spoken)
            }
        }
    }
}

impl Updates {
    pub(crate) fn current(&mut self) -> Roster {
        match self {
            Self::Fixed(roster) | Self::Ended(roster) => roster.clone(),
            Self::Registry(watcher, spoken) => roster_of(&watcher.borrow_and_update(), spoken),
        }
    }

    /// The roster that was taken last is what calls go by from here on, and the source may tell.
    pub(crate) fn applied(&self) {
        match self {
            Self::Fixed(_) | Self::Ended(_) => {}
            Self::Registry(watcher, _) => watcher.applied(),
        }
    }

    /// The next roster; never for a source that does not change.
    pub(crate) async fn next(&mut self) -> Roster {
        match self {
            Self::Fixed(_) | Self::Ended(_) => std::future::pending().await,
            Self::Registry(watcher, _) => {
                let ended = watcher.changed().await.is_err();
                let roster = self.current();
                if ended {
                    *self = Self::Ended(roster.clone());
                }
                roster
            }
        }
    }
}

/// Who of a snapshot can be called, and what to say of the rest.
fn roster_of(snapshot: &Snapshot, spoken: &Spoken) -> Roster {
    let protocol = spoken.protocol();
    let mut unspoken = 0;
    let backends = snapshot
        .callable()
        .filter_map(|instance| {
            let endpoint = instance.endpoints.iter().find(|endpoint| endpoint.protocol == protocol);
            let Some(endpoint) = endpoint else {
                unspoken += 1;
                return None;
            };
            let (address, authority) = parse_address(&endpoint.authority())
                .inspect_err(|reason| {
                    tracing::warn!(instance = %instance.id, address = %endpoint.authority(), reason, "not callable");
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
        unspoken,
        origin,
    }
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

/// `host:port` in its plain form, and as the authority of a request.
fn parse_address(given: &str) -> Result<(String, Authority), &'static str> {
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
    use registry_client::{Endpoint, InstanceStatus};

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
