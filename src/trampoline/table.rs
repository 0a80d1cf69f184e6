//! From code objects to their stubs: a table that machine code looks into without a lock.
//!
//! An entry is two words: the code object's address, and what [`tag`] makes of its version and its
//! stub's number. An address proves nothing, as the next code object may lie there; the version, in
//! the same word as the stub, does. Before 3.12, where code objects have none, their entries are taken
//! out when they die.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mem::Address;

/// Bytes of an entry, and how many entries the smallest table has.
const ENTRY_BYTES: u64 = 16;
const LEAST_ENTRIES: usize = 1 << 10;
/// What is kept of code objects long gone is bounded by this.
const MOST_ENTRIES: usize = 1 << 20;
/// Spreads addresses, which are multiples of 16, over the upper half of a word (Knuth's
/// multiplicative hashing: 2^64 over the golden ratio).
pub(super) const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// From the product to a place in bytes, of which the table's mask is taken.
pub(super) const SHIFT: u32 = 28;

/// Version in the lower half, number of the stub in the upper.
pub(super) fn tag(version: u32, stub: u32) -> u64 {
    u64::from(stub) << 32 | u64::from(version)
}

/// What machine code reads: the mask for a place in bytes, a word of nothing, and the entries.
struct Words(&'static [AtomicU64]);

const HEAD_WORDS: usize = 2;

impl Words {
    /// Never freed: some thread may be looking into it. All tables that there were before take
    /// less than the last one does.
    fn new(entries: usize) -> Self {
        let mut words: Vec<AtomicU64> = Vec::new();
        words.resize_with(HEAD_WORDS + 2 * entries, AtomicU64::default);
        words[0] = AtomicU64::new((entries as u64 - 1) * ENTRY_BYTES);
        Self(words.leak())
    }

    fn entries(&self) -> usize {
        (self.0.len() - HEAD_WORDS) / 2
    }

    fn home(&self, code: Address) -> usize {
        let place = (code.wrapping_mul(MULTIPLIER) >> SHIFT) & self.0[0].load(Ordering::Relaxed);
        (place / ENTRY_BYTES) as usize
    }

    fn after(&self, entry: usize) -> usize {
        (entry + 1) & (self.entries() - 1)
    }

    fn code(&self, entry: usize) -> &AtomicU64 {
        &self.0[HEAD_WORDS + 2 * entry]
    }

    fn tag(&self, entry: usize) -> &AtomicU64 {
        &self.0[HEAD_WORDS + 2 * entry + 1]
    }

    /// The code object's entry, or the empty one where it would be.
    fn entry(&self, code: Address) -> usize {
        let mut entry = self.home(code);
        // There is always an empty one.
        loop {
            let there = self.code(entry).load(Ordering::Relaxed);
            if there == 0 || there == code {
                return entry;
            }
            entry = self.after(entry);
        }
    }

    fn put(&self, entry: usize, code: Address, tag: u64) {
        self.tag(entry).store(tag, Ordering::Relaxed);
        self.code(entry).store(code, Ordering::Release);
    }
}

/// The table, as those see it who change it, one at a time.
pub(super) struct Table {
    words: Words,
    used: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { words: Words::new(LEAST_ENTRIES), used: 0 }
    }

    /// What machine code is given.
    pub(super) fn address(&self) -> u64 {
        self.words.0.as_ptr() as u64
    }

    /// The stub of a code object.
    pub(super) fn find(&self, code: Address, version: u32) -> Option<u32> {
        let entry = self.words.entry(code);
        let tag = self.words.tag(entry).load(Ordering::Relaxed);
        let is_it = self.words.code(entry).load(Ordering::Relaxed) == code && tag as u32 == version;
        is_it.then_some((tag >> 32) as u32)
    }

    /// Puts a code object in, or in the place of the one that was at its address. [`Table::address`]
    /// may be another one afterwards.
    pub(super) fn insert(&mut self, code: Address, version: u32, stub: u32) {
        let mut entry = self.words.entry(code);
        if self.words.code(entry).load(Ordering::Relaxed) == 0 {
            self.make_room();
            entry = self.words.entry(code);
            self.used += 1;
        }
        self.words.put(entry, code, tag(version, stub));
    }

    /// No more than half of the entries are used, so that none is far from its home.
    fn make_room(&mut self) {
        let entries = self.words.entries();
        if self.used < entries / 2 {
            return;
        }
        if entries >= MOST_ENTRIES {
            return self.clear();
        }
        let larger = Words::new(2 * entries);
        for entry in 0..entries {
            let code = self.words.code(entry).load(Ordering::Relaxed);
            if code != 0 {
                let tag = self.words.tag(entry).load(Ordering::Relaxed);
                larger.put(larger.entry(code), code, tag);
            }
        }
        self.words = larger;
    }

    /// Takes a code object out. Only where nobody looks into the table meanwhile.
    pub(super) fn remove(&mut self, code: Address) {
        let words = &self.words;
        let mut hole = words.entry(code);
        if words.code(hole).load(Ordering::Relaxed) == 0 {
            return;
        }
        self.used -= 1;
        // Those behind it that were displaced move up.
        let mut entry = words.after(hole);
        loop {
            let moving = words.code(entry).load(Ordering::Relaxed);
            if moving == 0 {
                break;
            }
            let home = words.home(moving);
            let distance = |from: usize| entry.wrapping_sub(from) & (words.entries() - 1);
            if distance(home) >= distance(hole) {
                words.put(hole, moving, words.tag(entry).load(Ordering::Relaxed));
                hole = entry;
            }
            entry = words.after(entry);
        }
        words.code(hole).store(0, Ordering::Release);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        (0..self.words.entries())
            .for_each(|entry| self.words.code(entry).store(0, Ordering::Release));
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    proptest::proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0..3_u8, 1..3000_u64, 0..3_u32), 0..6000)) {
            let (mut table, mut truth) = (Table::new(), HashMap::new());
            for (number, (step, place, version)) in steps.into_iter().enumerate() {
                let code = 0x7F00_0000_0000 + place * 16;
                if step == 0 {
                    table.remove(code);
                    truth.remove(&code);
                } else {
                    table.insert(code, version, number as u32);
                    truth.insert(code, (version, number as u32));
                }
            }
            for place in 0..3001 {
                let code = 0x7F00_0000_0000 + place * 16;
                for version in 0..3 {
                    let known = truth.get(&code).filter(|(its, _)| *its == version);
                    assert_eq!(table.find(code, version), known.map(|(_, stub)| *stub));
                }
            }
            assert_eq!(table.used, truth.len());
        }
    }

    #[test]
    fn it_stays_within_bounds() {
        let mut table = Table::new();
        (1..=2 * MOST_ENTRIES as u64).for_each(|place| table.insert(place * 16, 1, 7));
        assert_eq!(table.words.entries(), MOST_ENTRIES);
        assert_eq!(table.find(2 * MOST_ENTRIES as u64 * 16, 1), Some(7));
        table.clear();
        assert_eq!((table.used, table.find(16, 1)), (0, None));
    }
}
