//! The flags of the roles: `tessera registry`, `tessera ticket` and `tessera user`. Limits that a role checks itself
//! are not repeated here.

use std::{path::PathBuf, time::Duration};

use clap::{Args, value_parser};

use super::{
    ReportArgs, ServerTlsArgs, StoreTlsArgs, examples,
    security::{AccessArgs, TokenArgs},
    values::{self, Admin, Listen, RegistryUrl},
};

/// How a server lives and dies; every role has these.
#[derive(Debug, Clone, Args)]
pub(crate) struct HostArgs {
    /// Where `/healthz` and `/metrics` are served: IP:PORT or `off` [default: the port of --listen + 2000, on loopback
    /// unless --insecure]
    #[arg(long, value_name = "ADDR", env = "TESSERA_ADMIN_LISTEN")]
    pub(crate) admin_listen: Option<Admin>,

    /// Names this instance in the registry, in traces and in the `tessera-instance` header [default: a random name]
    #[arg(long, value_name = "ID", env = "TESSERA_INSTANCE_ID")]
    pub(crate) instance_id: Option<String>,

    #[command(flatten)]
    pub(crate) tls: ServerTlsArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    /// How long calls in flight may go on after SIGTERM
    #[arg(long, value_name = "DURATION", env = "TESSERA_DRAIN_GRACE")]
    #[arg(default_value = "10s", allow_hyphen_values = true, value_parser = values::duration)]
    pub(crate) drain_grace: Duration,

    /// Shut down when stdin reaches its end: set by `tessera up`, so that no child outlives it
    #[arg(long, env = "TESSERA_EXIT_WITH_PARENT", hide = true, value_parser = values::switch())]
    pub(crate) exit_with_parent: bool,
}

/// How a service joins the cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct MemberArgs {
    /// Registries, any one of which will do
    #[arg(
        long,
        value_name = "URL,…",
        env = "TESSERA_REGISTRY",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7000"
    )]
    pub(crate) registry: Vec<RegistryUrl>,

    /// Isolates tenants and environments from each other
    #[arg(long, value_name = "NAME", env = "TESSERA_NAMESPACE", default_value = "default", value_parser = values::name)]
    pub(crate) namespace: String,

    #[command(flatten)]
    pub(crate) shown: TokenArgs,

    /// Where this instance runs, for example eu-central-1a
    #[arg(long, value_name = "ZONE", env = "TESSERA_ZONE", default_value = "")]
    pub(crate) zone: String,

    /// How long to go on answering at the most after SIGTERM, until every caller has acknowledged that this instance
    /// drains; usually milliseconds. At most 5m
    #[arg(long, value_name = "DURATION", env = "TESSERA_DRAIN_LINGER")]
    #[arg(default_value = "5s", allow_hyphen_values = true, value_parser = values::ack_timeout)]
    pub(crate) drain_linger: Duration,

    /// How often the registry hears from this instance
    #[arg(long, value_name = "DURATION", env = "TESSERA_HEARTBEAT_INTERVAL")]
    #[arg(default_value = "5s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) heartbeat_interval: Duration,

    /// How many heartbeats may be missed before the registry lets the instance go
    #[arg(long, value_name = "N", env = "TESSERA_HEARTBEAT_MISSES")]
    #[arg(default_value_t = 3, allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=100))]
    pub(crate) heartbeat_misses: u32,
}

/// `tessera registry`
#[derive(Debug, Args)]
#[command(
    after_help = examples::REGISTRY
)]
pub(crate) struct RegistryArgs {
    /// Where the registry is served: IP:PORT, or :PORT for all interfaces; port 0 takes any free one
    #[arg(long, value_name = "ADDR", env = "TESSERA_LISTEN", default_value = "127.0.0.1:7000")]
    pub(crate) listen: Listen,

