//! The atomics and locks of what calls share: the standard library's. `tests/interleavings` compiles the same files with loom's
//! in their place, and tries every order in which threads can meet in them.

pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
