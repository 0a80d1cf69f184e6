//! `_Py_DebugOffsets`, the table of offsets that 3.13 and later keep at the start of `_PyRuntime`.
//!
//! Read at run time, because fields move between patch releases. The table's own shape is fixed
//! within a minor version: `internal/pycore_runtime.h` (v3.13.0) and
//! `internal/pycore_debug_offsets.h` (v3.14, v3.15).

use super::detect::Unsupported;
use super::natives;
use super::objects::{Keys, ManagedDict, ObjectLayout};
use super::states::{self, Described};
use super::tasks::{self, ValueStack};
use super::{
    Attached, CallLayout, Callable, CodeIdentity, FrameSize, FunctionVersion, Instruction, Layout,
    LineTable, StackTop, TopFrame, Version,
};
use crate::mem::{Address, Fault, Memory, word_at};

/// What the table begins with.
pub const COOKIE: &[u8; 8] = b"xdebugpy";

/// Enough for every entry that is used.
const TABLE_BYTES: usize = 888;

/// No offset into the runtime or an interpreter is larger, nor one into anything else: of thread
/// states, frames and code objects, that much is copied.
const MOST_FAR: usize = 1 << 20;
const MOST_NEAR: usize = 4096;

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
    gc_collecting: usize,
    has_gil_requested: bool,
    /// Absent in 3.13.
    generator: Option<usize>,
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
    gc_collecting: 72,
    has_gil_requested: false,
    generator: None,
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
    gc_collecting: 82,
    has_gil_requested: false,
    generator: Some(83),
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
    gc_collecting: 95,
    has_gil_requested: true,
    generator: Some(99),
};

/// The layout that the table at `runtime` describes.
pub fn layout(
    memory: &impl Memory,
    runtime: Address,
    version: Version,
    free_threaded: bool,
) -> Result<Layout, Unsupported> {
    let shape = match (version.major, version.minor) {
        (3, 13) => V3_13,
        (3, 14) => V3_14,
        (3, 15) => V3_15,
        _ => return Err(Unsupported::Version(version)),
    };
    let mut table = [0; TABLE_BYTES];
    memory.read(runtime, &mut table)?;
    described(&table, &shape, version.minor, free_threaded).ok_or(Unsupported::Offsets(version))
}

