//! What pages show of the instructions that frames are at.

use crate::profile::{Frame, Opcode};
use serde_json::{Value, json};

/// An instruction and the part of the source that it is of, which begins on its frame's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Instruction {
    pub opcode: Opcode,
    pub end_line: u32,
    pub column: u32,
    pub end_column: u32,
}

impl Instruction {
    /// That of a frame, if it is known.
    pub fn of(frame: &Frame) -> Option<Self> {
        let at = frame.location;
        let (end_line, column, end_column) = (at.end_line, at.column, at.end_column);
        Some(Self { opcode: frame.opcode?, end_line, column, end_column })
    }

    /// Its part of the text of the line that it begins on, and whether it goes on behind that.
    pub fn text<'a>(&self, line: u32, text: &'a str) -> Option<(&'a str, bool)> {
        let column = self.column.checked_sub(1)? as usize;
        let goes_on = self.end_line > line;
        let end = if goes_on { text.len() } else { self.end_column.checked_sub(1)? as usize };
        Some((text.get(column..end)?, goes_on))
    }
}

/// What is shown of an opcode: its name, that of its base or nothing, and whether it is specialised.
pub(super) fn opcode(opcode: Opcode) -> Value {
    let base = opcode.base().map(|base| base.to_string());
    json!([opcode.to_string(), base, opcode.is_specialised()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_parts_of_lines() {
        let opcode = Opcode::from_bits(0x0D_01).unwrap();
        let text = |end_line, column, end_column| {
            let instruction = Instruction { opcode, end_line, column, end_column };
            instruction.text(7, "é = f(x)").map(|(text, goes_on)| (text.to_owned(), goes_on))
        };
        assert_eq!(text(7, 6, 10), Some(("f(x)".into(), false)));
        assert_eq!(text(9, 6, 3), Some(("f(x)".into(), true)));
        // Not in the middle of a letter, not of another line, not of nowhere.
        for (column, end_column) in [(2, 4), (6, 12), (6, 3), (0, 0), (6, 0)] {
            assert_eq!(text(7, column, end_column), None, "{column}");
        }
    }
}
