//! The registry.
mod catalog;
mod history;
mod hub;
mod limits;
mod model;
mod store;
