//! Reads the interpreter: threads, frames, code objects, strings. Generic over [`Memory`], so that
//! all of it runs on a captured image as well.
//!
//! Everything here may race with the interpreter. A read that shows an impossible value gives
//! [`Torn`]; what looks possible may still mix two moments, and is judged by `sampler::snapshot`.
//!
//! [`Memory`]: crate::mem::Memory

mod arena;
pub mod bytecode;
pub mod callables;
pub mod codes;
pub mod frame;
pub mod frames;
pub mod greenlets;
pub mod line_table;
mod modules;
pub mod objects;
pub mod passes;
mod recent_tops;
pub mod self_check;
pub mod sites;
pub mod states;
pub mod strings;
pub mod tasks;
#[cfg(test)]
pub mod testing;
pub mod thread_names;
pub mod threads;

use crate::mem::Fault;

/// What was read cannot be: the memory changed meanwhile, or is not what it seemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

impl From<Fault> for Torn {
    fn from(_: Fault) -> Self {
        Self
    }
}
