//! Reads of many objects again and again: what was read of one is remembered word by word, and while all of it
//! is as it was, whatever follows from it is, too. To compare is cheaper than to follow pointers once more: no
//! word's address depends on another word, so that many are on their way at once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;

use super::{Address, Fault, LINE, Memory, Piece, field, word_at};
use crate::hash::FastHash;

/// A word that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Word {
    /// Where it is, a multiple of 8.
    pub at: Address,
    /// What it was.
    pub was: u64,
}

/// Most groups that are compared at once.
pub const MOST_GROUPS: usize = 16;

/// Bytes of a [`Word`].
const BYTES: usize = 8;
/// Longest read that can be remembered.
const MOST_BYTES: usize = 512;

/// Memory of which is remembered what was read.
pub struct Watched<'m, M> {
    memory: &'m M,
    words: RefCell<Vec<Word>>,
    is_complete: Cell<bool>,
}

impl<'m, M> Watched<'m, M> {
    /// Reads `memory`.
    pub fn new(memory: &'m M) -> Self {
        Self { memory, words: RefCell::default(), is_complete: Cell::new(true) }
    }

    /// Remembers what is read from now on, and nothing else.
    pub fn begin(&self) {
        self.words.borrow_mut().clear();
        self.is_complete.set(true);
    }

    /// Adds what was read since then to `into`, in order and each word as often as it was read; nothing if not all
    /// of it could be remembered.
    fn add_to(&self, into: &mut Vec<Word>) {
        if self.is_complete.get() {
            into.extend_from_slice(&self.words.borrow());
        }
    }
}

impl<M: Memory> Watched<'_, M> {
    /// Reads, and remembers those of the whole words around it that `matter`, given how many bytes of the first lie
    /// before it and how many words there are.
    fn read_some<W: Iterator<Item = usize>>(
        &self,
        from: Address,
        into: &mut [u8],
        matter: impl FnOnce(usize, usize) -> W,
    ) -> Result<(), Fault> {
        const WITHIN: Address = BYTES as Address - 1;
        // Whole words are of the same pages.
        let (first, before) = (from & !WITHIN, (from & WITHIN) as usize);
        let length = (before + into.len()).next_multiple_of(BYTES);
        let mut copy = [0; MOST_BYTES];
        let is_address = first.checked_add(length as u64).is_some() && !into.is_empty();
        let whole = copy.get_mut(..length).filter(|_| is_address);
        let whole = whole.and_then(|whole| self.memory.read(first, whole).ok().map(|()| &*whole));
        let Some(whole) = whole else {
            self.is_complete.set(false);
            return self.memory.read(from, into);
        };
        into.copy_from_slice(&whole[before..before + into.len()]);
        let words = matter(before, length / BYTES).map(|word| BYTES * word);
        let words = words.map(|at| Word { at: field(first, at), was: word_at(whole, at) });
        self.words.borrow_mut().extend(words);
        Ok(())
    }
}

impl<M: Memory> Memory for Watched<'_, M> {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        self.read_some(from, into, |_, words| 0..words)
    }

    fn read_words(
        &self,
        from: Address,
        into: &mut [u8],
        offsets: impl Iterator<Item = usize>,
    ) -> Result<(), Fault> {
        // One that does not begin where a whole word does is in two of them.
        self.read_some(from, into, |before, words| {
            offsets.flat_map(move |offset| {
                let begin = before + offset;
                begin / BYTES..(begin + BYTES).div_ceil(BYTES).min(words)
            })
        })
    }

    /// That is not remembered.
    fn same(&self, groups: &[&[Word]]) -> u32 {
        self.memory.same(groups)
    }

    fn prefers_batches(&self) -> bool {
        self.memory.prefers_batches()
    }
}

/// What was found out by reading, by where that began, and what was read for it. Pass by pass, each is taken
/// again if all is as it was, or found out anew.
#[derive(Debug)]
pub struct Remembered<T> {
    all: Vec<Finding<T>>,
    numbers: HashMap<Address, u32, FastHash>,
    words: Vec<Word>,
    /// Words of those that are no finding's any more.
    unused: usize,
    pass: u64,
    /// Those of this pass, in order.
    taken: Vec<u32>,
}

#[derive(Debug)]
struct Finding<T> {
    key: Address,
    value: T,
    /// All that was read for it; none if that is not known.
    words: Range<u32>,
    /// The last pass in which it was found to be so.
    pass: u64,
}

/// Words that are remembered: 64 MB of them. A task, which takes some kilobytes of the program's, needs about fifty.
const MOST_WORDS: usize = 1 << 22;
/// Beyond so many, findings that are not taken any more matter, and words that are not compared.
const FEW: usize = 1 << 10;

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        let (all, numbers, words, taken) = Default::default();
        Self { all, numbers, words, unused: 0, pass: 0, taken }
    }
}

