//! Keys numbered in order of first sight: how equal things become one.

use std::collections::HashMap;
use std::hash::Hash;

/// Numbers keys in order of first sight.
#[derive(Debug)]
pub struct Numbers<K> {
    /// The keys by number.
    pub keys: Vec<K>,
    numbers: HashMap<K, u32>,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Numbers { keys: Vec::new(), numbers: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> Numbers<K> {
    /// The number of a key.
    pub fn of(&mut self, key: K) -> u32 {
        if let Some(&known) = self.numbers.get(&key) {
            return known;
        }
        let next = self.keys.len() as u32;
        self.keys.push(key.clone());
        self.numbers.insert(key, next);
        next
    }
}
