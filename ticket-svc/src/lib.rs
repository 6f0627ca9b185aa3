//! The ticket service: events and their seats, held for a while, then sold or given back. A seat is never sold twice.
//!
//! Read in this order: `domain` has the rules (pure), `store` makes them hold over several processes on one SQLite file or
//! PostgreSQL database, `access` is the table of who may call what and `published` where the keys for it come from, `api` speaks
//! `tessera.ticket.v1`, `error` maps to statuses, and [`Tickets::start`] is the life of a process.
//! Beside them: `room` is the line in front of HoldSeats, `availability` what watchers are told, `sweeper` tidies expired holds away,
//! `events` are what others are told, `journal` hears them, [`code`] is what is printed on tickets.
//!
//! How it never sells a seat twice: every change of a seat is one conditional write on (seat, version); a hold carries a fencing
//! token that grows, and confirming is conditional on it; a unique index over the good tickets of each seat is the last line. An
//! expired hold counts as free wherever seats are counted, picked or taken, whether or not it was swept. `docs/ticket-svc.md`
//! numbers the invariants.

mod access;
mod api;
mod availability;
pub mod code;
mod config;
mod domain;
mod error;
mod events;
mod failpoints;
mod journal;
mod pass;
mod published;
mod room;
mod seed;
mod service;
mod store;
mod sweeper;

pub use outbox::{InvalidNatsUrl, NatsUrl};
pub use service_store::{Location, OpenError};

pub use self::{
    access::Access,
    config::Config,
    failpoints::FAILPOINTS,
    service::{Running, StartError, StopReport, Tickets},
};
