//! The one safe reader of interpreter memory: every read survives a bad address.
//!
//! [`Memory`] is what the reader is generic over. [`LiveMemory`] reads this process, through
//! `process_vm_readv` or through guarded direct loads; [`KernelMemory`] reads it for threads of the
//! application's, [`Blocks`] with fewer calls; [`MemoryImage`] is a captured copy, for tests, benches and fuzzing.

mod again;
mod blocks;
mod guarded;
mod image;
mod live;
mod syscall;

pub use again::{MOST_GROUPS, Remembered, Watched, Word};
pub use blocks::Blocks;
pub use guarded::{NUMBERS as FAULTS, give_back as give_back_faults, is_handler};
pub use image::{MemoryImage, RecordingMemory};
pub use live::{LiveMemory, Method};
pub use syscall::KernelMemory;

/// An address in the interpreter. Deliberately not a pointer: nothing can dereference it.
pub type Address = u64;

/// Bytes of a page: memory is mapped or not by whole pages.
pub const PAGE: u64 = 4096;

/// The memory could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// One piece of a batched read.
pub struct Piece<'a> {
    /// Where to read.
    pub from: Address,
    /// Where to put it; its length is how much to read.
    pub into: &'a mut [u8],
}

/// What a processor takes from another at once, in bytes.
pub const LINE: usize = 64;

/// How far apart the two copies of [`Memory::read_at_once`] are, in bytes.
pub const LAG: usize = 4 * LINE;

/// Memory that can be read without harm, whatever the address.
pub trait Memory {
    /// Copies `into.len()` bytes from `from`.
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault>;

    /// Copies several pieces in order, as close together in time as possible.
    fn read_pieces(&self, pieces: &mut [Piece<'_>]) -> Result<(), Fault> {
        pieces.iter_mut().try_for_each(|piece| self.read(piece.from, piece.into))
    }

    /// Reads two words and the memory at `from` as nearly at the same moment as possible, the words
    /// first. Both buffers, of one length, get that memory, [line](LINE) by line from the highest
    /// address down, the second buffer a line [`LAG`] later than the first. For callers that do not
    /// prefer batches.
    fn read_at_once(
        &self,
        words: [Address; 2],
        from: Address,
        into: [&mut [u8]; 2],
    ) -> Result<[u64; 2], Fault> {
        let values = [self.word(words[0])?, self.word(words[1])?];
        into.into_iter().try_for_each(|into| self.read(from, into))?;
        Ok(values)
    }

    /// As [`read`](Self::read), where only the words at some offsets matter.
    fn read_words(
        &self,
        from: Address,
        into: &mut [u8],
        _offsets: impl Iterator<Item = usize>,
    ) -> Result<(), Fault> {
        self.read(from, into)
    }

    /// Of each group of words, of which there are [`MOST_GROUPS`] at most, whether all are still what they were:
    /// bit by bit, the first group's the lowest. Each group's are read in order.
    fn same(&self, groups: &[&[Word]]) -> u32 {
        let is_same = |group: &&[Word]| group.iter().all(|word| self.word(word.at) == Ok(word.was));
        groups.iter().rev().fold(0, |bits, group| bits << 1 | u32::from(is_same(group)))
    }

    /// To be called at the start of every sampling cycle. False means that nothing may be read any
    /// more.
    fn begin_cycle(&self) -> bool {
        true
    }

    /// Whether a small read costs about as much as one of a page, so that callers do well to read
    /// ahead and to batch.
    fn prefers_batches(&self) -> bool;

    /// Reads a little-endian (native) 64-bit word.
    fn word(&self, from: Address) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.read(from, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Reads a 32-bit word.
    fn word32(&self, from: Address) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.read(from, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    /// Reads one byte.
    fn byte(&self, from: Address) -> Result<u8, Fault> {
        let mut bytes = [0; 1];
        self.read(from, &mut bytes)?;
        Ok(bytes[0])
    }
}

/// The address of a field. The object's address may be any word that was read; one that leads
/// beyond the end of memory wraps, to where a read tells what is there.
pub fn field(object: Address, offset: usize) -> Address {
    object.wrapping_add(offset as u64)
}

/// A 64-bit word inside bytes that were read; 0 where they are too short.
pub fn word_at(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<8>())
        .map_or(0, |chunk| u64::from_ne_bytes(*chunk))
}

/// A 32-bit word inside bytes that were read; 0 where they are too short.
pub fn word32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |chunk| u32::from_ne_bytes(*chunk))
}
