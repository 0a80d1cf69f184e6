//! Greenlets among the objects that the garbage collector keeps lists of.
//!
//! `PyGC_Head` is a pointer to the next and one to the previous object of a list, right before the
//! object (`internal/pycore_gc.h`, `cpython/objimpl.h` in 3.8), with flags in the lowest bits. Each
//! generation's list has its head in `_gc_runtime_state`, before `collecting`; the youngest comes
//! first. Where the heads are differs between patch releases, so they are told by what must hold of
//! them: their neighbours lead back to them. Builds without a GIL have no such lists.
//!
//! The lists change while they are followed. Every step is taken only if the next object leads back
//! to the last one; what is found counts once it was read as a greenlet, and what is missed is found
//! the next time.

use std::collections::HashMap;

use super::Reading;
use crate::hash::FastHash;
use crate::mem::{Address, Memory, field, word_at};
use crate::reader::Torn;

/// How far before `collecting` the first head is, at most.
const MOST_BEFORE: usize = 256;
/// Lists of generations, and of objects that are never collected.
const MOST_LISTS: usize = 4;
/// Times that the heads are looked for: one of them may have been changing.
const MOST_LOOKS: usize = 16;
/// The lists that are young.
const YOUNG: usize = 2;
/// Flags in both pointers.
const FLAGS: u64 = 3;
/// Most types that are remembered.
const MOST_TYPES: usize = 1 << 14;

/// How far the lists of one interpreter were followed.
#[derive(Debug, Default)]
pub struct Heap {
    heads: Vec<Address>,
    looks: usize,
    /// By type: whether it is one of greenlets.
    types: HashMap<Address, bool, FastHash>,
    /// Among the older lists, the one that is being followed, and the object that is next and the one
    /// before it, which is newer.
    old: Option<(usize, Address, Address)>,
}

impl Heap {
    /// Adds greenlets among the youngest objects, at most `most` of which are looked at, and returns
    /// how many were.
    pub fn young<M: Memory>(
        &mut self,
        reading: &Reading<'_, M>,
        collecting_at: Address,
        most: usize,
        into: &mut Vec<Address>,
    ) -> Result<usize, Torn> {
        if !self.is_ready(reading, collecting_at)? {
            return Ok(0);
        }
        let mut seen = 0;
        for list in 0..YOUNG.min(self.heads.len()) {
            let head = self.heads[list];
            let mut place = (reading.memory().word(field(head, 8))? & !FLAGS, head);
            seen += self.follow(reading, &mut place, most / YOUNG, into);
        }
        Ok(seen)
    }

    /// Goes on among the other objects, as far as `most` of them. True when all were looked at since
    /// it was last.
    pub fn old<M: Memory>(
        &mut self,
        reading: &Reading<'_, M>,
        collecting_at: Address,
        most: usize,
        into: &mut Vec<Address>,
    ) -> Result<bool, Torn> {
        if !self.is_ready(reading, collecting_at)? {
            return Ok(false);
        }
        let (list, next, last) = match self.old {
            Some(place) => place,
            None => {
                let Some(&head) = self.heads.get(YOUNG) else { return Ok(true) };
                (YOUNG, reading.memory().word(field(head, 8))? & !FLAGS, head)
            }
        };
        let mut place = (next, last);
        let seen = self.follow(reading, &mut place, most, into);
        if seen == most {
            self.old = Some((list, place.0, place.1));
            return Ok(false);
        }
        // At the end, or where the list was changing.
        let is_end = self.heads.contains(&place.0);
        self.old = None;
        if !is_end {
            return Ok(false);
        }
        match self.heads.get(list + 1) {
            Some(&head) => {
                let newest = reading.memory().word(field(head, 8))? & !FLAGS;
                self.old = Some((list + 1, newest, head));
                Ok(false)
            }
            None => {
                // Another type may be in the place of one that is gone.
                self.types.clear();
                Ok(true)
            }
        }
    }

    /// Whether the lists are known, and in order: while garbage is collected they are not.
    fn is_ready<M: Memory>(
        &mut self,
        reading: &Reading<'_, M>,
        collecting_at: Address,
    ) -> Result<bool, Torn> {
        let memory = reading.memory();
        if memory.word32(collecting_at)? != 0 {
            self.old = None;
            return Ok(false);
        }
        if self.looks < MOST_LOOKS && self.heads.len() < MOST_LISTS {
            self.looks += 1;
            for before in (16..MOST_BEFORE).step_by(8) {
                let at = collecting_at.wrapping_sub(before as u64) & !7;
                if !self.heads.contains(&at) && is_head(memory, at) {
                    self.heads.push(at);
                }
            }
            self.heads.sort_unstable();
        }
        Ok(!self.heads.is_empty())
    }

