//! The binary as a shell sees it: exit codes, one line of stderr, and nothing that hangs. Whole clusters are the e2e
//! crate's.
#![allow(clippy::unwrap_used)]

mod agent;
mod backup;
#[path = "../../../registry-svc/tests/it/etcd_server.rs"]
mod etcd_server;
mod help;
mod lb;
mod role;
mod run;
mod store;
mod ticket_code;
mod token;
mod unreachable;
mod up;
mod usage;
