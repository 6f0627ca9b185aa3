//! Whom to believe: what each side demands of the other's certificate. Chain, dates, purpose and signatures are judged by
//! webpki; what is added here is who it is.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::Identity;

/// Whom a client wants to speak to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Expected {
    /// Whoever the certificate's DNS names and addresses say lives at the host that was dialled.
    #[default]
    Host,
    /// The service: where the certificate has a SPIFFE id, that decides, and the host does not matter (an instance of another
    /// service on the same machine would have the same one). Where it has none, the host decides.
    Service {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        service: Arc<str>,
    },
}

impl Expected {
    /// An instance of that service.
    pub fn service(namespace: &str, service: &str) -> Self {
        Self::Service {
            namespace: namespace.into(),
            service: service.into(),
        }
    }

    /// Whether somebody with such an identity is the one; `None` when the host has to tell.
    fn is(&self, identity: &Identity) -> Option<bool> {
        let Self::Service { namespace, service } = self else {
            return None;
        };
        identity.spiffe.as_ref()?;
        // An id of another form (an operator's) is certainly no service's.
        Some(identity.service() == Some((&**namespace, &**service)))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host that was dialled"),
            Self::Service { namespace, service } => {
                write!(f, "/ns/{namespace}/svc/{service}")
            }
        }
    }
}

/// The server is genuine, and another one.
#[derive(Debug, thiserror::Error)]
#[error("the certificate belongs to {found}, and {expected} was called")]
struct SomebodyElse {
    found: String,
    expected: Expected,
}

/// Whose SPIFFE ids mean something to us: those of our own trust domain. An authority of the bundle may issue for others too, with
/// namespaces and operators of the same names. Whoever has no SPIFFE id of its own has none to compare with, and believes any
/// domain of the bundle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Domain(Option<Arc<str>>);

impl Domain {
    /// Of somebody with such an identity.
    pub(crate) fn of(own: Option<&Identity>) -> Self {
        let id = own.and_then(|own| own.spiffe.as_ref());
        Self(id.map(|id| id.trust_domain().into()))
    }

    /// # Errors
    /// For an id of another one. Who has no id is not judged by it.
    fn has(&self, peer: &Identity) -> Result<(), Error> {
        match (&self.0, &peer.spiffe) {
            (Some(own), Some(id)) if **own != *id.trust_domain() => Err(refused(OtherDomain {
                found: id.to_string(),
                own: Arc::clone(own),
            })),
            _ => Ok(()),
        }
    }
}

/// The peer is genuine, and of another trust domain.
#[derive(Debug, thiserror::Error)]
#[error("the certificate belongs to {found}, and our own is of the trust domain {own}; issue both in one")]
struct OtherDomain {
    found: String,
    own: Arc<str>,
}

/// As an answer that names its reason; the peer is told no more than `certificate_unknown`.
fn refused(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

/// Why a certificate is refused, for people. rustls has words for some reasons and names of its own for the others.
pub(crate) fn in_words(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "none of the authorities in the CA bundle has issued it".to_owned(),
        CertificateError::BadSignature => {
            "its signature is not that of the authority it names; the CA bundle has another one of the same name"
                .to_owned()
        }
        CertificateError::Other(OtherError(why)) if why.to_string() == "CaUsedAsEndEntity" => {
            "it is an authority's; issue one for the process itself".to_owned()
        }
        CertificateError::Other(OtherError(why)) => why.to_string(),
        other => other.to_string(),
    }
}

/// What both traits ask for in the same words and webpki answers for both: whether a handshake was signed with the certificate's key,
/// by an algorithm that is good enough. Two traits, so no method of either can be given to the other.
macro_rules! signatures_by_webpki {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

/// Believes servers.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) authorities: Arc<RootCertStore>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
    pub(crate) domain: Domain,
    pub(crate) expected: Expected,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.authorities, intermediates, now, algorithms)?;
        let identity = Identity::of_certificate(end_entity).map_err(refused)?;
        self.domain.has(&identity)?;
        match self.expected.is(&identity) {
            Some(true) => {}
            Some(false) => {
                return Err(refused(SomebodyElse {
                    found: identity.name(),
                    expected: self.expected.clone(),
                }));
            }
            None => verify_server_name(&certificate, server_name)?,
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_webpki!();
}

/// Believes clients that webpki believes and whose certificate can be somebody's of our trust domain.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) by_webpki: Arc<dyn ClientCertVerifier>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
    pub(crate) domain: Domain,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.by_webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.by_webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Nobody needs to be told whom we believe: our clients have one certificate to choose from.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.by_webpki.verify_client_cert(end_entity, intermediates, now)?;
        let identity = Identity::of_certificate(end_entity).map_err(refused)?;
        self.domain.has(&identity)?;
        Ok(verified)
    }

    signatures_by_webpki!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_decides_and_without_one_the_host_does() {
        let with = |id: &str| Identity {
            spiffe: Some(id.parse().expect("an id")),
            ..Identity::default()
        };
        let ticket = Expected::service("default", "ticket-svc");
        let registry = Expected::service("default", "registry-svc");
        for (expected, identity, is) in [
            (&ticket, with("spiffe://d/ns/default/svc/ticket-svc"), Some(true)),
            (&ticket, with("spiffe://d/ns/default/svc/user-svc"), Some(false)),
            (&ticket, with("spiffe://d/ns/other/svc/ticket-svc"), Some(false)),
            (&ticket, with("spiffe://d/operator/ticket-svc"), Some(false)),
            (&ticket, with("spiffe://d/ns/default/svc/ticket-svc/x"), Some(false)),
            (&ticket, Identity::default(), None),
            (&registry, with("spiffe://d/ns/default/svc/registry-svc"), Some(true)),
            // Whoever may issue for a namespace of their own.
            (&registry, with("spiffe://d/ns/any/svc/registry-svc"), Some(false)),
            (&Expected::Host, with("spiffe://d/ns/default/svc/ticket-svc"), None),
        ] {
            assert_eq!(expected.is(&identity), is, "{expected} {identity:?}");
        }
    }
}
