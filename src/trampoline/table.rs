//! From code objects to their stubs: a table that machine code looks into without a lock.
//!
//! An entry is one word, a key and where the stub lies. From 3.12 on the key is the code object's version,
//! which no two have. Before, it is the address, which proves nothing, as the next code object may lie
//! there: entries are taken out when their code objects die.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stub::{MOST_UNITS, UNIT_SHIFT};
use crate::mem::Address;

/// Bytes of an entry, and how many entries the smallest table has.
const ENTRY_BYTES: u64 = 8;
const LEAST_ENTRIES: usize = 1 << 10;
/// What is kept of code objects long gone is bounded by this.
const MOST_ENTRIES: usize = 1 << 20;
/// Spreads keys over the upper half of a word (Knuth's multiplicative hashing: 2^64 over the golden
/// ratio).
pub(super) const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// From the product to a place in bytes, of which the table's mask is taken.
pub(super) const SHIFT: u32 = 28;
/// No two code objects share 16 bytes.
pub(super) const ADDRESS_SHIFT: u32 = 4;
/// The stub's place takes the lower bits of an entry, the key those from here on.
pub(super) const KEY_SHIFT: u32 = MOST_UNITS.trailing_zeros();
/// From the table to its first entry: behind the mask for a place in bytes, and where stubs begin.
pub(super) const HEAD_BYTES: u64 = 8 * HEAD_WORDS as u64;
const HEAD_WORDS: usize = 2;

/// What code objects are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// Up to 3.11.
    Addresses,
    /// From 3.12 on.
    Versions,
}

impl Keys {
    /// What stands for a code object in the table; `None` for one that cannot be told from others:
    /// versions are used up after 2^32.
    pub(super) fn of(self, code: Address, version: u32) -> Option<u64> {
        let key = match self {
            Self::Addresses => code >> ADDRESS_SHIFT,
            Self::Versions => version.into(),
        };
        (key != 0 && key >> (u64::BITS - KEY_SHIFT) == 0).then_some(key)
    }
}

/// What machine code reads: the mask for a place in bytes, where stubs begin, and the entries.
struct Words(&'static [AtomicU64]);

impl Words {
    /// Never freed: some thread may be looking into it. All tables that there were before take
    /// less than the last one does.
    fn new(entries: usize, stubs: Address) -> Self {
        let mut words: Vec<AtomicU64> = Vec::new();
        words.resize_with(HEAD_WORDS + entries, AtomicU64::default);
        words[0] = AtomicU64::new((entries as u64 - 1) * ENTRY_BYTES);
        words[1] = AtomicU64::new(stubs);
        Self(words.leak())
    }

    fn entries(&self) -> &'static [AtomicU64] {
        &self.0[HEAD_WORDS..]
    }

    fn stubs(&self) -> Address {
        self.0[1].load(Ordering::Relaxed)
    }

    fn home(&self, key: u64) -> usize {
        let place = key.wrapping_mul(MULTIPLIER) >> SHIFT & self.0[0].load(Ordering::Relaxed);
        (place / ENTRY_BYTES) as usize
    }

    fn after(&self, entry: usize) -> usize {
        (entry + 1) & (self.entries().len() - 1)
    }

    fn get(&self, entry: usize) -> u64 {
        self.entries()[entry].load(Ordering::Relaxed)
    }

    fn put(&self, entry: usize, word: u64) {
        self.entries()[entry].store(word, Ordering::Release);
    }

    /// The key's entry, or the empty one where it would be.
    fn entry(&self, key: u64) -> usize {
        let mut entry = self.home(key);
        // There is always an empty one.
        loop {
            let there = self.get(entry);
            if there == 0 || there >> KEY_SHIFT == key {
                return entry;
            }
            entry = self.after(entry);
        }
    }
}

/// The table, as those see it who change it, one at a time.
pub(super) struct Table {
    words: Words,
    used: usize,
}

impl Table {
    /// For stubs that begin there.
    pub(super) fn new(stubs: Address) -> Self {
        Self { words: Words::new(LEAST_ENTRIES, stubs), used: 0 }
    }

    /// What machine code is given.
    pub(super) fn address(&self) -> u64 {
        self.words.0.as_ptr() as u64
    }

    /// The address of a code object's stub.
    pub(super) fn find(&self, key: u64) -> Option<Address> {
        let word = self.words.get(self.words.entry(key));
        let units = word & ((1 << KEY_SHIFT) - 1);
        (word != 0).then(|| self.words.stubs() + (units << UNIT_SHIFT))
    }

