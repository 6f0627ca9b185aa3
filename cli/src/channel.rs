//! The balanced channels that the operator's commands call through: by discovery, or to fixed addresses where the thing
//! called is the registry itself.

use std::time::Duration;

use registry_client::Registry;

use crate::failure::Failure;

/// How long a command waits for the first instance that takes calls.
pub(crate) const READY: Duration = Duration::from_secs(5);

/// A channel to a registered service.
pub(crate) fn to_service(registry: &Registry, service: &str) -> lb::Channel {
    lb::Channel::builder(registry.discover(service)).build()
}

/// A channel to these addresses, `HOST:PORT` each.
pub(crate) fn fixed<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<lb::Channel, Failure> {
    let target =
        lb::Target::fixed(addresses).map_err(|error| Failure::usage("the address is wrong").because(&error))?;
    Ok(lb::Channel::builder(target).build())
}
