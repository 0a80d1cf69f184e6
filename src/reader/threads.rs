//! Interpreters and their threads.

use super::Torn;
use crate::layout::Layout;
use crate::layout::detect::Build;
use crate::mem::{Address, Memory, word_at};

/// A thread state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// Where it lies.
    pub at: Address,
    /// `thread_id`: the `pthread_t`, which is also Python's `threading.get_ident()`.
    pub ident: u64,
    /// Kernel thread id.
    pub tid: u32,
    /// Its interpreter's id; 0 is the main one.
    pub interpreter: i64,
}

const MOST_INTERPRETERS: usize = 4096;
const MOST_THREADS: usize = 1 << 16;

/// Where the kernel tid lies in the C library's own thread structure, in bytes from the
/// `pthread_t`: how tids are found before 3.11, which keeps only that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PthreadTid(usize);

impl PthreadTid {
    /// Looks for a thread's known tid in its own structure.
    pub fn find(memory: &impl Memory, ident: u64, tid: u32) -> Option<Self> {
        const SEARCHED: usize = 1536;
        (0..SEARCHED)
            .step_by(4)
            .find(|&offset| memory.word32(ident + offset as u64) == Ok(tid))
            .map(Self)
    }
}

/// Whether the runtime is being finalized.
pub fn is_finalizing(memory: &impl Memory, build: &Build) -> Result<bool, Torn> {
    let at = build.runtime + build.layout.runtime_finalizing as u64;
    // The thread state that finalizes, in every supported version.
    Ok(memory.word(at)? != 0)
}

/// Addresses of all interpreters, newest first.
pub fn interpreters(
    memory: &impl Memory,
    build: &Build,
    into: &mut Vec<Address>,
) -> Result<(), Torn> {
    into.clear();
    let mut next = memory.word(build.runtime + build.layout.runtime_interpreters_head as u64)?;
    while next != 0 {
        if into.len() == MOST_INTERPRETERS {
            return Err(Torn);
        }
        into.push(next);
        next = memory.word(next + build.layout.interpreter_next as u64)?;
    }
    Ok(())
}

/// All threads of one interpreter are added to `into`, newest first.
pub fn threads(
    memory: &impl Memory,
    layout: &Layout,
    pthread_tid: Option<PthreadTid>,
    interpreter: Address,
    into: &mut Vec<ThreadState>,
) -> Result<(), Torn> {
    let mut head = [0; MOST_THREAD_BYTES];
    let head = head.get_mut(..layout.thread_bytes()).ok_or(Torn)?;
    let id = memory.word(interpreter + layout.interpreter_id as u64)? as i64;
    let mut next = memory.word(interpreter + layout.interpreter_threads_head as u64)?;
    while next != 0 {
        if into.len() == MOST_THREADS {
            return Err(Torn);
        }
        memory.read(next, head)?;
        if word_at(head, layout.thread_interpreter) != interpreter {
            return Err(Torn);
        }
        let ident = word_at(head, layout.thread_id);
        let tid = match (layout.thread_native_id, pthread_tid) {
            (Some(offset), _) => word_at(head, offset) as u32,
            // A thread that is gone leaves its state behind for a moment; its structure may not
            // be there any more.
            (None, Some(PthreadTid(offset))) if ident != 0 => {
                memory.word32(ident + offset as u64).unwrap_or(0)
            }
            _ => 0,
        };
        // A thread state without a thread is not (or no more) in use.
        if tid != 0 {
            into.push(ThreadState { at: next, ident, tid, interpreter: id });
        }
        next = word_at(head, layout.thread_next);
    }
    Ok(())
}

/// At least as long as any version's thread state up to the fields that are read.
const MOST_THREAD_BYTES: usize = 512;
