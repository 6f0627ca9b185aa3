//! The side that dials: believes the authorities of its bundle, and speaks to whom it expected and nobody else.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{AlertDescription, ClientConfig, InvalidMessage, client::Resumption};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::{
    ClientStream,
    files::{LoadError, Material, Settings},
    handle::{mismatch_or, provider},
    verify::{Domain, Expected, ServerVerifier, in_words},
};

/// How long the server's first word is waited for: a round trip to wherever a registry may be.
const FIRST_WORD: Duration = Duration::from_millis(250);

/// Dials with the certificate and the authorities that the files have now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    current: Arc<ArcSwap<Config>>,
}

/// Why there is no TLS on a connection that was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host cannot stand in a handshake.
    #[error("{host:?} is neither a DNS name nor an IP address")]
    Host {
        /// As it was given.
        host: String,
    },
    /// The server speaks something else.
    #[error("the server does not speak TLS here; it is dialled with TLS and listens without, or on another port")]
    Plain,
    /// We do not believe the server.
    #[error("the server's certificate was refused: {reason}")]
    Certificate {
        /// Which rule it breaks.
        reason: String,
    },
    /// The server does not believe us.
    #[error("the server refused our certificate: {reason}")]
    Refused {
        /// As the server says it.
        reason: String,
    },
    /// Anything else.
    #[error("the TLS handshake failed: {reason}")]
    Other {
        /// What happened.
        reason: String,
    },
}

/// The alerts by which a server refuses a client's certificate.
const REFUSALS: &[AlertDescription] = &[
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::DecryptError,
    AlertDescription::UnknownCA,
    AlertDescription::UnsupportedCertificate,
];

#[derive(Debug)]
pub(crate) struct Config {
    base: Arc<ClientConfig>,
    verifier: VerifierParts,
}

#[derive(Debug)]
struct VerifierParts {
    authorities: Arc<rustls::RootCertStore>,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
    domain: Domain,
}

impl VerifierParts {
    fn expecting(&self, expected: Expected) -> Arc<ServerVerifier> {
        Arc::new(ServerVerifier {
            authorities: Arc::clone(&self.authorities),
            algorithms: self.algorithms,
            domain: self.domain.clone(),
            expected,
        })
    }
}

impl Config {
    /// `None` where there is no authority to believe.
    pub(crate) fn try_new(material: &Material, settings: &Settings) -> Result<Option<Self>, LoadError> {
        let Some(authorities) = material.authorities.clone() else {
            return Ok(None);
        };
        let failed = |error| mismatch_or(settings, error);
        let provider = provider();
        let verifier = VerifierParts {
            authorities,
            algorithms: provider.signature_verification_algorithms,
            domain: Domain::of(material.own.as_ref().map(|own| &own.identity)),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous() // rustls calls every verifier but its own so; ours demands more and nothing less
            .with_custom_certificate_verifier(verifier.expecting(Expected::Host));
        let mut config = match &material.own {
            Some(own) => builder
                .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
                .map_err(failed)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session is not verified again, and who was expected then need not be who is expected now.
        config.resumption = Resumption::disabled();
        Ok(Some(Self {
            base: Arc::new(config),
            verifier,
        }))
    }
}

impl Client {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(config)),
        }
    }

    pub(crate) fn replace(&self, config: Config) {
        self.current.store(Arc::new(config));
    }

    /// The handshake on a connection to `host` (a DNS name or an IP address, without port), for HTTP/2. Put a bound around it.
    ///
    /// With TLS 1.3 a server judges *us* only when we are done. Whoever writes at once may then find the connection broken before
    /// the reason is read; so the server's first word is waited for, for a moment. HTTP/2 servers speak first (RFC 9113, 3.4).
    /// One that does not may still refuse us later: [`ConnectError::explain`] has words for it.
    ///
    /// # Errors
    /// [`ConnectError`] with the reason.
    pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
        host: &str,
        expected: &Expected,
    ) -> Result<ClientStream<IO>, ConnectError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| ConnectError::Host { host: host.to_owned() })?;
        let current = self.current.load_full();
        let mut config = ClientConfig::clone(&current.base);
        let verifier = current.verifier.expecting(expected.clone());
        config.dangerous().set_certificate_verifier(verifier);
        let has_own = config.client_auth_cert_resolver.has_certs();
        let explained = |error: io::Error| match ConnectError::explain(&error) {
            // Servers have several words for this, some of which are about the certificate that there is not.
            Some(ConnectError::Refused { .. }) if !has_own => ConnectError::none_to_show(),
            Some(explained) => explained,
            None => ConnectError::Other {
                reason: error.to_string(),
            },
        };
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, io)
            .await
            .map_err(explained)?;
        // Looked at, and left where it is.
        match tokio::time::timeout(FIRST_WORD, stream.fill_buf()).await {
            Ok(Err(error)) => Err(explained(error)),
            Ok(Ok(_)) | Err(_) => Ok(stream),
        }
    }
}

impl ConnectError {
    /// What an I/O error on a TLS connection means, if TLS is what went wrong. Looks through the causes of `error`.
    #[must_use]
    pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(by_tls) = cause.downcast_ref::<rustls::Error>() {
                return Some(Self::from_tls(by_tls));
            }
            if let Some(refused) = Self::from_words(&cause.to_string()) {
                return Some(refused);
            }
            // An io::Error hides its own content from `source`, which begins behind it.
            let hidden = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match hidden {
                Some(content) => Some(content),
                None => cause.source(),
            };
        }
        None
    }

    fn none_to_show() -> Self {
        Self::Refused {
            reason: "it requires one, and we have none to show".to_owned(),
        }
    }

    /// h2 keeps of an I/O error no more than its words.
    fn from_words(words: &str) -> Option<Self> {
        let (_, alert) = words.split_once("received fatal alert: ")?;
        let named = |known: &&AlertDescription| alert.starts_with(&format!("{known:?}"));
        REFUSALS
            .iter()
            .find(named)
            .map(|alert| Self::from_tls(&rustls::Error::AlertReceived(*alert)))
    }

    fn from_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(why) => Self::Certificate { reason: in_words(why) },
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::Plain,
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => Self::none_to_show(),
            rustls::Error::AlertReceived(alert) if REFUSALS.contains(alert) => Self::Refused {
                reason: format!("{alert:?}; its log says more"),
            },
            other => Self::Other {
                reason: other.to_string(),
            },
        }
    }
}
