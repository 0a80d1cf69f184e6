//! How often each thread was in each stack and state, and what came after what.

use std::collections::HashMap;

use super::NodeId;
use crate::hash::FastHash;
use crate::sampler::activity::State;

/// What is counted by itself: a thread in a stack and a state.
pub(super) type TallyKey = (u32, NodeId, State);

/// A count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub key: TallyKey,
    pub count: u64,
    pub wall_ns: u64,
    pub cpu_ns: u64,
    /// Where the spool has it; 0 where it has not.
    pub spooled_at: usize,
    /// The one that was counted behind it the last time.
    next: u32,
}

/// All of them, numbered in order of first sight.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    rows: Vec<Tally>,
    numbers: HashMap<TallyKey, u32, FastHash>,
}

impl Tallies {
    /// The number of a key; it is new if there was none.
    pub fn number(&mut self, key: TallyKey) -> u32 {
        let next = self.rows.len() as u32;
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            let (count, wall_ns, cpu_ns, spooled_at) = (0, 0, 0, 0);
            self.rows.push(Tally { key, count, wall_ns, cpu_ns, spooled_at, next });
        }
        number
    }

    /// What was counted behind another the last time, if anything was.
    pub fn after(&self, number: u32) -> Option<(u32, &Tally)> {
        let next = self.rows.get(number as usize)?.next;
        Some((next, self.rows.get(next as usize)?))
    }

    /// Remembers what was counted behind another.
    pub fn follows(&mut self, number: u32, next: u32) {
        if let Some(row) = self.rows.get_mut(number as usize) {
            row.next = next;
        }
    }

    /// All of them, by their numbers.
    pub fn rows(&self) -> &[Tally] {
        &self.rows
    }

    /// All of them, to be counted in.
    pub fn rows_mut(&mut self) -> &mut [Tally] {
        &mut self.rows
    }
}
