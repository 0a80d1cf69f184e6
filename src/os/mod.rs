//! The operating system, as little of it as pysamp needs: clocks, threads, signals, `/proc/self`, the size
//! of a terminal, files that are written by storing to memory.

pub mod c_library;
pub mod claim;
pub mod clock;
pub mod descriptors;
pub mod process;
pub mod shared_file;
pub mod signal;
pub mod symbols;
pub mod terminal;
pub mod thread;