impl<T> Remembered<T> {
    /// Begins a pass. Returns whether too much is out of date, so that all is forgotten.
    pub fn begin(&mut self) -> bool {
        let is_littered = self.all.len() > FEW + 2 * self.taken.len()
            || self.unused > 16 * FEW + self.words.len() / 2;
        if is_littered {
            *self = Self { pass: self.pass, ..Self::default() };
        }
        self.pass += 1;
        self.taken.clear();
        is_littered
    }

    /// The number of what this pass has found there.
    pub fn of_this_pass(&self, key: Address) -> Option<u32> {
        self.number(key, self.expected()).filter(|&number| self.is_taken(number))
    }

    fn is_taken(&self, number: u32) -> bool {
        self.all[number as usize].pass == self.pass
    }

    /// The number that comes next, if all is as in the pass before.
    fn expected(&self) -> u32 {
        self.taken.last().map_or(0, |last| last + 1)
    }

    /// The number of what any pass has found there.
    fn number(&self, key: Address, expected: u32) -> Option<u32> {
        match self.all.get(expected as usize) {
            Some(finding) if finding.key == key => Some(expected),
            _ => self.numbers.get(&key).copied(),
        }
    }

    fn words_of(&self, finding: &Finding<T>) -> &[Word] {
        &self.words[finding.words.start as usize..finding.words.end as usize]
    }

    /// Takes again what was found at `keys`, which are [`MOST_GROUPS`] at most, where all that was read is as it
    /// was. Returns the number of each that this pass has found then.
    pub fn take_again(
        &mut self,
        memory: &impl Memory,
        keys: &[Address],
    ) -> [Option<u32>; MOST_GROUPS] {
        let mut numbers = [None; MOST_GROUPS];
        let mut groups: [&[Word]; MOST_GROUPS] = [&[]; MOST_GROUPS];
        let mut expected = self.expected();
        for ((&key, number), group) in keys.iter().zip(&mut numbers).zip(&mut groups) {
            *number = self.number(key, expected);
            let Some(number) = *number else { continue };
            let finding = &self.all[number as usize];
            if finding.pass != self.pass {
                *group = self.words_of(finding);
            }
            expected = number + 1;
        }
        if !memory.prefers_batches() {
            let soon = self.all.iter().skip(expected as usize).take(keys.len());
            soon.for_each(|finding| ask_for(self.words_of(finding)));
        }
        let same = memory.same(&groups[..keys.len().min(MOST_GROUPS)]);
        let are_compared = groups.map(|group| !group.is_empty());
        for (place, of_any) in numbers.iter_mut().enumerate() {
            let Some(number) = *of_any else { continue };
            // One may be among the keys twice.
            if are_compared[place] && same & 1 << place != 0 && !self.is_taken(number) {
                self.all[number as usize].pass = self.pass;
                self.taken.push(number);
            }
            *of_any = Some(number).filter(|&number| self.is_taken(number));
        }
        numbers
    }

    /// Remembers what was found at `key`, and what was read for that. Returns its number.
    pub fn add<M: Memory>(&mut self, key: Address, value: T, read: &Watched<'_, M>) -> u32 {
        let before = self.words.len();
        if before < MOST_WORDS {
            read.add_to(&mut self.words);
        }
        let words = before as u32..self.words.len() as u32;
        let finding = Finding { key, value, words, pass: self.pass };
        let number = *self.numbers.entry(key).or_insert(self.all.len() as u32);
        match self.all.get_mut(number as usize) {
            Some(before) => {
                self.unused += before.words.len();
                *before = finding;
            }
            None => self.all.push(finding),
        }
        self.taken.push(number);
        number
    }

    /// What was found in this pass, in order.
    pub fn taken(&self) -> &[u32] {
        &self.taken
    }

    /// What has a number.
    pub fn get(&self, number: u32) -> &T {
        &self.all[number as usize].value
    }
}

/// Tells the processor that words will be read. They may be anywhere, and need not be there.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn ask_for(words: &[Word]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let mut last = 0;
    for line in words.iter().map(|word| word.at as usize / LINE) {
        if line != last {
            // SAFETY: a prefetch reads nothing that could be seen, and does nothing where there is no memory.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(line * LINE)) };
        }
        last = line;
    }
}

/// Tells the processor that words will be read.
#[cfg(not(target_arch = "x86_64"))]
fn ask_for(_: &[Word]) {}

