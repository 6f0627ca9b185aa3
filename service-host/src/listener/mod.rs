//! Accepting connections: a bound on how many, in all and of each peer, a back-off when the process is out of file descriptors, a task for each
//! that somebody owns.
//!
//! tonic's own loop has no bound, and spins at the limit of open files (measured: 50 to 97 % of a core). Not here: what is
//! spoken on a connection (`connection`, `admin`).

mod accept;
mod calm;
mod cork;
mod fds;
mod peers;
mod preface;
mod secured;
mod under_way;
mod write_timeout;

pub(crate) use accept::{Accepting, Connections, Ended, Settings, Stop};
pub(crate) use calm::CalmIo;
pub(crate) use cork::{Cork, Uncork, cork};
pub(crate) use fds::cap;
pub use peers::whose;
pub(crate) use preface::{Heard, Opened, PrefaceIo};
pub(crate) use secured::Handshakes;
pub(crate) use write_timeout::WriteTimeout;
