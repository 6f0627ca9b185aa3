//! The request to stop, for commands that run until there is one.

use service_host::signal::Shutdown;

use crate::failure::Failure;

/// From now on a signal is a request, not an end; the second one is an end again.
pub(crate) fn install() -> Result<Shutdown, Failure> {
    Shutdown::install().map_err(|error| Failure::new("signals cannot be caught").because(&error))
}
