//! The code objects that one pass over many frames meets.

use std::collections::HashMap;

use super::Torn;
use super::codes::{CodeTable, Proven};
use crate::hash::FastHash;
use crate::mem::{Address, Memory};

/// Code objects of the frames that passes read, each of which is resolved once: thousands of tasks run a few.
#[derive(Debug, Default)]
pub struct Pass {
    proven: HashMap<Address, Proven, FastHash>,
    /// How often they were forgotten.
    changes: u64,
}

impl Pass {
    /// Begins a pass. Returns a number that stays the same as long as all code objects that passes have met are
    /// what they were.
    pub fn begin(&mut self, memory: &impl Memory, codes: &CodeTable) -> u64 {
        /// Beyond, it would take long to look at all of them.
        const MOST: usize = 1 << 12;
        if self.proven.len() > MOST || !self.are_as_proven(memory, codes) {
            self.forget();
        }
        self.changes
    }

    /// The code object at an address, as it was when a pass met it first.
    pub fn resolve(
        &mut self,
        memory: &impl Memory,
        codes: &mut CodeTable,
        at: Address,
    ) -> Result<Proven, Torn> {
        if let Some(&proven) = self.proven.get(&at) {
            return Ok(proven);
        }
        let proven = codes.resolve(memory, at)?;
        self.proven.insert(at, proven);
        Ok(proven)
    }

    /// Fails if one of them is not any more what it was.
    pub fn end(&mut self, memory: &impl Memory, codes: &CodeTable) -> Result<(), Torn> {
        if !self.are_as_proven(memory, codes) {
            self.forget();
            return Err(Torn);
        }
        Ok(())
    }

    /// Forgets all of them.
    pub fn forget(&mut self) {
        self.proven.clear();
        self.changes += 1;
    }

    fn are_as_proven(&self, memory: &impl Memory, codes: &CodeTable) -> bool {
        self.proven.iter().all(|(&at, proven)| codes.known(memory, at) == Some(*proven))
    }
}
