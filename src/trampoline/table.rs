//! From code objects to their stubs: a table that machine code looks into without a lock.
//!
//! An entry is one word, a key and where the stub lies. From 3.12 on the key is the code object's version,
//! which no two have. Before, it is the address, which proves nothing, as the next code object may lie
//! there: entries are taken out when their code objects die.
//!
//! Versions that follow each other are of functions that were made together, and lie side by side. Where
//! that place is taken, they go elsewhere together. Addresses are spread, and go to the next place.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stub::{MOST_UNITS, UNIT_SHIFT};
use crate::mem::Address;

/// Bytes of an entry, and how many entries the smallest table has.
const ENTRY_BYTES: u64 = 8;
const LEAST_ENTRIES: usize = 1 << 10;
/// What is kept of code objects long gone is bounded by this.
const MOST_ENTRIES: usize = 1 << 20;
/// Spreads addresses over the upper half of a word (Knuth's multiplicative hashing: 2^64 over the golden
/// ratio).
pub(super) const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// From the product to a place in bytes, of which the table's mask is taken.
pub(super) const SHIFT: u32 = 28;
/// As many versions that follow each other go on from a taken place in the same steps, which are spread
/// likewise.
pub(super) const TOGETHER_SHIFT: u32 = 10;
pub(super) const STEP_MULTIPLIER: u32 = 0x5E37_79B1;
pub(super) const STEP_SHIFT: u32 = 12;
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

    /// Before the table's mask, in entries.
    fn home(self, key: u64) -> u64 {
        match self {
            Self::Addresses => (key.wrapping_mul(MULTIPLIER) >> SHIFT) / ENTRY_BYTES,
            Self::Versions => key,
        }
    }

    /// From a taken place to the next one, in entries; odd, so that all are come to.
    fn step(self, key: u64) -> u64 {
        match self {
            Self::Addresses => 1,
            Self::Versions => {
                let spread = (key >> TOGETHER_SHIFT) * u64::from(STEP_MULTIPLIER);
                spread >> STEP_SHIFT | 1
            }
        }
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

    fn home(&self, keys: Keys, key: u64) -> usize {
        keys.home(key) as usize & (self.entries().len() - 1)
    }

    fn after(&self, entry: usize, step: u64) -> usize {
        (entry + step as usize) & (self.entries().len() - 1)
    }

    fn get(&self, entry: usize) -> u64 {
        self.entries()[entry].load(Ordering::Relaxed)
    }

    fn put(&self, entry: usize, word: u64) {
        self.entries()[entry].store(word, Ordering::Release);
    }

    /// The key's entry, or the empty one where it would be.
    fn entry(&self, keys: Keys, key: u64) -> usize {
        let mut entry = self.home(keys, key);
        // There is always an empty one.
        loop {
            let there = self.get(entry);
            if there == 0 || there >> KEY_SHIFT == key {
                return entry;
            }
            entry = self.after(entry, keys.step(key));
        }
    }
}

/// The table, as those see it who change it, one at a time.
pub(super) struct Table {
    keys: Keys,
    words: Words,
    used: usize,
}

impl Table {
    /// For stubs that begin there.
    pub(super) fn new(keys: Keys, stubs: Address) -> Self {
        Self { keys, words: Words::new(LEAST_ENTRIES, stubs), used: 0 }
    }

    /// What machine code is given.
    pub(super) fn address(&self) -> u64 {
        self.words.0.as_ptr() as u64
    }

    /// The address of a code object's stub.
    pub(super) fn find(&self, key: u64) -> Option<Address> {
        let word = self.words.get(self.words.entry(self.keys, key));
        let units = word & ((1 << KEY_SHIFT) - 1);
        (word != 0).then(|| self.words.stubs() + (units << UNIT_SHIFT))
    }

    /// Puts a code object in, or gives it another stub. [`Table::address`] may be another one afterwards.
    pub(super) fn insert(&mut self, key: u64, stub: Address) {
        let mut entry = self.words.entry(self.keys, key);
        if self.words.get(entry) == 0 {
            self.make_room();
            entry = self.words.entry(self.keys, key);
            self.used += 1;
        }
        let units = (stub - self.words.stubs()) >> UNIT_SHIFT;
        self.words.put(entry, key << KEY_SHIFT | units);
    }

    /// No more than a quarter of the entries is used, so that none is far from its home.
    fn make_room(&mut self) {
        let entries = self.words.entries();
        if self.used < entries.len() / 4 {
            return;
        }
        if entries.len() >= MOST_ENTRIES {
            return self.clear();
        }
        let larger = Words::new(2 * entries.len(), self.words.stubs());
        let used = entries.iter().map(|entry| entry.load(Ordering::Relaxed));
        for word in used.filter(|word| *word != 0) {
            larger.put(larger.entry(self.keys, word >> KEY_SHIFT), word);
        }
        self.words = larger;
    }

    /// Takes a code object out that was found by its address. Only where nobody looks into the table
    /// meanwhile.
    pub(super) fn remove(&mut self, key: u64) {
        let (keys, words) = (Keys::Addresses, &self.words);
        let mut hole = words.entry(keys, key);
        if words.get(hole) == 0 {
            return;
        }
        self.used -= 1;
        // Those behind it that were displaced move up.
        let mut entry = words.after(hole, 1);
        loop {
            let moving = words.get(entry);
            if moving == 0 {
                break;
            }
            let home = words.home(keys, moving >> KEY_SHIFT);
            let distance = |from: usize| entry.wrapping_sub(from) & (words.entries().len() - 1);
            if distance(home) >= distance(hole) {
                words.put(hole, moving);
                hole = entry;
            }
            entry = words.after(entry, 1);
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
                let (mut table, mut truth) = (Table::new(keys, STUBS), HashMap::new());
                let key = |place: u32| keys.of(0x7F00_0000_0000 + u64::from(place) * 16, place).unwrap();
                for (number, &(step, place)) in steps.iter().enumerate() {
                    if step == 0 && keys == Keys::Addresses {
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
        let mut table = Table::new(Keys::Versions, STUBS);
        (1..=2 * MOST_ENTRIES as u64).for_each(|key| table.insert(key, STUBS + 112));
        assert_eq!(table.words.entries().len(), MOST_ENTRIES);
        assert_eq!(table.find(2 * MOST_ENTRIES as u64), Some(STUBS + 112));
        table.clear();
        assert_eq!((table.used, table.find(1)), (0, None));
    }

    /// Functions that are imported together, again and again, with many between that never run.
    #[test]
    fn no_key_is_far_from_its_home() {
        let mut table = Table::new(Keys::Versions, STUBS);
        let runs = (0..40_u64).map(|run| run * (1 << 15) + 1);
        let keys: Vec<u64> = runs.flat_map(|first| first..first + 400).collect();
        keys.iter().for_each(|&key| table.insert(key, STUBS));
        let far = |&key: &u64| {
            let (its, words) = (Keys::Versions, &table.words);
            let place = words.entry(its, key);
            let mut steps = 0;
            let mut at = words.home(its, key);
            while at != place {
                (at, steps) = (words.after(at, its.step(key)), steps + 1);
            }
            steps
        };
        let (most, all) = (keys.iter().map(far).max(), keys.iter().map(far).sum::<usize>());
        assert!(most < Some(64) && all < 4 * keys.len(), "{most:?} {all}");
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
