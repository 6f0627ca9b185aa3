//! The monitor's gate: from a request's path and certificate to a question, from a verdict to a pass or a status.

use http::Extensions;
use service_host::{Credentials, Gate, Pass, Peer, status};
use tonic::{Code, Status};

use crate::{
    access::{self, Verdict},
    driver,
};

/// Asked by service-host about every call.
#[derive(Debug)]
pub(crate) struct ApiGate {
    /// Whether callers are known by their certificates.
    pub(crate) is_guarded: bool,
    /// The namespace whose services may report.
    pub(crate) namespace: String,
}

impl Gate for ApiGate {
    fn admit(&self, path: &str, _: Credentials<'_>, extensions: &mut Extensions) -> Result<Pass, Status> {
        let peer = extensions.get::<Peer>();
        let identity = peer.and_then(|peer| peer.identity.as_deref());
        match access::decide(path, identity, driver::now(), self.is_guarded, &self.namespace) {
            Verdict::Allowed => Ok(match peer {
                // A stream (of health or reflection) ends with the certificate that opened it.
                Some(peer) if peer.identity.is_some() => Pass::Until(peer.ended.clone()),
                _ => Pass::ToItsEnd,
            }),
            Verdict::Unknown => Err(status::error(
                Code::Unauthenticated,
                "UNAUTHENTICATED",
                "this monitor has to know who calls: show a client certificate of the house that has not ended (--tls-cert, --tls-key)",
            )),
            Verdict::NoSuchMethod => Err(status::unimplemented(path)),
            Verdict::Denied(needs) => Err(status::error(
                Code::PermissionDenied,
                "IDENTITY_MISMATCH",
                format!("this needs the certificate of {needs}"),
            )),
        }
    }
}
