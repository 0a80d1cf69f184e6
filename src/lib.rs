//! pysamp: a sampling profiler that lives inside the CPython process it profiles.

mod hash;
pub mod layout;
pub mod mem;
pub mod os;
pub mod profile;
pub mod reader;
