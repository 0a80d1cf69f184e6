//! Interpreters and their threads.

use super::Torn;
use crate::layout::detect::Build;
use crate::layout::{Attached, Layout};
use crate::mem::{Address, Memory, Piece, field, word_at, word32_at};

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
            .find(|&offset| memory.word32(field(ident, offset)) == Ok(tid))
            .map(Self)
    }
}

/// Whether the runtime is being finalized.
pub fn is_finalizing(memory: &impl Memory, build: &Build) -> Result<bool, Torn> {
    let at = field(build.runtime, build.layout.runtime_finalizing);
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
    let mut next = memory.word(field(build.runtime, build.layout.runtime_interpreters_head))?;
    while next != 0 {
        if into.len() == MOST_INTERPRETERS {
            return Err(Torn);
        }
        into.push(next);
        next = memory.word(field(next, build.layout.interpreter_next))?;
    }
    Ok(())
}

/// Whether there is an interpreter, or was one until the runtime's end, which leaves `next_id` of
/// `pyinterpreters` (`internal/pycore_runtime.h`, from 3.14 on `internal/pycore_runtime_structs.h`): behind
/// the first and the main interpreter.
pub fn has_had_interpreters(memory: &impl Memory, build: &Build) -> bool {
    let head = field(build.runtime, build.layout.runtime_interpreters_head);
    memory.word(field(head, 16)).is_ok_and(|next_id| (next_id as i64) > 0)
}

/// What tells of a thread state whose it is and what its thread is doing, of one moment: the thread waits for each
/// line that is read, when it next writes there.
#[derive(Debug)]
pub struct Head<'a> {
    layout: &'a Layout,
    bytes: [u8; MOST_THREAD_BYTES],
}

/// Where a thread state is in the list of all, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    at: Address,
    next: Address,
    interpreter: Address,
    ident: u64,
    native_id: Option<u32>,
}

impl<'a> Head<'a> {
    /// Copies that of the thread state at an address.
    pub fn read(memory: &impl Memory, layout: &'a Layout, thread: Address) -> Result<Self, Torn> {
        let mut bytes = [0; MOST_THREAD_BYTES];
        let parts = layout.thread_head();
        let [before, after] = parts.each_ref().map(|part| field(thread, part.start));
        let [into_before, into_after] = bytes.get_disjoint_mut(parts).map_err(|_| Torn)?;
        memory.read_pieces(&mut [
            Piece { from: before, into: into_before },
            Piece { from: after, into: into_after },
        ])?;
        Ok(Self { layout, bytes })
    }

    fn word(&self, offset: usize) -> u64 {
        word_at(&self.bytes, offset)
    }

    /// As [`is_attached`], of the thread whose state is at this address.
    pub fn is_attached(&self, memory: &impl Memory, build: &Build, thread: Address) -> bool {
        match self.layout.attached {
            Attached::CurrentOfRuntime(_) => is_attached(memory, build, thread),
            Attached::BitOfThread(offset) => is_active(word32_at(&self.bytes, offset)),
        }
    }

    /// Where its interpreter is.
    pub fn interpreter(&self) -> Address {
        self.word(self.layout.thread_interpreter)
    }

    /// The exception that it is raising; 0 if there is none.
    pub fn raised(&self) -> Address {
        self.word(self.layout.states.thread_raised)
    }

    /// The first item of what it is handling.
    pub fn handled(&self) -> Address {
        self.word(self.layout.states.thread_handled)
    }

    /// What the list of all threads says of the one at an address.
    pub fn listed(&self, at: Address) -> Listed {
        let Layout { thread_next, thread_interpreter, thread_id, .. } = *self.layout;
        Listed {
            at,
            next: self.word(thread_next),
            interpreter: self.word(thread_interpreter),
            ident: self.word(thread_id),
            native_id: self.layout.thread_native_id.map(|offset| self.word(offset) as u32),
        }
    }
}

