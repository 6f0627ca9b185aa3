//! Accounts.
mod clock;
mod domain;
mod store;
