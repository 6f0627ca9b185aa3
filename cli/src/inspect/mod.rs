//! What one running process is asked at its admin port: whom it calls (`tessera lb`), what it logs (`tessera log-level`). Not here:
//! what the registry knows of it.

mod admin;
pub(crate) mod balance;
pub(crate) mod log_level;