/// As [`Memory::same`], where a call costs more than what it reads: a call for each group.
pub(super) fn same_by_pieces(memory: &impl Memory, groups: &[&[Word]]) -> u32 {
    let mut values = Vec::new();
    groups.iter().rev().fold(0, |bits, group| {
        values.clear();
        values.resize(BYTES * group.len(), 0);
        let mut pieces = Vec::new();
        let mut rest = &mut values[..];
        for run in group.chunk_by(|one, next| next.at == one.at.wrapping_add(BYTES as Address)) {
            let (into, others) = rest.split_at_mut(BYTES * run.len());
            rest = others;
            pieces.push(Piece { from: run[0].at, into });
        }
        let is_read = memory.read_pieces(&mut pieces).is_ok();
        let values = values.as_chunks::<BYTES>().0;
        let mut pairs = group.iter().zip(values);
        let is_same = is_read && pairs.all(|(word, &value)| word.was == u64::from_ne_bytes(value));
        bits << 1 | u32::from(is_same)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::MemoryImage;

    fn image() -> MemoryImage {
        let mut image = MemoryImage::default();
        image.insert(4096, &(0..=255).collect::<Vec<u8>>());
        image
    }

    fn words(watched: &Watched<'_, MemoryImage>) -> Vec<Word> {
        let mut words = Vec::new();
        watched.add_to(&mut words);
        words
    }

    #[test]
    fn what_was_read_is_remembered_by_whole_words() {
        let image = image();
        let watched = Watched::new(&image);
        watched.begin();
        let mut bytes = [0; 10];
        watched.read(4096 + 7, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(watched.byte(4096 + 16), Ok(16));
        let word = |at: u64| Word { at: 4096 + at, was: image.word(4096 + at).unwrap() };
        let words = words(&watched);
        assert_eq!(words, [0, 8, 16, 16].map(word));

        let mut others = image.clone();
        others.poke(4096 + 3, &[99]).unwrap();
        let none = MemoryImage::default();
        for (memory, same) in [(&image, 0b111), (&others, 0b110), (&none, 0b100)] {
            let groups = [&words[..], &words[1..], &[]];
            assert_eq!(memory.same(&groups), same);
            assert_eq!(same_by_pieces(memory, &groups), same);
        }
    }

    #[test]
    fn what_cannot_be_remembered_is_read_all_the_same() {
        let mut image = image();
        image.insert(5 << 12, &[1, 2, 3]);
        let watched = Watched::new(&image);
        for (from, length) in [(5 << 12, 3), (4096, 0)] {
            watched.begin();
            let _ = watched.word(4096);
            assert_eq!(watched.read(from, &mut vec![0; length]), Ok(()), "{from} {length}");
            assert_eq!(words(&watched), []);
        }
        for address in [0, 1 << 47, u64::MAX - 70, u64::MAX - 3, u64::MAX] {
            assert!(watched.word(address).is_err());
        }
        watched.begin();
        assert!(watched.read(4096, &mut [0; 600]).is_err());
        assert_eq!(words(&watched), []);
    }

    /// The sum of two words at each key.
    fn pass(
        sums: &mut Remembered<u64>,
        memory: &MemoryImage,
        keys: impl Iterator<Item = Address> + Clone,
    ) -> (Vec<u64>, usize) {
        sums.begin();
        let watched = Watched::new(memory);
        let mut read = 0;
        let found = keys.map(|key| {
            sums.take_again(memory, &[key]);
            let number = sums.of_this_pass(key).unwrap_or_else(|| {
                read += 1;
                watched.begin();
                let sum = watched.word(key).unwrap().wrapping_add(watched.word(key + 16).unwrap());
                sums.add(key, sum, &watched)
            });
            *sums.get(number)
        });
        let found = found.collect();
        (found, read)
    }

    #[test]
    fn only_what_has_changed_is_found_out_anew() {
        let mut image = MemoryImage::default();
        image.insert(4096, &vec![1; 1 << 16]);
        let mut sums = Remembered::default();
        let count = 2_000;
        let keys = (0..count as u64).map(|number| 4096 + 24 * number);
        assert_eq!(pass(&mut sums, &image, keys.clone()).1, count);
        assert_eq!(pass(&mut sums, &image, keys.clone()).1, 0);
        // Of the second word of the first, which is none of the second's.
        image.poke(4096 + 16, &[2]).unwrap();
        let (found, read) = pass(&mut sums, &image, keys.clone());
        assert_eq!((read, found[0] - found[1]), (1, 1));
        // In another order, and with one that was never read.
        assert_eq!(pass(&mut sums, &image, keys.clone().rev().chain([4097])).1, 1);
        assert_eq!(sums.taken().len(), count + 1);
        // What is not asked for any more is forgotten in the end.
        assert_eq!(pass(&mut sums, &image, keys.clone().take(5)).1, 0);
        assert_eq!(pass(&mut sums, &image, keys.clone().take(5)).1, 5);
        assert_eq!(sums.all.len(), 5);
        // And so are words that have changed too often.
        for value in 0..=255 {
            image.poke(4096, &[value; 1 << 12]).unwrap();
            pass(&mut sums, &image, keys.clone());
            assert!(sums.words.len() < 16 * FEW * 4, "{}", sums.words.len());
        }
    }
}
