//! One frame of a thread, as it was read.

use crate::layout::Layout;
use crate::layout::natives::Entry;
use crate::mem::{Address, word_at, word32_at};

/// `_PyStackRef` keeps flags in a reference's low bits (`internal/pycore_stackref.h`, 3.14 on).
pub const REFERENCE_FLAGS: u64 = 7;

/// `FRAME_OWNED_BY_GENERATOR` (`internal/pycore_frame.h`, 3.11 on).
pub(super) const OWNED_BY_GENERATOR: u8 = 1;
/// `FRAME_OWNED_BY_CSTACK` in 3.12 and 3.13, `FRAME_OWNED_BY_INTERPRETER` from 3.14 on
/// (`internal/pycore_frame.h`, `internal/pycore_interpframe_structs.h`): from here on, no Python
/// frame.
pub(super) const FIRST_FOREIGN_OWNER: u8 = 3;

/// A frame as the interpreter has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// Where it lies.
    pub at: Address,
    /// Its code object.
    pub code: Address,
    /// The instruction, as the version encodes it.
    pub instruction: u64,
    /// Which copy of the bytecode the instruction points into; 0 but in free-threaded 3.14 on.
    pub bytecode: u32,
    /// Whether the frame itself tells that C code has called it.
    pub is_entry: bool,
}

impl RawFrame {
    /// The frame that lies at an address, of which these are the bytes.
    pub(super) fn of(layout: &Layout, at: Address, bytes: &[u8]) -> Self {
        Self {
            at,
            code: word_at(bytes, layout.frame_code) & !REFERENCE_FLAGS,
            instruction: word_at(bytes, layout.frame_instruction),
            bytecode: layout.frame_bytecode_index.map_or(0, |offset| word32_at(bytes, offset)),
            is_entry: match layout.natives.entry {
                Entry::InFrame(offset) => bytes[offset] != 0,
                _ => false,
            },
        }
    }
}
