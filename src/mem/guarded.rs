//! Direct loads whose faults are caught: one labelled copy loop, and a handler that moves the
//! program counter out of it.
//!
//! The handler is installed only where SIGSEGV and SIGBUS have their default disposition, so there
//! is never a foreign handler to chain to: a fault that is not ours gets the default back and
//! happens again.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, c_void, siginfo_t};

use super::{Address, Fault, LAG, LINE, Word};
use crate::os::claim::FAULTS;
use crate::os::{shared_file, signal, thread};

/// The two signals.
pub const NUMBERS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];
/// The thread of ours that reads, if it takes them.
static READER: AtomicU32 = AtomicU32::new(0);

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    // All symbols are hidden rather than local: rustc may put the callers into another object file.

    // fn pysamp_guarded_copy(to: *mut u8 /* rdi */, from: u64 /* rsi */, length: usize /* rdx */) -> usize
    // Copies from the highest address down and returns how many bytes were left when it stopped:
    // 0 for success. No load is of less than a word while words fit, as the target may be writing meanwhile: a load
    // of two takes each whole where they are aligned.
    ".pushsection .text.pysamp_guarded_copy,\"ax\",@progbits",
    ".balign 64",
    ".globl pysamp_guarded_copy",
    ".hidden pysamp_guarded_copy",
    ".type pysamp_guarded_copy,@function",
    "pysamp_guarded_copy:",
    "cmp rdx, 64",
    "jb 31f",
    "30:",
    "movups xmm0, xmmword ptr [rsi + rdx - 16]",
    "movups xmm1, xmmword ptr [rsi + rdx - 32]",
    "movups xmm2, xmmword ptr [rsi + rdx - 48]",
    "movups xmm3, xmmword ptr [rsi + rdx - 64]",
    "movups xmmword ptr [rdi + rdx - 16], xmm0",
    "movups xmmword ptr [rdi + rdx - 32], xmm1",
    "movups xmmword ptr [rdi + rdx - 48], xmm2",
    "movups xmmword ptr [rdi + rdx - 64], xmm3",
    "sub rdx, 64",
    "cmp rdx, 64",
    "jae 30b",
    "31:",
    "cmp rdx, 8",
    "jb 3f",
    "2:",
    "mov rax, qword ptr [rsi + rdx - 8]",
    "mov qword ptr [rdi + rdx - 8], rax",
    "sub rdx, 8",
    "cmp rdx, 8",
    "jae 2b",
    "3:",
    "test rdx, rdx",
    "je 5f",
    "4:",
    "movzx eax, byte ptr [rsi + rdx - 1]",
    "mov byte ptr [rdi + rdx - 1], al",
    "dec rdx",
    "jne 4b",
    "5:",
    "mov rax, rdx",
    "ret",
    ".size pysamp_guarded_copy, .-pysamp_guarded_copy",
    // fn pysamp_guarded_at_once(values: *mut u64 /* rdi */, first: u64 /* rsi */, second: u64
    //     /* rdx */, to: *mut u8 /* rcx */, from: u64 /* r8 */, length: usize /* r9 */, again: *mut
    //     u8 /* on the stack */) -> usize
    // Loads two words and then copies `length` bytes, a multiple of 64, from the highest address
    // down, each line once more after the fourth line below it. No load waits for another one's
    // value, and all lines are asked for before the first is there, so that those which another
    // processor is writing arrive together: a processor looks only so many instructions ahead.
    ".balign 64",
    ".globl pysamp_guarded_at_once",
    ".hidden pysamp_guarded_at_once",
    ".type pysamp_guarded_at_once,@function",
    "pysamp_guarded_at_once:",
    "mov r10, qword ptr [rsi]",
    "mov r11, qword ptr [rdx]",
    "mov rdx, qword ptr [rsp + 8]",
    "mov rax, r9",
    "6:",
    "prefetcht0 [r8 + rax - 64]",
    "sub rax, 64",
    "jne 6b",
    "mov qword ptr [rdi], r10",
    "mov qword ptr [rdi + 8], r11",
    "mov rax, r9",
    "7:",
    "movups xmm0, xmmword ptr [r8 + r9 - 16]",
    "movups xmm1, xmmword ptr [r8 + r9 - 32]",
    "movups xmm2, xmmword ptr [r8 + r9 - 48]",
    "movups xmm3, xmmword ptr [r8 + r9 - 64]",
    "movups xmmword ptr [rcx + r9 - 16], xmm0",
    "movups xmmword ptr [rcx + r9 - 32], xmm1",
    "movups xmmword ptr [rcx + r9 - 48], xmm2",
    "movups xmmword ptr [rcx + r9 - 64], xmm3",
    "lea r10, [r9 + {lag}]",
    "sub r9, 64",
    "cmp r10, rax",
    "ja 9f",
    "8:",
    "movups xmm0, xmmword ptr [r8 + r10 - 16]",
    "movups xmm1, xmmword ptr [r8 + r10 - 32]",
    "movups xmm2, xmmword ptr [r8 + r10 - 48]",
    "movups xmm3, xmmword ptr [r8 + r10 - 64]",
    "movups xmmword ptr [rdx + r10 - 16], xmm0",
    "movups xmmword ptr [rdx + r10 - 32], xmm1",
    "movups xmmword ptr [rdx + r10 - 48], xmm2",
    "movups xmmword ptr [rdx + r10 - 64], xmm3",
    "9:",
    "test r9, r9",
    "jne 7b",
    // The lowest lines once more.
    "lea r11, [rax + 64]",
    "cmp r10, r11",
    "cmova r10, r11",
    "sub r10, 64",
    "jne 8b",
    "xor eax, eax",
    "ret",
    ".size pysamp_guarded_at_once, .-pysamp_guarded_at_once",
    // fn pysamp_guarded_differs(words: *const Word /* rdi */, count: usize /* rsi */) -> usize
    // Whether a word is not what it was: 0 if all are. No load waits for another one's value.
    ".balign 64",
    ".globl pysamp_guarded_differs",
    ".hidden pysamp_guarded_differs",
    ".type pysamp_guarded_differs,@function",
    "pysamp_guarded_differs:",
    "shl rsi, 4",
    "add rsi, rdi",
    "cmp rdi, rsi",
    "je 21f",
    "20:",
    "mov rax, qword ptr [rdi]",
    "mov rdx, qword ptr [rdi + 8]",
    "cmp rdx, qword ptr [rax]",
    "jne 22f",
    "add rdi, 16",
    "cmp rdi, rsi",
    "jne 20b",
    "21:",
    "xor eax, eax",
    "ret",
    "22:",
    "mov eax, 1",
    "ret",
    ".size pysamp_guarded_differs, .-pysamp_guarded_differs",
    ".globl pysamp_guarded_copy_end",
    ".hidden pysamp_guarded_copy_end",
    "pysamp_guarded_copy_end:",
    ".popsection",
    lag = const LAG,
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    fn pysamp_guarded_copy(to: *mut u8, from: u64, length: usize) -> usize;
    fn pysamp_guarded_at_once(
        values: *mut u64,
        first: u64,
        second: u64,
        to: *mut u8,
        from: u64,
        length: usize,
        again: *mut u8,
    ) -> usize;
    fn pysamp_guarded_differs(words: *const Word, count: usize) -> usize;
    static pysamp_guarded_copy_end: u8;
}

