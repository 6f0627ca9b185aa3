//! `tessera registry`: flags to settings, and the life of the process. Not wired yet.

use crate::{args::RegistryArgs, failure::Failure};

/// Runs it until it is asked to end.
pub(crate) async fn run(args: RegistryArgs) -> Result<(), Failure> {
    Err(Failure::new(format!(
        "the registry role is not built yet ({})",
        args.listen
    )))
}
