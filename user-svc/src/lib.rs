//! The user service: accounts with a wallet, and the orders that they pay for.
//!
//! Read in this order: `domain` has the rules (pure; `domain::saga` is the purchase as a state machine), `store` keeps
//! accounts, the ledger and orders in SQLite or PostgreSQL, `purchases` drives the state machine over `tickets`, which speaks to the ticket
//! service, `accounts`, `passwords` and `attempts` know who is who, `sessions` and `signing` give out tokens that say so,
//! `access` is the table of who may call what, `api` speaks `tessera.user.v1`, `error` maps to statuses,
//! `events` are what others are told, `mail` hears them, and
//! [`Users::start`] is the life of a process.
//!
//! How money and seats end on the same side: each step of a purchase is recorded before it is performed and can be performed
//! again with the same ids; the debit, its ledger entry and the next step are one transaction; what is paid is confirmed for
//! as long as it takes, and refunded, once, only when the ticket service itself says that the hold is gone.

mod access;
mod accounts;
mod api;
mod attempts;
mod audit;
mod config;
mod domain;
mod error;
mod events;
mod failpoints;
mod mail;
pub mod offline;
mod passwords;
mod purchases;
mod service;
mod sessions;
mod signing;
mod store;
mod tickets;
mod trace;

pub use outbox::{InvalidNatsUrl, NatsUrl};
pub use service_store::{Location, OpenError};

pub use self::{
    audit::{AuditError, Auditor, Books, Totals, audit},
    config::Config,
    failpoints::FAILPOINTS,
    service::{Running, StartError, StopReport, Users},
};
