//! This process's own memory, read by whichever method is safe right now.
#![allow(unsafe_code)]

use std::cell::Cell;

use super::syscall::{self, Refusal};
use super::{Address, Fault, Memory, Piece, Word, again, guarded};
use crate::os::claim::FAULTS;
use crate::os::{clock, shared_file, thread};

/// How interpreter memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `process_vm_readv`.
    Syscall,
    /// Direct loads under a fault handler.
    Guarded,
    /// Neither is safe: nothing may be read any more.
    Refused,
}

/// Nanoseconds between two looks at who owns the fault signals, which are system calls: at the highest
/// rates, several cycles have one. It is no longer than what passes within a cycle of deep stacks.
const LOOK_NS: u64 = 20_000;
/// The same for SIGBUS. Nothing raises it but a read or a store beyond the end of a file that was cut.
const LOOK_AT_BOTH_NS: u64 = 500_000;

/// The memory of this process. Used by one thread, the sampler's.
#[derive(Debug)]
pub struct LiveMemory {
    /// The thread that reads, to which the memory belongs as well: the process's own id leads
    /// nowhere once its first thread has ended.
    tid: u32,
    method: Cell<Method>,
    syscall_allowed: Cell<bool>,
    /// Whether a system call has failed for another reason than the address.
    is_doubtful: Cell<bool>,
    /// When it was last seen who owns the fault signals.
    looked_ns: Cell<u64>,
    looked_at_both_ns: Cell<u64>,
}

impl LiveMemory {
    /// Starts on `process_vm_readv`, or on guarded loads where the kernel forbids it.
    pub fn new(tid: u32) -> Self {
        let syscall_allowed = syscall::is_allowed(tid);
        let method = if syscall_allowed { Method::Syscall } else { Method::Refused };
        let memory = Self {
            tid,
            method: Cell::new(method),
            syscall_allowed: Cell::new(syscall_allowed),
            is_doubtful: Cell::new(false),
            looked_ns: Cell::new(0),
            looked_at_both_ns: Cell::new(0),
        };
        if !syscall_allowed {
            memory.use_guarded_loads();
        }
        memory
    }

    /// From now on the calling thread, which is `tid`, reads.
    pub fn move_to(&mut self, tid: u32) {
        self.tid = tid;
        self.tell_signals();
    }

    /// Moves to guarded loads if nobody else owns the fault signals. Returns whether it did.
    pub fn use_guarded_loads(&self) -> bool {
        let installed = guarded::install();
        if installed {
            self.change_to(Method::Guarded);
        }
        installed
    }

    /// To be called at the start of every sampling cycle: gives up guarded loads, for good, once
    /// somebody else has taken one of their signals, and system calls once they are forbidden.
    pub fn recheck(&self) -> Method {
        if self.method.get() == Method::Guarded && !self.is_guarded() {
            guarded::uninstall();
            let fallback = match self.syscall_allowed.get() {
                true => Method::Syscall,
                false => Method::Refused,
            };
            self.change_to(fallback);
        }
        if self.is_doubtful.take() && !syscall::is_allowed(self.tid) {
            self.syscall_allowed.set(false);
            if self.method.get() == Method::Syscall && !self.use_guarded_loads() {
                self.change_to(Method::Refused);
            }
        }
        self.method.get()
    }

    fn is_guarded(&self) -> bool {
        if FAULTS.is_taken() {
            return false;
        }
        let now = clock::monotonic_ns();
        if now.saturating_sub(self.looked_ns.get()) < LOOK_NS {
            return true;
        }
        self.looked_ns.set(now);
        if now.saturating_sub(self.looked_at_both_ns.get()) < LOOK_AT_BOTH_NS {
            return guarded::is_first_ours();
        }
        self.looked_at_both_ns.set(now);
        guarded::is_ours()
    }

    /// What comes of a system call, which a filter may have begun to forbid.
    fn judge(&self, copied: Result<(), Refusal>) -> Result<(), Fault> {
        copied.map_err(|refusal| {
            if refusal == Refusal::Call {
                self.is_doubtful.set(true);
            }
            Fault
        })
    }

    /// The handler that guards the loads is there for stores to a mapped file as well.
    fn change_to(&self, method: Method) {
        self.method.set(method);
        shared_file::set_caught(method == Method::Guarded);
        self.tell_signals();
    }

    /// Has the thread take the signals of faults only where they are caught: what is sent to the process
    /// is the program's.
    fn tell_signals(&self) {
        if thread::is_ours() {
            guarded::set_reader(self.tid, self.method.get() == Method::Guarded);
        }
    }

    /// The method in use.
    pub fn method(&self) -> Method {
        self.method.get()
    }
}

impl Drop for LiveMemory {
    fn drop(&mut self) {
        shared_file::set_caught(false);
        guarded::uninstall();
    }
}

