//! The flags of `tessera events`: what became of events that a service could not deliver.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{examples, operator::Discovery, security::TokenSource, values};

/// `tessera events`
#[derive(Debug, Args)]
#[command(after_help = examples::EVENTS, arg_required_else_help = true)]
pub(crate) struct EventsCommand {
    #[command(subcommand)]
    pub(crate) deed: EventsDeed,
}

/// What is done with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum EventsDeed {
    /// List the dead letters: events that failed for good, and hold the later ones of their key back
    Dead(EventsTarget),
    /// Show one of them, with its body
    Show(ShowEventArgs),
    /// Send dead letters on their way again
    Replay(ReplayEventsArgs),
    /// Give one up: it is never delivered, and the later ones of its key go on without it
    Drop(DropEventArgs),
}

/// Whose events.
#[derive(Debug, Args)]
pub(crate) struct EventsTarget {
    /// A registered service, or one server as HOST:PORT
    #[arg(value_name = "SERVICE")]
    pub(crate) target: String,

    /// Access token of an operator, or @FILE with it (better: other users of this machine can read command lines)
    #[arg(long, value_name = "TOKEN|@FILE", env = "TESSERA_BEARER", hide_env_values = true)]
    pub(crate) bearer: Option<TokenSource>,

    /// How long each call may take
    #[arg(long, value_name = "DURATION", env = "TESSERA_TIMEOUT")]
    #[arg(default_value = "10s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// `tessera events show`
#[derive(Debug, Args)]
pub(crate) struct ShowEventArgs {
    #[command(flatten)]
    pub(crate) target: EventsTarget,

    /// The event's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `tessera events replay`
#[derive(Debug, Args)]
pub(crate) struct ReplayEventsArgs {
    #[command(flatten)]
    pub(crate) target: EventsTarget,

    /// The events' ids, at most 100; all of them are sent, or none
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) ids: Vec<String>,

    /// All that there are
    #[arg(long, env = "TESSERA_ALL", value_parser = values::switch())]
    pub(crate) all: bool,
}

/// `tessera events drop`
#[derive(Debug, Args)]
pub(crate) struct DropEventArgs {
    #[command(flatten)]
    pub(crate) target: EventsTarget,

    /// The event's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// Why, for whoever misses it
    #[arg(long, value_name = "TEXT", env = "TESSERA_WHY", required = true)]
    pub(crate) why: String,
}
