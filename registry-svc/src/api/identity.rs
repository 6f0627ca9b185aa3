//! What the holder of a certificate may register: the service that its SPIFFE id names, at addresses that are its own. Pure.
//!
//! Without this, whoever holds any certificate of the house could register as any service and be sent its calls (row 53 of the
//! fault plan). A connection without a certificate is not bound here; whether it gets in at all is decided elsewhere.

use std::net::IpAddr;

use service_host::Peer;
use thiserror::Error;
use tls::Identity;

use crate::model::Draft;

/// A registration that the caller's certificate does not cover. Nothing was stored.
#[derive(Debug, Error)]
pub(super) enum IdentityMismatch {
    /// The certificate names no service.
    #[error(
        "the certificate of {name} names no service, so it may register none: register with one whose SPIFFE id is \
         spiffe://TRUST-DOMAIN/ns/{namespace}/svc/{service}"
    )]
    NoService {
        /// Whom it names.
        name: String,
        /// What was to be registered.
        namespace: String,
        /// What was to be registered.
        service: String,
    },
    /// It names another service.
    #[error(
        "instances[{index}] is of {namespace}/{service}, and the certificate of {name} may register {own} only: use that \
         service's certificate, or this certificate's service"
    )]
    Service {
        /// Which instance of the request.
        index: usize,
        /// What was to be registered.
        namespace: String,
        /// What was to be registered.
        service: String,
        /// Whom it names.
        name: String,
        /// The same as namespace and service.
        own: String,
    },
    /// Somebody else's address.
    #[error(
        "instances[{index}] is at {host}, and the certificate of {name} may register {allowed} only: advertise one of these, or \
         issue the certificate for {host}"
    )]
    Host {
        /// Which instance of the request.
        index: usize,
        /// Its address.
        host: String,
        /// Whom the certificate names.
        name: String,
        /// Where it may be.
        allowed: String,
    },
}

/// Whether the peer's certificate, if it showed one, covers all that it registers: its service, and each of its hosts, which has
/// to be a name or an address of the certificate or the address that the peer connects from.
///
/// # Errors
/// [`IdentityMismatch`] with the first instance that is not covered, and what would be.
pub(super) fn binds(peer: Option<&Peer>, drafts: &[Draft]) -> Result<(), IdentityMismatch> {
    let Some((peer, identity)) = peer.and_then(|peer| Some((peer, peer.identity.as_deref()?))) else {
        return Ok(());
    };
    let from = peer.address.ip().to_canonical();
    for (index, draft) in drafts.iter().enumerate() {
        let (namespace, service) = (draft.key.namespace.as_str(), draft.key.service.as_str());
        match identity.service() {
            Some(own) if own == (namespace, service) => {}
            Some((own_namespace, own_service)) => {
                return Err(IdentityMismatch::Service {
                    index,
                    namespace: namespace.to_owned(),
                    service: service.to_owned(),
                    name: identity.name(),
                    own: format!("{own_namespace}/{own_service}"),
                });
            }
            None => {
                return Err(IdentityMismatch::NoService {
                    name: identity.name(),
                    namespace: namespace.to_owned(),
                    service: service.to_owned(),
                });
            }
        }
        let mut hosts = draft.spec.endpoints.iter().map(|endpoint| endpoint.host);
        if let Some(host) = hosts.find(|host| !may_be_at(identity, from, host)) {
            return Err(IdentityMismatch::Host {
                index,
                host: host.to_owned(),
                name: identity.name(),
                allowed: allowed(identity, from),
            });
        }
    }
    Ok(())
}

fn may_be_at(identity: &Identity, from: IpAddr, host: &str) -> bool {
    identity.covers_host(host) || host.parse::<IpAddr>().is_ok_and(|host| host.to_canonical() == from)
}

