//! Columns of numbers as text that a page reads back quickly: LEB128, in base64.

use base64::prelude::{BASE64_STANDARD, Engine};

/// The largest whole number that a script can hold exactly.
const MOST: u64 = (1 << 53) - 1;

/// Numbers, one after the other.
#[derive(Default)]
pub(super) struct Packed(Vec<u8>);

impl Packed {
    /// Appends a number; what a script cannot hold becomes the most that it can.
    pub fn put(&mut self, number: impl Into<u64>) {
        let mut rest = number.into().min(MOST);
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    /// Appends the difference of two numbers.
    pub fn put_step(&mut self, from: u32, to: u32) {
        self.put(zigzag(i64::from(to) - i64::from(from)));
    }

    /// All of it as text without quotes, backslashes and angle brackets.
    pub fn text(&self) -> String {
        BASE64_STANDARD.encode(&self.0)
    }
}

/// Small numbers for those near 0: 0, -1, 1, -2, 2, …
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a page reads.
    pub fn unpacked(text: &str) -> Vec<u64> {
        let bytes = BASE64_STANDARD.decode(text).unwrap();
        let mut numbers = Vec::new();
        let (mut number, mut shift) = (0, 0);
        for byte in bytes {
            number |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                numbers.push(std::mem::take(&mut number));
                shift = 0;
            }
        }
        numbers
    }

    #[test]
    fn numbers_read_back() {
        let mut packed = Packed::default();
        for number in [0, 127, 128, 1 << 40, u64::MAX] {
            packed.put(number);
        }
        packed.put_step(7, 4);
        packed.put_step(0, u32::MAX);
        let most = u64::from(u32::MAX) * 2;
        assert_eq!(unpacked(&packed.text()), [0, 127, 128, 1 << 40, MOST, 5, most]);
    }
}
