//! The ticket service: events and their seats, held for a while, then sold or given back. A seat is never sold twice.
//!
//! Read in this order: `domain` has the rules (pure), `store` makes them hold over several processes on one SQLite file,
//! `access` is the table of who may call what and `published` where the keys for it come from, `api` speaks `tessera.ticket.v1`, `error` maps to statuses, and [`Tickets::start`] is the life of a process.
//!
//! How it never sells a seat twice: a seat is taken by one conditional write in a transaction that holds the file's write
//! lock; a hold carries a fencing token that grows, and confirming is conditional on it; tickets have a unique constraint on
//! (event, seat). An expired hold is not swept away: it counts as free wherever seats are counted, picked or taken.

mod access;
mod api;
mod config;
mod domain;
mod error;
mod failpoints;
mod published;
mod seed;
mod service;
mod store;

pub use service_store::{Location, OpenError};

pub use self::{
    access::Access,
    config::Config,
    failpoints::FAILPOINTS,
    service::{Running, StartError, StopReport, Tickets},
};
