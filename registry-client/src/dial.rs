//! How a TLS connection to the registry is made. Plain ones are tonic's own business.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::Uri;
use tower_service::Service;

/// The namespace and the name of the service that a registry's certificate names, where it has a SPIFFE id. The namespace is fixed,
/// although one registry serves all of them: whoever may issue for a namespace of their own must not make a registry there. No
/// other service can pose as the registry then, also not from the registry's own machine.
pub const REGISTRY_IDENTITY: (&str, &str) = ("default", "registry-svc");

/// Dials with TLS.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    tls: tls::Client,
    expected: tls::Expected,
}

impl Dialer {
    pub(crate) fn new(tls: tls::Client) -> Self {
        Self {
            tls,
            expected: expected_registry(),
        }
    }
}

/// Who a registry has to be, by its certificate: for those who dial one by other means than a [`Registry`](crate::Registry).
#[must_use]
pub fn expected_registry() -> tls::Expected {
    let (namespace, service) = REGISTRY_IDENTITY;
    tls::Expected::service(namespace, service)
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot connect: {0}")]
    Tcp(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] tls::ConnectError),
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<tls::ClientStream<TcpStream>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    /// The caller bounds it: tonic by the connect timeout.
    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, expected } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let socket = TcpStream::connect((bare, uri.port_u16().unwrap_or(443))).await?;
            socket.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(socket, host, &expected).await?))
        })
    }
}
