//! Behaviour on real interpreters, driven as a user drives it, by topic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod anchor;
mod application;
mod bad_input;
mod control;
mod exactness;
mod forks;
mod frames;
mod greenlets;
mod hostile_names;
mod killed;
mod libraries;
mod living;
mod modes;
mod natives;
mod opcodes;
mod perf;
mod processes;
mod stress;
mod tasks;
mod threads;
mod truth;
