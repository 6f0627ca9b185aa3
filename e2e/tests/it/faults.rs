//! Faults of a registry, on the real binary: each family in a file, the row of the fault plan (docs/registry-faults.md) in
//! each test's comment. Every test has traffic before and after its fault, and checks what clients were told.

mod crash;
mod disk;
mod expiry;
mod linearizable;
mod overload;
mod partition;
mod pause;
mod readers;
mod replicas;
mod resume;
mod storm;
