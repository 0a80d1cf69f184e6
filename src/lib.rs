//! pysamp: a sampling profiler that lives inside the CPython process it profiles.

pub mod bootstrap;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod export;
mod hash;
pub mod layout;
pub mod mem;
pub mod os;
pub mod profile;
pub mod reader;
pub mod recorder;
pub mod sampler;
pub mod session;
