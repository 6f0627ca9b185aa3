//! The flags of the operator's commands.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{
    TlsArgs, examples,
    security::{TokenArgs, TokenSource},
    values::{self, InstanceName, MethodName, RegistryUrl, Until},
};

/// Where services are looked up.
#[derive(Debug, Clone, Args)]
pub(crate) struct Discovery {
    /// Registries, any one of which will do
    #[arg(
        long,
        value_name = "URL,…",
        env = "TESSERA_REGISTRY",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7000"
    )]
    pub(crate) registry: Vec<RegistryUrl>,

    /// The tenant or environment to look into
    #[arg(long, value_name = "NAME", env = "TESSERA_NAMESPACE", default_value = "default", value_parser = values::name)]
    pub(crate) namespace: String,

    #[command(flatten)]
    pub(crate) shown: TokenArgs,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// `tessera services`
#[derive(Debug, Args)]
#[command(after_help = examples::SERVICES)]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// `tessera instances`
#[derive(Debug, Args)]
#[command(
    after_help = examples::INSTANCES
)]
pub(crate) struct InstancesArgs {
    /// Only this service [default: all]
    #[arg(value_name = "SERVICE", value_parser = values::name)]
    pub(crate) service: Option<String>,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// `tessera watch`
#[derive(Debug, Args)]
#[command(
    after_help = examples::WATCH
)]
pub(crate) struct WatchArgs {
    /// The service
    #[arg(value_name = "SERVICE", value_parser = values::name)]
    pub(crate) service: String,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// `tessera call`
#[derive(Debug, Args)]
#[command(
    after_help = examples::CALL
)]
pub(crate) struct CallArgs {
    /// A registered service, or one server as HOST:PORT
    #[arg(value_name = "SERVICE")]
    pub(crate) target: String,

    /// The method, PACKAGE.SERVICE/METHOD
    #[arg(value_name = "METHOD")]
    pub(crate) method: MethodName,

    /// The request as JSON, @FILE, or - for stdin; for client streams several, or one array [default: {}]
    #[arg(value_name = "JSON", conflicts_with = "data")]
    pub(crate) request: Option<String>,

    /// The same as JSON, as other tools have it
    #[arg(short, long, value_name = "JSON|@FILE|-", env = "TESSERA_CALL_DATA")]
    pub(crate) data: Option<String>,

    /// Access token of an account, or @FILE with it (better: other users of this machine can read command lines): what
    /// UserService.SignIn answers as session_token
    #[arg(long, value_name = "TOKEN|@FILE", env = "TESSERA_BEARER", hide_env_values = true)]
    pub(crate) bearer: Option<TokenSource>,

    /// The whole call's deadline, streams included
    #[arg(long, value_name = "DURATION", env = "TESSERA_TIMEOUT")]
    #[arg(default_value = "10s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,

    /// Say on stderr who answered, how fast, and in which trace
    #[arg(short, long, env = "TESSERA_VERBOSE", value_parser = values::switch())]
    pub(crate) verbose: bool,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// `tessera healthcheck`
#[derive(Debug, Args)]
#[command(
    after_help = examples::HEALTHCHECK
)]
pub(crate) struct HealthcheckArgs {
    /// The server, HOST:PORT, or https://HOST:PORT where it speaks TLS
    #[arg(value_name = "ADDR", value_parser = values::origin)]
    pub(crate) address: String,

    /// Ask about one gRPC service by its full name [default: the server as a whole]
    #[arg(
        long,
        value_name = "NAME",
        env = "TESSERA_HEALTHCHECK_SERVICE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) service: String,

    /// How long it may take to connect and answer
    #[arg(long, value_name = "DURATION", env = "TESSERA_HEALTHCHECK_TIMEOUT")]
    #[arg(default_value = "2s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// `tessera drain`
#[derive(Debug, Args)]
#[command(after_help = examples::DRAIN)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,

    /// When it ends by itself: after a time such as 90m or 7d, or at one such as 2026-01-31T18:00:00Z [default: never]
    #[arg(long, value_name = "WHEN", env = "TESSERA_UNTIL", allow_hyphen_values = true)]
    pub(crate) until: Option<Until>,

    /// How long to wait until every caller has said that it knows
    #[arg(long, value_name = "DURATION", env = "TESSERA_ACK_TIMEOUT", default_value = "10s")]
    #[arg(allow_hyphen_values = true, value_parser = values::ack_timeout)]
    pub(crate) ack_timeout: Duration,
}

/// `tessera undrain`
#[derive(Debug, Args)]
#[command(after_help = examples::UNDRAIN)]
pub(crate) struct UndrainArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
}

/// What all decisions about an instance have in common.
#[derive(Debug, Args)]
pub(crate) struct InstanceArgs {
    /// The instance, SERVICE/ID
    #[arg(value_name = "INSTANCE")]
    pub(crate) instance: InstanceName,

    /// Who decides; a registry that knows who calls puts it beside whose token or certificate it was
    #[arg(long, value_name = "NAME", env = "TESSERA_WHO", default_value = "cli")]
    pub(crate) who: String,

