//! The gate: from a request's path and token to a question, from an answer to a pass or a status.

use http::Extensions;
use identity::gate::Shown;
use service_host::{Credentials, Gate, Pass};
use tonic::Status;

use crate::{access::Gatekeeper, error};

/// Asked by service-host about every call.
#[derive(Debug)]
pub(crate) struct ApiGate(pub(crate) Gatekeeper);

impl Gate for ApiGate {
    fn admit(&self, path: &str, credentials: Credentials<'_>, extensions: &mut Extensions) -> Result<Pass, Status> {
        let shown = match credentials {
            Credentials::None => Shown::Nothing,
            Credentials::Bearer(token) => Shown::Token(token),
            Credentials::Unreadable => Shown::Unreadable,
        };
        let caller = self
            .0
            .decide(path, shown)
            .map_err(|refused| error::refused(refused, path))?;
        extensions.insert(caller);
        // Streams here are public or short: nothing is taken away while they run.
        Ok(Pass::ToItsEnd)
    }
}
