//! A captured copy of memory, so that everything above `mem` runs without a live interpreter.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{Address, Fault, Memory};

/// Non-overlapping ranges of bytes by their start address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryImage {
    ranges: BTreeMap<Address, Vec<u8>>,
    batched: bool,
}

impl MemoryImage {
    /// An empty image, in which every read faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the image claim that batches are cheaper, as `process_vm_readv` does.
    pub fn preferring_batches(mut self, batched: bool) -> Self {
        self.batched = batched;
        self
    }

    /// Adds bytes at an address. Bytes that are already there win: they were captured first.
    pub fn insert(&mut self, at: Address, bytes: &[u8]) {
        for (index, &byte) in bytes.iter().enumerate() {
            let Some(address) = at.checked_add(index as u64) else { return };
            if self.byte_at(address).is_none() {
                self.push(address, byte);
            }
        }
    }

    /// Overwrites bytes that are in the image.
    pub fn poke(&mut self, at: Address, bytes: &[u8]) -> Result<(), Fault> {
        let (start, range) = self.ranges.range_mut(..=at).next_back().ok_or(Fault)?;
        let offset = (at - start) as usize;
        let end = offset.checked_add(bytes.len()).ok_or(Fault)?;
        range.get_mut(offset..end).ok_or(Fault)?.copy_from_slice(bytes);
        Ok(())
    }

    /// What is in the image, by address.
    pub fn ranges(&self) -> impl Iterator<Item = (Address, &[u8])> {
        self.ranges.iter().map(|(&start, bytes)| (start, bytes.as_slice()))
    }

    fn byte_at(&self, address: Address) -> Option<u8> {
        let (start, range) = self.ranges.range(..=address).next_back()?;
        range.get((address - start) as usize).copied()
    }

    fn push(&mut self, address: Address, byte: u8) {
        if let Some((start, range)) = self.ranges.range_mut(..address).next_back()
            && start.wrapping_add(range.len() as u64) == address
        {
            range.push(byte);
            if let Some(next) = self.ranges.remove(&address.wrapping_add(1))
                && let Some((_, range)) = self.ranges.range_mut(..=address).next_back()
            {
                range.extend(next);
            }
            return;
        }
        let mut range = vec![byte];
        if let Some(next) = self.ranges.remove(&address.wrapping_add(1)) {
            range.extend(next);
        }
        self.ranges.insert(address, range);
    }
}

impl Memory for MemoryImage {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        let (start, range) = self.ranges.range(..=from).next_back().ok_or(Fault)?;
        let offset = (from - start) as usize;
        let end = offset.checked_add(into.len()).ok_or(Fault)?;
        into.copy_from_slice(range.get(offset..end).ok_or(Fault)?);
        Ok(())
    }

    fn prefers_batches(&self) -> bool {
        self.batched
    }
}

/// Memory that keeps a copy of everything that is read through it.
#[derive(Debug)]
pub struct RecordingMemory<M> {
    inner: M,
    image: RefCell<MemoryImage>,
}

impl<M: Memory> RecordingMemory<M> {
    /// Records what is read from `inner`.
    pub fn new(inner: M) -> Self {
        Self { inner, image: RefCell::new(MemoryImage::new()) }
    }

    /// What was read so far.
    pub fn image(&self) -> MemoryImage {
        self.image.borrow().clone()
    }
}

impl<M: Memory> Memory for RecordingMemory<M> {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        self.inner.read(from, into)?;
        self.image.borrow_mut().insert(from, into);
        Ok(())
    }

    fn prefers_batches(&self) -> bool {
        self.inner.prefers_batches()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_inserted_and_nothing_else() {
        let mut image = MemoryImage::new();
        image.insert(100, &[1, 2, 3]);
        image.insert(104, &[5]);
        image.insert(101, &[9, 9, 4, 9, 6]);
        let mut bytes = [0; 6];
        image.read(100, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6]);
        assert_eq!(image.read(99, &mut bytes), Err(Fault));
        assert_eq!(image.read(101, &mut bytes), Err(Fault));
    }
}