    /// Why, for whoever finds it so
    #[arg(
        long,
        value_name = "TEXT",
        env = "TESSERA_WHY",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) why: String,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// `tessera weight`
#[derive(Debug, Args)]
#[command(
    after_help = examples::WEIGHT
)]
pub(crate) struct WeightArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,

    /// 0 to 1000, or `own`
    #[arg(value_name = "N", allow_negative_numbers = true, value_parser = weight)]
    pub(crate) weight: Weight,

    /// When it ends by itself: after a time such as 90m or 7d, or at one such as 2026-01-31T18:00:00Z [default: never]
    #[arg(long, value_name = "WHEN", env = "TESSERA_UNTIL", allow_hyphen_values = true)]
    pub(crate) until: Option<Until>,
}

/// `tessera explain`
#[derive(Debug, Args)]
#[command(after_help = examples::EXPLAIN, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    pub(crate) what: Option<ExplainWhat>,

    /// The instance, SERVICE/ID, registered or not
    #[arg(value_name = "INSTANCE", required = true)]
    pub(crate) instance: Option<InstanceName>,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// What is explained besides an instance's history.
#[derive(Debug, Subcommand)]
pub(crate) enum ExplainWhat {
    /// Tell whom a call would go to now, and why not to the others, without making it
    Call(ExplainCallArgs),
}

/// `tessera explain call`
#[derive(Debug, Args)]
#[command(after_help = examples::EXPLAIN_CALL)]
pub(crate) struct ExplainCallArgs {
    /// The service
    #[arg(value_name = "SERVICE", value_parser = values::name)]
    pub(crate) service: String,

    /// The method, PACKAGE.SERVICE/METHOD [default: any]
    #[arg(value_name = "METHOD")]
    pub(crate) method: Option<MethodName>,

    /// A header of the call, as far as routes and tags go by it: tessera-tag=gray
    #[arg(long, value_name = "KEY=VALUE", env = "TESSERA_HEADER", value_parser = values::pair)]
    pub(crate) header: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// `tessera lb`
#[derive(Debug, Args)]
#[command(after_help = examples::LB)]
pub(crate) struct LbArgs {
    /// Only the channels to this service [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) service: Option<String>,

    /// The admin port of the process that calls; by default that of a user service on this machine
    #[arg(long, value_name = "HOST:PORT", env = "TESSERA_ADMIN", default_value = "127.0.0.1:9200", value_parser = values::address)]
    pub(crate) admin: String,

    /// How long it may take to answer
    #[arg(long, value_name = "DURATION", env = "TESSERA_TIMEOUT")]
    #[arg(default_value = "2s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
}

/// `tessera log-level`
#[derive(Debug, Args)]
#[command(after_help = examples::LOG_LEVEL)]
pub(crate) struct LogLevelArgs {
    /// The admin port of the process, HOST:PORT
    #[arg(value_name = "ADDR", value_parser = values::address)]
    pub(crate) address: String,

    /// What it is to log: levels and TARGET=LEVEL, as in RUST_LOG [default: show what it logs]
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<String>,

    /// Go back to what it logged before after this time
    #[arg(long = "for", value_name = "DURATION", env = "TESSERA_FOR", requires = "filter")]
    #[arg(allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) lasting: Option<Duration>,

    /// Go back to what the process was started with
    #[arg(long, env = "TESSERA_RESET", conflicts_with = "filter", value_parser = values::switch())]
    pub(crate) reset: bool,

    /// How long it may take to answer
    #[arg(long, value_name = "DURATION", env = "TESSERA_TIMEOUT")]
    #[arg(default_value = "2s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
}

/// `tessera backup`
#[derive(Debug, Args)]
#[command(after_help = examples::BACKUP)]
pub(crate) struct BackupArgs {
    /// The file to write; it must not be there
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The registry to save; of several with one store, any one
    #[arg(
        long,
        value_name = "URL,…",
        env = "TESSERA_REGISTRY",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7000"
    )]
    pub(crate) registry: Vec<RegistryUrl>,

    /// Instead: the data directory of a registry that is stopped
    // Its own variable: where a registry's own is set, that one runs.
    #[arg(long, value_name = "DIR", env = "TESSERA_BACKUP_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) shown: TokenArgs,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// `tessera restore`
#[derive(Debug, Args)]
#[command(after_help = examples::RESTORE)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The data directory to make; there must be nothing in it
    #[arg(long, value_name = "DIR", env = "TESSERA_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

/// A weight that an operator lays over an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// What the instance says of itself.
    Own,
    /// This, 0 to 1000.
    Fixed(u32),
}

fn weight(text: &str) -> Result<Weight, String> {
    match text.parse() {
        _ if text == "own" => Ok(Weight::Own),
        Ok(weight @ 0..=1000) => Ok(Weight::Fixed(weight)),
        _ => Err("give 0 to 1000, or `own` for the instance's own".to_owned()),
    }
}
