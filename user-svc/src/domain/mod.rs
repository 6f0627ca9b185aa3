//! What an account, a wallet and an order are, and the rules between them.
//!
//! Pure: nothing here awaits, reads a clock, draws randomness, logs, or knows of SQL or gRPC. Time and ids are arguments.

pub(crate) mod account;
pub(crate) mod backoff;
pub(crate) mod ledger;
pub(crate) mod order;
pub(crate) mod refusal;
pub(crate) mod saga;
pub(crate) mod session;
pub(crate) mod signing;
pub(crate) mod sold_out;
pub(crate) mod throttle;
pub(crate) mod wallet;
