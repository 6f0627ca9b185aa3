//! Connections to a collector: plain ones, or with TLS where its endpoint is `https://`. For gRPC and for HTTP alike.
//!
//! Not the crate `tls`: that one believes the house's own authorities and expects the house's names; a collector is somebody else's
//! and has a web server's certificate. The files are read once, when the process starts, as the specification has it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{self, ClientConfig, RootCertStore},
};
use tower_service::Service;

/// What of TLS the environment names; what it does not is the system's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The authorities to believe, in PEM. Unset: the system's.
    pub(crate) authorities: Option<PathBuf>,
    /// The certificate to show and its key, in PEM.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
}

/// Why the files make no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadTls {
    #[error("{} cannot be read: {why}", file.display())]
    File { file: PathBuf, why: String },
    #[error("{} has none", file.display())]
    Empty { file: PathBuf },
    #[error("this system has no authorities to believe; name them in OTEL_EXPORTER_OTLP_CERTIFICATE")]
    NoAuthorities,
    #[error("the certificate and its key: {0}")]
    Own(rustls::Error),
    #[error(transparent)]
    Rustls(rustls::Error),
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connect {
    /// Name resolution, TCP and TLS together.
    within: Duration,
    tls: Option<TlsConnector>,
}

impl Connect {
    /// To `http://` endpoints.
    pub(crate) fn plain(within: Duration) -> Self {
        Self { within, tls: None }
    }

    /// To `https://` endpoints, which speak one of these protocols (ALPN).
    pub(crate) fn secured(within: Duration, files: &TlsFiles, protocols: &[&[u8]]) -> Result<Self, BadTls> {
        let authorities = match &files.authorities {
            Some(file) => named(file)?,
            None => of_the_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(BadTls::Rustls)?
            .with_root_certificates(authorities);
        let mut config = match &files.own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
                let chain = certificates(chain)?;
                builder.with_client_auth_cert(chain, key_der).map_err(BadTls::Own)?
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self {
            within,
            tls: Some(TlsConnector::from(Arc::new(config))),
        })
    }

    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        // A request is one write after another; waiting for the next would add 40 ms to each.
        tcp.set_nodelay(true)?;
        let Some(tls) = self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        match tls.connect(name, tcp).await {
            Ok(stream) => Ok(Stream::Secured(Box::new(stream))),
            Err(error) => Err(io::Error::other(in_words(&host, &error))),
        }
    }
}

/// What is wrong between the two ends, so that whoever reads the log knows which file to look at.
fn in_words(host: &str, error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        // A bad signature: an authority of the same name with another key.
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
        )) => format!(
            "the certificate of {host} is of an authority that is not believed here; OTEL_EXPORTER_OTLP_CERTIFICATE names those that are"
        ),
        Some(rustls::Error::InvalidCertificate(error)) => format!("the certificate of {host} was refused: {error}"),
        Some(rustls::Error::AlertReceived(alert)) => format!(
            "{host} refused us: {alert:?}; OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY name what it is shown"
        ),
        Some(rustls::Error::InvalidMessage(_)) => format!("{host} does not speak TLS there; is its endpoint http://?"),
        _ => format!("the TLS handshake with {host} failed: {error}"),
    }
}

fn unreadable(file: &Path, error: &dyn fmt::Display) -> BadTls {
    BadTls::File {
        file: file.to_owned(),
        why: error.to_string(),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BadTls> {
    let text = fs::read(file).map_err(|error| unreadable(file, &error))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all.map_err(|error| unreadable(file, &error))? {
        none if none.is_empty() => Err(BadTls::Empty { file: file.to_owned() }),
        all => Ok(all),
    }
}

fn named(file: &Path) -> Result<RootCertStore, BadTls> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|error| unreadable(file, &error))?;
    }
    Ok(store)
}

fn of_the_system() -> Result<RootCertStore, BadTls> {
    let mut store = RootCertStore::empty();
    // Some of a system's are always too old for somebody.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err(BadTls::NoAuthorities);
    }
    Ok(store)
}

impl Service<Uri> for Connect {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = self.clone();
        Box::pin(async move {
            let within = connect.within;
            match timeout(within, connect.connect(uri)).await {
                Ok(stream) => stream.map(TokioIo::new),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {within:?}"),
                )),
            }
        })
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("within", &self.within)
            .field("is_secured", &self.tls.is_some())
            .finish()
    }
}

/// A connection that was made.
pub(crate) enum Stream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let is_h2 = matches!(self, Self::Secured(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"));
        match is_h2 {
            true => Connected::new().negotiated_h2(),
            false => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
