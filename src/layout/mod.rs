//! Where CPython keeps what the reader needs: field offsets of every supported version.
//!
//! 3.8 to 3.12 are tables ([`tables`]); 3.13 and later publish their own at run time
//! ([`debug_offsets`]). [`detect`] chooses, [`self_check`](crate::reader::self_check) proves.

pub mod bytecode;
pub mod debug_offsets;
pub mod detect;
pub mod natives;
pub mod objects;
pub mod opcodes;
pub mod states;
pub mod tables;
pub mod tasks;

use std::ops::Range;

use natives::{Entry, NativeLayout};
use objects::ObjectLayout;
use states::StateLayout;
use tasks::TaskLayout;

/// A CPython version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3.
    pub major: u8,
    /// 8 to 15.
    pub minor: u8,
    /// The patch release.
    pub micro: u8,
}

impl std::fmt::Display for Version {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// How a thread's newest frame is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopFrame {
    /// `PyThreadState` holds the pointer at this offset: 3.8 to 3.10, and 3.13 on.
    InThread(usize),
    /// `PyThreadState.cframe` leads to a C structure that holds it: 3.11 and 3.12.
    InCFrame {
        /// Offset of `cframe` in `PyThreadState`.
        cframe: usize,
        /// Offset of `current_frame` in `_PyCFrame`.
        current_frame: usize,
    },
}

/// How a frame says which instruction it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `f_lasti`, a byte offset: 3.8 and 3.9.
    ByteOffset,
    /// `f_lasti`, counted in code units: 3.10.
    UnitIndex,
    /// A pointer into the code object: 3.11 on.
    Pointer,
}

/// The format of a code object's line table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineTable {
    /// `co_lnotab`: 3.8 and 3.9 (`Objects/lnotab_notes.txt`).
    Lnotab,
    /// `co_linetable` of PEP 626: 3.10 (`Objects/lnotab_notes.txt`).
    Ranges,
    /// `co_linetable` of PEP 657: 3.11 on (`Objects/locations.md`).
    Locations,
}

/// What tells that a code object is still the one that was cached by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeIdentity {
    /// `co_version` at this offset, never given twice: 3.12 on.
    Version(usize),
    /// Only the contents: up to 3.11.
    Contents,
}

/// How a thread that may run Python code, as it holds the GIL, is told from one that has let go of
/// it for a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// `_PyRuntime.gilstate.tstate_current` at this offset is its thread state (up to 3.11).
    CurrentOfRuntime(usize),
    /// `_status.active`, a bit of the thread state's word at this offset (3.12 on).
    BitOfThread(usize),
}

/// What tells which function a frame calls, 3.11 on: once specialised, a call keeps the version of
/// the function that it expects in its cache (`_PyCallCache` in `internal/pycore_code.h`); and the
/// reference to the function that was called stays where the frame's value stack ended, in the
/// place that the result will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLayout {
    /// The function object that a frame runs.
    pub frame_function: usize,
    /// The code object of a function (`cpython/funcobject.h`).
    pub function_code: usize,
    /// Where the value stack of a frame in a call ends.
    pub stack_top: StackTop,
    /// What lies there then.
    pub callable: Callable,
    /// Where a function's version is found.
    pub version: FunctionVersion,
    /// From the instruction that a frame in a call has to the call itself, in bytes.
    pub site: i8,
}

/// How a frame says where its value stack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackTop {
    /// `stacktop`, a 32-bit count of words from `localsplus`: 3.11 to 3.13. Negative in a frame
    /// that is in no call (3.12 on).
    Index {
        /// Its offset.
        at: usize,
        /// That of `localsplus`.
        locals: usize,
    },
    /// `stackpointer`: 3.14 on.
    Pointer {
        /// Its offset.
        at: usize,
    },
}

/// In which order a call takes what it calls from the value stack (`CALL` in
/// `Python/bytecodes.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callable {
    /// A method or `NULL`, and then the callable, which is the object if there is a method: 3.11
    /// and 3.12.
    AfterMethod,
    /// The callable: 3.13 on.
    First,
}

/// Where the version of the function that a frame runs is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionVersion {
    /// It is its code object's, unless it was changed since: `MAKE_FUNCTION` in
    /// `Python/bytecodes.c`, 3.12 on.
    OfCode,
    /// In the function itself, 3.11.
    OfFunction {
        /// `func_version` (`cpython/funcobject.h`).
        version: usize,
    },
}

/// Where 3.12 keeps the instructions that monitoring tools have covered with
/// `INSTRUMENTED_LINE` and `INSTRUMENTED_INSTRUCTION` (`_PyCoMonitoringData` in `cpython/code.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covers {
    /// `_co_monitoring` in a code object, a pointer.
    pub monitoring: usize,
    /// `lines`, a pointer to an entry for each code unit that begins with the opcode.
    pub lines: usize,
    /// The size of such an entry.
    pub line_bytes: usize,
    /// `per_instruction_opcodes`, a pointer to an opcode for each code unit.
    pub instructions: usize,
}

/// What says how long a frame is in the data stack: its head, and a word for each variable and each
/// value that it may work on (`co_framesize` in `cpython/code.h`, 3.12 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSize {
    /// `localsplus` of the frame, which is where its head ends.
    pub frame_locals: usize,
    /// How many words of `localsplus` come before the value stack.
    pub code_locals: usize,
    /// How many values its stack may hold.
    pub code_stack_size: usize,
}

