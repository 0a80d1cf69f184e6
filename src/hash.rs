//! Cheap hashing of integers that no adversary chooses: addresses, ids, instruction indexes.

use std::hash::{BuildHasherDefault, Hasher};

/// For `HashMap`s keyed by integers.
pub type FastHash = BuildHasherDefault<FastHasher>;

/// Multiplies and folds, a word at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct FastHasher(u64);

/// An odd constant with well spread bits: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_i32(&mut self, value: i32) {
        self.write_u64(value as u32 as u64);
    }

    fn write_u64(&mut self, value: u64) {
        let wide = u128::from(self.0.rotate_left(23) ^ value) * u128::from(SPREAD);
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

/// One number for several; equal numbers mean equal words but for a chance of 2^-64.
pub fn fingerprint(words: impl IntoIterator<Item = u64>) -> u64 {
    let mut hasher = FastHasher(SPREAD);
    words.into_iter().for_each(|word| hasher.write_u64(word));
    hasher.finish()
}
