//! Offsets of 3.8 to 3.12, computed with `offsetof` from each version's own headers on x86-64.
//!
//! Structures by header: `_PyRuntimeState` and `PyInterpreterState` in `internal/pycore_pystate.h`
//! (3.8), `internal/pycore_runtime.h` and `internal/pycore_interp.h` (3.9 on); `PyThreadState` in
//! `cpython/pystate.h`; `PyFrameObject` in `frameobject.h` (3.8, 3.9) and `cpython/frameobject.h`
//! (3.10); `_PyInterpreterFrame` in `internal/pycore_frame.h` (3.11 on); `PyCodeObject` in
//! `code.h` (3.8), `cpython/code.h` (3.9 on); `PyASCIIObject` in `cpython/unicodeobject.h`.
//! Tags: v3.8.18, v3.9.18, v3.10.13, v3.11.7, v3.12.1. None of these fields moves in a debug build
//! (`Py_DEBUG`, `Py_REF_DEBUG`).

use super::{
    Attached, CallLayout, Callable, CodeIdentity, Covers, FrameSize, FunctionVersion, Instruction,
    Layout, LineTable, StackTop, TopFrame, natives, objects, states, tasks,
};

/// 3.8.
pub const V3_8: Layout = Layout {
    runtime_interpreters_head: 32,
    runtime_finalizing: 16,
    interpreter_next: 0,
    interpreter_id: 16,
    interpreter_threads_head: 8,
    interpreter_modules: 56,
    thread_next: 8,
    thread_interpreter: 16,
    thread_top_frame: TopFrame::InThread(24),
    thread_id: 176,
    thread_native_id: None,
    attached: Attached::CurrentOfRuntime(1368),
    frame_previous: 24,
    frame_code: 32,
    frame_instruction: 104,
    frame_owner: None,
    frame_bytecode_index: None,
    code_filename: 104,
    code_name: 112,
    code_qualname: None,
    code_first_line: 40,
    code_line_table: 120,
    code_instructions: 48,
    code_thread_bytecodes: None,
    code_covers: None,
    code_identity: CodeIdentity::Contents,
    object_type: 8,
    object_size: 16,
    type_name: 24,
    bytes_size: 16,
    bytes_data: 32,
    str_length: 16,
    str_state: 32,
    str_kind_shift: 2,
    str_ascii_data: 48,
    str_compact_data: 72,
    instruction: Instruction::ByteOffset,
    call: None,
    frame_size: None,
    line_table: LineTable::Lnotab,
    natives: natives::V3_8,
    objects: objects::V3_8,
    states: states::V3_8,
    tasks: tasks::V3_8,
};

/// 3.9.
pub const V3_9: Layout = Layout {
    interpreter_id: 24,
    interpreter_modules: 856,
    attached: Attached::CurrentOfRuntime(568),
    objects: objects::V3_9,
    states: states::V3_9,
    tasks: tasks::V3_9,
    ..V3_8
};

/// 3.10.
pub const V3_10: Layout = Layout {
    frame_instruction: 96,
    instruction: Instruction::UnitIndex,
    line_table: LineTable::Ranges,
    objects: objects::V3_10,
    tasks: tasks::V3_10,
    ..V3_9
};

/// 3.11.
pub const V3_11: Layout = Layout {
    runtime_interpreters_head: 40,
    runtime_finalizing: 24,
    interpreter_id: 48,
    interpreter_threads_head: 16,
    interpreter_modules: 888,
    thread_top_frame: TopFrame::InCFrame { cframe: 56, current_frame: 8 },
    thread_id: 152,
    thread_native_id: Some(160),
    attached: Attached::CurrentOfRuntime(576),
    frame_previous: 48,
    frame_code: 32,
    frame_instruction: 56,
    frame_owner: Some(69),
    code_filename: 112,
    code_name: 120,
    code_qualname: Some(128),
    code_first_line: 72,
    code_line_table: 136,
    code_instructions: 184,
    instruction: Instruction::Pointer,
    line_table: LineTable::Locations,
    // `prev_instr` is the last unit of the call's cache: counter, version in two units, and
    // `min_args` (`Python/ceval.c`).
    call: Some(CallLayout {
        frame_function: 0,
        function_code: 48,
        stack_top: StackTop::Index { at: 64, locals: 72 },
        callable: Callable::AfterMethod,
        version: FunctionVersion::OfFunction { version: 128 },
        site: -8,
    }),
    // `co_stacksize`, `co_firstlineno`, `co_nlocalsplus` (`cpython/code.h`).
    frame_size: Some(FrameSize { frame_locals: 72, code_locals: 76, code_stack_size: 68 }),
    natives: natives::V3_11,
    objects: objects::V3_11,
    states: states::V3_11,
    tasks: tasks::V3_11,
    ..V3_10
};

/// 3.12.
pub const V3_12: Layout = Layout {
    interpreter_id: 8,
    interpreter_threads_head: 72,
    interpreter_modules: 944,
    thread_top_frame: TopFrame::InCFrame { cframe: 56, current_frame: 0 },
    thread_id: 136,
    thread_native_id: Some(144),
    attached: Attached::BitOfThread(24),
    frame_previous: 8,
    frame_code: 0,
    frame_instruction: 56,
    frame_owner: Some(70),
    code_first_line: 68,
    code_instructions: 192,
    code_covers: Some(Covers { monitoring: 168, lines: 40, line_bytes: 2, instructions: 56 }),
    code_identity: CodeIdentity::Version(92),
    str_ascii_data: 40,
    str_compact_data: 56,
    // No `min_args` any more (`Python/bytecodes.c`).
    call: Some(CallLayout {
        frame_function: 16,
        function_code: 48,
        stack_top: StackTop::Index { at: 64, locals: 72 },
        callable: Callable::AfterMethod,
        version: FunctionVersion::OfCode,
        site: -6,
    }),
    frame_size: Some(FrameSize { frame_locals: 72, code_locals: 72, code_stack_size: 64 }),
    natives: natives::V3_12,
    objects: objects::V3_12,
    states: states::V3_12,
    tasks: tasks::V3_12,
    ..V3_11
};
