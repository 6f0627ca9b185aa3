//! The flags of `tessera ticket-code`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `tessera ticket-code`
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct TicketCodeCommand {
    #[command(subcommand)]
    pub(crate) deed: TicketCodeDeed,
}

/// What is done with a code.
#[derive(Debug, Subcommand)]
pub(crate) enum TicketCodeDeed {
    /// Check a code with keys that were fetched before, without a network. Exits with 0 when it is good, 1 when it is not
    #[command(after_help = super::examples::TICKET_CODE)]
    Verify(VerifyCodeArgs),
}

/// `tessera ticket-code verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyCodeArgs {
    /// The code, TSR1.…; `-` reads it from stdin
    #[arg(value_name = "CODE")]
    pub(crate) code: String,

    /// What GetTicketKeys answered, as JSON, or the key set in it
    #[arg(
        long,
        value_name = "FILE",
        env = "TESSERA_TICKET_KEYS",
        default_value = "ticket-keys.json"
    )]
    pub(crate) keys: PathBuf,

    /// Good for this event only: its id
    #[arg(long, value_name = "ID", env = "TESSERA_TICKET_EVENT")]
    pub(crate) event: Option<uuid::Uuid>,
}
