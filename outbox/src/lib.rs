//! Events: written in the same transaction as what they tell, delivered at least once, in order per key.
//!
//! A service calls [`record`] within its [`Write`](service_store::Write); a [`Dispatcher`] of each process takes due events in batches and
//! hands them to the [`Subscribers`] of this process, and then to a [`Broker`], if there is one. Several processes on one store
//! share the work: a batch is claimed by a conditional write and for a time.
//!
//! **Order.** Only the first undelivered event of a key is ever taken, so that a later one follows when the earlier one is
//! delivered, whoever delivers it and however often that fails. An event that fails for good becomes a dead letter and holds
//! its key back until it is replayed; other keys go on. What orders two events of a key in the first place is the writer's lock
//! on the row that the key names: write that row first, then record.
//!
//! **At least once.** A process may die after the hand-over and before it is noted. A consumer is idempotent by
//! [`first_time`], in the transaction of its effect.
//!
//! **A broker that is away** is not an event's fault: events are parked until it is back, however long that takes, and what
//! subscribers of this process want they have had by then.
//!
//! What failed for good an operator lists, replays or drops, by [`EventsApi`], which each service serves for its own store.
//!
//! The tables are here ([`schema`]); a service takes them up among its own.

mod api;
mod dead;
mod dispatcher;
mod event;
mod inbox;
mod line;
mod metrics;
mod nats;
mod parked;
mod schema;
mod sink;
mod table;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::{
    api::{EventsApi, SERVICE_NAME, WhoCalls},
    dispatcher::{Bell, Destinations, Dispatcher, Settings},
    event::{Event, Recorded},
    inbox::first_time,
    nats::{InvalidNatsUrl, Nats, NatsUrl, STREAM, SUBJECTS, UnusableNats},
    schema::schema,
    sink::{Broker, NotDelivered, NotTaken, Subscriber, Subscribers},
    table::record,
};

/// The places where crash tests let a process die. Both services have them.
pub const FAILPOINTS: &[&str] = &["outbox.send.after", "outbox.send.before"];

#[cfg(test)]
mod tests;
