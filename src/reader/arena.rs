//! Pieces of memory that were copied, one behind the other.

use std::ops::{Deref, DerefMut};

use crate::mem::Address;

/// A copied piece of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Where it was copied from, and how many bytes.
    pub from: Address,
    pub length: usize,
    /// Where the copy begins.
    pub offset: usize,
}

impl Window {
    /// Whether all of so many bytes at an address are in it.
    pub fn holds(&self, at: Address, size: usize) -> bool {
        at >= self.from
            && at - self.from <= self.length as u64
            && (at - self.from) as usize + size <= self.length
    }
}

/// Room for copies, used again and again: to clear it costs nothing, and new room keeps what lay there.
#[derive(Debug, Default)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    used: usize,
}

impl Arena {
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Makes room for so many more bytes. Returns where it begins.
    pub fn extend(&mut self, length: usize) -> usize {
        let start = self.used;
        self.used += length;
        if self.bytes.len() < self.used {
            self.bytes.resize(self.used, 0);
        }
        start
    }
}

impl Deref for Arena {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.used]
    }
}
