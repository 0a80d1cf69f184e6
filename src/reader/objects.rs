//! Dictionaries, the attributes of instances, and integers.
//!
//! Every object may be changed or freed while it is read. What was found counts only if whoever
//! asked finds afterwards that the pointers that led to it are still the same.

use super::{Torn, strings};
use crate::layout::Layout;
use crate::layout::objects::{Keys, ManagedDict};
use crate::mem::{Address, Memory, word_at, word32_at};

/// Largest dictionary that is believed.
const MOST_ENTRIES: usize = 1 << 17;
/// Largest instance that is believed, in bytes.
const MOST_INSTANCE: u64 = 1 << 16;

/// Addresses that were read are anything at all.
pub trait Offset {
    /// Of a field.
    fn offset(self, bytes: usize) -> Result<Address, Torn>;
    /// Of what lies before.
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

/// Reads objects of any kind.
pub struct Objects<'a, M> {
    /// Where they are.
    pub memory: &'a M,
    /// What they look like.
    pub layout: &'a Layout,
}

/// An entry of a dictionary: the key, and where the pointer to the value is.
#[derive(Clone, Copy)]
pub struct Item {
    /// The key.
    pub key: Address,
    /// Where the pointer to the value is.
    pub slot: Address,
}

impl<M> Clone for Objects<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Objects<'_, M> {}

/// The entries of a dictionary or of an instance's attributes, in order of insertion.
pub struct Table<'a, M> {
    objects: Objects<'a, M>,
    entries: Address,
    count: usize,
    entry_bytes: usize,
    key_offset: usize,
    /// Where the values are if not in the entries.
    values: Option<Address>,
    /// The `dict` that they are of, and what it said of itself before they were read.
    of: Option<(Address, Said)>,
}

/// `ma_used`, `ma_keys` and `ma_values`.
type Said = [Address; 3];

impl<'a, M: Memory> Objects<'a, M> {
    /// An object's type.
    pub fn type_of(&self, object: Address) -> Result<Address, Torn> {
        Ok(self.memory.word(object.offset(self.layout.object_type)?)?)
    }

    /// The object, if it is of this very type.
    pub fn exact(&self, object: Address, wanted: Address) -> Result<Address, Torn> {
        if self.type_of(object)? == wanted { Ok(object) } else { Err(Torn) }
    }