/// `None` if an offset cannot be one.
fn described(table: &[u8], shape: &Shape, minor: u8, free_threaded: bool) -> Option<Layout> {
    let offset = |section: usize, field: usize, most: usize| {
        usize::try_from(word_at(table, (section + field) * 8)).ok().filter(|&word| word <= most)
    };
    let far = |section, field| offset(section, field, MOST_FAR);
    let near = |section, field| offset(section, field, MOST_NEAR);
    let first_line = near(shape.code, 5)?;
    let frame_previous = near(shape.frame, 1)?;
    let frame_instruction = near(shape.frame, 3)?;
    let object_size = near(shape.object, 0)?;
    let ascii_data = near(shape.unicode, 3)?;
    // What the table lacks is as in `cpython/object.h` and `internal/pycore_object.h` of v3.13.0,
    // v3.14 and v3.15.
    let type_section = shape.object + 2;
    let (type_basic_size, type_dict_offset, type_cached_keys) = if shape.type_has_sizes {
        (near(type_section, 4)?, near(type_section, 5)?, near(type_section, 7)?)
    } else {
        (object_size + 16, object_size + 272, object_size + 864)
    };
    let objects = ObjectLayout {
        type_flags: near(type_section, 3)?,
        type_basic_size,
        type_dict_offset,
        type_cached_keys,
        dict_keys: near(shape.dict, 1)?,
        dict_values: near(shape.dict, 2)?,
        keys: Keys::Logarithmic,
        values_items: 8,
        managed_dict: Some(ManagedDict::Inline { dict_before: if free_threaded { 8 } else { 24 } }),
        module_dict: object_size,
        int_size: near(shape.long, 1)?,
        int_digits: near(shape.long, 2)?,
        int_size_shift: 3,
    };
    let modules = shape.interpreter_before_modules;
    let states = states::described(&Described {
        minor,
        free_threaded,
        gc_collecting: far(shape.interpreter, modules - 1)? + near(shape.gc_collecting, 0)?,
        gil: far(shape.interpreter, modules + 3)?,
        gil_locked: far(shape.interpreter, modules + 6)?
            .checked_sub(far(shape.interpreter, modules + 4)?)?,
        thread_id: near(shape.thread_ids, 0)?,
        thread_status: near(shape.thread_ids, 3)?,
        gil_requested: match shape.has_gil_requested {
            true => Some(near(shape.thread_ids, 5)?),
            false => None,
        },
    })?;
    let stack_top = match minor {
        // Not in the table; it follows `instr_ptr` in `internal/pycore_frame.h` of v3.13.0.
        13 => StackTop::Index { at: frame_instruction + 8, locals: near(shape.frame, 4)? },
        _ => StackTop::Pointer { at: near(shape.frame, 6)? },
    };
    let natives = natives::described(&natives::Described {
        minor,
        head: object_size,
        frame_stack_pointer: match stack_top {
            StackTop::Index { .. } => None,
            StackTop::Pointer { at } => Some(at),
        },
        first_line,
    })?;
    let tasks = tasks::described(&tasks::Described {
        minor,
        head: object_size,
        thread_bytes: near(shape.thread, 0)?,
        type_dict_offset,
        stack: match stack_top {
            StackTop::Index { at, locals } => ValueStack::Index { at, locals },
            StackTop::Pointer { at } => ValueStack::Pointer { at },
        },
        generator: match shape.generator {
            Some(section) => Some((near(section, 2)?, near(section, 3)?)),
            None => None,
        },
    });
    Some(Layout {
        runtime_finalizing: far(3, 1)?,
        runtime_interpreters_head: far(3, 2)?,
        interpreter_id: far(shape.interpreter, 1)?,
        interpreter_next: far(shape.interpreter, 2)?,
        interpreter_threads_head: far(shape.interpreter, 3)?,
        interpreter_modules: far(shape.interpreter, modules)?,
        thread_next: near(shape.thread, 2)?,
        thread_interpreter: near(shape.thread, 3)?,
        thread_top_frame: TopFrame::InThread(near(shape.thread, 4)?),
        thread_id: near(shape.thread_ids, 0)?,
        thread_native_id: Some(near(shape.thread_ids, 1)?),
        attached: Attached::BitOfThread(near(shape.thread_ids, 3)?),
        frame_previous,
        frame_code: near(shape.frame, 2)?,
        frame_instruction,
        frame_owner: Some(near(shape.frame, 5)?),
        frame_bytecode_index: match free_threaded && shape.frame_has_bytecode_index {
            true => Some(near(shape.frame, 7)?),
            false => None,
        },
        code_filename: near(shape.code, 1)?,
        code_name: near(shape.code, 2)?,
        code_qualname: Some(near(shape.code, 3)?),
        code_line_table: near(shape.code, 4)?,
        code_first_line: first_line,
        code_instructions: near(shape.code, 9)?,
        code_thread_bytecodes: match free_threaded && shape.code_has_thread_bytecodes {
            true => Some(near(shape.code, 10)?),
            false => None,
        },
        code_covers: None,
        // `co_version` is not in the table; it is six ints after `co_firstlineno` in
        // `cpython/code.h` of v3.12.1 up to v3.15.
        code_identity: CodeIdentity::Version(first_line + 24),
        object_type: near(shape.object, 1)?,
        object_size,
        type_name: object_size + 8,
        bytes_size: near(shape.bytes, 1)?,
        bytes_data: near(shape.bytes, 2)?,
        str_state: near(shape.unicode, 1)?,
        str_length: near(shape.unicode, 2)?,
        // `interned` is two bits, or from 3.14 on a byte of its own in the free-threaded build
        // (`cpython/unicodeobject.h`).
        str_kind_shift: if free_threaded && minor >= 14 { 8 } else { 2 },
        str_ascii_data: ascii_data,
        // `PyCompactUnicodeObject` adds a length and a pointer (`cpython/unicodeobject.h`).
        str_compact_data: ascii_data + 16,
        instruction: Instruction::Pointer,
        // `instr_ptr` is the call itself (`Python/bytecodes.c`).
        call: Some(CallLayout {
            // Not in the table; it follows `previous` in `internal/pycore_frame.h` of v3.13.0 and
            // `internal/pycore_interpframe_structs.h` of v3.14 and v3.15.
            frame_function: frame_previous + 8,
            // Behind four pointers (`cpython/funcobject.h`).
            function_code: object_size + 32,
            stack_top,
            callable: Callable::First,
            version: FunctionVersion::OfCode,
            site: 0,
        }),
        // Not in the table, but for `localsplus`; around `co_firstlineno` in `cpython/code.h` of v3.12.1 up to
        // v3.15.
        frame_size: Some(FrameSize {
            frame_locals: near(shape.frame, 4)?,
            code_locals: first_line + 4,
            code_stack_size: first_line.checked_sub(4)?,
        }),
        line_table: LineTable::Locations,
        natives,
        objects,
        states,
        tasks,
    })
}
