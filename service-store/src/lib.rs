//! What a service that keeps records in SQL has in common with the next one.
//!
//! [`Database`] is where a service keeps its records, an SQLite file or a PostgreSQL database: opened and brought up to date by
//! however many processes start at once, written by transactions ([`Write`]) that wait no longer than their call can, and
//! that are made again when they met another one. Statements are written once for both. The rest is what such a service
//! reads from requests and keeps in rows. It is pure, so that domains may use it: nothing of it awaits or knows of
//! SQL or gRPC, and only [`SystemClock`] reads a clock.
//!
//! - [`Violations`] collect what is wrong with a request, [`Page`] is the part of a list that it asks for;
//! - [`Fingerprint`] tells a repeated request from another one with the same id;
//! - [`Text`], [`Money`] and [`Timestamp`] are values with limits;
//! - [`failpoint`] is a place where a test lets the process die.
//!
//! Not here: queries, rules, refusals and how errors map to statuses. Those are each service's own, also where they look
//! alike. The registry keeps no SQL and does not use this.

mod clock;
mod database;
mod failpoint;
mod fingerprint;
mod money;
mod page;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod time;
mod violations;

#[cfg(debug_assertions)]
pub use self::failpoint::failpoints_in;
pub use self::{
    clock::{Clock, SystemClock},
    database::{
        Conflict, Connection, Database, Dialect, Location, OpenError, Schema, Write, for_update, is_busy, is_conflict,
    },
    failpoint::failpoint,
    fingerprint::{Fingerprint, FingerprintBuilder},
    money::{Currency, Money, SumError},
    page::{Page, PageSizes, TimeCursor},
    text::{Invalid, OutOfLimits, Text},
    time::Timestamp,
    violations::Violations,
};
