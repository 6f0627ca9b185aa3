//! How the operator's commands reach a registry, and what a person is told when they do not.

use registry_client::{Error, Registry};
use tonic::Code;

use crate::{args::Discovery, failure::Failure};

pub(crate) mod credentials;
pub(crate) mod security;

/// A handle of the registry that the flags name. Dials nothing.
pub(crate) fn open(discovery: &Discovery) -> Result<Registry, Failure> {
    let tls = security::client(&discovery.tls)?;
    let endpoints = discovery.registry.iter().map(|url| url.as_str());
    let registry = connect(endpoints, &discovery.namespace, tls.as_ref())?;
    credentials::show(registry, &discovery.shown)
}

/// A handle of the registry behind these addresses.
pub(crate) fn connect<'a>(
    endpoints: impl IntoIterator<Item = &'a str>,
    namespace: &str,
    tls: Option<&tls::Client>,
) -> Result<Registry, Failure> {
    let registry = Registry::connect_with(endpoints, tls).map_err(|error| {
        let failure = Failure::usage("the registry's address is wrong").because(&error);
        match tls {
            None => failure.advice("give http://HOST:PORT, or https://HOST:PORT with --tls-ca"),
            Some(_) => failure,
        }
    })?;
    Ok(registry.with_namespace(namespace))
}

/// What to tell of an error of `registry`.
pub(crate) fn failure(registry: &Registry, error: &Error) -> Failure {
    let place = registry.endpoints().collect::<Vec<_>>().join(", ");
    match error {
        Error::Unreachable { problem, .. } => Failure::new(format!("the registry at {place} cannot be reached"))
            .why(problem)
            .advice("start a cluster with `tessera up`, or pass --registry, which is https:// where it speaks TLS"),
        Error::Deadline { after, .. } => Failure::new(format!("the registry at {place} did not answer"))
            .why(format!("within {after:?}"))
            .advice("look at its log, or pass another --registry"),
        Error::Answered(answer) if answer.code == Code::Unauthenticated => {
            Failure::new(format!("the registry at {place} does not know you"))
                .why(answer)
                .advice("pass --token @FILE with a token of `tessera token issue`")
        }
        Error::Answered(answer) => Failure::new(format!("the registry at {place} refused")).why(answer),
        other => Failure::new(format!("the registry at {place} cannot be used")).because(other),
    }
}
