//! pysamp: a sampling profiler that lives inside the CPython process it profiles.

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod profile;
