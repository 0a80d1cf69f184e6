//! The names that `threading` knows its threads by.
//!
//! The way there is `sys.modules['threading']._active[ident]._name`. Every object on it may be
//! changed or freed meanwhile, so types are compared with those of objects that stay, and a name
//! counts only if the pointers that led to it are the same after it was read.

use super::modules::Place;
use super::objects::{Item, Objects};
use super::{Torn, strings};
use crate::layout::Layout;
use crate::mem::{Address, Memory};

/// Most threads whose names are read at once.
const MOST_NAMES: usize = 4096;

/// Reads names, and remembers at which places in the dictionaries it found what it looked for.
#[derive(Clone, Debug, Default)]
pub struct NameReader {
    module: Place,
    active: usize,
    name: usize,
}

impl NameReader {
    /// Names of the threads of one interpreter by their `ident`. There are none as long as
    /// `threading` is not imported.
    pub fn names(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        interpreter: Address,
    ) -> Result<Vec<(u64, Box<str>)>, Torn> {
        let reader = Objects { memory, layout };
        let dict_type = reader.dict_type(interpreter)?;
        let module = reader.module(interpreter, dict_type, "threading", &mut self.module)?;
        let Some(namespace) = module else { return Ok(Vec::new()) };
        // The module may still be on its way through its own import.
        let Some(active) = reader.table(namespace)?.find("_active", &mut self.active)? else {
            return Ok(Vec::new());
        };
        let str_type = reader.type_of(active.key)?;
        let active = reader.exact(memory.word(active.slot)?, dict_type)?;
        let threads = reader.table(active)?.items()?;
        let name = |item: &Item| {
            let ident = reader.unsigned(item.key)?;
            let thread = memory.word(item.slot)?;
            let attributes = reader.attributes(thread, dict_type)?;
            let slot = attributes.find("_name", &mut self.name)?.ok_or(Torn)?.slot;
            let object = reader.exact(memory.word(slot)?, str_type)?;
            let text = strings::text(memory, layout, object)?;
            let is_same = memory.word(slot)? == object && memory.word(item.slot)? == thread;
            is_same.then_some((ident, text)).ok_or(Torn)
        };
        Ok(threads.iter().take(MOST_NAMES).map(name).filter_map(Result::ok).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables;
    use crate::mem::MemoryImage;
    use crate::reader::testing::{INTERPRETER, World};
    use proptest::prelude::*;

    const IDENT: u64 = 0x7f12_3456_7840;

    /// One thread, its attributes in a dictionary (3.10) or in values of their own (3.12).
    fn world(layout: Layout) -> (World, MemoryImage) {
        let objects = layout.objects;
        let mut world = World::new(layout);
        let name = world.string("worker");
        let name_key = world.string("_name");
        let other_key = world.string("_other");
        let thread = if objects.managed_dict.is_some() {
            let keys = world.keys(&[(other_key, 0), (name_key, 0)]);
            let values = world.place(&[(0, 0), (8, name)]);
            let class = world.place(&[(objects.type_flags, 16), (objects.type_cached_keys, keys)]);
            world.place(&[(0x100 - 24, values - 1), (0x108, class)]) + 0x100
        } else {
            let attributes = world.dict(&[(other_key, 0), (name_key, name)]);
            let class = world.place(&[(objects.type_dict_offset, 16)]);
            world.place(&[(8, class), (16, attributes)])
        };
        let digit = |index: u64| IDENT >> (30 * index) & 0x3FFF_FFFF;
        let ident = world.place(&[
            (objects.int_size, 2 << objects.int_size_shift),
            (objects.int_digits, digit(0) | digit(1) << 32),
        ]);
        let active = world.dict(&[(0, 0), (ident, thread)]);
        let active_key = world.string("_active");
        let namespace = world.dict(&[(active_key, active)]);
        let module = world.place(&[(objects.module_dict, namespace)]);
        let module_key = world.string("threading");
        let modules = world.dict(&[(name_key, 0), (module_key, module)]);
        let image = world.image(modules);
        (world, image)
    }

    #[test]
    fn names_are_found_by_ident() {
        for layout in [tables::V3_10, tables::V3_12] {
            let (world, image) = world(layout);
            let mut reader = NameReader::default();
            for _ in 0..2 {
                let names = reader.names(&image, &world.layout, INTERPRETER);
                assert_eq!(names, Ok(vec![(IDENT, "worker".into())]));
            }
        }
    }

    proptest! {
        #[test]
        fn any_memory_is_survived(
            is_new: bool,
            pokes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u32..64), 1..9),
        ) {
            let (world, mut image) = world(if is_new { tables::V3_12 } else { tables::V3_10 });
            let mut reader = NameReader::default();
            for (index, word, shift) in pokes {
                world.poke(&mut image, &index, word >> shift);
                let _ = reader.names(&image, &world.layout, INTERPRETER);
            }
        }
    }
}
