//! What can be set, with the defaults.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    Access, Cidr, EtcdUrl,
    catalog::{Capacity, Protection, Settings},
    driver, limits,
    model::ReplicaId,
    running::StartError,
};

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreLocation {
    /// In a file in the data directory, for this registry alone.
    #[default]
    Embedded,
    /// In an etcd cluster, which any number of registries share; `etcds://` is dialled with [`Config::store_tls`].
    Etcd(EtcdUrl),
}

/// How a registry is set up. All of it has a default: see [`Config::default`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Where RPCs are served. Default: 127.0.0.1:7000. Port 0: any free one.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are served. Default: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Speaks TLS. Whoever shows a certificate registers only what that names. Default: without.
    pub tls: Option<tls::Server>,
    /// Where the state is kept. Default: in `data_dir`.
    pub store: StoreLocation,
    /// With what an etcd of `etcds://` is dialled: whom to believe, and the certificate to show where etcd asks for one. It is
    /// the host of each member that etcd's certificate has to name. Default: nothing, with which `etcds://` does not start.
    pub store_tls: Option<tls::Client>,
    /// The directory of the embedded store; made if it is not there. One registry at a time may use it. Default:
    /// `data/registry`.
    pub data_dir: PathBuf,
    /// The id in this registry's responses. Default: `registry-` and a random number.
    pub instance_id: Option<String>,
    /// Revisions that a watch can resume from, at least 1. Default: 10,000. Survives restarts.
    pub history_len: usize,
    /// Bytes of history, in memory and, roughly the same, on disk; the older part goes first. Default: 64 MiB.
    pub history_bytes: usize,
    /// How long a watch is silent before it is told a bookmark; each watch takes it times 0.9 to 1.1. Default: 30 s.
    pub bookmark_interval: Duration,
    /// Whether expiry is slowed down where too many fall silent at once. Default: on.
    pub self_preservation: bool,
    /// Percent of a service's instances in a zone that may lapse in a window without being slowed down, 1 to 100. Default: 15.
    pub protection_share: usize,
    /// The window. Default: 60 s.
    pub protection_window: Duration,
    /// How long self-preservation may hold back a lease that is overdue. Default: 15 min.
    pub protection_max: Duration,
    /// What the leases of a KeepAlive stream that broke are given beyond one heartbeat interval, to be renewed by another way;
    /// `None`: the full time that they have left. Default: 2 s.
    pub suspect_after: Option<Duration>,
    /// What the leases of a replica that has died are given beyond their time to live, and a lease that moves to another
    /// replica when it does. Default: 10 s.
    pub orphan_grace: Duration,
    /// How long open calls may take to finish when the registry stops. Default: 10 s.
    pub drain_grace: Duration,
    /// Who may use the registry. Default: everybody, so that one that serves beyond its machine should be given another one.
    pub access: Access,
    /// Instances that one registrant may have: a token, a certificate, or the address (of IPv6 the /64) of a peer that shows
    /// neither; 0: any number. Who shows neither from this machine itself has no limit. Default: 100,000.
    pub max_instances_per_principal: usize,
    /// Where instances that ask for it are probed, beyond the address that their registration came from. Default: nowhere.
    pub probe_allow: Vec<Cidr>,
    /// Probes endpoints with TLS, which have to be the service's by their certificate. Default: none is probed.
    pub probe_tls: Option<tls::Client>,
}

impl Default for Config {
    fn default() -> Self {
        let leases = Settings::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7000)),
            admin_listen: None,
            tls: None,
            store: StoreLocation::Embedded,
            store_tls: None,
            data_dir: PathBuf::from("data/registry"),
            instance_id: None,
            history_len: 10_000,
            history_bytes: 64 * 1024 * 1024,
            bookmark_interval: Duration::from_secs(30),
            self_preservation: leases.protection.enabled,
            protection_share: leases.protection.share_percent,
            protection_window: leases.protection.window,
            protection_max: leases.protection.max,
            suspect_after: driver::Settings::default().suspect_after,
            orphan_grace: leases.orphan_grace,
            drain_grace: Duration::from_secs(10),
            access: Access::Open,
            max_instances_per_principal: limits::INSTANCES_PER_PRINCIPAL,
            probe_allow: Vec::new(),
            probe_tls: None,
        }
    }
}

impl Config {
    /// What the catalog of this replica is to go by.
    pub(crate) fn leases(&self, own: ReplicaId) -> Result<Settings, StartError> {
        if !(1..=100).contains(&self.protection_share) {
            return Err(StartError::Setting {
                setting: "protection_share",
                rule: "1 to 100 percent",
            });
        }
        if self.protection_window.is_zero() {
            return Err(StartError::Setting {
                setting: "protection_window",
                rule: "above 0",
            });
        }
        let capacity = Capacity {
            instances_of_registrant: (self.max_instances_per_principal > 0).then_some(self.max_instances_per_principal),
            ..Capacity::default()
        };
        Ok(Settings {
            own,
            capacity,
            orphan_grace: self.orphan_grace,
            protection: Protection {
                enabled: self.self_preservation,
                share_percent: self.protection_share,
                window: self.protection_window,
                max: self.protection_max,
            },
        })
    }
}
