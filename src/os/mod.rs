//! The operating system, as little of it as pysamp needs: clocks, threads, signals, `/proc/self`.

pub mod clock;
pub mod process;
pub mod signal;
pub mod symbols;
pub mod thread;
