//! Reads of many objects, one after the other and again and again: what was read of each the last time is asked
//! for before its turn comes, so that many lines are on their way at once instead of one after the other.

use std::cell::RefCell;

use super::{Address, Fault, LINE, Memory, Piece};

/// Remembers which lines were read of which object.
#[derive(Debug, Default)]
pub struct Ahead {
    /// Of the last pass that was watched.
    last: Trace,
    /// Where in it the object before was.
    next: usize,
    /// How many objects of this pass were not in the last one, and how many passes that was used for.
    unknown: usize,
    uses: u32,
}

/// Each object, and behind which of the lines its own begin.
#[derive(Debug, Default)]
struct Trace {
    objects: Vec<(Address, u32)>,
    lines: Vec<Address>,
}

/// Objects of the last pass that are passed over at once: those that are gone.
const MOST_GONE: usize = 16;
/// Lines of an object that are asked for.
const MOST_LINES: usize = 64;
/// Lines that are remembered in all: 4 MB of them.
const MOST_IN_ALL: usize = 1 << 19;
/// Passes for which what was watched is used, if as good as all objects are still there.
const MOST_USES: u32 = 50;

impl Ahead {
    /// Begins to go through all objects again. What is to be read is read by way of the memory that is returned.
    pub fn begin<'m, M>(&mut self, memory: &'m M) -> Watched<'m, M> {
        let is_outdated = self.unknown > self.last.objects.len() / 16 || self.uses >= MOST_USES;
        let is_watching = is_outdated || self.last.objects.is_empty();
        (self.next, self.unknown) = (0, 0);
        self.uses += 1;
        Watched { memory, trace: is_watching.then(RefCell::default) }
    }

    /// Asks for what was read of an object, whose turn is soon.
    pub fn ask(&mut self, object: Address) {
        let Trace { objects, lines } = &self.last;
        let mut near = objects.iter().skip(self.next).take(MOST_GONE);
        let Some(passed) = near.position(|&(known, _)| known == object) else {
            self.unknown += 1;
            return;
        };
        let place = self.next + passed;
        self.next = place + 1;
        let begin = objects[place].1 as usize;
        let end = objects.get(place + 1).map_or(lines.len(), |&(_, begin)| begin as usize);
        let lines = lines.get(begin..end).unwrap_or_default();
        lines.iter().take(MOST_LINES).for_each(|&line| ask_for(line));
    }

    /// Ends the pass.
    pub fn end<M>(&mut self, memory: Watched<'_, M>) {
        if let Some(trace) = memory.trace {
            self.last = trace.into_inner();
            (self.unknown, self.uses) = (0, 0);
        }
    }
}

/// Tells the processor that the line with an address will be read. It may be anywhere, and need not be there.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn ask_for(line: Address) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing that could be seen, and does nothing where there is no memory.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(line as usize)) };
}

/// Tells the processor that the line with an address will be read.
#[cfg(not(target_arch = "x86_64"))]
fn ask_for(_: Address) {}

/// Memory of which is remembered what was read.
pub struct Watched<'m, M> {
    memory: &'m M,
    /// Nothing if what was read before is known well enough.
    trace: Option<RefCell<Trace>>,
}

impl<M> Watched<'_, M> {
    /// What is read from now on is read of this object.
    pub fn turn_to(&self, object: Address) {
        if let Some(trace) = &self.trace {
            let mut trace = trace.borrow_mut();
            let begin = trace.lines.len() as u32;
            trace.objects.push((object, begin));
        }
    }

    #[inline]
    fn note(&self, from: Address, length: usize) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().note(from, length);
        }
    }
}

impl Trace {
    #[cold]
    fn note(&mut self, from: Address, length: usize) {
        const WITHIN: u64 = LINE as u64 - 1;
        /// What was read a moment ago is there.
        const NEAR: usize = 4;
        let lines = &mut self.lines;
        // An address may be any number; the last line ends with the last one there is.
        let last = from.saturating_add(length.max(1) as u64 - 1) & !WITHIN;
        for line in (from & !WITHIN..=last).step_by(LINE) {
            let near = lines.len().saturating_sub(NEAR);
            if lines.len() < MOST_IN_ALL && !lines[near..].contains(&line) {
                lines.push(line);
            }
        }
    }
}

impl<M: Memory> Memory for Watched<'_, M> {
    #[inline]
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        self.note(from, into.len());
        self.memory.read(from, into)
    }

    fn read_pieces(&self, pieces: &mut [Piece<'_>]) -> Result<(), Fault> {
        pieces.iter().for_each(|piece| self.note(piece.from, piece.into.len()));
        self.memory.read_pieces(pieces)
    }

    fn prefers_batches(&self) -> bool {
        self.memory.prefers_batches()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::MemoryImage;

    /// Reads objects of two lines each, and returns whether that was watched.
    fn pass(ahead: &mut Ahead, memory: &MemoryImage, objects: &[Address]) -> bool {
        let watched = ahead.begin(memory);
        for &object in objects {
            ahead.ask(object);
            watched.turn_to(object);
            let _ = watched.word(object + 60);
            let _ = watched.word(object);
        }
        let is_watched = watched.trace.is_some();
        ahead.end(watched);
        is_watched
    }

    #[test]
    fn what_was_read_is_known_until_much_of_it_is_new() {
        let memory = MemoryImage::default();
        let mut ahead = Ahead::default();
        let objects: Vec<Address> = (1..=100).map(|number| number * 4096).collect();
        assert!(pass(&mut ahead, &memory, &objects));
        assert_eq!(ahead.last.objects.len(), 100);
        assert_eq!(ahead.last.lines[2..4], [8192, 8192 + 64]);
        assert!(!pass(&mut ahead, &memory, &objects));
        // Some that are gone, and some that are new, are passed over.
        let mut others = objects[10..].to_vec();
        others.extend([1 << 20, 1 << 21]);
        assert!(!pass(&mut ahead, &memory, &others));
        assert_eq!((ahead.unknown, ahead.next), (2, 100));
        // Another order is learned.
        let turned: Vec<Address> = objects.iter().rev().copied().collect();
        assert!(!pass(&mut ahead, &memory, &turned));
        assert!(pass(&mut ahead, &memory, &turned));
        assert!((0..MOST_USES).filter(|_| pass(&mut ahead, &memory, &turned)).count() <= 1);
        assert_eq!(ahead.unknown, 0);
    }

    #[test]
    fn any_address_is_a_line_at_most() {
        let memory = MemoryImage::default();
        let mut ahead = Ahead::default();
        let watched = ahead.begin(&memory);
        watched.turn_to(1);
        for address in [0, 1 << 47, u64::MAX - 70, u64::MAX - 3, u64::MAX] {
            assert!(watched.word(address).is_err());
        }
        ahead.end(watched);
        let last = u64::MAX - 63;
        assert_eq!(ahead.last.lines, [0, 1 << 47, last - 64, last]);
    }
}
