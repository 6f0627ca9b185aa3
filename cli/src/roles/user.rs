//! `tessera user`: flags to settings, and the life of the process. Not wired yet.

use crate::{args::UserArgs, failure::Failure};

/// Runs it until it is asked to end.
pub(crate) async fn run(args: UserArgs) -> Result<(), Failure> {
    Err(Failure::new(format!(
        "the user role is not built yet ({})",
        args.listen
    )))
}
