//! The command line as clap reads it. What a flag's text means is decided here; what the combination of flags means is
//! decided by each command when it turns its `…Args` into a plan. Nothing here opens a file or a socket.

mod account;
mod agent;
mod certificates;
mod cluster;
mod events;
mod examples;
mod monitor;
mod operator;
mod roles;
mod security;
mod ticket_code;
mod values;

pub(crate) use self::{
    account::{AccountCommand, AccountDeed, AccountStore, GrantArgs, GrantedRole},
    agent::{AgentArgs, GuardArgs, ProbeArgs, ProbeKind, Spoken},
    certificates::{CertsArgs, ClientAuth, ServerTlsArgs, StoreTlsArgs, TlsArgs},
    cluster::{DemoArgs, UpArgs},
    events::{DropEventArgs, EventsCommand, EventsDeed, EventsTarget, ReplayEventsArgs, ShowEventArgs},
    monitor::{By, ConsoleArgs, ReportArgs, Sort, StatsArgs, TopArgs},
    operator::{
        BackupArgs, CallArgs, Discovery, DrainArgs, ExplainArgs, ExplainCallArgs, ExplainWhat, HealthcheckArgs,
        InstancesArgs, LbArgs, LogLevelArgs, RestoreArgs, ServicesArgs, UndrainArgs, WatchArgs, Weight, WeightArgs,
    },
    roles::{HostArgs, MemberArgs, RegistryArgs, TicketArgs, UserArgs},
    security::{IssueArgs, TokenArgs, TokenCommand, TokenDeed, TokenSource},
    ticket_code::{TicketCodeCommand, TicketCodeDeed, VerifyCodeArgs},
    values::{Admin, InstanceName, Listen, MethodName, RegistryUrl, Until, origin},
};

use clap::{Parser, Subcommand, ValueEnum};

/// Everything the process was asked to do.
#[derive(Debug, Parser)]
#[command(
    name = "tessera",
    version,
    about = "A gRPC service platform in one binary: registry, discovery, balancing, tracing, and services",
    after_help = examples::START,
    arg_required_else_help = true,
    propagate_version = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    /// How results are printed: tables for people, or one JSON document (one a line for streams) for machines
    #[arg(long, env = "TESSERA_OUTPUT", value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    #[arg(global = true, help_heading = "Everywhere")]
    pub(crate) output: Format,

    /// How logs are written to stderr: text, JSON, or text on a terminal and JSON elsewhere
    #[arg(long, env = "TESSERA_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    #[arg(global = true, help_heading = "Everywhere")]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Not doc comments: clap would print them, and the flag says it already.
    Table,
    Json,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    // As above.
    Auto,
    Text,
    Json,
}

/// One of the things the binary can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring up the demo cluster: a registry, three ticket services, a user service and a monitor, as child processes
    Up(UpArgs),
    /// Buy tickets on a running cluster and show who served them
    Demo(DemoArgs),

    /// List the services that are registered
    Services(ServicesArgs),
    /// List the instances of one service, or of all
    Instances(InstancesArgs),
    /// Print every change of a service's instances as it happens
    Watch(WatchArgs),
    /// Call any method with JSON, by discovery, balancer and server reflection
    Call(CallArgs),
    /// Ask one address whether it is serving
    Healthcheck(HealthcheckArgs),
    /// Take an instance out of service
    Drain(DrainArgs),
    /// Put a drained instance back into service
    Undrain(UndrainArgs),
    /// Lay a weight over an instance's own
    Weight(WeightArgs),
    /// Show whom a running process calls: its live view of a service, asked at its admin port
    Lb(LbArgs),
    /// Show what a running process logs, or change it while it runs
    LogLevel(LogLevelArgs),
    /// Tell what became of an instance, or with `call` whom a call would go to, and why
    Explain(ExplainArgs),
    /// Show what is called now, how fast, how well, and by whom
    Top(TopArgs),
    /// Show a service's calls over time: rates, failures, percentiles
    Stats(StatsArgs),
    /// Save a registry's state to a file, while it serves or while it is stopped
    Backup(BackupArgs),
    /// Make a registry's data directory of a backup
    Restore(RestoreArgs),
    /// Make, list and revoke the tokens that a registry lets in
    Token(TokenCommand),
    /// Make the first operator, and print the keys that access tokens are signed with
    Account(AccountCommand),
    /// List, replay and drop the events that a service could not deliver
    Events(EventsCommand),
    /// Issue certificates for a cluster with TLS, by an authority of one's own
    Certs(CertsArgs),
    /// Check the code of a ticket without a network
    TicketCode(TicketCodeCommand),

    /// Run the registry
    Registry(RegistryArgs),
    /// Run a ticket service
    Ticket(TicketArgs),
    /// Run a user service
    User(UserArgs),
    /// Run the monitor, which keeps what all of them count
    Console(ConsoleArgs),
    /// Register a program that cannot do it itself: start it, probe it, drain it
    Agent(AgentArgs),
    /// The end of an agent's child, where the agent can no longer bring it about
    #[command(hide = true)]
    AgentGuard(GuardArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// A flag without an environment twin cannot be set in a compose file; only positions may go without one.
    #[test]
    fn every_flag_has_an_environment_twin() {
        let mut command = Cli::command();
        command.build();
        for command in std::iter::once(&command).chain(command.get_subcommands()) {
            for flag in command.get_arguments().filter(|argument| !argument.is_positional()) {
                if ["help", "version"].contains(&flag.get_id().as_str()) {
                    continue;
                }
                let env = flag
                    .get_env()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                assert!(
                    env.starts_with("TESSERA_"),
                    "{} --{}: {env:?}",
                    command.get_name(),
                    flag.get_id()
                );
            }
        }
    }
}
