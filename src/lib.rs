//! pysamp: a sampling profiler that lives inside the CPython process it profiles.

pub mod export;
pub mod profile;
