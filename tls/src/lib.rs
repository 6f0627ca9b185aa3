//! TLS for every server and client, and who a certificate belongs to.
//!
//! [`Identity`] is what a verified certificate says of its holder: a SPIFFE id, names, addresses. Whether that is enough for
//! what the holder wants is decided by whoever asks.
//!
//! Not here: sockets, and what is spoken on them.

mod identity;
mod spiffe;

pub use identity::{Identity, IdentityError};
pub use spiffe::{InvalidSpiffeId, SpiffeId};
