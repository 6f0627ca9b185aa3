//! The user service as its callers see it: real servers on port 0, real files, the generated client, and a ticket service
//! that fails as it is told.

mod access;
mod accounts;
mod backup;
mod fake;
mod fixture;
mod inputs;
mod life;
mod profile;
mod purchases;
mod refunds;
mod replicas;
mod rush;
mod sessions;
