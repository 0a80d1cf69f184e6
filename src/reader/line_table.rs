//! Line tables of every format: from an instruction to its place in the source.

use crate::layout::LineTable;

/// The source range an instruction belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// The line being executed; that of the instruction before where it has none of its own.
    pub line: u32,
    /// Last line of the range; equal to `line` before CPython 3.11.
    pub end_line: u32,
    /// First column, 1-based; 0 where unknown.
    pub column: u32,
    /// Column after the last, 1-based; 0 where unknown.
    pub end_column: u32,
}

/// The location of the instruction `index` (in code units of two bytes; negative before the first
/// one has run) by a code object's line table.
///
/// `first_line` is `co_firstlineno`. A damaged table gives the first line, never an error.
pub fn locate(format: LineTable, table: &[u8], first_line: u32, index: i32) -> Location {
    if index < 0 {
        return whole_line(first_line);
    }
    let index = index as u32;
    match format {
        LineTable::Lnotab => whole_line(lnotab_line(table, first_line, index * 2)),
        LineTable::Ranges => whole_line(ranges_line(table, first_line, index * 2)),
        LineTable::Locations => locations(table, first_line, index),
    }
}

fn whole_line(line: u32) -> Location {
    Location { line, end_line: line, column: 0, end_column: 0 }
}

fn moved(line: i64, delta: i64) -> i64 {
    (line + delta).clamp(0, u32::MAX.into())
}

/// Pairs of an address increment and a signed line increment.
fn lnotab_line(table: &[u8], first_line: u32, address: u32) -> u32 {
    let mut line = i64::from(first_line);
    let mut reached = 0_u32;
    for pair in table.chunks_exact(2) {
        reached += u32::from(pair[0]);
        if reached > address {
            break;
        }
        line = moved(line, i64::from(pair[1] as i8));
    }
    line as u32
}

/// Pairs of a range's length and the signed step to its line; -128 is "no line".
fn ranges_line(table: &[u8], first_line: u32, address: u32) -> u32 {
    const NO_LINE: i8 = -128;
    let mut line = i64::from(first_line);
    let mut end = 0_u32;
    for pair in table.chunks_exact(2) {
        let delta = pair[1] as i8;
        if delta != NO_LINE {
            line = moved(line, delta.into());
        }
        end += u32::from(pair[0]);
        if address < end {
            return line as u32;
        }
    }
    line as u32
}

/// Entries that begin with a byte whose top bit is set: four bits of form, three of length.
fn locations(table: &[u8], first_line: u32, index: u32) -> Location {
    let mut entries = Bytes { rest: table };
    let mut line = i64::from(first_line);
    let mut end = 0_u32;
    while let Some(head) = entries.next() {
        let form = (head >> 3) & 15;
        end += u32::from(head & 7) + 1;
        let location = match form {
            // One byte more: columns within one line.
            0..=9 => {
                let second = u32::from(entries.next().unwrap_or(0));
                let column = (u32::from(form) << 3) | (second >> 4);
                at(line, line, column + 1, column + (second & 15) + 1)
            }
            10..=12 => {
                line = moved(line, i64::from(form) - 10);
                let column = u32::from(entries.next().unwrap_or(0));
                let end_column = u32::from(entries.next().unwrap_or(0));
                at(line, line, column + 1, end_column + 1)
            }
            13 => {
                line = moved(line, entries.signed());
                whole_line(line as u32)
            }
            14 => {
                line = moved(line, entries.signed());
                let end_line = moved(line, entries.unsigned().into());
                let column = entries.unsigned();
                let end_column = entries.unsigned();
                at(line, end_line, column, end_column)
            }
            _ => whole_line(line as u32),
        };
        if index < end {
            return location;
        }
    }
    whole_line(first_line)
}

fn at(line: i64, end_line: i64, column: u32, end_column: u32) -> Location {
    Location { line: line as u32, end_line: end_line as u32, column, end_column }
}

/// The table's bytes and its variable-length integers: six bits a byte, lowest first, bit 6 set
/// where more follow.
struct Bytes<'a> {
    rest: &'a [u8],
}

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn unsigned(&mut self) -> u32 {
        const MORE: u8 = 64;
        let mut value = 0;
        for shift in (0..30).step_by(6) {
            let Some(byte) = self.next() else { break };
            value |= u32::from(byte & 63) << shift;
            if byte & MORE == 0 {
                break;
            }
        }
        value
    }

    /// The sign is the lowest bit.
    fn signed(&mut self) -> i64 {
        let value = self.unsigned();
        let magnitude = i64::from(value >> 1);
        if value & 1 == 0 { magnitude } else { -magnitude }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LineTable, table: &[u8], index: i32) -> u32 {
        locate(format, table, 10, index).line
    }

    #[test]
    fn lnotab_steps_forwards_and_backwards() {
        // Bytes 0-5 on line 10, 6-11 on line 12, 12 on on line 9.
        let table = [6, 2, 6, 0xFD];
        let lines: Vec<u32> = (-1..8).map(|i| line(LineTable::Lnotab, &table, i)).collect();
        assert_eq!(lines, [10, 10, 10, 10, 12, 12, 12, 9, 9]);
    }

    #[test]
    fn an_instruction_without_a_line_has_that_of_the_one_before() {
        let table = [4, 1, 2, 0x80, 4, 0xFF];
        let lines: Vec<u32> = (0..5).map(|i| line(LineTable::Ranges, &table, i)).collect();
        assert_eq!(lines, [11, 11, 11, 10, 10]);
    }

    #[test]
    fn locations_have_columns() {
        // Two units in the short form: column 3 to 8; one unit of the long form over two lines.
        let table = [0x80 | 1, 0x35, 0x80 | (14 << 3), 0b100, 1, 5, 7, 0x80 | (15 << 3)];
        let place = |i| locate(LineTable::Locations, &table, 10, i);
        assert_eq!(place(1), Location { line: 10, end_line: 10, column: 4, end_column: 9 });
        assert_eq!(place(2), Location { line: 12, end_line: 13, column: 5, end_column: 7 });
        assert_eq!(place(3).line, 12);
    }

    proptest::proptest! {
        #[test]
        fn any_table_is_survived(table: Vec<u8>, first: u32, index: i32) {
            for format in [LineTable::Lnotab, LineTable::Ranges, LineTable::Locations] {
                locate(format, &table, first, index);
            }
        }
    }
}
