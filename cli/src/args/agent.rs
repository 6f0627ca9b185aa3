//! The flags of `tessera agent`, and what it tells the guard of its child.

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueEnum, value_parser};

use super::{MemberArgs, TlsArgs, examples, values};

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spoken {
    /// gRPC without TLS
    Grpc,
    /// gRPC with TLS
    Grpcs,
    /// Plain HTTP: listed, and not called by balancers
    Http,
}

/// What a probe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeKind {
    /// Whether grpc.health.v1 says SERVING
    Grpc,
    /// Whether a connection is accepted
    Tcp,
    /// Nothing: it is well for as long as it runs
    None,
}

/// `tessera agent`
#[derive(Debug, Args)]
#[command(
    after_help = examples::AGENT
)]
pub(crate) struct AgentArgs {
    /// The service that it is an instance of
    #[arg(long, value_name = "NAME", env = "TESSERA_SERVICE", value_parser = values::name)]
    pub(crate) service: String,

    /// Address that callers are told, and that is probed
    #[arg(long, value_name = "HOST:PORT", env = "TESSERA_ENDPOINT", value_parser = values::address)]
    pub(crate) endpoint: String,

    /// How callers speak to it
    #[arg(long, value_name = "NAME", env = "TESSERA_PROTOCOL", value_enum, default_value_t = Spoken::Grpc)]
    pub(crate) protocol: Spoken,

    /// Names this instance [default: the service's name and a random number]
    #[arg(long, value_name = "ID", env = "TESSERA_INSTANCE_ID")]
    pub(crate) instance_id: Option<String>,

    /// The version of the program, for example 1.4.2
    #[arg(
        long,
        value_name = "VERSION",
        env = "TESSERA_VERSION_LABEL",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) version_label: String,

    /// Share of calls against its peers, 0 to 1000
    #[arg(long, value_name = "N", env = "TESSERA_WEIGHT", default_value_t = registry_client::DEFAULT_WEIGHT)]
    #[arg(allow_negative_numbers = true, value_parser = value_parser!(u32).range(0..=1000))]
    pub(crate) weight: u32,

    /// What else to tell of it; may be given several times
    #[arg(long, value_name = "KEY=VALUE,…", env = "TESSERA_METADATA", value_delimiter = ',', value_parser = values::pair)]
    pub(crate) metadata: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) member: MemberArgs,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    /// How long the command may take to end after SIGTERM; then it is killed
    #[arg(long, value_name = "DURATION", env = "TESSERA_DRAIN_GRACE")]
    #[arg(default_value = "10s", allow_hyphen_values = true, value_parser = values::duration)]
    pub(crate) drain_grace: Duration,

    #[command(flatten)]
    pub(crate) probing: ProbeArgs,

    /// Shut down when stdin reaches its end
    #[arg(long, env = "TESSERA_EXIT_WITH_PARENT", hide = true, value_parser = values::switch())]
    pub(crate) exit_with_parent: bool,

    /// The program and its arguments, after `--`; without one, what runs at the endpoint is somebody else's
    #[arg(value_name = "COMMAND", last = true)]
    pub(crate) command: Vec<OsString>,
}

/// How it is found out whether the program is well.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Probing")]
pub(crate) struct ProbeArgs {
    /// What is asked of the endpoint [default: grpc for --protocol grpc, and for grpcs with --tls-ca; else tcp]
    #[arg(long, value_name = "KIND", env = "TESSERA_PROBE", value_enum)]
    pub(crate) probe: Option<ProbeKind>,

    /// The gRPC service that --probe grpc asks about [default: the server as a whole]
    #[arg(
        long,
        value_name = "NAME",
        env = "TESSERA_PROBE_SERVICE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) probe_service: String,

    /// The time between two probes
    #[arg(long, value_name = "DURATION", env = "TESSERA_PROBE_INTERVAL")]
    #[arg(default_value = "2s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) probe_interval: Duration,

    /// How long the answer to one may take
    #[arg(long, value_name = "DURATION", env = "TESSERA_PROBE_TIMEOUT")]
    #[arg(default_value = "2s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) probe_timeout: Duration,

    /// How many in a row fail before the instance is DOWN; one that succeeds makes it UP again
    #[arg(long, value_name = "N", env = "TESSERA_PROBE_MISSES")]
    #[arg(default_value_t = 3, allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=100))]
    pub(crate) probe_misses: u32,

    /// How long the command may take until the first succeeds; then it is stopped, and the agent ends with code 1
    #[arg(long, value_name = "DURATION", env = "TESSERA_READY_WITHIN")]
    #[arg(default_value = "60s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) ready_within: Duration,
}

/// `tessera agent-guard`, which only the agent starts.
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// How long what is left may take to end after SIGTERM
    #[arg(value_name = "DURATION", value_parser = values::duration)]
    pub(crate) drain_grace: Duration,
}
