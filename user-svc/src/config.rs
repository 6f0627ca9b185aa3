//! How one user-svc process is set up. Plain values; nothing is read from the environment here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use outbox::NatsUrl;
use service_store::Location;

/// The settings of one user-svc process. [`Config::default`] is the demo's instance, without a registry.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Port 0 takes any free one. Default: `127.0.0.1:7200`.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are served, if at all. Default: `127.0.0.1:9200`.
    pub admin_listen: Option<SocketAddr>,
    /// The `host:port` that others reach it by. Default: the address it listens on.
    pub advertise: Option<String>,
    /// URLs of the registry's replicas. Empty: not registered, and `ticket_addresses` must be given. Default: empty.
    pub registry: Vec<String>,
    /// The ticket service's addresses (`host:port`), for those who have no registry. Not empty: used instead of it.
    /// Default: empty.
    pub ticket_addresses: Vec<String>,
    /// A file that says how the ticket service is called: a gRPC service config (`docs/service-config.md`), followed while it
    /// changes. One that cannot be used at the start is an error. Default: none.
    pub service_config: Option<PathBuf>,
    /// Where the last good set of ticket instances is kept, so that a start while the registry is away can call them. Default:
    /// nothing is kept.
    pub discovery_cache: Option<PathBuf>,
    /// Speaks TLS: it is registered and called with it, and calls with it. Default: without.
    pub tls: Option<tls::Tls>,
    /// Where it keeps its records: an SQLite file (a path or an `sqlite:` URL), which the instances of one machine may share, or a
    /// PostgreSQL database (`postgres://USER:PASSWORD@HOST/DATABASE`), which any number may. Default: `users.db`.
    pub store: Location,
    /// Where events go, beside the subscribers of the process: the same for all instances of a store. Default: nowhere else.
    pub events: Option<NatsUrl>,
    /// What is shown to the registry, where it lets nobody in without. Default: nothing.
    pub token: Option<registry_client::Token>,
    /// Whether the token may be sent without TLS to a registry on another machine. Default: no.
    pub token_in_the_clear: bool,
    /// The registry's namespace to appear in, and to look for the ticket service in. Default: `default`.
    pub namespace: String,
    /// The zone it runs in; empty if that means nothing. Default: empty.
    pub zone: String,
    /// Its name in the registry, traces and the `tessera-instance` header. Default: one is made.
    pub instance_id: Option<String>,
    /// On shutdown, how long to wait at the most until every caller has acknowledged that it drains, before connections are closed.
    /// At most 5 min. Default: 5 s.
    pub drain_linger: Duration,
    /// On shutdown, how long calls and purchases may take before they are cut off. Default: 10 s.
    pub drain_grace: Duration,
    /// How often it tells the registry that it lives. Default: 5 s.
    pub heartbeat_interval: Duration,
    /// How many heartbeats may be missed before the registry drops it. Default: 3.
    pub heartbeat_misses: u32,
    /// How long an access token is good. Default: 15 min.
    pub token_lifetime: Duration,
    /// How long after it was refreshed last a session ends; 90 days after it was opened it ends in any case. Default: 14 days.
    pub session_lifetime: Duration,
    /// How long a key signs access tokens before the next one does. Default: 24 h.
    pub key_rotation: Duration,
    /// How long a purchase stays claimed by this process without a sign of life of it, before another one on the same store takes
    /// it up; more than a write of the store takes. Default: 5 s.
    pub purchase_lease: Duration,
    /// How many purchases may be under way at once, 1 or more. Default: 256; each takes some KB, and five short
    /// writes of the store.
    pub max_purchases: usize,
    /// How long seats are held for a purchase, 1 s to 15 min by the ticket service's clock: a purchase that takes longer to be
    /// paid and confirmed gets its money back. Default: 2 min.
    pub hold_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7200)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 9200))),
            advertise: None,
            registry: Vec::new(),
            tls: None,
            ticket_addresses: Vec::new(),
            service_config: None,
            discovery_cache: None,
            store: Location::from("users.db"),
            events: None,
            token: None,
            token_in_the_clear: false,
            namespace: "default".to_owned(),
            zone: String::new(),
            instance_id: None,
            drain_linger: Duration::from_secs(5),
            drain_grace: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(5),
            heartbeat_misses: 3,
            token_lifetime: Duration::from_secs(15 * 60),
            session_lifetime: Duration::from_secs(14 * 24 * 60 * 60),
            key_rotation: Duration::from_secs(24 * 60 * 60),
            purchase_lease: Duration::from_secs(5),
            max_purchases: 256,
            hold_ttl: Duration::from_secs(120),
        }
    }
}
