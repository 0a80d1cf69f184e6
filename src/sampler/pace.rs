//! Whether a thread has moved between two looks at it.

use crate::os::clock;
use crate::reader::frame::RawFrame;

/// Whether two walks show the same stack. The newest frame may have moved on within its function;
/// callers stand at their calls.
pub fn is_same_moment(first: &[RawFrame], second: &[RawFrame]) -> bool {
    let (Some((newest, callers)), Some((newest_again, callers_again))) =
        (first.split_first(), second.split_first())
    else {
        return first.is_empty() && second.is_empty();
    };
    let still = RawFrame { instruction: newest.instruction, ..*newest_again };
    *newest == still && callers == callers_again
}

/// Long enough for a thread that runs Python code to go on to another instruction.
pub fn wait_apart() {
    const APART_NS: u64 = 2_000;
    let until = clock::monotonic_ns() + APART_NS;
    while clock::monotonic_ns() < until {
        std::hint::spin_loop();
    }
}

/// Whether a thread is on a processor: its CPU clock moves.
pub fn is_running(tid: u32) -> bool {
    let before = clock::thread_cpu_ns(tid);
    before.is_some() && clock::thread_cpu_ns(tid) != before
}
