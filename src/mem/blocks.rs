//! Memory that does not change meanwhile, read a block at a time: for who reads a few objects by system
//! call, each of which costs as much as a block.

use std::cell::RefCell;

use super::{Address, Fault, Memory};

/// Bytes of a block. A page is whole blocks: what is in one of them is there, or is not, as a whole.
const BLOCK: usize = 1024;
/// Most that are kept.
const MOST_KEPT: usize = 16;
/// A larger read goes by itself.
const MOST_READ: usize = 4 * BLOCK;

/// What was read of a memory since this was made, which is believed to be still there.
pub struct Blocks<'m, M> {
    memory: &'m M,
    kept: RefCell<Vec<(Address, [u8; BLOCK])>>,
}

impl<'m, M: Memory> Blocks<'m, M> {
    /// To be made where reading begins, and dropped before anything may change.
    pub fn of(memory: &'m M) -> Self {
        Self { memory, kept: RefCell::default() }
    }
}

impl<M: Memory> Memory for Blocks<'_, M> {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        let mut kept = self.kept.borrow_mut();
        let end = from.checked_add(into.len() as u64).ok_or(Fault)?;
        if into.len() > MOST_READ {
            return self.memory.read(from, into);
        }
        let mut at = from;
        while at < end {
            let start = at & !(BLOCK as u64 - 1);
            let block = match kept.iter().position(|(known, _)| *known == start) {
                Some(place) => place,
                None => {
                    let mut bytes = [0; BLOCK];
                    self.memory.read(start, &mut bytes)?;
                    if kept.len() == MOST_KEPT {
                        kept.clear();
                    }
                    kept.push((start, bytes));
                    kept.len() - 1
                }
            };
            let within = (at - start) as usize;
            let length = (BLOCK - within).min((end - at) as usize);
            let done = (at - from) as usize;
            into[done..done + length].copy_from_slice(&kept[block].1[within..within + length]);
            at += length as u64;
        }
        Ok(())
    }

    fn prefers_batches(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Bytes that tell where they are, from 4096 to 12288.
    #[derive(Default)]
    struct Counted(Cell<usize>);

    impl Memory for Counted {
        fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
            self.0.set(self.0.get() + 1);
            let end = from + into.len() as u64;
            if from < 4096 || end > 12288 {
                return Err(Fault);
            }
            (from..end).zip(into).for_each(|(at, byte)| *byte = (at ^ at >> 8) as u8);
            Ok(())
        }

        fn prefers_batches(&self) -> bool {
            true
        }
    }

    #[test]
    fn what_was_read_is_what_is_there() {
        let memory = Counted::default();
        let blocks = Blocks::of(&memory);
        for length in [0, 1, 8, 100, 1024, 3000, MOST_READ, MOST_READ + 1] {
            for from in [4090, 4095, 4096, 5000, 5119, 7000, 8191, 9000, 12280, 12288, 1 << 40] {
                let (mut truth, mut found) = (vec![0; length], vec![0; length]);
                let expected = memory.read(from, &mut truth);
                let is_nothing = length == 0;
                assert!(is_nothing || blocks.read(from, &mut found) == expected, "{from} {length}");
                assert!(is_nothing || expected.is_err() || found == truth, "{from} {length}");
            }
        }
        assert_eq!(blocks.read(u64::MAX - 3, &mut [0; 8]), Err(Fault));
    }

    #[test]
    fn near_reads_are_one() {
        let memory = Counted::default();
        let blocks = Blocks::of(&memory);
        (5120..6140).for_each(|at| assert!(blocks.word32(at).is_ok()));
        assert_eq!(memory.0.get(), 1);
        assert!(blocks.word(6140).is_ok());
        assert_eq!(memory.0.get(), 2);
    }
}
