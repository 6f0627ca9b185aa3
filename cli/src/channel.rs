//! The balanced channels that the operator's commands call through: by discovery, or to fixed addresses where the thing
//! called is the registry itself.

use std::time::Duration;

use registry_client::{Bearer, Registry};
use tonic::service::interceptor::InterceptedService;

use crate::{
    args::{RegistryUrl, TlsArgs, TokenArgs},
    failure::Failure,
    registry::{credentials, security},
};

/// How long a command waits for the first instance that takes calls.
pub(crate) const READY: Duration = Duration::from_secs(5);

/// A channel, and what is shown on it.
pub(crate) type Line = InterceptedService<lb::Channel, Bearer>;

/// A channel to the registry behind these addresses, with the token that the flags name. The registry is not in the registry:
/// its replicas are a fixed target.
pub(crate) fn to_registry(registry: &[RegistryUrl], tls: &TlsArgs, shown: &TokenArgs) -> Result<Line, Failure> {
    let addresses = || registry.iter().map(RegistryUrl::as_str);
    let tls = security::client(tls)?;
    let bearer = credentials::shown_to(addresses(), tls.as_ref(), shown)?;
    let channel = fixed(addresses(), tls, &registry_client::expected_registry())?;
    Ok(Line::new(channel, bearer))
}

/// A channel to a registered service.
pub(crate) fn to_service(registry: &Registry, service: &str) -> lb::Channel {
    lb::Channel::builder(registry.discover(service)).build()
}

/// A channel to these addresses, `HOST:PORT` each or `https://HOST:PORT`, where that certificate is expected.
pub(crate) fn fixed<'a>(
    addresses: impl IntoIterator<Item = &'a str>,
    tls: Option<tls::Client>,
    expected: &tls::Expected,
) -> Result<lb::Channel, Failure> {
    let target =
        lb::Target::fixed(addresses).map_err(|error| Failure::usage("the address is wrong").because(&error))?;
    Ok(lb::Channel::builder(target.expecting(expected)).tls(tls).build())
}
