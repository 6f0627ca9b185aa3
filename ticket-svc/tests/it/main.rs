//! The ticket service as its callers see it: real servers on port 0, real files, the generated client.

mod access;
mod backup;
mod fixture;
mod hostile;
mod inputs;
mod life;
mod line;
mod refunds;
mod sale;
mod search;
mod terms;
mod watch;
