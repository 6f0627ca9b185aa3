//! TLS for every server and client, and who a certificate belongs to.
//!
//! ```no_run
//! # async fn example(socket: tokio::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//! let tls = tls::Tls::load(tls::Settings {
//!     certificate: Some("certs/ticket-svc.crt".into()),
//!     key: Some("certs/ticket-svc.key".into()),
//!     authorities: Some("certs/ca.crt".into()),
//!     client_auth: tls::ClientAuth::Required,
//! })?;
//! let _watching = tls.watch()?; // the files may change from now on
//! if let Some(client) = tls.client() {
//!     let ticket = tls::Expected::service("default", "ticket-svc");
//!     let _stream = client.connect(socket, "10.0.0.7", &ticket).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Tls`] is made of three files; [`Server`] and [`Client`] are its two sides, and follow the files when they change.
//! [`Identity`] is what a verified certificate says of its holder: a SPIFFE id, names, addresses. Whether that is enough for
//! what the holder wants is decided by whoever asks, except for one thing: a client that says whom it [`Expected`] speaks to
//! nobody else.
//!
//! rustls on `ring`, TLS 1.3 and 1.2 (decision 0020). No session is ever resumed: a certificate that is no longer good must not
//! live on in a ticket. No key is ever logged.
//!
//! Not here: listening and dialling, deadlines (whoever calls has them), and what is spoken on a connection.

mod files;
mod handle;
mod reload;

mod client;
mod hello;
mod server;
mod verify;

mod identity;
mod spiffe;

#[cfg(feature = "issue")]
pub mod issue;

pub use client::{Client, ConnectError};
pub use files::{ClientAuth, File, LoadError, Settings};
pub use handle::Tls;
pub use identity::{Identity, IdentityError};
pub use reload::Watching;
pub use server::{Accepted, Acceptor, HandshakeError, Hello, Listener, Server};
pub use spiffe::{InvalidSpiffeId, SpiffeId};
pub use verify::Expected;

/// A connection as a client has it.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;
/// A connection as a server has it.
pub type ServerStream<IO> = tokio_rustls::server::TlsStream<IO>;
