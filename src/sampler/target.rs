//! What is remembered of a thread between its snapshots.

use super::entering::Entering;
use super::mood::{Mood, Skids};
use super::natives::Callees;
use super::tasks::Chain;
use crate::reader::codes::Located;
use crate::reader::frames::Walker;

/// What is remembered of a thread between snapshots.
#[derive(Debug, Default)]
pub struct Target {
    /// The last accepted stack, root first.
    pub stack: Vec<Located>,
    /// Whether older frames than those in `stack` were left out.
    pub truncated: bool,
    /// How many frames at the root are as in the stack that was last recorded, at least.
    pub unchanged: usize,
    /// Whether `stack` was recorded. Not all are: its thread may have gone.
    pub is_recorded: bool,
    /// Which task `stack` is in, if tasks are looked for.
    pub chain: Chain,
    /// The C code in `stack`, if it is looked for.
    pub callees: Callees,
    pub(super) walker: Walker,
    pub(super) entering: Entering,
    pub(super) mood: Mood,
    pub(super) skids: Skids,
}

impl Target {
    /// The next sample's stack is the last one's.
    pub fn take_again(&mut self) {
        if self.is_recorded {
            self.unchanged = self.stack.len();
        }
        self.is_recorded = false;
    }
}
