//! Where asyncio's tasks, and what leads from one to another, keep their fields.
//!
//! `FutureObj` and `TaskObj` are in `Modules/_asynciomodule.c`; `PyGenObject` in `genobject.h` (3.8),
//! `cpython/genobject.h` (3.9 to 3.13) and `internal/pycore_interpframe_structs.h` (3.14 on);
//! `PyFunctionObject` in `funcobject.h` and `cpython/funcobject.h` (3.9 on); `PyTupleObject` in
//! `cpython/tupleobject.h`; states of frames in `internal/pycore_frame.h`. Tags: v3.8.18, v3.9.18,
//! v3.10.13, v3.11.7, v3.12.1, v3.13.0, v3.14.0, v3.15. What is not in an installed header was
//! compared with objects of known content on each version.
//!
//! Some fields lie at the same distance behind the object's head in all versions, and are named
//! where they are read.

/// Offsets in bytes, named `structure_field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TaskLayout {
    pub code_flags: usize,
    pub type_base: usize,
    pub generator: GeneratorLayout,
    /// `task_coro`; `task_fut_waiter` stands before it and `task_name` behind it.
    pub task_coro: usize,
    /// In which the thread keeps its running loop.
    pub running: Running,
    pub function_closure: usize,
    pub function_qualname: usize,
    pub tuple_items: usize,
}

/// How a suspended coroutine or generator shows where it is and what it awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorLayout {
    /// The frame: up to 3.10 a pointer to it, from 3.11 on the frame itself.
    pub frame: usize,
    /// What it is doing.
    pub state: FrameState,
    /// Where the value stack of its frame ends, by offsets in the frame.
    pub stack: ValueStack,
    /// How many words below that end the awaited object is.
    pub awaited_below: usize,
    /// What tells that it awaits something rather than having yielded.
    pub awaiting: Awaiting,
}

/// Where it says what it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameState {
    /// By its frame alone: there is none once it has finished, and no stack while it runs (3.8 and
    /// 3.9).
    ByStack,
    /// A signed byte of the frame (3.10).
    OfFrame(usize, States),
    /// A signed byte of the generator (3.11 on).
    OfGenerator(usize, States),
}

/// The values of that byte. Those between the first two are suspended, those beyond are finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States {
    /// It has not begun.
    pub created: i8,
    /// It runs.
    pub executing: i8,
}

/// Where a frame's value stack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueStack {
    /// At a pointer: 3.8 and 3.9, and 3.14 on.
    Pointer {
        /// Its offset.
        at: usize,
    },
    /// So many words behind a pointer: 3.10.
    Depth {
        /// The number's offset.
        at: usize,
        /// The pointer's.
        base: usize,
    },
    /// So many words behind a place in the frame: 3.11 to 3.13.
    Index {
        /// The number's offset.
        at: usize,
        /// The place.
        locals: usize,
    },
}

/// What tells that a suspended frame awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaiting {
    /// The next instruction is `YIELD_FROM`, this many bytes behind `f_lasti` times the factor (3.8
    /// to 3.10).
    YieldFrom {
        /// Bytes that `f_lasti` counts in.
        factor: usize,
    },
    /// The next instruction, a `RESUME`, says so in its argument (3.11 and 3.12).
    ResumeArgument,
    /// The state is at least this (3.13 on).
    State(i8),
}

/// What is known of the loop and the task that a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// The loop is in the dictionary at this offset in the thread state (up to 3.12).
    LoopInDict(usize),
    /// The loop is at this offset in the thread state (3.13).
    LoopInThread(usize),
    /// `_asyncio` publishes where both are (3.14 on).
    Published,
}

/// `YIELD_FROM` (`opcode.h`, 3.8 to 3.10).
pub const YIELD_FROM: u8 = 72;

const SUSPENDED_IS_ONE: States = States { created: -2, executing: 0 };
const SUSPENDED_IS_TWO: States = States { created: -3, executing: 0 };
const FROM_ZERO: States = States { created: 0, executing: 4 };

