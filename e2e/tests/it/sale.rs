//! Never oversold, never lost: what the platform promises a buyer, while it is crowded, killed, paused, cut off and repeated.
//!
//! The buyers keep books (`e2e::market`), and each test ends with them held against the services.

mod crashes;
mod crowd;
mod network;
