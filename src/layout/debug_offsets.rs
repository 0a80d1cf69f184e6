//! `_Py_DebugOffsets`, the table of offsets that 3.13 and later keep at the start of `_PyRuntime`.
//!
//! Read at run time, because fields move between patch releases. The table's own shape is fixed
//! within a minor version: `internal/pycore_runtime.h` (v3.13.0) and
//! `internal/pycore_debug_offsets.h` (v3.14, v3.15).

use super::objects::{Keys, ManagedDict, ObjectLayout};
use super::{CodeIdentity, Instruction, Layout, LineTable, TopFrame};
use crate::mem::{Address, Fault, Memory, word_at};

/// What the table begins with.
pub const COOKIE: &[u8; 8] = b"xdebugpy";

/// Enough for every entry that is used.
const TABLE_BYTES: usize = 760;

/// The table's head: version and build kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// `PY_VERSION_HEX`.
    pub version_hex: u64,
    /// Whether the build has no GIL.
    pub free_threaded: bool,
}

/// The head of the table at `runtime`, or `None` where there is no table (before 3.13).
pub fn head(memory: &impl Memory, runtime: Address) -> Result<Option<Head>, Fault> {
    let mut bytes = [0; 24];
    memory.read(runtime, &mut bytes)?;
    if &bytes[..8] != COOKIE {
        return Ok(None);
    }
    Ok(Some(Head { version_hex: word_at(&bytes, 8), free_threaded: word_at(&bytes, 16) != 0 }))
}

/// Indexes, in 64-bit words, of the table's sections in one minor version.
struct Shape {
    interpreter: usize,
    thread: usize,
    thread_ids: usize,
    frame: usize,
    frame_has_bytecode_index: bool,
    code: usize,
    code_has_thread_bytecodes: bool,
    object: usize,
    type_has_sizes: bool,
    dict: usize,
    long: usize,
    bytes: usize,
    unicode: usize,
    interpreter_before_modules: usize,
}

const V3_13: Shape = Shape {
    interpreter: 6,
    thread: 19,
    thread_ids: 24,
    frame: 28,
    frame_has_bytecode_index: false,
    code: 34,
    code_has_thread_bytecodes: false,
    object: 44,
    type_has_sizes: false,
    dict: 56,
    long: 61,
    bytes: 64,
    unicode: 67,
    interpreter_before_modules: 5,
};

const V3_14: Shape = Shape {
    interpreter: 6,
    thread: 22,
    thread_ids: 27,
    frame: 31,
    frame_has_bytecode_index: true,
    code: 39,
    code_has_thread_bytecodes: true,
    object: 50,
    type_has_sizes: false,
    dict: 66,
    long: 71,
    bytes: 74,
    unicode: 77,
    interpreter_before_modules: 6,
};

const V3_15: Shape = Shape {
    interpreter: 6,
    thread: 22,
    thread_ids: 30,
    frame: 39,
    frame_has_bytecode_index: true,
    code: 47,
    code_has_thread_bytecodes: true,
    object: 58,
    type_has_sizes: true,
    dict: 78,
    long: 83,
    bytes: 86,
    unicode: 89,
    interpreter_before_modules: 6,
};

/// The layout that the table at `runtime` describes; `None` for a minor version that is not known.
pub fn layout(
    memory: &impl Memory,
    runtime: Address,
    minor: u8,
    free_threaded: bool,
) -> Result<Option<Layout>, Fault> {
    let shape = match minor {
        13 => V3_13,
        14 => V3_14,
        15 => V3_15,
        _ => return Ok(None),
    };
    let mut table = [0; TABLE_BYTES];
    memory.read(runtime, &mut table)?;
    let word = |section: usize, field: usize| word_at(&table, (section + field) * 8) as usize;
    let first_line = word(shape.code, 5);
    let object_size = word(shape.object, 0);
    let ascii_data = word(shape.unicode, 3);
    // What the table lacks is as in `cpython/object.h` and `internal/pycore_object.h` of v3.13.0,
    // v3.14 and v3.15.
    let type_section = shape.object + 2;
    let (type_basic_size, type_dict_offset, type_cached_keys) = if shape.type_has_sizes {
        (word(type_section, 4), word(type_section, 5), word(type_section, 7))
    } else {
        (object_size + 16, object_size + 272, object_size + 864)
    };
    let objects = ObjectLayout {
        type_flags: word(type_section, 3),
        type_basic_size,
        type_dict_offset,
        type_cached_keys,
        dict_keys: word(shape.dict, 1),
        dict_values: word(shape.dict, 2),
        keys: Keys::Logarithmic,
        values_items: 8,
        managed_dict: Some(ManagedDict::Inline { dict_before: if free_threaded { 8 } else { 24 } }),
        module_dict: object_size,
        int_size: word(shape.long, 1),
        int_digits: word(shape.long, 2),
        int_size_shift: 3,
    };
    Ok(Some(Layout {
        runtime_finalizing: word(3, 1),
        runtime_interpreters_head: word(3, 2),
        interpreter_id: word(shape.interpreter, 1),
        interpreter_next: word(shape.interpreter, 2),
        interpreter_threads_head: word(shape.interpreter, 3),
        interpreter_modules: word(shape.interpreter, shape.interpreter_before_modules),
        thread_next: word(shape.thread, 2),
        thread_interpreter: word(shape.thread, 3),
        thread_top_frame: TopFrame::InThread(word(shape.thread, 4)),
        thread_id: word(shape.thread_ids, 0),
        thread_native_id: Some(word(shape.thread_ids, 1)),
        frame_previous: word(shape.frame, 1),
        frame_code: word(shape.frame, 2),
        frame_instruction: word(shape.frame, 3),
        frame_owner: Some(word(shape.frame, 5)),
        frame_bytecode_index: (free_threaded && shape.frame_has_bytecode_index)
            .then(|| word(shape.frame, 7)),
        code_filename: word(shape.code, 1),
        code_name: word(shape.code, 2),
        code_qualname: Some(word(shape.code, 3)),
        code_line_table: word(shape.code, 4),
        code_first_line: first_line,
        code_instructions: word(shape.code, 9),
        code_thread_bytecodes: (free_threaded && shape.code_has_thread_bytecodes)
            .then(|| word(shape.code, 10)),
        // `co_version` is not in the table; it is six ints after `co_firstlineno` in
        // `cpython/code.h` of v3.12.1 up to v3.15.
        code_identity: CodeIdentity::Version(first_line + 24),
        object_type: word(shape.object, 1),
        object_size,
        type_name: object_size + 8,
        bytes_size: word(shape.bytes, 1),
        bytes_data: word(shape.bytes, 2),
        str_state: word(shape.unicode, 1),
        str_length: word(shape.unicode, 2),
        // `interned` is two bits, or from 3.14 on a byte of its own in the free-threaded build
        // (`cpython/unicodeobject.h`).
        str_kind_shift: if free_threaded && minor >= 14 { 8 } else { 2 },
        str_ascii_data: ascii_data,
        // `PyCompactUnicodeObject` adds a length and a pointer (`cpython/unicodeobject.h`).
        str_compact_data: ascii_data + 16,
        instruction: Instruction::Pointer,
        line_table: LineTable::Locations,
        objects,
    }))
}
