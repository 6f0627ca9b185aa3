//! What a seat, a price and a hold are, and the rules between them.
//!
//! Pure: nothing here awaits, reads a clock, draws randomness, logs, or knows of SQL or gRPC. Time and ids are arguments.

pub(crate) mod event;
pub(crate) mod hold;
pub(crate) mod line;
pub(crate) mod map;
pub(crate) mod pick;
pub(crate) mod plan;
pub(crate) mod price;
pub(crate) mod refund;
pub(crate) mod refusal;
pub(crate) mod sale;
pub(crate) mod search;
pub(crate) mod seat;
#[cfg(test)]
mod simulation;
pub(crate) mod stock;
pub(crate) mod venue;
