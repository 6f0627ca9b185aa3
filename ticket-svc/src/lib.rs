//! Events and their seats.
mod clock;
mod domain;
mod store;
