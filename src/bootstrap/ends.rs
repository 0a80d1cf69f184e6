//! The ways a process ends of its own accord: the profile is written before.
//!
//! Apart from `atexit`, these are functions that stand before the C library's of the same name.
#![allow(unsafe_code)]

use crate::os::symbols::Next;
use crate::os::{process, signal, thread};
use crate::session::{self, SessionError, Stderr};

/// The C library's own.
static ABORT: Next = Next::new(c"abort");

/// Hooks into the exit of the process.
pub(super) fn install() {
    ABORT.find();
    // SAFETY: the function stays loaded: the library is linked so that it cannot be unloaded, or is
    // part of the program.
    unsafe { libc::atexit(at_exit) };
}

/// Mentions the functions below, so that a linker takes them in.
pub(super) fn keep_linked() {
    type Exit = unsafe extern "C" fn(libc::c_int) -> !;
    std::hint::black_box((_exit as Exit, _Exit as Exit, abort as extern "C" fn() -> !));
}

extern "C" fn at_exit() {
    let _ = std::panic::catch_unwind(end_session);
}

fn end_session() {
    // Whatever else there is to say, the session has said.
    if let Err(error @ (SessionError::Timeout | SessionError::Killed)) = session::stop() {
        Stderr::now().line(&error.to_string());
    }
}

/// Stands before the C library's `_exit`, which `os._exit` and the children of multiprocessing
/// end with: their profile is written, too.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(status: libc::c_int) -> ! {
    at_exit();
    exit_now(status)
}

/// The C library's other name for [`_exit`].
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Exit(status: libc::c_int) -> ! {
    at_exit();
    exit_now(status)
}

/// Stands before the C library's `kill`, with which CPython ends itself after a Ctrl-C.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kill(pid: libc::pid_t, signal: libc::c_int) -> libc::c_int {
    if pid as u32 == process::pid() && ends_process(signal) {
        at_exit();
    }
    // SAFETY: the system call takes two integers.
    unsafe { libc::syscall(libc::SYS_kill, pid, signal) as libc::c_int }
}

/// Stands before the C library's `raise`, with which servers end themselves after a graceful
/// shutdown.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raise(signal: libc::c_int) -> libc::c_int {
    if ends_process(signal) {
        at_exit();
    }
    thread::send_own(signal)
}

/// Stands before the C library's `abort`, with which CPython ends after a fatal error.
#[unsafe(no_mangle)]
pub extern "C" fn abort() -> ! {
    if ends_process(libc::SIGABRT) {
        at_exit();
    }
    if let Some(own) = ABORT.find() {
        // SAFETY: the C library's function has had this signature always.
        unsafe { std::mem::transmute::<*const libc::c_void, extern "C" fn() -> !>(own)() }
    }
    signal::restore_default(libc::SIGABRT);
    thread::send_own(libc::SIGABRT);
    exit_now(127)
}

/// Whether a signal, sent now, ends the process without its handlers seeing it.
fn ends_process(number: libc::c_int) -> bool {
    const HARMLESS: [libc::c_int; 9] = [
        0,
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    !HARMLESS.contains(&number) && signal::is_default(number)
}

fn exit_now(status: libc::c_int) -> ! {
    loop {
        // SAFETY: exit_group takes an integer and does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}
