//! Formats for other tools, read back by these tools: all numbers have to be those of the profile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod callgrind;
mod consumers;
mod cpython;
mod pprof;
mod sample;
mod viewers;
