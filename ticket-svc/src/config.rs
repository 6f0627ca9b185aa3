//! How one ticket-svc process is set up. Plain values; nothing is read from the environment here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::access::Access;
use outbox::NatsUrl;
use service_store::Location;

/// The settings of one ticket-svc process. [`Config::default`] is the demo's first instance, unregistered.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Port 0 takes any free one. Default: `127.0.0.1:7101`.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are served, if at all. Default: `127.0.0.1:9101`.
    pub admin_listen: Option<SocketAddr>,
    /// The `host:port` that others reach it by. Default: the address it listens on.
    pub advertise: Option<String>,
    /// URLs of the registry's replicas. Empty: not registered, which tests and single processes want. Default: empty.
    pub registry: Vec<String>,
    /// Speaks TLS: it is registered and called with it, and calls with it. Default: without.
    pub tls: Option<tls::Tls>,
    /// Where it keeps its records: an SQLite file (a path or an `sqlite:` URL), which the instances of one machine may share, or a
    /// PostgreSQL database (`postgres://USER:PASSWORD@HOST/DATABASE`), which any number may. Default: `tickets.db`.
    pub store: Location,
    /// Where events go, beside the subscribers of the process: the same for all instances of a store. Default: nowhere else.
    pub events: Option<NatsUrl>,
    /// What is shown to the registry, where it lets nobody in without. Default: nothing.
    pub token: Option<registry_client::Token>,
    /// Whether the token may be sent without TLS to a registry on another machine. Default: no.
    pub token_in_the_clear: bool,
    /// How it knows who calls. Default: by the tokens of the user service, whose keys it asks for; that takes a registry.
    pub access: Access,
    /// Where the last good set of user services is kept, so that a start while the registry is away can ask them for keys. Default:
    /// nothing is kept.
    pub discovery_cache: Option<PathBuf>,
    /// The registry's namespace to appear in. Default: `default`.
    pub namespace: String,
    /// The zone it runs in; empty if that means nothing. Default: empty.
    pub zone: String,
    /// Its name in the registry, traces and the `tessera-instance` header. Default: one is made.
    pub instance_id: Option<String>,
    /// On shutdown, how long to wait at the most until every caller has acknowledged that it drains, before connections are closed.
    /// At most 5 min. Default: 5 s.
    pub drain_linger: Duration,
    /// On shutdown, how long calls in flight may take before they are cut off. Default: 10 s.
    pub drain_grace: Duration,
    /// How often it tells the registry that it lives. Default: 5 s.
    pub heartbeat_interval: Duration,
    /// How many heartbeats may be missed before the registry drops it. Default: 3.
    pub heartbeat_misses: u32,
    /// So many HoldSeats calls are at the store at once; more of them wait in line. Default: 64.
    pub hold_places: usize,
    /// Sow a small believable programme of events when the store has none. Default: no.
    pub seed: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7101)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 9101))),
            advertise: None,
            registry: Vec::new(),
            tls: None,
            store: Location::from("tickets.db"),
            events: None,
            token: None,
            token_in_the_clear: false,
            access: Access::default(),
            discovery_cache: None,
            namespace: "default".to_owned(),
            zone: String::new(),
            instance_id: None,
            drain_linger: Duration::from_secs(5),
            drain_grace: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(5),
            heartbeat_misses: 3,
            hold_places: 64,
            seed: false,
        }
    }
}
