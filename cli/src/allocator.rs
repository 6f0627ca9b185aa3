//! The allocator of the process: every request makes some hundred short-lived values, and what a registry holds is millions of
//! small ones (decision 0017). The crates of this workspace bring none.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
