//! A small world of objects in a memory image, for tests.

use proptest::prelude::prop;

use crate::layout::Layout;
use crate::layout::objects::Keys;
use crate::mem::{Address, MemoryImage};

/// Where the interpreter is.
pub const INTERPRETER: Address = 0x10_000;
const OBJECTS: Address = 0x20_000;
const OBJECT_BYTES: u64 = 0x400;

/// Memory with one object in each place.
pub struct World {
    /// Where everything has its fields.
    pub layout: Layout,
    str_type: Address,
    dict_type: Address,
    bytes: Vec<u8>,
    places: u64,
}

impl World {
    /// Only the types of strings and dictionaries.
    pub fn new(layout: Layout) -> Self {
        let mut world = Self { layout, str_type: 0, dict_type: 0, bytes: Vec::new(), places: 0 };
        world.str_type = world.class("str", 0);
        world.dict_type = world.class("dict", 0);
        world
    }

    /// A type that is not of Python's making.
    pub fn class(&mut self, name: &str, base: Address) -> Address {
        let text = self.place(&[]);
        let start = (text - OBJECTS) as usize;
        self.bytes[start..][..name.len()].copy_from_slice(name.as_bytes());
        let fields = [(self.layout.type_name, text), (self.layout.tasks.type_base, base)];
        self.place(&fields)
    }

    /// Puts a word into an object.
    pub fn set(&mut self, at: Address, word: u64) {
        self.bytes[(at - OBJECTS) as usize..][..8].copy_from_slice(&word.to_ne_bytes());
    }

    /// Overwrites one of the words that are something, so that it matters.
    pub fn poke(&self, image: &mut MemoryImage, index: &prop::sample::Index, word: u64) {
        let used: Vec<usize> = (0..self.bytes.len() / 8)
            .filter(|word| self.bytes[8 * word..8 * word + 8] != [0; 8])
            .collect();
        image.poke(OBJECTS + 8 * *index.get(&used) as u64, &word.to_ne_bytes()).unwrap();
    }

    /// An object with these words at these offsets.
    pub fn place(&mut self, words: &[(usize, u64)]) -> Address {
        let start = (self.places * OBJECT_BYTES) as usize;
        self.places += 1;
        self.bytes.resize(start + OBJECT_BYTES as usize, 0);
        for &(offset, word) in words {
            self.bytes[start + offset..][..8].copy_from_slice(&word.to_ne_bytes());
        }
        OBJECTS + start as u64
    }

    /// A `str`.
    pub fn string(&mut self, text: &str) -> Address {
        let Layout { str_length, str_state, str_ascii_data, .. } = self.layout;
        let state = (1 | 8 | 16) << self.layout.str_kind_shift;
        let at =
            self.place(&[(8, self.str_type), (str_length, text.len() as u64), (str_state, state)]);
        let start = (at - OBJECTS) as usize + str_ascii_data;
        self.bytes[start..][..text.len()].copy_from_slice(text.as_bytes());
        at
    }

    /// A table of keys and values.
    pub fn keys(&mut self, items: &[(Address, Address)]) -> Address {
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

    /// A `dict`.
    pub fn dict(&mut self, items: &[(Address, Address)]) -> Address {
        let keys = self.keys(items);
        let used = (self.layout.object_size, items.len() as u64);
        self.place(&[(8, self.dict_type), used, (self.layout.objects.dict_keys, keys)])
    }

    /// The memory, with these `sys.modules`.
    pub fn image(&self, modules: Address) -> MemoryImage {
        let mut image = MemoryImage::new();
        let modules_at = INTERPRETER + self.layout.interpreter_modules as u64;
        image.insert(modules_at, &modules.to_ne_bytes());
        image.insert(OBJECTS, &self.bytes);
        image
    }
}
