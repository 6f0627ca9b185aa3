//! Tests of the whole system, in one binary: link time.

mod architecture;
mod bad_input;
mod canary;
mod cluster;
mod drain;
mod events;
mod expiring;
mod faults;
mod five_steps;
mod grpcurl;
mod languages;
mod logs;
mod metrics;
mod monitor;
mod operator;
mod people;
mod sale;
mod secured;
mod trace;
mod trace_change;
mod trace_failover;
mod trace_recovery;
mod up;
