//! How one monitor is set up. Plain values; nothing is read from the environment here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// The settings of one monitor. [`Config::default`] is the demo's, unregistered.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Port 0 takes any free one. Default: `127.0.0.1:8090`.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are served, if at all. Default: `127.0.0.1:10090`.
    pub admin_listen: Option<SocketAddr>,
    /// The `host:port` that others reach it by. Default: the address it listens on.
    pub advertise: Option<String>,
    /// URLs of the registry's replicas. Empty: not registered. Default: empty.
    pub registry: Vec<String>,
    /// Speaks TLS: it is registered and called with it. Default: without.
    pub tls: Option<tls::Tls>,
    /// Whether callers are known by client certificates that were verified: then each RPC needs one. Default: no.
    pub is_guarded: bool,
    /// The file of the time series, made when missing. Default: `monitor.redb`.
    pub store: PathBuf,
    /// Memory of points, in bytes; beyond it the oldest of the finest go. The file is a few times as large. Default: 128 MiB.
    pub max_bytes: usize,
    /// What is shown to the registry, where it lets nobody in without. Default: nothing.
    pub token: Option<registry_client::Token>,
    /// Whether the token may be sent without TLS to a registry on another machine. Default: no.
    pub token_in_the_clear: bool,
    /// The namespace to appear in, and whose services report. Default: `default`.
    pub namespace: String,
    /// The zone it runs in; empty if that means nothing. Default: empty.
    pub zone: String,
    /// Its name in the registry, traces and the `tessera-instance` header. Default: one is made.
    pub instance_id: Option<String>,
    /// On shutdown, how long to wait at the most until every caller has acknowledged that it drains. Default: 5 s.
    pub drain_linger: Duration,
    /// On shutdown, how long calls in flight may take before they are cut off. Default: 10 s.
    pub drain_grace: Duration,
    /// How often it tells the registry that it lives. Default: 5 s.
    pub heartbeat_interval: Duration,
    /// How many heartbeats may be missed before the registry drops it. Default: 3.
    pub heartbeat_misses: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8090)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 10_090))),
            advertise: None,
            registry: Vec::new(),
            tls: None,
            is_guarded: false,
            store: PathBuf::from("monitor.redb"),
            max_bytes: 128 << 20,
            token: None,
            token_in_the_clear: false,
            namespace: "default".to_owned(),
            zone: String::new(),
            instance_id: None,
            drain_linger: Duration::from_secs(5),
            drain_grace: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(5),
            heartbeat_misses: 3,
        }
    }
}
