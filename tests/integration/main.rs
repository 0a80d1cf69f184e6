//! Behaviour on real interpreters, driven as a user drives it, by topic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod application;
mod bad_input;
mod exactness;
mod forks;
mod frames;
mod living;
mod threads;
mod truth;