impl CallLayout {
    /// From a call to the version that it expects: behind opcode, argument and counter.
    pub const VERSION: usize = 4;
}

/// Offsets in bytes, named `structure_field`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Layout {
    pub runtime_interpreters_head: usize,
    pub runtime_finalizing: usize,
    pub interpreter_next: usize,
    pub interpreter_id: usize,
    pub interpreter_threads_head: usize,
    pub interpreter_modules: usize,
    pub thread_next: usize,
    pub thread_interpreter: usize,
    pub thread_top_frame: TopFrame,
    pub thread_id: usize,
    /// Absent before 3.11, where only the `pthread_t` is kept.
    pub thread_native_id: Option<usize>,
    pub attached: Attached,
    pub frame_previous: usize,
    pub frame_code: usize,
    pub frame_instruction: usize,
    /// Absent before 3.11.
    pub frame_owner: Option<usize>,
    /// Index of the thread-local bytecode: free-threaded 3.14 on.
    pub frame_bytecode_index: Option<usize>,
    pub code_filename: usize,
    pub code_name: usize,
    /// Absent before 3.11.
    pub code_qualname: Option<usize>,
    pub code_first_line: usize,
    pub code_line_table: usize,
    /// The bytecode: inside the code object from 3.11 on, before that a pointer to a `bytes`.
    pub code_instructions: usize,
    /// Array of the threads' own copies of the bytecode: free-threaded 3.14 on.
    pub code_thread_bytecodes: Option<usize>,
    /// 3.12 only: elsewhere no table of the instructions of a code object is made.
    pub code_covers: Option<Covers>,
    pub code_identity: CodeIdentity,
    pub object_type: usize,
    pub object_size: usize,
    pub type_name: usize,
    pub bytes_size: usize,
    pub bytes_data: usize,
    pub str_length: usize,
    pub str_state: usize,
    /// Lowest bit of `kind` in the state word; `compact` and `ascii` follow its three bits.
    pub str_kind_shift: u32,
    pub str_ascii_data: usize,
    pub str_compact_data: usize,
    pub instruction: Instruction,
    /// Absent before 3.11.
    pub call: Option<CallLayout>,
    /// Absent before 3.11.
    pub frame_size: Option<FrameSize>,
    pub line_table: LineTable,
    pub natives: NativeLayout,
    pub objects: ObjectLayout,
    pub states: StateLayout,
    pub tasks: TaskLayout,
}

impl Layout {
    /// Bytes of a frame, from its start, that hold every field the reader wants.
    pub fn frame_bytes(&self) -> usize {
        let last = [
            self.frame_previous + 8,
            self.frame_code + 8,
            self.frame_instruction + 8,
            self.frame_owner.map_or(0, |owner| owner + 1),
            self.frame_bytecode_index.map_or(0, |index| index + 4),
            match self.natives.entry {
                Entry::InFrame(offset) => offset + 1,
                _ => 0,
            },
        ];
        last.into_iter().max().unwrap_or(0).next_multiple_of(8)
    }

    /// Where in a thread state the fields of [`Head`](crate::reader::threads::Head) lie, in bytes: on either side of
    /// those that the thread writes at each call, which are next to the one that leads to the newest frame.
    pub fn thread_head(&self) -> [Range<usize>; 2] {
        let (TopFrame::InThread(written) | TopFrame::InCFrame { cframe: written, .. }) =
            self.thread_top_frame;
        let attached = match self.attached {
            Attached::CurrentOfRuntime(_) => self.thread_next,
            Attached::BitOfThread(offset) => offset,
        };
        let fields = [
            self.thread_interpreter,
            self.thread_native_id.unwrap_or(self.thread_id),
            attached,
            self.states.thread_raised,
            self.states.thread_handled,
        ];
        let mut parts = [self.thread_next, self.thread_id].map(|field| field..field + 8);
        for field in fields {
            let part = &mut parts[usize::from(field > written)];
            *part = part.start.min(field)..part.end.max(field + 8);
        }
        parts
    }

    /// Bytes of a code object, from its start, that hold every field the reader wants.
    pub fn code_bytes(&self) -> usize {
        let last = [
            self.object_size,
            self.object_type,
            self.code_filename,
            self.code_name,
            self.code_qualname.unwrap_or(0),
            self.code_first_line,
            self.code_line_table,
            self.tasks.code_flags,
            self.frame_size.map_or(0, |size| size.code_locals.max(size.code_stack_size)),
            match self.code_identity {
                CodeIdentity::Version(offset) => offset,
                CodeIdentity::Contents => 0,
            },
        ];
        last.into_iter().max().unwrap_or(0) + 8
    }

    /// Whether a frame that is in a call may stand at the end of the call's cache rather than at the
    /// call itself: 3.11 and 3.12.
    pub fn stands_in_caches(&self) -> bool {
        self.call.is_some_and(|call| call.site != 0)
    }

    /// The instruction, in code units, that a frame is at before it runs.
    pub fn first_index(&self) -> i64 {
        // Where it is called `prev_instr` it is the one before: 3.11 and 3.12, as the above.
        if self.stands_in_caches() { -1 } else { 0 }
    }

    /// Whether frames lie one behind the other in the thread's data stack (3.11 on) rather than
    /// being objects of their own.
    pub fn has_data_stack(&self) -> bool {
        self.instruction == Instruction::Pointer
    }
}
