//! Threads: starting the sampler's own, naming others by kernel id, waiting and waking.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use super::clock;

/// Enough for the exporters at exit, and independent of `RLIMIT_STACK`, which may be tiny or
/// unlimited (an unlimited one makes `pthread_create` fail).
pub const STACK_BYTES: usize = 1 << 20;

thread_local! {
    /// Whether the thread was started here.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread's kernel id.
pub fn current_tid() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// Starts a detached thread that takes no signals: the application's handlers must run in the
/// application's threads.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let blocked = BlockedSignals::all();
    let started = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(
        move || {
            IS_OURS.set(true);
            ask_for_short_turns();
            body();
        },
    );
    drop(blocked);
    started.map(drop)
}

/// Whether a seccomp filter judges the calling thread's system calls.
pub fn is_filtered() -> bool {
    // SAFETY: PR_GET_SECCOMP takes nothing.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) != 0 }
}

/// Asks for short turns on the processor, in exchange for which they come soon: a thread with turns as long as the
/// program's has to wait for the end of one where it happens to be woken on the same processor, and would never see
/// what takes less time. Kernels heed that from 6.12 on. Under a seccomp filter it is not tried: some end the process
/// for it.
fn ask_for_short_turns() {
    /// The shortest turn there is, in nanoseconds.
    const TURN_NS: u64 = 100_000;
    if is_filtered() {
        return;
    }
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the structure is plain numbers; the calls are given its size and concern this thread alone.
    unsafe {
        let mut wanted: libc::sched_attr = std::mem::zeroed();
        let known = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut wanted, size, 0);
        if known == 0 && wanted.sched_policy == libc::SCHED_OTHER as u32 {
            wanted.size = size;
            wanted.sched_runtime = TURN_NS;
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0);
        }
    }
}

/// All signals blocked in this thread for as long as this lives.
pub struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    /// From now on.
    pub fn all() -> Self {
        // SAFETY: both sets are valid for writing; pthread_sigmask only changes this thread.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: restores the mask that `all` saved, in the same thread.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Whether the calling thread was started here.
pub fn is_ours() -> bool {
    IS_OURS.get()
}

/// The calling thread blocks signals from now on, or takes them.
pub fn set_blocked(signals: &[libc::c_int], blocked: bool) {
    let how = if blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: the set is valid for writing; pthread_sigmask only changes this thread.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// How many processors the calling thread may run on. The standard library would open a file for the
/// answer, whose number a child that was just forked may give to something else meanwhile.
pub fn processors() -> usize {
    // SAFETY: an all-zero set is a valid value and valid for writing; its size is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) {
            0 => libc::CPU_COUNT(&set).max(1) as usize,
            _ => 1,
        }
    }
}

/// Asks the kernel to wake this thread on time instead of up to 50 microseconds late.
pub fn set_exact_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and concerns only the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
}

/// Sends `signal` to one thread of this process. Returns whether the thread was there.
pub fn send_signal(pid: u32, tid: u32, signal: libc::c_int) -> bool {
    // SAFETY: tgkill takes three integers; a thread that is gone gives ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, pid as i32, tid as i32, signal) == 0 }
}

/// Sends `signal` to the calling thread. Returns 0, or -1 with `errno` set.
pub fn send_own(signal: libc::c_int) -> libc::c_int {
    let tid = current_tid() as i32;
    // SAFETY: tgkill and getpid take integers only.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) as libc::c_int }
}

/// Waits until `word` is no longer `expected`, a wake comes, or the time is over.
/// Async-signal-safe.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout_ns: u64) {
    let timeout = clock::timespec(timeout_ns);
    // SAFETY: `word` lives for the call and the timeout is a valid relative timespec.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            &timeout,
        );
    }
}

/// Sets `word` and wakes everybody who waits on it. Async-signal-safe.
pub fn futex_set(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::SeqCst);
    futex_wake(word);
}

/// Wakes everybody who waits on `word`. Async-signal-safe.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: `word` lives for the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            i32::MAX,
        );
    }
}
