//! A bound server that does not serve yet.

use std::{io, net::SocketAddr, sync::Arc};

use rand::RngExt as _;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::{
    admin,
    config::Config,
    connection::{self, InFlight},
    drain::DrainSignal,
    layers,
    listener::{self, Accepting, Handshakes},
    reflection::{self, Described},
    running::{Parts, Running},
};

/// Listeners that are bound: the addresses are real, connections wait in the kernel until [`Host::serve`].
#[derive(Debug)]
pub struct Host {
    config: Config,
    instance_id: String,
    listener: TcpListener,
    local_addr: SocketAddr,
    admin: Option<(TcpListener, SocketAddr)>,
    drain: DrainSignal,
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", hint(.source))]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the operating system says.
    #[source]
    pub source: io::Error,
}

fn hint(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another process; stop it or choose another address".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need privileges".into(),
        _ => source.to_string(),
    }
}

impl Host {
    /// Binds the listener and, if configured, the admin listener.
    ///
    /// # Errors
    /// [`BindError`] with the address that cannot be had and why.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let (listener, local_addr) = bind(config.listen).await?;
        let admin = match config.admin {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let instance_id = match &config.instance_id {
            Some(id) => id.clone(),
            None => format!("{}-{:08x}", config.name, rand::rng().random::<u32>()),
        };
        Ok(Self {
            config,
            instance_id,
            listener,
            local_addr,
            admin,
            drain: DrainSignal::default(),
        })
    }

    /// The address that was bound, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The admin address that was bound, with the real port.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// The id that responses carry.
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// Fires when draining starts; for services that hold long streams.
    pub fn drain_signal(&self) -> DrainSignal {
        self.drain.clone()
    }

    /// Starts to accept. Health says NOT_SERVING until [`Running::set_serving`].
    ///
    /// `file_descriptor_sets` (encoded `google.protobuf.FileDescriptorSet`s with their imports) feed reflection, health and
    /// error messages; services they describe but `routes` lacks are left out. Over TLS reflection answers those who have shown a
    /// certificate, unless a gate decides.
    ///
    /// Must be called within a tokio runtime.
    pub fn serve(self, routes: Routes, file_descriptor_sets: &[&'static [u8]]) -> Running {
        // A gate decides about every path, these included.
        let described = match (&self.config.tls, &self.config.gate) {
            (Some(_), None) => Described::ToTheKnown,
            (None, _) | (_, Some(_)) => Described::ToAll,
        };
        let furnished = reflection::furnish(routes, file_descriptor_sets, described);
        let in_flight = InFlight::default();
        in_flight.measure();
        if let Some(server) = self.config.tls.clone() {
            measure_certificate(server);
        }
        let stack = layers::stack(
            furnished.routes,
            Arc::new(furnished.catalogue),
            layers::Settings {
                instance_id: self.instance_id.clone(),
                default_deadline: self.config.default_deadline,
                message_timeout: self.config.limits.message_timeout,
                drain: self.drain.clone(),
                in_flight: in_flight.clone(),
                gate: self.config.gate.clone(),
                quiet: self.config.quiet,
            },
        );
        let limits = &self.config.limits;
        let handshakes = |listener, name| {
            let server = self.config.tls.as_ref()?;
            Some(Handshakes::new(server.acceptor(listener), name, limits.max_handshakes))
        };
        let serving = Accepting::start(
            self.listener,
            listener::Settings {
                name: "grpc",
                max_connections: listener::cap(limits.max_connections),
                max_connections_per_peer: limits.max_connections_per_peer,
            },
            connection::grpc(stack, &in_flight, limits, handshakes(tls::Listener::Grpc, "grpc")),
        );
        let health = furnished.health;
        let admin = self.admin.map(|(listener, address)| {
            let accepting = Accepting::start(
                listener,
                listener::Settings {
                    name: "admin",
                    max_connections: admin::MAX_CONNECTIONS,
                    max_connections_per_peer: admin::MAX_CONNECTIONS,
                },
                admin::connections(
                    admin::Shown::new(health.clone(), self.config.pages.clone()),
                    handshakes(tls::Listener::Admin, "admin"),
                    limits.preface_timeout,
                    limits.write_timeout(),
                ),
            );
            (accepting, address)
        });
        Running::new(Parts {
            local_addr: self.local_addr,
            instance_id: self.instance_id,
            health,
            drain: self.drain,
            in_flight,
            serving,
            admin,
        })
    }
}

/// Shows from now on when the certificate ends that is shown to new connections.
fn measure_certificate(server: tls::Server) {
    let ends = telemetry::metrics::gauge(
        "tessera_tls_certificate_not_after_seconds",
        "When the certificate ends that new connections are shown, as Unix time",
        &[],
    )
    .with(&[]);
    telemetry::metrics::before_encode(move || ends.set(server.not_after() as f64));
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    };
    bound.await.map_err(|source| BindError { address, source })
}
