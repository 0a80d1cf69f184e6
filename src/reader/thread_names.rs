//! The names that `threading` knows its threads by.
//!
//! The way there is `sys.modules['threading']._active[ident]._name`. Every object on it may be
//! changed or freed meanwhile, so types are compared with those of objects that stay, and a name
//! counts only if the pointers that led to it are the same after it was read.

use super::{Torn, strings};
use crate::layout::Layout;
use crate::layout::objects::{Keys, ManagedDict};
use crate::mem::{Address, Memory, field, word_at, word32_at};

/// Most threads whose names are read at once.
const MOST_NAMES: usize = 4096;
/// Largest dictionary that is believed.
const MOST_ENTRIES: usize = 1 << 17;
/// Largest instance that is believed, in bytes.
const MOST_INSTANCE: u64 = 1 << 16;

/// Reads names, and remembers at which places in the dictionaries it found what it looked for.
#[derive(Clone, Debug, Default)]
pub struct NameReader {
    module: usize,
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
        let reader = Reader { memory, layout };
        let modules = memory.word(field(interpreter, layout.interpreter_modules))?;
        let dict_type = reader.type_of(modules)?;
        let Some(module) = reader.table(modules)?.find("threading", &mut self.module)? else {
            return Ok(Vec::new());
        };
        let str_type = reader.type_of(module.key)?;
        let module = memory.word(module.slot)?;
        let namespace = memory.word(module.offset(layout.objects.module_dict)?)?;
        let namespace = reader.exact(namespace, dict_type)?;
        // The module may still be on its way through its own import.
        let Some(active) = reader.table(namespace)?.find("_active", &mut self.active)? else {
            return Ok(Vec::new());
        };
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

/// Addresses that were read are anything at all.
trait Offset {
    fn offset(self, bytes: usize) -> Result<Address, Torn>;
    fn before(self, bytes: usize) -> Result<Address, Torn>;
}

impl Offset for Address {
    fn offset(self, bytes: usize) -> Result<Address, Torn> {
        self.checked_add(bytes as u64).ok_or(Torn)
    }

    fn before(self, bytes: usize) -> Result<Address, Torn> {
        self.checked_sub(bytes as u64).ok_or(Torn)
    }
}

struct Reader<'a, M> {
    memory: &'a M,
    layout: &'a Layout,
}

/// An entry of a dictionary: the key, and where the pointer to the value is.
#[derive(Clone, Copy)]
struct Item {
    key: Address,
    slot: Address,
}

/// The entries of a dictionary or of an instance's attributes, in order of insertion.
struct Table<'a, M> {
    reader: &'a Reader<'a, M>,
    entries: Address,
    count: usize,
    entry_bytes: usize,
    key_offset: usize,
    /// Where the values are if not in the entries.
    values: Option<Address>,
}

impl<'a, M: Memory> Reader<'a, M> {
    fn type_of(&self, object: Address) -> Result<Address, Torn> {
        Ok(self.memory.word(object.offset(self.layout.object_type)?)?)
    }

    fn exact(&self, object: Address, wanted: Address) -> Result<Address, Torn> {
        if self.type_of(object)? == wanted { Ok(object) } else { Err(Torn) }
    }

