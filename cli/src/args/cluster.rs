//! The flags of `tessera up` and `tessera demo`.

use std::path::PathBuf;

use clap::{Args, value_parser};

use super::{examples, operator::Discovery, values};

/// `tessera up`
#[derive(Debug, Args)]
#[command(
    after_help = examples::UP
)]
pub(crate) struct UpArgs {
    /// Folder of stores and logs; made when missing, kept afterwards
    #[arg(long, value_name = "DIR", env = "TESSERA_DATA_DIR", default_value = "./tessera-data")]
    pub(crate) data_dir: PathBuf,

    /// Run the demo once everything is up, then stop; exits as the demo does
    #[arg(long, env = "TESSERA_ONCE", value_parser = values::switch())]
    pub(crate) once: bool,

    /// How many ticket services to run
    #[arg(long, value_name = "N", env = "TESSERA_INSTANCES")]
    #[arg(default_value_t = 3, allow_negative_numbers = true, value_parser = value_parser!(u16).range(1..=32))]
    pub(crate) instances: u16,

    /// Port of the registry; 0 takes any free one
    #[arg(
        long,
        value_name = "PORT",
        env = "TESSERA_REGISTRY_PORT",
        default_value_t = 7000,
        allow_negative_numbers = true
    )]
    pub(crate) registry_port: u16,

    /// Port of the first ticket service, the others follow; 0 takes any free ones
    #[arg(
        long,
        value_name = "PORT",
        env = "TESSERA_TICKET_PORT",
        default_value_t = 7101,
        allow_negative_numbers = true
    )]
    pub(crate) ticket_port: u16,

    /// Port of the user service; 0 takes any free one
    #[arg(
        long,
        value_name = "PORT",
        env = "TESSERA_USER_PORT",
        default_value_t = 7200,
        allow_negative_numbers = true
    )]
    pub(crate) user_port: u16,

    /// Port of the monitor; 0 takes any free one
    #[arg(
        long,
        value_name = "PORT",
        env = "TESSERA_CONSOLE_PORT",
        default_value_t = 8090,
        allow_negative_numbers = true
    )]
    pub(crate) console_port: u16,

    /// Where events go besides the services' own subscribers: NATS, as `tessera user --events` takes it
    #[arg(long, value_name = "URL", env = "TESSERA_EVENTS", hide_env_values = true)]
    pub(crate) events: Option<String>,

    /// Create no events on an empty store
    #[arg(long, env = "TESSERA_NO_SEED", value_parser = values::switch())]
    pub(crate) no_seed: bool,

    /// The namespace that the cluster's services register in
    #[arg(long, value_name = "NAME", env = "TESSERA_NAMESPACE", default_value = "default", value_parser = values::name)]
    pub(crate) namespace: String,
}

/// `tessera demo`
#[derive(Debug, Args)]
#[command(
    after_help = examples::DEMO
)]
pub(crate) struct DemoArgs {
    /// What to buy tickets for: an event's id, or a part of its title [default: the next event with seats enough]
    #[arg(long, value_name = "ID|TITLE", env = "TESSERA_EVENT")]
    pub(crate) event: Option<String>,

    /// Seats an order [default: 2 for one buyer, 1 for many]
    #[arg(long, value_name = "N", env = "TESSERA_SEATS")]
    #[arg(allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=10))]
    pub(crate) seats: Option<u32>,

    /// How many people buy; each has an account of its own
    #[arg(long, value_name = "N", env = "TESSERA_BUYERS")]
    #[arg(default_value_t = 1, allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) buyers: u32,

    /// How many of them at the same time
    #[arg(long, value_name = "N", env = "TESSERA_CONCURRENCY")]
    #[arg(default_value_t = 16, allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=1_000))]
    pub(crate) concurrency: u32,

    #[command(flatten)]
    pub(crate) discovery: Discovery,
}
