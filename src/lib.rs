//! pysamp: a sampling profiler that lives inside the CPython process it profiles.

pub mod profile;
