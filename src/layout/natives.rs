//! Where CPython keeps what tells that a frame is in C code, and in whose.

use super::bytecode::{Bytecode, tables};

/// What tells that C code has called a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Only the instruction that its caller is at: up to 3.10 every call goes through C.
    ByInstruction,
    /// `is_entry` of the frame: 3.11.
    InFrame(usize),
    /// A frame of the interpreter's own below it: 3.12 on.
    Foreign,
}

/// Offsets in bytes, named `structure_field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NativeLayout {
    pub entry: Entry,
    /// Absent before 3.12.
    pub values: Option<ValueLayout>,
    /// Of what follows the head of every object.
    pub object_body: usize,
    pub type_call: usize,
    pub type_base: usize,
}

/// What leads to the values that a frame works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ValueLayout {
    pub bytecode: &'static Bytecode,
    /// Where the value stack ended when the frame was left last; absent before 3.14.
    pub frame_stack_pointer: Option<usize>,
    /// The table of exception handlers.
    pub code_handlers: usize,
}

/// 3.8 to 3.10. `tp_call` and `tp_base` are in `cpython/object.h`.
pub const V3_8: NativeLayout = NativeLayout {
    entry: Entry::ByInstruction,
    values: None,
    object_body: 16,
    type_call: 128,
    type_base: 256,
};

/// 3.11: `_PyInterpreterFrame` in `internal/pycore_frame.h`.
pub const V3_11: NativeLayout = NativeLayout { entry: Entry::InFrame(68), ..V3_8 };

/// 3.12: `PyCodeObject` in `cpython/code.h`, `_PyInterpreterFrame` in `internal/pycore_frame.h`.
pub const V3_12: NativeLayout = NativeLayout {
    entry: Entry::Foreign,
    values: Some(ValueLayout {
        bytecode: &tables::V3_12,
        frame_stack_pointer: None,
        code_handlers: 40,
    }),
    ..V3_8
};

/// What a table of offsets says, from 3.13 on.
pub struct Described {
    /// 13 to 15.
    pub minor: u8,
    /// Bytes of the head of every object.
    pub head: usize,
    /// `stackpointer` of the frame, 3.14 on.
    pub frame_stack_pointer: Option<usize>,
    /// `co_firstlineno` of the code.
    pub first_line: usize,
}

/// What follows from a table of offsets; `None` if it cannot be.
pub fn described(table: &Described) -> Option<NativeLayout> {
    let head = table.head;
    Some(NativeLayout {
        entry: Entry::Foreign,
        values: Some(ValueLayout {
            bytecode: Bytecode::of(table.minor)?,
            frame_stack_pointer: table.frame_stack_pointer,
            // Around `co_firstlineno` as in v3.12.1, in `cpython/code.h` up to v3.15.
            code_handlers: table.first_line.checked_sub(28)?,
        }),
        // `cpython/object.h` of v3.13.0, v3.14 and v3.15.
        object_body: head,
        type_call: head + 112,
        type_base: head + 240,
    })
}
