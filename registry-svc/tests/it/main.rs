//! The registry as its clients see it: a real server on port 0, the generated client, a data directory of its own.
//!
//! One binary for all of them, for link time. Nothing here sleeps: waits poll a condition or read a stream, within bounds.

mod acks;
mod etcd;
mod etcd_server;
mod expiry;
mod failure;
mod governance;
mod idempotency;
mod keep_alive;
mod limits;
mod lists;
mod probing;
mod probing_tls;
mod register;
mod restart;
mod start;
mod support;
mod update;
mod watch;
