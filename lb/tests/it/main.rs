//! A channel against real servers in process, on ports that the system chooses.

mod broken_off;
mod cache;
mod deadline;
mod explain;
mod failover;
mod fallback;
mod goaway;
mod headers;
mod hedging;
mod in_flight;
mod lines;
mod modes;
mod outage;
mod policies;
mod prequal;
mod protection;
mod room;
mod routes;
mod secured;
mod set;
mod settings;
mod spread;
mod streaming;
mod support;
mod trace;
mod waiting;