/// 3.8.
pub const V3_8: TaskLayout = TaskLayout {
    code_flags: 36,
    type_base: 256,
    generator: GeneratorLayout {
        frame: 16,
        state: FrameState::ByStack,
        stack: ValueStack::Pointer { at: 72 },
        awaited_below: 1,
        awaiting: Awaiting::YieldFrom { factor: 1 },
    },
    task_coro: 112,
    running: Running::LoopInDict(152),
    function_closure: 48,
    function_qualname: 104,
    tuple_items: 24,
};

/// 3.9.
pub const V3_9: TaskLayout = TaskLayout { task_coro: 152, ..V3_8 };

/// 3.10.
pub const V3_10: TaskLayout = TaskLayout {
    generator: GeneratorLayout {
        state: FrameState::OfFrame(108, SUSPENDED_IS_ONE),
        stack: ValueStack::Depth { at: 80, base: 64 },
        awaiting: Awaiting::YieldFrom { factor: 2 },
        ..V3_9.generator
    },
    task_coro: 160,
    function_closure: 72,
    function_qualname: 40,
    ..V3_9
};

/// 3.11.
pub const V3_11: TaskLayout = TaskLayout {
    code_flags: 48,
    generator: GeneratorLayout {
        frame: 80,
        state: FrameState::OfGenerator(75, SUSPENDED_IS_ONE),
        stack: ValueStack::Index { at: 64, locals: 72 },
        awaited_below: 1,
        awaiting: Awaiting::ResumeArgument,
    },
    task_coro: 136,
    running: Running::LoopInDict(128),
    ..V3_10
};

/// 3.12.
pub const V3_12: TaskLayout = TaskLayout {
    generator: GeneratorLayout {
        frame: 72,
        state: FrameState::OfGenerator(67, SUSPENDED_IS_ONE),
        ..V3_11.generator
    },
    running: Running::LoopInDict(112),
    ..V3_11
};

/// What a version's own table of offsets says of it, from 3.13 on.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Described {
    pub minor: u8,
    /// Of an object without contents.
    pub head: usize,
    pub thread_bytes: usize,
    pub type_dict_offset: usize,
    /// As [`GeneratorLayout::stack`].
    pub stack: ValueStack,
    /// `gi_iframe` and `gi_frame_state`, where the table has them (3.14 on).
    pub generator: Option<(usize, usize)>,
}

/// From 3.13 on.
pub fn described(from: &Described) -> TaskLayout {
    let Described { minor, head, thread_bytes, type_dict_offset, stack, generator } = *from;
    // `gi_iframe` is behind six words and four bytes, of which `gi_frame_state` is the last, rounded
    // up to words.
    let (frame, state) = generator.unwrap_or((head + 56, head + 51));
    let (states, awaiting) = if minor >= 15 { (FROM_ZERO, 2) } else { (SUSPENDED_IS_TWO, -1) };
    TaskLayout {
        // Behind the variable head and three pointers.
        code_flags: head + 32,
        // `tp_base`, `tp_dict`, `tp_descr_get`, `tp_descr_set`, `tp_dictoffset`.
        type_base: type_dict_offset.saturating_sub(32),
        generator: GeneratorLayout {
            frame,
            state: FrameState::OfGenerator(state, states),
            stack,
            // `SEND` keeps one word more there from 3.15 on.
            awaited_below: if minor >= 15 { 2 } else { 1 },
            awaiting: Awaiting::State(awaiting),
        },
        task_coro: if minor >= 14 { head + 112 } else { head + 104 },
        running: match minor {
            13 => Running::LoopInThread(thread_bytes),
            _ => Running::Published,
        },
        function_closure: head + 56,
        function_qualname: head + 24,
        // A hash before the items from 3.14 on.
        tuple_items: if minor >= 14 { head + 16 } else { head + 8 },
    }
}