/// Copies `into.len()` bytes from `from`, the highest addresses first.
///
/// # Safety
///
/// [`is_ours`] must have been true, and [`is_first_ours`] within the current sampling cycle: without the
/// handler a bad address ends the process.
#[cfg(target_arch = "x86_64")]
pub unsafe fn read(from: Address, into: &mut [u8]) -> Result<(), Fault> {
    if is_beyond_user_space(from, into.len()) {
        return Err(Fault);
    }
    let _catching = FAULTS.enter().ok_or(Fault)?;
    // SAFETY: the destination is an exclusively borrowed buffer of that length; a fault on the
    // source is caught by the installed handler, which makes the copy return early.
    let left = unsafe { pysamp_guarded_copy(into.as_mut_ptr(), from, into.len()) };
    if left == 0 { Ok(()) } else { Err(Fault) }
}

/// As [`Memory::read_at_once`](super::Memory::read_at_once), all in flight at the same time, for
/// buffers that are a multiple of [`LINE`] long.
///
/// # Safety
///
/// As for [`read`].
#[cfg(target_arch = "x86_64")]
pub unsafe fn read_at_once(
    words: [Address; 2],
    from: Address,
    [into, again]: [&mut [u8]; 2],
) -> Result<[u64; 2], Fault> {
    let [first, second] = words;
    let is_bad = is_beyond_user_space(first, 8)
        || is_beyond_user_space(second, 8)
        || is_beyond_user_space(from, into.len());
    let is_odd = into.is_empty() || !into.len().is_multiple_of(LINE) || again.len() != into.len();
    if is_bad || is_odd {
        return Err(Fault);
    }
    let _catching = FAULTS.enter().ok_or(Fault)?;
    let mut values = [0; 2];
    // SAFETY: all destinations are exclusively borrowed buffers of the lengths given; a fault on a
    // source is caught by the installed handler, which makes the routine return early.
    let left = unsafe {
        pysamp_guarded_at_once(
            values.as_mut_ptr(),
            first,
            second,
            into.as_mut_ptr(),
            from,
            into.len(),
            again.as_mut_ptr(),
        )
    };
    if left == 0 { Ok(values) } else { Err(Fault) }
}