    /// Follows a list from its new to its old objects. `place` is the next object and the one before
    /// it. Returns how many were looked at.
    fn follow<M: Memory>(
        &mut self,
        reading: &Reading<'_, M>,
        place: &mut (Address, Address),
        most: usize,
        into: &mut Vec<Address>,
    ) -> usize {
        const HEAD: usize = 16;
        let memory = reading.memory();
        let type_at = HEAD + reading.layout().object_type;
        let mut bytes = [0; 64];
        let Some(bytes) = bytes.get_mut(..type_at + 8) else { return 0 };
        for seen in 0..most {
            let (next, last) = *place;
            if self.heads.contains(&next)
                || memory.read(next, bytes).is_err()
                || word_at(bytes, 0) & !FLAGS != last
            {
                return seen;
            }
            let class = word_at(bytes, type_at);
            let is_greenlets = match self.types.get(&class) {
                Some(&known) => known,
                None => {
                    let Ok(is) = reading.is_class(class) else { return seen };
                    if self.types.len() >= MOST_TYPES {
                        self.types.clear();
                    }
                    *self.types.entry(class).or_insert(is)
                }
            };
            if is_greenlets {
                into.push(field(next, HEAD));
            }
            *place = (word_at(bytes, 8) & !FLAGS, next);
        }
        most
    }
}

/// Whether the neighbours of what lies at an address lead back to it.
fn is_head(memory: &impl Memory, at: Address) -> bool {
    let leads_back = || {
        let (next, previous) = (memory.word(at)?, memory.word(field(at, 8))?);
        let back = memory.word(field(next, 8))? & !FLAGS == at;
        Ok::<_, crate::mem::Fault>(back && memory.word(previous)? & !FLAGS == at)
    };
    leads_back() == Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables;
    use crate::mem::MemoryImage;
    use crate::reader::greenlets::GreenletReader;
    use crate::reader::testing::{INTERPRETER, World};

    const COLLECTING: Address = 0x18_100;
    const HEADS: [Address; 3] = [COLLECTING - 0x80, COLLECTING - 0x60, COLLECTING - 0x40];

    /// Lists of so many objects, of which every other one is a greenlet.
    fn lists(lengths: [usize; 3]) -> (World, MemoryImage, Vec<Address>) {
        let layout = tables::V3_12;
        let mut world = World::new(layout.clone());
        let class = world.class("greenlet.greenlet", 0);
        world.set(class + layout.objects.type_basic_size as u64, 40);
        let other = world.class("list", 0);
        let (mut greenlets, mut ends) = (Vec::new(), Vec::new());
        for (length, head) in lengths.into_iter().zip(HEADS) {
            let types = [class, other];
            let nodes: Vec<Address> =
                (0..length).map(|n| world.place(&[(24, types[n % 2])])).collect();
            greenlets.extend(nodes.iter().step_by(2).map(|node| node + 16));
            for (n, &node) in nodes.iter().enumerate() {
                let neighbour =
                    |n: Option<usize>| n.and_then(|n| nodes.get(n)).copied().unwrap_or(head);
                // With flags, as while or after a collection.
                world.set(node, neighbour(Some(n + 1)) | (n as u64 & 1));
                world.set(node + 8, neighbour(n.checked_sub(1)) | (n as u64 & 3));
            }
            let end = |node: Option<&Address>| node.copied().unwrap_or(head);
            ends.push((head, end(nodes.first()), end(nodes.last())));
        }
        let key = world.string("greenlet");
        let namespace = world.dict(&[(key, class)]);
        let module = world.place(&[(layout.objects.module_dict, namespace)]);
        let key = world.string("greenlet._greenlet");
        let modules = world.dict(&[(key, module)]);
        let mut image = world.image(modules);
        image.insert(COLLECTING - 0x100, &[0; 0x200]);
        for (head, first, last) in ends {
            image.poke(head, &first.to_ne_bytes()).unwrap();
            image.poke(head + 8, &last.to_ne_bytes()).unwrap();
        }
        (world, image, greenlets)
    }

    fn found(image: &MemoryImage, world: &World, most: usize, looks: usize) -> Vec<Address> {
        let mut reader = GreenletReader::default();
        let reading = reader.reading(image, &world.layout, INTERPRETER).unwrap().unwrap();
        let (mut heap, mut into) = (Heap::default(), Vec::new());
        heap.young(&reading, COLLECTING, 2 * most, &mut into).unwrap();
        let mut ended = 0;
        for _ in 0..looks {
            ended += usize::from(heap.old(&reading, COLLECTING, most, &mut into).unwrap());
        }
        assert_eq!(ended > 0, looks * most > 40);
        into.sort_unstable();
        into.dedup();
        into
    }

    #[test]
    fn all_greenlets_are_found_a_few_objects_at_a_time() {
        for lengths in [[3, 5, 40], [0, 0, 7], [5, 0, 0]] {
            let (world, image, mut greenlets) = lists(lengths);
            greenlets.sort_unstable();
            assert_eq!(found(&image, &world, 6, 12), greenlets, "{lengths:?}");
        }
    }

    #[test]
    fn nothing_is_followed_while_garbage_is_collected() {
        let (world, mut image, _) = lists([3, 5, 7]);
        image.poke(COLLECTING, &[1]).unwrap();
        assert!(found(&image, &world, 1, 4).is_empty());
    }

    #[test]
    fn a_list_that_does_not_lead_back_is_left() {
        let (world, mut image, greenlets) = lists([0, 0, 9]);
        // The object before the last one is somewhere else by now.
        let last = greenlets[4] - 16;
        image.poke(last + 8, &greenlets[0].to_ne_bytes()).unwrap();
        assert_eq!(found(&image, &world, 2, 3), [greenlets[4]]);
    }
}
