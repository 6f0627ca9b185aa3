//! The stores against one model: the suite that each of them passes, and what only one of them has to promise.

mod backup;
mod disk;
mod embedded;
mod faults;
pub(super) mod model;
mod spare;
pub(super) mod suite;