/// As [`Memory::same`](super::Memory::same).
///
/// # Safety
///
/// As for [`read`].
#[cfg(target_arch = "x86_64")]
pub unsafe fn same(groups: &[&[Word]]) -> u32 {
    let Some(_catching) = FAULTS.enter() else { return 0 };
    groups.iter().rev().fold(0, |bits, group| {
        // SAFETY: the words are borrowed; a fault where one of them was is caught by the installed handler, which
        // makes the routine return early.
        let differs = unsafe { pysamp_guarded_differs(group.as_ptr(), group.len()) };
        bits << 1 | u32::from(differs == 0)
    })
}

/// Non-canonical addresses raise a general protection fault, which reports no address; they are
/// refused before they are tried, like the lowest page.
#[cfg(target_arch = "x86_64")]
fn is_beyond_user_space(from: Address, length: usize) -> bool {
    const LOWEST: u64 = 0x1000;
    const END: u64 = 1 << 47;
    !(LOWEST..END).contains(&from) || length as u64 > END - from
}

/// Installs the handler for both signals. Returns whether guarded reads may be used.
#[cfg(target_arch = "x86_64")]
pub fn install() -> bool {
    let Some(_establishing) = FAULTS.establish() else { return false };
    if is_ours() {
        return true;
    }
    if !NUMBERS.into_iter().all(signal::is_default) {
        return false;
    }
    // SA_ONSTACK: a stack overflow of the application must still be able to reach the default
    // action. SA_NODEFER with an empty mask: the interrupted thread's mask stays as it was.
    let flags = libc::SA_ONSTACK | libc::SA_NODEFER;
    let installed = NUMBERS.into_iter().all(|it| signal::install(it, on_fault, flags));
    if !(installed && is_ours()) {
        give_back();
        return false;
    }
    true
}

/// Gives the signals back, where they are still ours: if the program takes them, it sees to that.
pub fn uninstall() {
    if let Some(_within) = FAULTS.enter() {
        give_back();
    }
}

/// As [`uninstall`], for who is within or has closed the gate.
pub fn give_back() {
    for number in NUMBERS.into_iter().filter(|&number| catches(number)) {
        signal::restore_default(number);
    }
}

/// Whether both signals still lead to our handler.
pub fn is_ours() -> bool {
    !FAULTS.is_taken() && NUMBERS.into_iter().all(catches)
}

/// Whether the first of them does.
pub fn is_first_ours() -> bool {
    !FAULTS.is_taken() && catches(NUMBERS[0])
}

fn catches(number: c_int) -> bool {
    signal::current_handler(number).is_some_and(is_handler)
}

/// Whether this is the handler that catches faults.
pub fn is_handler(address: usize) -> bool {
    address == on_fault as *const () as usize
}