fn allowed(identity: &Identity, from: IpAddr) -> String {
    let names = identity.dns_names.iter().cloned();
    let addresses = identity.addresses.iter().map(ToString::to_string);
    let mut all: Vec<String> = names.chain(addresses).collect();
    all.push(format!("{from} (where it connects from)"));
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::registry::v1 as wire;

    use super::*;
    use crate::{api::register, catalog::Register, prober::Speaks};

    const TICKET: &str = "spiffe://example/ns/default/svc/ticket-svc";

    fn register(namespace: &str, service: &str, hosts: &[&str]) -> Register {
        let endpoints = hosts.iter().map(|host| wire::Endpoint {
            protocol: wire::Protocol::Grpcs.into(),
            host: (*host).to_owned(),
            port: 7101,
        });
        let instance = wire::Instance {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            endpoints: endpoints.collect(),
            ..Default::default()
        };
        let request = wire::RegisterRequest {
            instances: vec![instance],
            ..Default::default()
        };
        register::command(request, Speaks::Plain).expect("valid")
    }

    fn peer(identity: Option<Identity>) -> Peer {
        Peer {
            identity: identity.map(Arc::new),
            ..Peer::at("[::ffff:10.0.0.7]:4711".parse().expect("an address"))
        }
    }

    fn ticket(id: &str) -> Identity {
        Identity {
            spiffe: Some(id.parse().expect("an id")),
            dns_names: vec!["*.tickets.example".to_owned()],
            addresses: vec!["10.1.1.1".parse().expect("an address")],
            not_after: None,
        }
    }

    #[test]
    fn a_certificate_registers_its_service_at_its_addresses() {
        for (id, namespace, service, hosts, refused) in [
            (TICKET, "default", "ticket-svc", &["10.0.0.7"][..], None),
            (
                TICKET,
                "default",
                "ticket-svc",
                &["a.tickets.example", "10.1.1.1"],
                None,
            ),
            (
                TICKET,
                "default",
                "user-svc",
                &["10.0.0.7"],
                Some("may register default/ticket-svc only"),
            ),
            (
                TICKET,
                "other",
                "ticket-svc",
                &["10.0.0.7"],
                Some("is of other/ticket-svc"),
            ),
            (
                TICKET,
                "default",
                "ticket-svc",
                &["10.0.0.8"],
                Some("instances[0] is at 10.0.0.8"),
            ),
            (
                TICKET,
                "default",
                "ticket-svc",
                &["10.0.0.7", "tickets.example"],
                Some("is at tickets.example"),
            ),
            (
                TICKET,
                "default",
                "ticket-svc",
                &["169.254.169.254"],
                Some("*.tickets.example, 10.1.1.1, 10.0.0.7 (where"),
            ),
            (
                "spiffe://example/operator/ann",
                "default",
                "ticket-svc",
                &["10.0.0.7"],
                Some("names no service"),
            ),
            (
                "spiffe://example/ns/default/svc/ticket-svc/x",
                "default",
                "ticket-svc",
                &["10.0.0.7"],
                Some("names no service"),
            ),
        ] {
            let command = register(namespace, service, hosts);
            let bound = binds(Some(&peer(Some(ticket(id)))), &command.drafts).map_err(|error| error.to_string());
            match (bound, refused) {
                (Ok(()), None) => {}
                (Err(error), Some(words)) => assert!(error.contains(words), "{error}"),
                (bound, _) => panic!("{id} {namespace}/{service} {hosts:?}: {bound:?}"),
            }
        }
    }

    #[test]
    fn without_names_only_the_peers_own_address_is_left() {
        let bare = Identity {
            spiffe: Some(TICKET.parse().expect("an id")),
            ..Identity::default()
        };
        let here = register("default", "ticket-svc", &["10.0.0.7"]);
        binds(Some(&peer(Some(bare.clone()))), &here.drafts).expect("its own");
        let there = register("default", "ticket-svc", &["localhost"]);
        binds(Some(&peer(Some(bare))), &there.drafts).expect_err("somebody's");
    }

    #[test]
    fn who_shows_no_certificate_is_not_bound_here() {
        let command = register("default", "ticket-svc", &["anywhere.example"]);
        binds(Some(&peer(None)), &command.drafts).expect("not bound");
        binds(None, &command.drafts).expect("not bound");
    }
}