impl Memory for LiveMemory {
    #[inline]
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        match self.method.get() {
            // SAFETY: `recheck` has confirmed the handler at the start of this cycle.
            Method::Guarded => unsafe { guarded::read(from, into) },
            Method::Syscall => self.judge(syscall::read(self.tid, from, into)),
            Method::Refused => Err(Fault),
        }
    }

    fn read_pieces(&self, pieces: &mut [Piece<'_>]) -> Result<(), Fault> {
        match self.method.get() {
            Method::Syscall => self.judge(syscall::read_pieces(self.tid, pieces)),
            _ => pieces.iter_mut().try_for_each(|piece| self.read(piece.from, piece.into)),
        }
    }

    fn read_at_once(
        &self,
        words: [Address; 2],
        from: Address,
        into: [&mut [u8]; 2],
    ) -> Result<[u64; 2], Fault> {
        match self.method.get() {
            // SAFETY: `recheck` has confirmed the handler at the start of this cycle.
            Method::Guarded => unsafe { guarded::read_at_once(words, from, into) },
            Method::Syscall | Method::Refused => Err(Fault),
        }
    }

    fn same(&self, groups: &[&[Word]]) -> u32 {
        match self.method.get() {
            // SAFETY: `recheck` has confirmed the handler at the start of this cycle.
            Method::Guarded => unsafe { guarded::same(groups) },
            Method::Syscall => again::same_by_pieces(self, groups),
            Method::Refused => 0,
        }
    }

    fn begin_cycle(&self) -> bool {
        self.recheck() != Method::Refused
    }

    fn prefers_batches(&self) -> bool {
        self.method.get() == Method::Syscall
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::LINE;
    use crate::os::{signal, thread};

    // One test, as signal dispositions belong to the whole process.
    #[test]
    fn both_methods_read_right_and_survive_bad_addresses() {
        let memory = LiveMemory::new(thread::current_tid());
        check(&memory);
        // The Rust runtime owns SIGSEGV in a test binary, for its stack overflow message.
        signal::restore_default(libc::SIGSEGV);
        signal::restore_default(libc::SIGBUS);
        assert!(!memory.use_guarded_loads());
        FAULTS.give_back();
        assert!(memory.use_guarded_loads());
        assert_eq!(memory.recheck(), Method::Guarded);
        check(&memory);
        check_at_once(&memory);
        signal::restore_default(libc::SIGBUS);
        clock::sleep_until(clock::monotonic_ns() + LOOK_AT_BOTH_NS);
        assert_eq!(memory.recheck(), Method::Syscall);
        assert!(signal::is_default(libc::SIGSEGV));
        check(&memory);
    }

    fn check(memory: &LiveMemory) {
        let truth: Vec<u8> = (0..=255).collect();
        for length in [0, 1, 7, 8, 9, 15, 16, 63, 64, 65, 100, 127, 128, 136, 256] {
            let mut copy = vec![0; length];
            memory.read(truth.as_ptr() as Address, &mut copy).unwrap();
            assert_eq!(copy, truth[..length]);
        }
        // SAFETY: a fresh private mapping, used only here; its outer pages are made unreadable.
        let pages = unsafe {
            let pages = libc::mmap(
                std::ptr::null_mut(),
                3 * 4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            for hidden in [pages, pages.byte_add(2 * 4096)] {
                libc::mprotect(hidden, 4096, libc::PROT_NONE);
            }
            pages.byte_add(4096) as Address
        };
        let mut copy = [0; 64];
        assert_eq!(memory.read(pages + 4096 - 64, &mut copy), Ok(()));
        // Of which the highest addresses, that are copied first, are there.
        assert_eq!(memory.read(pages - 64, &mut [0; 200]), Err(Fault));
        for bad in [0, 8, 4095, pages + 4096 - 32, pages + 4096, 1 << 47, u64::MAX - 8] {
            assert_eq!(memory.read(bad, &mut copy), Err(Fault), "{bad:#x}");
        }
        let word = |at: Address| Word { at, was: 0 };
        let (there, beyond) =
            ([word(pages), word(pages + 4088)], [word(pages), word(pages + 4096)]);
        assert_eq!(memory.same(&[&there, &beyond, &[], &there, &[word(1 << 47)]]), 0b01101);
        assert_eq!(memory.same(&[&[Word { at: pages, was: 1 }], &there]), 0b10);
    }

    fn check_at_once(memory: &LiveMemory) {
        let truth: Vec<u8> = (0..24 * LINE).map(|index| (index * 7 + index / 256) as u8).collect();
        let words = [1_u64, 2].each_ref().map(|word| word as *const u64 as Address);
        for lines in 1..20 {
            let from = truth.as_ptr() as Address + 8;
            let mut copies = [vec![0; lines * LINE], vec![0; lines * LINE]];
            let [into, again] = &mut copies;
            assert_eq!(memory.read_at_once(words, from, [into, again]), Ok([1, 2]));
            assert!(copies.iter().all(|copy| *copy == truth[8..8 + lines * LINE]), "{lines}");
        }
        let (mut into, mut again) = ([0; LINE], [0; LINE]);
        assert_eq!(memory.read_at_once(words, 8, [&mut into, &mut again]), Err(Fault));
        assert_eq!(memory.read_at_once([8; 2], words[0], [&mut into, &mut again]), Err(Fault));
        assert_eq!(memory.read_at_once(words, words[0], [&mut into, &mut []]), Err(Fault));
    }
}
