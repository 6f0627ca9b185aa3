//! Who calls, and what they may call: signing keys, the access tokens that are signed with them, and the gate's table.
//!
//! Read in this order: `keys` are Ed25519 key pairs and what is published of them, `roles` are what a caller can be, `token`
//! is the access token (a JWS of RFC 7515 with EdDSA, RFC 8037), `caller` is who a valid one says that calls, `gate` decides
//! about an RPC by its path, and `service` are the tokens that services show to each other.
//!
//! Not here: where keys are kept, how they are fetched, sessions and passwords (`user-svc`), and statuses: whoever serves
//! turns a [`Refused`] into one. Nothing here reads a clock; time is an argument, in seconds since 1970.

mod caller;
pub mod gate;
pub mod keys;
mod roles;
mod service;
mod token;

pub use self::{
    caller::Caller,
    gate::{Line, Refused, Rule},
    keys::{KeyError, KeyPair, KeySet, Kid, PublicKey, Signature},
    roles::Roles,
    service::ServiceToken,
    token::{AccessToken, Claims, ISSUER, MAX_TOKEN, PLATFORM, Subject, TokenError, Verifier},
};
