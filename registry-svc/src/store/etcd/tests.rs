//! The etcd store against a real etcd: the suite of all stores, and what only this one promises. Skipped, and said so, where
//! there is no etcd.

mod auth;
mod faults;
mod fixture;
mod following;
mod proxy;
mod quota;
mod replicas;
mod secured;
mod upkeep;

use fixture::Place;

use crate::store::tests::suite;

suite::suite!(Place, 24);
