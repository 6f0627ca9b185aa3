//! The flags of the monitor centre: who reports to it, and what is asked of it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, value_parser};
use proto::monitor::v1;

use super::{
    examples,
    operator::Discovery,
    roles::{HostArgs, MemberArgs},
    values::{self, Listen},
};

/// How a role reports what it counts; every role has these.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArgs {
    /// How often calls that were counted are reported to the monitor; 0s: never
    #[arg(long, value_name = "DURATION", env = "TESSERA_MONITOR_INTERVAL")]
    #[arg(default_value = "10s", allow_hyphen_values = true, value_parser = values::duration)]
    pub(crate) monitor_interval: Duration,

    /// Count and report nothing
    #[arg(long, env = "TESSERA_NO_MONITOR", value_parser = values::switch())]
    pub(crate) no_monitor: bool,
}

/// `tessera console`
#[derive(Debug, Args)]
#[command(after_help = examples::CONSOLE)]
pub(crate) struct ConsoleArgs {
    /// Where the monitor is served: IP:PORT, or :PORT for all interfaces; port 0 takes any free one
    #[arg(long, value_name = "ADDR", env = "TESSERA_LISTEN", default_value = "127.0.0.1:8090")]
    pub(crate) listen: Listen,

    /// File of the time series, made when missing [default: monitor.redb in --data-dir]
    #[arg(long, value_name = "FILE", env = "TESSERA_STORE")]
    pub(crate) store: Option<String>,

    /// Folder of the store
    #[arg(long, value_name = "DIR", env = "TESSERA_DATA_DIR", default_value = "./tessera-data")]
    pub(crate) data_dir: PathBuf,

    /// Memory that points may take, in MiB; beyond it the oldest of the finest are forgotten first
    #[arg(long, value_name = "MIB", env = "TESSERA_MONITOR_MEMORY")]
    #[arg(default_value_t = 128, value_parser = value_parser!(u32).range(1..=65_536))]
    pub(crate) memory: u32,

    /// Address that callers are told: HOST:PORT [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", env = "TESSERA_ADVERTISE")]
    pub(crate) advertise: Option<String>,

    #[command(flatten)]
    pub(crate) member: MemberArgs,

    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// `tessera top`
#[derive(Debug, Args)]
#[command(after_help = examples::TOP)]
pub(crate) struct TopArgs {
    /// Only this service's methods, and who calls it or is called by it [default: all]
    #[arg(value_name = "SERVICE", value_parser = values::name)]
    pub(crate) service: Option<String>,

    /// Print one look and end, also on a terminal
    #[arg(long, env = "TESSERA_ONCE", value_parser = values::switch())]
    pub(crate) once: bool,

    /// How much time is added up, at least 10s
    #[arg(long, value_name = "DURATION", env = "TESSERA_WINDOW")]
    #[arg(default_value = "1m", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) window: Duration,

    /// The order of the methods
    #[arg(long, value_name = "BY", env = "TESSERA_SORT", value_enum, default_value_t = Sort::Calls)]
    pub(crate) sort: Sort,

    /// Who has counted
    #[arg(long, value_name = "SIDE", env = "TESSERA_SIDE", value_enum, default_value_t = Side::Provider)]
    pub(crate) side: Side,

    /// How many methods are shown
    #[arg(long, value_name = "N", env = "TESSERA_LIMIT")]
    #[arg(default_value_t = 20, allow_negative_numbers = true, value_parser = value_parser!(u16).range(1..=500))]
    pub(crate) limit: u16,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// `tessera stats`
#[derive(Debug, Args)]
#[command(after_help = examples::STATS)]
pub(crate) struct StatsArgs {
    /// The service that was called
    #[arg(value_name = "SERVICE", value_parser = values::name)]
    pub(crate) service: String,

    /// From so long ago until now, at most 35d
    #[arg(long, value_name = "DURATION", env = "TESSERA_SINCE")]
    #[arg(default_value = "1h", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) since: Duration,

    /// The width of a point, at least 10s [default: so that there are 360 points at the most]
    #[arg(long, value_name = "DURATION", env = "TESSERA_STEP")]
    #[arg(allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) step: Option<Duration>,

    /// What tells series apart; may be given more than once
    #[arg(long, value_name = "NAME", env = "TESSERA_BY", value_enum, value_delimiter = ',')]
    pub(crate) by: Vec<By>,

    /// Who has counted
    #[arg(long, value_name = "SIDE", env = "TESSERA_SIDE", value_enum, default_value_t = Side::Provider)]
    pub(crate) side: Side,

    /// Only calls of this service
    #[arg(long, value_name = "SERVICE", env = "TESSERA_CALLER", value_parser = values::name)]
    pub(crate) caller: Option<String>,

    /// Only calls of this method, PACKAGE.SERVICE/METHOD
    #[arg(long, value_name = "METHOD", env = "TESSERA_METHOD")]
    pub(crate) method: Option<String>,

    /// Only calls that this instance answered, or with `--side attempt` was tried for
    #[arg(long, value_name = "ID", env = "TESSERA_INSTANCE")]
    pub(crate) instance: Option<String>,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}

/// By what methods are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// The busiest first
    Calls,
    /// The slowest first
    P99,
    /// The most failures first
    Errors,
}

/// What tells series apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The service that called
    Caller,
    /// The method
    Method,
    /// The instance
    Instance,
}

/// Who has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// The callers, each call once
    Caller,
    /// The callers, each attempt
    Attempt,
    /// The providers
    Provider,
}

impl From<Side> for v1::Side {
    fn from(side: Side) -> Self {
        match side {
            Side::Caller => Self::Caller,
            Side::Attempt => Self::Attempt,
            Side::Provider => Self::Provider,
        }
    }
}