/// All threads of one interpreter are added to `into`, newest first.
pub fn threads(
    memory: &impl Memory,
    layout: &Layout,
    pthread_tid: Option<PthreadTid>,
    interpreter: Address,
    into: &mut Vec<ThreadState>,
) -> Result<(), Torn> {
    let copies = Copies { listed: &[], before: &[] };
    threads_with_copies(memory, layout, pthread_tid, interpreter, copies, into)
}

/// What was copied of some threads a moment ago.
#[derive(Clone, Copy, Debug)]
pub struct Copies<'a> {
    /// In the order of the list.
    pub listed: &'a [Listed],
    /// All threads before that.
    pub before: &'a [ThreadState],
}

/// As [`threads`]; what was copied of some of them is not read again. They may be gone since they were copied.
pub fn threads_with_copies(
    memory: &impl Memory,
    layout: &Layout,
    pthread_tid: Option<PthreadTid>,
    interpreter: Address,
    copies: Copies<'_>,
    into: &mut Vec<ThreadState>,
) -> Result<(), Torn> {
    let id = memory.word(field(interpreter, layout.interpreter_id))? as i64;
    let mut next = memory.word(field(interpreter, layout.interpreter_threads_head))?;
    // New ones come first: if there are any, one may lie where one of those lay that were copied.
    let first_before = copies.before.iter().find(|thread| thread.interpreter == id);
    let has_new = first_before.is_none_or(|first| first.at != next);
    let mut copied = if has_new { &[] } else { copies.listed };
    // States without a thread count, too: a list that changes meanwhile may lead back into itself.
    let mut visited = into.len();
    while next != 0 {
        if visited >= MOST_THREADS {
            return Err(Torn);
        }
        visited += 1;
        let listed = match copied.iter().position(|copy| copy.at == next) {
            Some(position) => {
                let listed = copied[position];
                copied = &copied[position + 1..];
                listed
            }
            None => Head::read(memory, layout, next)?.listed(next),
        };
        let Listed { at, ident, native_id, .. } = listed;
        if listed.interpreter != interpreter {
            return Err(Torn);
        }
        let tid = match (native_id, pthread_tid) {
            (Some(native_id), _) => native_id,
            // A thread that is gone leaves its state behind for a moment; its structure may not
            // be there any more.
            (None, Some(PthreadTid(offset))) if ident != 0 => {
                memory.word32(field(ident, offset)).unwrap_or(0)
            }
            _ => 0,
        };
        // A thread state without a thread is not (or no more) in use.
        if tid != 0 {
            into.push(ThreadState { at, ident, tid, interpreter: id });
        }
        next = listed.next;
    }
    Ok(())
}

/// Whether a thread may be running Python code rather than being in a system call.
pub fn is_attached(memory: &impl Memory, build: &Build, thread: Address) -> bool {
    match build.layout.attached {
        Attached::CurrentOfRuntime(offset) => {
            memory.word(field(build.runtime, offset)) == Ok(thread)
        }
        Attached::BitOfThread(offset) => memory.word32(field(thread, offset)).is_ok_and(is_active),
    }
}

fn is_active(status: u32) -> bool {
    /// `initialized`, `bound`, `unbound` and `bound_gilstate` come first (`cpython/pystate.h`, 3.12
    /// to 3.15).
    const ACTIVE: u32 = 1 << 4;
    status & ACTIVE != 0
}