    /// The entries of a `dict`.
    pub fn table(&self, dict: Address) -> Result<Table<'a, M>, Torn> {
        let said @ [_, keys, values] = self.said(dict)?;
        let table = self.table_of(keys, (values != 0).then_some(values))?;
        Ok(Table { of: Some((dict, said)), ..table })
    }

    /// What a `dict` says of itself: `ma_used` comes first in all versions (`cpython/dictobject.h`).
    fn said(&self, dict: Address) -> Result<Said, Torn> {
        let Layout { object_size, objects, .. } = self.layout;
        let word = |offset| Ok::<_, Torn>(self.memory.word(dict.offset(offset)?)?);
        Ok([word(*object_size)?, self.keys_of(dict)?, word(objects.dict_values)?])
    }

    /// Where the keys of a `dict` are.
    pub fn keys_of(&self, dict: Address) -> Result<Address, Torn> {
        Ok(self.memory.word(dict.offset(self.layout.objects.dict_keys)?)?)
    }

    fn table_of(&self, keys: Address, values: Option<Address>) -> Result<Table<'a, M>, Torn> {
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
            objects: *self,
            entries: keys.offset(indices)?.checked_add(index_bytes).ok_or(Torn)?,
            count: count.ok_or(Torn)?,
            entry_bytes: if has_hashes { 24 } else { 16 },
            key_offset: if has_hashes { 8 } else { 0 },
            values,
            of: None,
        })
    }

    /// The attributes of an instance.
    pub fn attributes(&self, object: Address, dict_type: Address) -> Result<Table<'a, M>, Torn> {
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
    pub fn unsigned(&self, object: Address) -> Result<u64, Torn> {
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

    /// How many entries there are, with those that were deleted.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Where the entries are, and how many: both are as before if none was added since. The number
    /// alone is not enough, as a table that grows leaves out what was deleted.
    pub fn extent(&self) -> (Address, usize) {
        (self.entries, self.count)
    }

    /// The `dict` whose they are, if they are one's, and its keys.
    pub fn keys(&self) -> Option<(Address, Address)> {
        self.of.map(|(dict, [_, keys, _])| (dict, keys))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An entry; its key is 0 if it was deleted.
    pub fn entry(&self, index: usize) -> Result<Item, Torn> {
        let mut entry = [0; 24];
        let entry = &mut entry[..self.entry_bytes];
        self.objects.memory.read(self.entries.offset(index * self.entry_bytes)?, entry)?;
        Ok(self.item(index, entry))
    }

    /// All items but those that were deleted.
    pub fn items(&self) -> Result<Vec<Item>, Torn> {
        let mut bytes = vec![0; self.count * self.entry_bytes];
        self.objects.memory.read(self.entries, &mut bytes)?;
        let entries = bytes.chunks_exact(self.entry_bytes).enumerate();
        let items = entries.map(|(index, entry)| self.item(index, entry));
        Ok(items.filter(|item| item.key != 0).collect())
    }

    /// The item with this key, which is looked for at `hint` first.
    pub fn find(&self, key: &str, hint: &mut usize) -> Result<Option<Item>, Torn> {
        let Objects { memory, layout } = self.objects;
        let is_it = |item: &Item| strings::is_ascii(memory, layout, item.key, key);
        if *hint < self.count {
            let item = self.entry(*hint)?;
            if is_it(&item) {
                return Ok(Some(item));
            }
        }
        let mut bytes = vec![0; self.count * self.entry_bytes];
        memory.read(self.entries, &mut bytes)?;
        let mut living = 0;
        for (index, entry) in bytes.chunks_exact(self.entry_bytes).enumerate() {
            let item = self.item(index, entry);
            if item.key != 0 && is_it(&item) {
                *hint = index;
                return Ok(Some(item));
            }
            living += usize::from(item.key != 0);
        }
        self.is_all(living)?;
        Ok(None)
    }

    /// Fails if there may be more than these that were found, not counting what was deleted: a table that
    /// grows is in its place before its entries are, and nothing keeps another thread from that while one
    /// is read that does not need the GIL.
    pub fn is_all(&self, living: usize) -> Result<(), Torn> {
        let Some((dict, said)) = self.of else { return Ok(()) };
        let [used, living] = [said[0], living as u64];
        // Where keys are shared, not all of them have values.
        let is_counted = used == living || self.values.is_some() && used < living;
        if is_counted && self.objects.said(dict)? == said { Ok(()) } else { Err(Torn) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables;
    use crate::reader::testing::World;

    /// A table that is being grown holds nothing yet.
    #[test]
    fn what_is_not_found_is_absent_only_if_all_was_there() {
        let mut world = World::new(tables::V3_12);
        let key = world.string("key");
        let other = world.string("other");
        // One was deleted.
        let dict = world.dict(&[(key, 1), (0, 0), (other, 2)]);
        let used_at = dict + world.layout.object_size as u64;
        world.set(used_at, 2);
        let image = world.image(dict);
        let mut growing = world.image(dict);
        let find = |image, name| {
            let table = Objects { memory: image, layout: &world.layout }.table(dict).unwrap();
            table.find(name, &mut 0).map(|found| found.map(|item| item.key))
        };
        assert_eq!(find(&image, "key"), Ok(Some(key)));
        assert_eq!(find(&image, "none"), Ok(None));
        growing.poke(used_at, &3_u64.to_ne_bytes()).unwrap();
        assert_eq!(find(&growing, "key"), Ok(Some(key)));
        assert_eq!(find(&growing, "none"), Err(Torn));
    }
}