    /// Where the state is kept: `embedded`, in --data-dir and for this registry alone, or `etcd://HOST:PORT,…`, with TLS
    /// `etcds://HOST:PORT,…` (in full: `etcds://USER:PASSWORD@HOST:PORT,…/PREFIX`), which any number of registries share;
    /// or @FILE with it, which is where a password belongs
    #[arg(
        long,
        value_name = "STORE",
        env = "TESSERA_STORE",
        default_value = "embedded",
        hide_env_values = true
    )]
    pub(crate) store: String,

    /// Folder of the embedded store; made when missing
    #[arg(
        long,
        value_name = "DIR",
        env = "TESSERA_DATA_DIR",
        default_value = "./tessera-data/registry"
    )]
    pub(crate) data_dir: PathBuf,

    /// How many revisions are kept for watches to resume from; they survive restarts
    #[arg(long, value_name = "N", env = "TESSERA_HISTORY_LEN", default_value_t = 10_000)]
    pub(crate) history_len: usize,

    /// How many instances one registrant may have: a token, a certificate, or the address of a peer that shows neither; 0:
    /// any number. Who shows neither from this machine itself has no limit
    #[arg(
        long,
        value_name = "N",
        env = "TESSERA_MAX_INSTANCES_PER_PRINCIPAL",
        default_value_t = 100_000
    )]
    pub(crate) max_instances_per_principal: usize,

    /// Ranges of addresses where instances that ask for it may be probed, beyond the address that their registration
    /// came from, for example 10.0.0.0/8
    #[arg(long, value_name = "CIDR,…", env = "TESSERA_PROBE_ALLOW", value_delimiter = ',')]
    pub(crate) probe_allow: Vec<registry_svc::Cidr>,

    #[command(flatten)]
    pub(crate) store_tls: StoreTlsArgs,

    #[command(flatten)]
    pub(crate) leases: LeaseArgs,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// What the registry does with those that fall silent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Leases")]
pub(crate) struct LeaseArgs {
    /// Expire what is silent in any case, also where most of a service falls silent at once
    #[arg(long, env = "TESSERA_NO_SELF_PRESERVATION", value_parser = values::switch())]
    pub(crate) no_self_preservation: bool,

    /// Percent of a service's instances in a zone that may expire in a window; beyond, expiry slows to a trickle
    #[arg(long, value_name = "PERCENT", env = "TESSERA_PROTECTION_SHARE")]
    #[arg(default_value_t = 15, value_parser = value_parser!(u8).range(1..=100))]
    pub(crate) protection_share: u8,

    /// The window that this share is of
    #[arg(long, value_name = "DURATION", env = "TESSERA_PROTECTION_WINDOW")]
    #[arg(default_value = "60s", allow_hyphen_values = true, value_parser = values::positive_duration)]
    pub(crate) protection_window: Duration,

    /// How long what is silent may be held back by that
    #[arg(long, value_name = "DURATION", env = "TESSERA_PROTECTION_MAX")]
    #[arg(default_value = "15m", allow_hyphen_values = true, value_parser = values::duration)]
    pub(crate) protection_max: Duration,

    /// How long beyond one heartbeat the leases of a broken KeepAlive stream may stay silent; 0s: as long as any
    #[arg(long, value_name = "DURATION", env = "TESSERA_SUSPECT_AFTER")]
    #[arg(default_value = "2s", allow_hyphen_values = true, value_parser = values::duration)]
    pub(crate) suspect_after: Duration,
}

/// `tessera ticket`
#[derive(Debug, Args)]
#[command(
    after_help = examples::TICKET
)]
pub(crate) struct TicketArgs {
    /// Where the service is served: IP:PORT, or :PORT for all interfaces; port 0 takes any free one
    #[arg(long, value_name = "ADDR", env = "TESSERA_LISTEN", default_value = "127.0.0.1:7101")]
    pub(crate) listen: Listen,

    /// Where events and seats are kept: an SQLite file, made when missing, which the instances of one machine may share; or a
    /// PostgreSQL database, `postgres://USER:PASSWORD@HOST/DATABASE`, which any number may; or @FILE with that, which is
    /// where a password belongs [default: tickets.db in --data-dir]
    #[arg(long, value_name = "STORE", env = "TESSERA_STORE", hide_env_values = true)]
    pub(crate) store: Option<String>,

    /// Folder of the store. Beside the store, `discovery` keeps the user services last known, who are asked for keys
    #[arg(long, value_name = "DIR", env = "TESSERA_DATA_DIR", default_value = "./tessera-data")]
    pub(crate) data_dir: PathBuf,

