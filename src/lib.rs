//! pysamp: a sampling profiler that lives inside the CPython process it profiles.

pub mod bootstrap;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod export;
pub mod ffi;
mod hash;
pub mod layout;
pub mod mem;
pub mod os;
pub mod profile;
pub mod reader;
pub mod recorder;
pub mod sampler;
pub mod session;

/// Memory of pysamp's own: no lock and no heap is shared with the application, whose threads may be
/// held still, forked or dead in the middle of an allocation.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
