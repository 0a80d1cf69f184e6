//! pysamp: a sampling profiler that lives inside the CPython process it profiles.
//!
//! Data flows one way: `mem` -> `layout` -> `reader` -> `sampler` -> `recorder` -> `profile` ->
//! `export`; `session` wires them, and `bootstrap`, `ffi` and `cli` start it.
//!
//! All work is done by one thread of pysamp's own, which may fault only inside `mem`. Threads of the
//! application run three things of ours: the constructor and the hooks for fork and exit, which
//! wait for a bounded time; and the handlers in `sampler::park` and `session::control`, which neither
//! allocate nor lock.

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
pub mod trampoline;

/// Memory of pysamp's own: no lock and no heap is shared with the application, whose threads may be
/// held still, forked or dead in the middle of an allocation.
#[cfg(not(miri))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
