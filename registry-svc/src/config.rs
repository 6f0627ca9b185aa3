//! What can be set, with the defaults.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// How a registry is set up. All of it has a default: see [`Config::default`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Where RPCs are served. Default: 127.0.0.1:7000. Port 0: any free one.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are served. Default: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Where the state is kept; made if it is not there. One registry at a time may use it. Default: `data/registry`.
    pub data_dir: PathBuf,
    /// The id in this registry's responses. Default: `registry-` and a random number.
    pub instance_id: Option<String>,
    /// Revisions that a watch can resume from, at least 1. Default: 10,000. Survives restarts.
    pub history_len: usize,
    /// Bytes of history, in memory and, roughly the same, on disk; the older part goes first. Default: 64 MiB.
    pub history_bytes: usize,
    /// How long a watch is silent before it is told a bookmark; each watch takes it times 0.9 to 1.1. Default: 30 s.
    pub bookmark_interval: Duration,
    /// How long open calls may take to finish when the registry stops. Default: 10 s.
    pub drain_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7000)),
            admin_listen: None,
            data_dir: PathBuf::from("data/registry"),
            instance_id: None,
            history_len: 10_000,
            history_bytes: 64 * 1024 * 1024,
            bookmark_interval: Duration::from_secs(30),
            drain_grace: Duration::from_secs(10),
        }
    }
}