/// At least as long as any version's thread state up to the fields that are read.
const MOST_THREAD_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{TopFrame, tables};
    use crate::mem::MemoryImage;

    #[test]
    fn a_list_that_leads_back_into_itself_ends_without_threads_too() {
        const INTERPRETER: Address = 0x1000;
        const THREAD: Address = 0x2000;
        let layout = tables::V3_12;
        let mut image = MemoryImage::new();
        image.insert(field(INTERPRETER, layout.interpreter_threads_head), &THREAD.to_ne_bytes());
        image.insert(field(THREAD, layout.thread_interpreter), &INTERPRETER.to_ne_bytes());
        image.insert(field(THREAD, layout.thread_next), &THREAD.to_ne_bytes());
        image.insert(INTERPRETER, &[0; 1024]);
        image.insert(THREAD, &[0; MOST_THREAD_BYTES]);
        let mut found = Vec::new();
        assert_eq!(threads(&image, &layout, None, INTERPRETER, &mut found), Err(Torn));
        assert!(found.is_empty());
    }

    #[test]
    fn a_head_is_read_without_what_the_thread_writes_at_each_call() {
        use tables::{V3_8, V3_9, V3_10, V3_11, V3_12};
        const THREAD: Address = 0x2000;
        for layout in [V3_8, V3_9, V3_10, V3_11, V3_12] {
            let (TopFrame::InThread(written) | TopFrame::InCFrame { cframe: written, .. }) =
                layout.thread_top_frame;
            let mut image = MemoryImage::new();
            image.insert(THREAD, &vec![1; written]);
            let after = field(THREAD, written + 8);
            image.insert(after, &[2; MOST_THREAD_BYTES]);
            let head = Head::read(&image, &layout, THREAD).unwrap();
            assert_eq!(head.listed(THREAD).next, u64::from_ne_bytes([1; 8]));
            for word in [head.raised(), head.handled(), head.listed(THREAD).ident] {
                assert_eq!(word, u64::from_ne_bytes([2; 8]));
            }
        }
    }

    #[test]
    fn what_was_copied_is_not_read_again_unless_a_thread_is_new() {
        const INTERPRETER: Address = 0x1000;
        const STATES: [Address; 4] = [0x2000, 0x3000, 0x4000, 0x5000];
        let layout = tables::V3_12;
        let native_id = layout.thread_native_id.unwrap();
        // Of threads one behind the other; their ids are their numbers.
        let memory = |numbers: &[usize]| {
            let mut image = MemoryImage::new();
            image.insert(INTERPRETER, &[0; 1024]);
            let mut link = field(INTERPRETER, layout.interpreter_threads_head);
            for &number in numbers {
                let state = STATES[number];
                let id = &(number as u64 + 1).to_ne_bytes();
                image.poke(link, &state.to_ne_bytes()).unwrap();
                image.insert(state, &[0; MOST_THREAD_BYTES]);
                let interpreter = &INTERPRETER.to_ne_bytes();
                let (of, ident) = (layout.thread_interpreter, layout.thread_id);
                for (offset, word) in [(of, interpreter), (ident, id), (native_id, id)] {
                    image.poke(field(state, offset), word).unwrap();
                }
                link = field(state, layout.thread_next);
            }
            image
        };
        let before = memory(&[1, 2, 3]);
        let mut all = Vec::new();
        threads(&before, &layout, None, INTERPRETER, &mut all).unwrap();
        let copy = |number: usize| {
            let at = STATES[number];
            Head::read(&before, &layout, at).unwrap().listed(at)
        };
        let listed = |copied: &[usize], memory: &MemoryImage| -> Vec<u32> {
            let listed: Vec<Listed> = copied.iter().map(|&number| copy(number)).collect();
            let copies = Copies { listed: &listed, before: &all };
            let mut found = Vec::new();
            threads_with_copies(memory, &layout, None, INTERPRETER, copies, &mut found).unwrap();
            found.iter().map(|thread| thread.tid - 1).collect()
        };
        for copied in [&[][..], &[1], &[3], &[1, 3], &[1, 2, 3]] {
            assert_eq!(listed(copied, &before), [1, 2, 3]);
            assert_eq!(listed(copied, &memory(&[0, 1, 2])), [0, 1, 2]);
            let is_last_seen = copied.contains(&2);
            let expected = if is_last_seen { &[1, 2, 3][..] } else { &[1, 2] };
            assert_eq!(listed(copied, &memory(&[1, 2])), expected);
        }
    }
}
