//! What the monitor centre knows: `tessera top` shows it now, `tessera stats` over time.
//!
//! In reading order: `client` (asks), `figures` (what is told of calls, for people and machines), `stats`, `top` (both commands),
//! `screen` (a terminal that is drawn anew and given back as it was).

mod client;
mod figures;
mod screen;
mod stats;
mod top;

pub(crate) use self::{stats::run as stats, top::run as top};
