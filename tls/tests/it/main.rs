//! Handshakes between our two sides, over a pair of pipes.

mod matrix;
mod reloading;
mod support;
