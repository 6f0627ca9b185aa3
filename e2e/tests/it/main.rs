//! Tests of the whole system, in one binary: link time.

mod architecture;