    /// Puts a code object in, or gives it another stub. [`Table::address`] may be another one afterwards.
    pub(super) fn insert(&mut self, key: u64, stub: Address) {
        let mut entry = self.words.entry(key);
        if self.words.get(entry) == 0 {
            self.make_room();
            entry = self.words.entry(key);
            self.used += 1;
        }
        let units = (stub - self.words.stubs()) >> UNIT_SHIFT;
        self.words.put(entry, key << KEY_SHIFT | units);
    }

    /// No more than half of the entries are used, so that none is far from its home.
    fn make_room(&mut self) {
        let entries = self.words.entries();
        if self.used < entries.len() / 2 {
            return;
        }
        if entries.len() >= MOST_ENTRIES {
            return self.clear();
        }
        let larger = Words::new(2 * entries.len(), self.words.stubs());
        let used = entries.iter().map(|entry| entry.load(Ordering::Relaxed));
        for word in used.filter(|word| *word != 0) {
            larger.put(larger.entry(word >> KEY_SHIFT), word);
        }
        self.words = larger;
    }

    /// Takes a code object out. Only where nobody looks into the table meanwhile.
    pub(super) fn remove(&mut self, key: u64) {
        let words = &self.words;
        let mut hole = words.entry(key);
        if words.get(hole) == 0 {
            return;
        }
        self.used -= 1;
        // Those behind it that were displaced move up.
        let mut entry = words.after(hole);
        loop {
            let moving = words.get(entry);
            if moving == 0 {
                break;
            }
            let home = words.home(moving >> KEY_SHIFT);
            let distance = |from: usize| entry.wrapping_sub(from) & (words.entries().len() - 1);
            if distance(home) >= distance(hole) {
                words.put(hole, moving);
                hole = entry;
            }
            entry = words.after(entry);
        }
        words.put(hole, 0);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.words.entries().iter().for_each(|entry| entry.store(0, Ordering::Release));
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const STUBS: Address = 0x7E00_0000_0000;

    proptest::proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0..3_u8, 1..3000_u32), 0..6000)) {
            for keys in [Keys::Addresses, Keys::Versions] {
                let (mut table, mut truth) = (Table::new(STUBS), HashMap::new());
                let key = |place: u32| keys.of(0x7F00_0000_0000 + u64::from(place) * 16, place).unwrap();
                for (number, &(step, place)) in steps.iter().enumerate() {
                    if step == 0 {
                        table.remove(key(place));
                        truth.remove(&place);
                    } else {
                        let stub = STUBS + (number << UNIT_SHIFT) as u64;
                        table.insert(key(place), stub);
                        truth.insert(place, stub);
                    }
                }
                for place in 1..3001 {
                    assert_eq!(table.find(key(place)), truth.get(&place).copied());
                }
                assert_eq!(table.used, truth.len());
            }
        }
    }

    #[test]
    fn it_stays_within_bounds() {
        let mut table = Table::new(STUBS);
        (1..=2 * MOST_ENTRIES as u64).for_each(|key| table.insert(key, STUBS + 112));
        assert_eq!(table.words.entries().len(), MOST_ENTRIES);
        assert_eq!(table.find(2 * MOST_ENTRIES as u64), Some(STUBS + 112));
        table.clear();
        assert_eq!((table.used, table.find(1)), (0, None));
    }

    /// Functions that are imported together, again and again, with many between that never run.
    #[test]
    fn no_key_is_far_from_its_home() {
        let mut table = Table::new(STUBS);
        let runs = (0..40_u64).map(|run| run * (1 << 15) + 1);
        let keys: Vec<u64> = runs.flat_map(|first| first..first + 400).collect();
        keys.iter().for_each(|&key| table.insert(key, STUBS));
        let mask = table.words.entries().len() - 1;
        let far = |&key: &u64| table.words.entry(key).wrapping_sub(table.words.home(key)) & mask;
        let (most, all) = (keys.iter().map(far).max(), keys.iter().map(far).sum::<usize>());
        assert!(most < Some(64) && all < keys.len(), "{most:?} {all}");
    }

    #[test]
    fn what_no_entry_can_tell_has_no_key() {
        assert_eq!(Keys::Versions.of(0x7FFF_FFFF_FFF0, 0), None);
        assert_eq!(Keys::Versions.of(0x7FFF_FFFF_FFF0, u32::MAX), Some(u32::MAX.into()));
        assert_eq!(Keys::Addresses.of(0x7FFF_FFFF_FFF0, 0), Some(0x07FF_FFFF_FFFF));
        // With five levels of pages, for who asks for it.
        assert_eq!(Keys::Addresses.of(0x00FF_7FFF_FFFF_FFF0, 0), None);
    }
}
