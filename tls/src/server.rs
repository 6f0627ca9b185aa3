//! The side that is dialled: handshakes, and whom they show.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::StartHandshake;

use crate::{
    ServerStream,
    files::{ClientAuth, LoadError, Material, Own, Settings},
    handle::{mismatch_or, provider},
    hello,
    identity::{Identity, IdentityError},
    verify::{ClientVerifier, Domain, in_words},
};

/// Serves with the certificate that the files have now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    current: Arc<ArcSwap<Configs>>,
}

/// What is spoken behind a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// HTTP/2, with the client certificates that the settings ask for.
    Grpc,
    /// HTTP/1.1 for scrapers and probes, which have no certificate of ours: none is asked for.
    Admin,
}

/// Makes handshakes for one listener.
#[derive(Debug, Clone)]
pub struct Acceptor {
    server: Server,
    listener: Listener,
}

/// A client that has said hello, and has had no answer.
#[derive(Debug)]
pub struct Hello<IO> {
    start: StartHandshake<IO>,
    config: Arc<ServerConfig>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// To speak on.
    pub stream: ServerStream<IO>,
    /// Whom the client's certificate names, if it showed one.
    pub identity: Option<Arc<Identity>>,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The client's certificate was refused, or it showed none where one is required: somebody who should get in may be kept
    /// out, so this is worth an operator's look.
    #[error("the client's certificate was refused: {reason}")]
    Certificate {
        /// Which rule it breaks.
        reason: String,
    },
    /// Anything else: noise, plain text, other protocols, a client that does not believe us or hangs up.
    #[error("no TLS handshake: {0}")]
    Other(#[source] io::Error),
}

#[derive(Debug)]
pub(crate) struct Configs {
    not_after: u64,
    grpc: Arc<ServerConfig>,
    admin: Arc<ServerConfig>,
}

impl Configs {
    /// `None` where there is no certificate to serve with.
    pub(crate) fn try_new(material: &Material, settings: &Settings) -> Result<Option<Self>, LoadError> {
        let Some(own) = &material.own else { return Ok(None) };
        Ok(Some(Self {
            not_after: own.identity.not_after.unwrap_or(u64::MAX),
            grpc: config(own, settings, client_verifier(material, settings)?, b"h2")?,
            admin: config(own, settings, None, b"http/1.1")?,
        }))
    }
}

fn client_verifier(material: &Material, settings: &Settings) -> Result<Option<Arc<dyn ClientCertVerifier>>, LoadError> {
    if settings.client_auth == ClientAuth::None {
        return Ok(None);
    }
    let authorities = material.authorities.clone().ok_or(LoadError::NothingToVerifyWith)?;
    let builder = WebPkiClientVerifier::builder_with_provider(authorities, provider());
    let builder = match settings.client_auth {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        _ => builder,
    };
    let by_webpki = builder.build().map_err(|error| LoadError::Refused {
        problem: error.to_string(),
    })?;
    Ok(Some(Arc::new(ClientVerifier {
        by_webpki,
        algorithms: provider().signature_verification_algorithms,
        domain: Domain::of(material.own.as_ref().map(|own| &own.identity)),
    })))
}

fn config(
    own: &Own,
    settings: &Settings,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, LoadError> {
    let failed = |error| mismatch_or(settings, error);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(own.chain.clone(), own.key.clone_key())
        .map_err(failed)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    // A resumed session brings its client's identity along without looking at the certificate again: it would outlive the
    // certificate, and the authority that was taken out of the bundle. Connections here live long; a handshake is cheap.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

impl Server {
    pub(crate) fn new(configs: Configs) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(configs)),
        }
    }

    pub(crate) fn replace(&self, configs: Configs) {
        self.current.store(Arc::new(configs));
    }

    /// When the certificate ends that new connections are shown, in seconds of Unix time.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.current.load().not_after
    }

    /// Makes handshakes for a listener. How many may be under way is for whoever listens to say: they know whose they are.
    #[must_use]
    pub fn acceptor(&self, listener: Listener) -> Acceptor {
        Acceptor {
            server: self.clone(),
            listener,
        }
    }

    fn config(&self, listener: Listener) -> Arc<ServerConfig> {
        let current = self.current.load();
        Arc::clone(match listener {
            Listener::Grpc => &current.grpc,
            Listener::Admin => &current.admin,
        })
    }
}

impl Acceptor {
    /// The handshake, with the certificate that the files have when the client has said hello. It takes as long as the client
    /// likes: put a bound around it.
    ///
    /// # Errors
    /// [`HandshakeError`]; the client has been told as much as TLS tells.
    pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(&self, io: IO) -> Result<Accepted<IO>, HandshakeError> {
        self.hello(io).await?.answer().await
    }

    /// The first half: what the client says first, 16 KiB at most. Until then it costs no more than any silent connection.
    ///
    /// # Errors
    /// [`HandshakeError::Other`] for whatever is no hello.
    pub async fn hello<IO: AsyncRead + AsyncWrite + Unpin>(&self, mut io: IO) -> Result<Hello<IO>, HandshakeError> {
        let accepted = hello::read(&mut io).await?;
        Ok(Hello {
            start: StartHandshake::from_parts(accepted, io),
            config: self.server.config(self.listener),
        })
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Hello<IO> {
    /// The second half. All that is expensive on our side happens when it is first polled; the rest is waiting for the client.
    ///
    /// # Errors
    /// [`HandshakeError`]; the client has been told as much as TLS tells.
    pub async fn answer(self) -> Result<Accepted<IO>, HandshakeError> {
        let stream = self.start.into_stream(self.config).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = shown
            .map(|certificate| Identity::of_certificate(certificate))
            .transpose()?;
        Ok(Accepted {
            stream,
            identity: identity.map(Arc::new),
        })
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let by_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match by_tls {
            Some(rustls::Error::InvalidCertificate(why)) => Self::Certificate { reason: in_words(why) },
            Some(rustls::Error::NoCertificatesPresented) => Self::Certificate {
                reason: "it showed none, and one is required".to_owned(),
            },
            _ => Self::Other(error),
        }
    }
}

impl From<IdentityError> for HandshakeError {
    fn from(error: IdentityError) -> Self {
        Self::Certificate {
            reason: error.to_string(),
        }
    }
}
