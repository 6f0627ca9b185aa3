//! `tessera ticket`: flags to settings, and the life of the process. Not wired yet.

use crate::{args::TicketArgs, failure::Failure};

/// Runs it until it is asked to end.
pub(crate) async fn run(args: TicketArgs) -> Result<(), Failure> {
    Err(Failure::new(format!(
        "the ticket role is not built yet ({})",
        args.listen
    )))
}
