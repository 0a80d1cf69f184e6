//! Reading through the kernel: `process_vm_readv` on this very process, which reports a bad
//! address as an error.
#![allow(unsafe_code)]

use std::io;

use super::{Address, Fault, Memory, Piece};
use crate::os::thread;

/// This process's memory as the thread sees it that has made this: always read through the kernel,
/// whatever the sampler does. For the application's own threads, in calls that the interpreter makes.
#[derive(Debug)]
pub struct KernelMemory {
    tid: u32,
}

impl KernelMemory {
    /// For the calling thread.
    pub fn of_this_thread() -> Self {
        Self { tid: thread::current_tid() }
    }

    /// Whether the kernel lets a process read itself.
    pub fn is_readable(&self) -> bool {
        is_allowed(self.tid)
    }

    /// Stores a word.
    ///
    /// # Safety
    ///
    /// The word must be one that nobody reads at the same time, and whose value may be this.
    pub unsafe fn store(&self, at: Address, word: u64) -> Result<(), Fault> {
        let length = size_of_val(&word);
        let local = libc::iovec { iov_base: (&raw const word).cast_mut().cast(), iov_len: length };
        let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: length };
        // SAFETY: the local piece is a word; the kernel checks the address, and the caller vouches
        // for what is there.
        let stored =
            unsafe { libc::process_vm_writev(self.tid as libc::pid_t, &local, 1, &remote, 1, 0) };
        if stored == length as isize { Ok(()) } else { Err(Fault) }
    }
}

impl Memory for KernelMemory {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        read(self.tid, from, into).map_err(|_| Fault)
    }

    fn read_pieces(&self, pieces: &mut [Piece<'_>]) -> Result<(), Fault> {
        read_pieces(self.tid, pieces).map_err(|_| Fault)
    }

    fn prefers_batches(&self) -> bool {
        true
    }
}

const MOST_PIECES: usize = 64;

/// Why nothing, or not all, was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such memory.
    Memory,
    /// The system call itself did not work, as where a seccomp filter forbids it.
    Call,
}

/// Copies the pieces in order with as few system calls as possible.
pub fn read_pieces(tid: u32, pieces: &mut [Piece<'_>]) -> Result<(), Refusal> {
    for batch in pieces.chunks_mut(MOST_PIECES) {
        let mut local = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MOST_PIECES];
        let mut remote = local;
        let mut total = 0;
        for (index, piece) in batch.iter_mut().enumerate() {
            local[index].iov_base = piece.into.as_mut_ptr().cast();
            local[index].iov_len = piece.into.len();
            remote[index].iov_base = piece.from as *mut libc::c_void;
            remote[index].iov_len = piece.into.len();
            total += piece.into.len();
        }
        copy(tid, &local[..batch.len()], &remote[..batch.len()], total)?;
    }
    Ok(())
}

/// Copies one piece.
pub fn read(tid: u32, from: Address, into: &mut [u8]) -> Result<(), Refusal> {
    let length = into.len();
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: length };
    let remote = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: length };
    copy(tid, &[local], &[remote], length)
}

/// Whether the kernel lets this process read itself; seccomp filters may forbid it.
pub fn is_allowed(tid: u32) -> bool {
    let truth = 0x7079_7361_6d70_u64;
    let mut bytes = [0; 8];
    read(tid, (&raw const truth) as Address, &mut bytes).is_ok()
        && u64::from_ne_bytes(bytes) == truth
}

fn copy(
    tid: u32,
    local: &[libc::iovec],
    remote: &[libc::iovec],
    total: usize,
) -> Result<(), Refusal> {
    // SAFETY: the local iovecs describe exclusively borrowed buffers; the kernel checks the remote
    // addresses and never writes to them.
    let copied = unsafe {
        libc::process_vm_readv(
            tid as libc::pid_t,
            local.as_ptr(),
            local.len() as libc::c_ulong,
            remote.as_ptr(),
            remote.len() as libc::c_ulong,
            0,
        )
    };
    match copied {
        -1 if io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT) => Err(Refusal::Call),
        _ if copied == total as isize => Ok(()),
        _ => Err(Refusal::Memory),
    }
}