    /// Where events go besides: NATS with JetStream, `nats://USER:PASSWORD@HOST:PORT` or `tls://…`, or @FILE with that, which is
    /// where a password belongs; the same for all instances of a store [default: nowhere else]
    #[arg(long, value_name = "URL", env = "TESSERA_EVENTS", hide_env_values = true)]
    pub(crate) events: Option<String>,

    /// File of the public keys that access tokens are signed with (`tessera account keys` writes it), read again when it
    /// changes [default: the user service is asked for them]
    #[arg(long, value_name = "FILE", env = "TESSERA_IDENTITY_KEYS", conflicts_with = "open")]
    pub(crate) identity_keys: Option<PathBuf>,

    /// Ask nobody who they are: whoever reaches it may do everything. On this machine only, unless --insecure is given too
    #[arg(long, env = "TESSERA_OPEN", value_parser = values::switch())]
    pub(crate) open: bool,

    /// So many holds are made at once; who comes beyond it waits in line
    #[arg(long, value_name = "N", env = "TESSERA_HOLD_PLACES", default_value = "64")]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) hold_places: u32,

    /// Create a small programme of events where the store has none
    #[arg(long, env = "TESSERA_SEED", value_parser = values::switch())]
    pub(crate) seed: bool,

    /// Address that callers are told: HOST:PORT [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", env = "TESSERA_ADVERTISE")]
    pub(crate) advertise: Option<String>,

    #[command(flatten)]
    pub(crate) member: MemberArgs,

    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// `tessera user`
#[derive(Debug, Args)]
#[command(
    after_help = examples::USER
)]
pub(crate) struct UserArgs {
    /// Where the service is served: IP:PORT, or :PORT for all interfaces; port 0 takes any free one
    #[arg(long, value_name = "ADDR", env = "TESSERA_LISTEN", default_value = "127.0.0.1:7200")]
    pub(crate) listen: Listen,

    /// Where accounts and orders are kept: an SQLite file, made when missing; or a PostgreSQL database,
    /// `postgres://USER:PASSWORD@HOST/DATABASE`; or @FILE with that, which is where a password belongs [default: users.db
    /// in --data-dir]
    #[arg(long, value_name = "STORE", env = "TESSERA_STORE", hide_env_values = true)]
    pub(crate) store: Option<String>,

    /// Folder of the store. Beside the store, `discovery` keeps the ticket instances last known, for a start without a registry
    #[arg(long, value_name = "DIR", env = "TESSERA_DATA_DIR", default_value = "./tessera-data")]
    pub(crate) data_dir: PathBuf,

    /// Where events go besides: NATS with JetStream, `nats://USER:PASSWORD@HOST:PORT` or `tls://…`, or @FILE with that, which is
    /// where a password belongs; the same for all instances of a store [default: nowhere else]
    #[arg(long, value_name = "URL", env = "TESSERA_EVENTS", hide_env_values = true)]
    pub(crate) events: Option<String>,

    /// Address that callers are told: HOST:PORT [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", env = "TESSERA_ADVERTISE")]
    pub(crate) advertise: Option<String>,

    /// How the ticket service is called, as a gRPC service config in JSON; followed while it changes
    #[arg(long, value_name = "FILE", env = "TESSERA_SERVICE_CONFIG")]
    pub(crate) service_config: Option<PathBuf>,

    /// How long seats are held for a purchase; one that takes longer to be paid gets its money back. 1s to 15m
    #[arg(long, value_name = "DURATION", env = "TESSERA_HOLD_TTL")]
    #[arg(default_value = "2m", allow_hyphen_values = true, value_parser = values::hold_ttl)]
    pub(crate) hold_ttl: Duration,

    /// How long a purchase stays this process's without a sign of life of it, before another one on the same store takes it up.
    /// 100ms to 10m
    #[arg(long, value_name = "DURATION", env = "TESSERA_PURCHASE_LEASE")]
    #[arg(default_value = "5s", allow_hyphen_values = true, value_parser = values::purchase_lease)]
    pub(crate) purchase_lease: Duration,

    #[command(flatten)]
    pub(crate) member: MemberArgs,

    #[command(flatten)]
    pub(crate) host: HostArgs,
}
