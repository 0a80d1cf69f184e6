//! What is long in a page, packed: deflated, in base64; columns of numbers as LEB128 before.

use std::io::{self, Write};

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::{Value, json};

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
}

/// Columns, one behind the other.
#[derive(Default)]
pub(super) struct Columns(Vec<u8>);

impl Columns {
    /// Adds a column, and says where it is: its first byte and how many.
    pub fn add(&mut self, column: &Packed) -> Value {
        let at = self.0.len();
        self.0.extend_from_slice(&column.0);
        json!([at, column.0.len()])
    }

    /// All of them as text without quotes, backslashes and angle brackets.
    pub fn text(&self) -> io::Result<String> {
        deflated(&self.0, Compression::best())
    }
}

/// Bytes, deflated, as text without quotes, backslashes and angle brackets.
pub(in crate::export) fn deflated(bytes: &[u8], how_well: Compression) -> io::Result<String> {
    let mut packer = DeflateEncoder::new(Vec::new(), how_well);
    packer.write_all(bytes)?;
    Ok(BASE64_STANDARD.encode(packer.finish()?))
}

/// Small numbers for those near 0: 0, -1, 1, -2, 2, …
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

#[cfg(test)]
pub(in crate::export) mod tests {
    use super::*;
    use std::io::Read;

    /// The JSON and its columns, as a page reads them.
    pub fn contents(text: &str) -> (Value, Vec<u8>) {
        let json: Value = serde_json::from_str(text).unwrap();
        let columns = inflated(json["columns"].as_str().unwrap());
        (json, columns)
    }

    /// What was deflated.
    pub fn inflated(text: &str) -> Vec<u8> {
        let packed = BASE64_STANDARD.decode(text).unwrap();
        let mut bytes = Vec::new();
        flate2::read::DeflateDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// The numbers of a column.
    pub(in crate::export::html) fn unpacked(packed: &Packed) -> Vec<u64> {
        numbers(&packed.0)
    }

    /// The numbers of bytes.
    pub fn numbers(bytes: &[u8]) -> Vec<u64> {
        let mut numbers = Vec::new();
        let (mut number, mut shift) = (0, 0);
        for &byte in bytes {
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
        assert_eq!(unpacked(&packed), [0, 127, 128, 1 << 40, MOST, 5, most]);
    }
}