    /// The entries of a `dict`.
    fn table(&'a self, dict: Address) -> Result<Table<'a, M>, Torn> {
        let objects = &self.layout.objects;
        let keys = self.memory.word(dict.offset(objects.dict_keys)?)?;
        let values = self.memory.word(dict.offset(objects.dict_values)?)?;
        self.table_of(keys, (values != 0).then_some(values))
    }

    fn table_of(&'a self, keys: Address, values: Option<Address>) -> Result<Table<'a, M>, Torn> {
        // `dk_refcnt`, then sizes, and `dk_indices` at the end.
        const MOST_HEAD: usize = 40;
        let mut head = [0; MOST_HEAD];
        self.memory.read(keys, &mut head)?;
        let (indices, index_bytes, count, has_hashes) = match self.layout.objects.keys {
            Keys::Sized => {
                let size = word_at(&head, 8);
                let width = match size {
                    0..=0xFF => 1,
                    0x100..=0xFFFF => 2,
                    0x1_0000..=0xFFFF_FFFF => 4,
                    _ => return Err(Torn),
                };
                (40, size * width, word_at(&head, 32), true)
            }
            Keys::Logarithmic => {
                const GENERAL: u8 = 0;
                let index_bytes = 1_u64.checked_shl(head[9].into()).ok_or(Torn)?;
                (32, index_bytes, word_at(&head, 24), head[10] == GENERAL)
            }
        };
        let count = usize::try_from(count).ok().filter(|&count| count <= MOST_ENTRIES);
        let values = match values {
            Some(values) => Some(values.offset(self.layout.objects.values_items)?),
            None => None,
        };
        Ok(Table {
            reader: self,
            entries: keys.offset(indices)?.checked_add(index_bytes).ok_or(Torn)?,
            count: count.ok_or(Torn)?,
            entry_bytes: if has_hashes { 24 } else { 16 },
            key_offset: if has_hashes { 8 } else { 0 },
            values,
        })
    }

    /// The attributes of an instance.
    fn attributes(&'a self, object: Address, dict_type: Address) -> Result<Table<'a, M>, Torn> {
        const MANAGED_DICT: u64 = 1 << 4;
        const INLINE_VALUES: u64 = 1 << 2;
        let Self { memory, layout } = *self;
        let objects = &layout.objects;
        let of_dict = |dict: Address| self.table(self.exact(dict, dict_type)?);
        let of_values = |class: Address, values: Address| {
            let keys = memory.word(class.offset(objects.type_cached_keys)?)?;
            self.table_of(keys, Some(values))
        };
        let class = self.type_of(object)?;
        let flags = memory.word(class.offset(objects.type_flags)?)?;
        match objects.managed_dict.filter(|_| flags & MANAGED_DICT != 0) {
            None => {
                let offset = memory.word(class.offset(objects.type_dict_offset)?)?;
                // A negative one is of instances of varying size.
                if offset == 0 || offset > MOST_INSTANCE {
                    return Err(Torn);
                }
                of_dict(memory.word(object.offset(offset as usize)?)?)
            }
            Some(ManagedDict::Separate { values_before, dict_before }) => {
                match memory.word(object.before(values_before)?)? {
                    0 => of_dict(memory.word(object.before(dict_before)?)?),
                    values => of_values(class, values),
                }
            }
            Some(ManagedDict::Tagged { before }) => {
                let pointer = memory.word(object.before(before)?)?;
                // The tag is -1.
                if pointer & 1 == 0 {
                    of_dict(pointer)
                } else {
                    of_values(class, pointer.offset(1)?)
                }
            }
            Some(ManagedDict::Inline { dict_before }) => {
                match memory.word(object.before(dict_before)?)? {
                    0 if flags & INLINE_VALUES == 0 => Err(Torn),
                    0 => {
                        let size = memory.word(class.offset(objects.type_basic_size)?)?;
                        if size > MOST_INSTANCE {
                            return Err(Torn);
                        }
                        of_values(class, object.offset(size as usize)?)
                    }
                    dict => of_dict(dict),
                }
            }
        }
    }

    /// The value of an `int`, if it fits.
    fn unsigned(&self, object: Address) -> Result<u64, Torn> {
        const DIGIT_BITS: u32 = 30;
        const MOST_DIGITS: u64 = 3;
        let objects = &self.layout.objects;
        let size = self.memory.word(object.offset(objects.int_size)?)?;
        let has_sign = objects.int_size_shift > 0 && size & 3 != 0;
        let size = size >> objects.int_size_shift;
        if has_sign || size > MOST_DIGITS {
            return Err(Torn);
        }
        let mut digits = [0; 4 * MOST_DIGITS as usize];
        let digits = &mut digits[..4 * size as usize];
        self.memory.read(object.offset(objects.int_digits)?, digits)?;
        let value = digits
            .chunks_exact(4)
            .rev()
            .fold(0, |value: u128, digit| value << DIGIT_BITS | u128::from(word32_at(digit, 0)));
        u64::try_from(value).map_err(|_| Torn)
    }
}

impl<M: Memory> Table<'_, M> {
    fn item(&self, index: usize, entry: &[u8]) -> Item {
        let slot = match self.values {
            Some(values) => values.wrapping_add(8 * index as u64),
            None => {
                let offset = index * self.entry_bytes + self.key_offset + 8;
                self.entries.wrapping_add(offset as u64)
            }
        };
        Item { key: word_at(entry, self.key_offset), slot }
    }

    /// All items but those that were deleted.
    fn items(&self) -> Result<Vec<Item>, Torn> {
        let mut bytes = vec![0; self.count * self.entry_bytes];
        self.reader.memory.read(self.entries, &mut bytes)?;
        let entries = bytes.chunks_exact(self.entry_bytes).enumerate();
        let items = entries.map(|(index, entry)| self.item(index, entry));
        Ok(items.filter(|item| item.key != 0).collect())
    }

    /// The item with this key, which is looked for at `hint` first.
    fn find(&self, key: &str, hint: &mut usize) -> Result<Option<Item>, Torn> {
        let Reader { memory, layout } = *self.reader;
        let is_it = |item: &Item| strings::is_ascii(memory, layout, item.key, key);
        if *hint < self.count {
            let mut entry = [0; 24];
            let entry = &mut entry[..self.entry_bytes];
            memory.read(self.entries.offset(*hint * self.entry_bytes)?, entry)?;
            let item = self.item(*hint, entry);
            if is_it(&item) {
                return Ok(Some(item));
            }
        }
        let mut bytes = vec![0; self.count * self.entry_bytes];
        memory.read(self.entries, &mut bytes)?;
        for (index, entry) in bytes.chunks_exact(self.entry_bytes).enumerate() {
            let item = self.item(index, entry);
            if item.key != 0 && is_it(&item) {
                *hint = index;
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables;
    use crate::mem::MemoryImage;
    use proptest::prelude::*;

    const INTERPRETER: Address = 0x10_000;
    const OBJECTS: Address = 0x20_000;
    const OBJECT_BYTES: u64 = 0x400;
    const STR: u64 = 1;
    const DICT: u64 = 2;
    const IDENT: u64 = 0x7f12_3456_7840;

    /// Memory with one object in each place.
    struct World {
        layout: Layout,
        bytes: Vec<u8>,
        places: u64,
    }

    impl World {
        fn place(&mut self, words: &[(usize, u64)]) -> Address {
            let start = (self.places * OBJECT_BYTES) as usize;
            self.places += 1;
            self.bytes.resize(start + OBJECT_BYTES as usize, 0);
            for &(offset, word) in words {
                self.bytes[start + offset..][..8].copy_from_slice(&word.to_ne_bytes());
            }
            OBJECTS + start as u64
        }

        fn string(&mut self, text: &str) -> Address {
            let Layout { str_length, str_state, str_ascii_data, .. } = self.layout;
            let state = (1 | 8 | 16) << self.layout.str_kind_shift;
            let at = self.place(&[(8, STR), (str_length, text.len() as u64), (str_state, state)]);
            let start = (at - OBJECTS) as usize + str_ascii_data;
            self.bytes[start..][..text.len()].copy_from_slice(text.as_bytes());
            at
        }

        fn keys(&mut self, items: &[(Address, Address)]) -> Address {
            let count = items.len() as u64;
            let (mut words, indices) = match self.layout.objects.keys {
                Keys::Sized => (vec![(8, 8), (32, count)], 40),
                // Eight indices of one byte, entries with hashes.
                Keys::Logarithmic => (vec![(8, 0x0303), (24, count)], 32),
            };
            for (index, &(key, value)) in items.iter().enumerate() {
                let entry = indices + 8 + 24 * index;
                words.extend([(entry + 8, key), (entry + 16, value)]);
            }
            self.place(&words)
        }

        fn dict(&mut self, items: &[(Address, Address)]) -> Address {
            let keys = self.keys(items);
            self.place(&[(8, DICT), (self.layout.objects.dict_keys, keys)])
        }

        fn image(&self, modules: Address) -> MemoryImage {
            let mut image = MemoryImage::new();
            let modules_at = INTERPRETER + self.layout.interpreter_modules as u64;
            image.insert(modules_at, &modules.to_ne_bytes());
            image.insert(OBJECTS, &self.bytes);
            image
        }
    }

    /// One thread, its attributes in a dictionary (3.10) or in values of their own (3.12).
    fn world(layout: Layout) -> (World, MemoryImage) {
        let objects = layout.objects;
        let mut world = World { layout, bytes: Vec::new(), places: 0 };
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
                // Where something is, so that it matters.
                let used: Vec<usize> = (0..world.bytes.len() / 8)
                    .filter(|word| world.bytes[8 * word..8 * word + 8] != [0; 8])
                    .collect();
                let at = OBJECTS + 8 * *index.get(&used) as u64;
                image.poke(at, &(word >> shift).to_ne_bytes()).unwrap();
                let _ = reader.names(&image, &world.layout, INTERPRETER);
            }
        }
    }
}