extern "C" fn on_fault(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo and a valid context to a SA_SIGINFO handler.
    let (is_sent, was_reading) = unsafe { ((*info).si_code <= 0, leave_copy(context.cast())) };
    if is_sent && thread::current_tid() == READER.load(Ordering::Relaxed) {
        // SAFETY: as above.
        unsafe { leave_to_program(number, info, context.cast()) };
        return;
    }
    // SAFETY: as above; the siginfo of a signal that the kernel sent has an address.
    let is_rescued = || unsafe { shared_file::rescue((*info).si_addr() as usize) };
    if !is_sent && (was_reading || number == libc::SIGBUS && is_rescued()) {
        return;
    }
    // Not our read: let it happen as if we were not here. A real fault repeats itself on return;
    // one that was sent (kill, raise) has to be sent again.
    signal::restore_default(number);
    if is_sent {
        thread::send_own(number);
    }
}

/// Has a copy routine return early, as one that failed. Returns whether one was under way.
///
/// # Safety
///
/// The context is that of a signal handler.
unsafe fn leave_copy(context: *mut libc::ucontext_t) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        const RETURN_ADDRESS_BYTES: i64 = 8;
        let start = pysamp_guarded_copy as *const () as i64;
        let end = (&raw const pysamp_guarded_copy_end) as i64;
        // SAFETY: the caller vouches for the context. All routines are leaves that push nothing, so
        // inside them rsp points at the return address: popping it and putting something other than
        // 0 into rax is exactly an early return that failed.
        unsafe {
            let registers = &mut (*context).uc_mcontext.gregs;
            let at = registers[libc::REG_RIP as usize];
            if at >= start && at < end {
                let stack = registers[libc::REG_RSP as usize];
                registers[libc::REG_RIP as usize] = *(stack as *const i64);
                registers[libc::REG_RSP as usize] = stack + RETURN_ADDRESS_BYTES;
                registers[libc::REG_RAX as usize] = 1;
                return true;
            }
        }
    }
    let _ = context;
    false
}

/// A signal that somebody sent, and all threads of the program block, has come to our thread instead. It
/// is sent again, to wait for the program; from now on this thread blocks it, and reads differently.
///
/// # Safety
///
/// The arguments are those of a handler.
unsafe fn leave_to_program(number: c_int, info: *mut siginfo_t, context: *mut libc::ucontext_t) {
    FAULTS.abandon();
    // Now, as it would come here again, and after the handler's return.
    thread::set_blocked(&NUMBERS, true);
    // SAFETY: the handler's context and information are valid, and the set is one.
    unsafe {
        for blocked in NUMBERS {
            libc::sigaddset(&mut (*context).uc_sigmask, blocked);
        }
        // With who sent it and what for, if the kernel lets another thread than the first pass that on.
        let process = libc::getpid();
        if libc::syscall(libc::SYS_rt_sigqueueinfo, process, number, info) != 0 {
            libc::syscall(libc::SYS_kill, process, number);
        }
    }
}

/// From now on the calling thread, which is ours, takes the signals, or blocks them.
pub fn set_reader(tid: u32, takes: bool) {
    READER.store(if takes { tid } else { 0 }, Ordering::Relaxed);
    thread::set_blocked(&NUMBERS, !takes);
}

/// Without a copy routine for this processor there are no guarded reads.
#[cfg(not(target_arch = "x86_64"))]
pub fn install() -> bool {
    false
}

/// Never called where [`install`] refuses.
///
/// # Safety
///
/// None; it reads nothing.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn read_at_once(
    _words: [Address; 2],
    _from: Address,
    _into: [&mut [u8]; 2],
) -> Result<[u64; 2], Fault> {
    Err(Fault)
}

/// Never called where [`install`] refuses.
///
/// # Safety
///
/// None; it reads nothing.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn read(_from: Address, _into: &mut [u8]) -> Result<(), Fault> {
    Err(Fault)
}

/// Never called where [`install`] refuses.
///
/// # Safety
///
/// None; it reads nothing.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn same(_groups: &[&[Word]]) -> u32 {
    0
}
