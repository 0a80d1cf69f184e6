//! Formats for other tools, read back by these tools: all numbers have to be those of the profile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../support/mod.rs"]
mod support;

mod binary;
mod callgrind;
mod consumers;
mod cpython;
mod gecko;
mod pprof;
mod pstats;
mod sample;
mod viewers;
