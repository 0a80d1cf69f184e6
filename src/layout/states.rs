//! Where CPython keeps what a thread is doing besides running a frame: garbage collection, who
//! waits for the GIL, exceptions.

/// Where something of an interpreter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In `_PyRuntime`, at this offset.
    Runtime(usize),
    /// In the interpreter, at this offset.
    Interpreter(usize),
    /// Where a pointer in the interpreter at this offset leads to.
    Behind(usize),
}

/// What tells who waits for the GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The condition variables of `_gil_runtime_state` (`internal/pycore_gil.h`) count them.
    Counted {
        /// The structure.
        gil: Place,
        /// `cond` in it, on which threads wait that want the GIL.
        condition: usize,
        /// `gil_requested` of the thread, which says so: 3.15 on.
        said: Option<usize>,
    },
    /// `state` of the thread says whether it is suspended: builds without a GIL.
    Suspended(usize),
}

/// Offsets in bytes, named `structure_field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StateLayout {
    /// `collecting` of `_gc_runtime_state`.
    pub gc_collecting: Place,
    /// How far before it the `count` of the middle one of its three generations is; `None` where that is
    /// not known.
    pub gc_counts: Option<usize>,
    pub waiting: Waiting,
    /// `curexc_type` up to 3.11, `current_exception` from 3.12 on: what is being raised.
    pub thread_raised: usize,
    /// `exc_info`: the `_PyErr_StackItem` of what is being handled.
    pub thread_handled: usize,
    pub item_value: usize,
    pub item_previous: usize,
    /// `context_ver`, behind `context`: counts whenever another context becomes the thread's
    /// (`cpython/pystate.h`).
    pub thread_context_version: usize,
}

/// Bytes of `gc_generation` (`internal/pycore_gc.h`, from 3.14 on `internal/pycore_interp_structs.h`).
pub const GENERATION_BYTES: usize = 24;

/// How far before its `count` its `threshold` is.
pub const THRESHOLD_BEFORE_COUNT: usize = 4;

/// `switch_cond` of `_gil_runtime_state`, from `cond`: on it a thread waits that has let go of the GIL
/// until another has it.
pub const SWITCH_CONDITION: usize = 88;

/// How far before `cond` of `_gil_runtime_state` its `last_holder` and its `switch_number` are, with `locked` between.
pub const HOLDER_BEFORE_CONDITION: usize = 24;
/// See [`HOLDER_BEFORE_CONDITION`].
pub const SWITCHES_BEFORE_CONDITION: usize = 8;

/// `cond` of `_gil_runtime_state`, from `locked`; and `locked` where the GIL cannot be switched off.
const CONDITION_AFTER_LOCKED: usize = 16;
const LOCKED: usize = 16;

/// 3.8: the collector is the runtime's.
pub const V3_8: StateLayout = StateLayout {
    gc_collecting: Place::Runtime(544),
    // Before `collecting` there: two of `generations`, from `count` on, a pointer, one more generation,
    // and three words for each of three.
    gc_counts: Some(132),
    waiting: Waiting::Counted {
        gil: Place::Runtime(1152),
        condition: LOCKED + CONDITION_AFTER_LOCKED,
        said: None,
    },
    thread_raised: 88,
    thread_handled: 144,
    item_value: 8,
    item_previous: 24,
    thread_context_version: 248,
};

/// 3.9 and 3.10.
pub const V3_9: StateLayout = StateLayout {
    gc_collecting: Place::Interpreter(816),
    waiting: Waiting::Counted {
        gil: Place::Runtime(352),
        condition: LOCKED + CONDITION_AFTER_LOCKED,
        said: None,
    },
    ..V3_8
};

/// 3.11.
pub const V3_11: StateLayout = StateLayout {
    gc_collecting: Place::Interpreter(848),
    gc_counts: V3_8.gc_counts,
    waiting: Waiting::Counted {
        gil: Place::Runtime(360),
        condition: LOCKED + CONDITION_AFTER_LOCKED,
        said: None,
    },
    thread_raised: 96,
    thread_handled: 120,
    item_value: 0,
    item_previous: 8,
    thread_context_version: 232,
};

/// 3.12: each interpreter may have a GIL of its own.
pub const V3_12: StateLayout = StateLayout {
    gc_collecting: Place::Interpreter(312),
    waiting: Waiting::Counted {
        gil: Place::Behind(384),
        condition: LOCKED + CONDITION_AFTER_LOCKED,
        said: None,
    },
    thread_raised: 96,
    thread_handled: 104,
    thread_context_version: 216,
    ..V3_11
};

/// What a table of offsets says, from 3.13 on.
pub struct Described {
    /// 13 to 15.
    pub minor: u8,
    /// Built without a GIL.
    pub free_threaded: bool,
    /// `gc` of the interpreter, and `collecting` in it.
    pub gc_collecting: usize,
    /// `ceval.gil` of the interpreter.
    pub gil: usize,
    /// `locked` in `_gil_runtime_state`.
    pub gil_locked: usize,
    /// `thread_id` of the thread.
    pub thread_id: usize,
    /// `_status` of the thread.
    pub thread_status: usize,
    /// `gil_requested` of the thread, where the table has it.
    pub gil_requested: Option<usize>,
}

/// What follows from a table of offsets; `None` if it cannot be.
pub fn described(table: &Described) -> Option<StateLayout> {
    let waiting = match table.minor {
        // `holds_gil` (3.14 on), `gil_requested` (3.15 on) and `_whence` are between
        // (`cpython/pystate.h`).
        13 if table.free_threaded => Waiting::Suspended(table.thread_status + 8),
        14 if table.free_threaded => Waiting::Suspended(table.thread_status + 12),
        _ if table.free_threaded => Waiting::Suspended(table.thread_status + 16),
        _ => Waiting::Counted {
            gil: Place::Behind(table.gil),
            condition: table.gil_locked + CONDITION_AFTER_LOCKED,
            said: table.gil_requested,
        },
    };
    let gc_counts = match table.minor {
        13 => V3_8.gc_counts,
        _ if table.free_threaded => None,
        // There is no pointer any more.
        14 => Some(124),
        // Nor are there numbers of each generation.
        _ => Some(60),
    };
    Some(StateLayout {
        gc_collecting: Place::Interpreter(table.gc_collecting),
        gc_counts,
        waiting,
        // Five and four pointers before `thread_id` in `cpython/pystate.h` of v3.12 to v3.15.
        thread_raised: table.thread_id.checked_sub(40)?,
        thread_handled: table.thread_id.checked_sub(32)?,
        // Eight words behind it, there too.
        thread_context_version: table.thread_id + 64,
        ..V3_11
    })
}
