//! `sigaction` and `signal`, which stand before the C library's: a program that takes SIGSEGV or
//! SIGBUS gets it from us first, and never sees that it was not the default.
#![allow(unsafe_code)]

use libc::{c_int, sighandler_t};

use crate::mem;
use crate::os::symbols::Next;
use crate::os::{fault_signals, signal};

/// The C library's own.
static SIGNAL: Next = Next::new(c"signal");

/// Looks up what must not be looked up in a handler.
pub(super) fn install() {
    SIGNAL.find();
    signal::prepare();
}

/// Mentions the functions below, so that a linker takes them in.
pub(super) fn keep_linked() {
    type Action = *const libc::sigaction;
    type Sigaction = unsafe extern "C" fn(c_int, Action, *mut libc::sigaction) -> c_int;
    type Signal = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;
    std::hint::black_box((sigaction as Sigaction, signal as Signal));
}

/// Stands before the C library's `sigaction`, with which faulthandler takes the signals.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(
    number: c_int,
    action: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: the caller gives a valid action, or none.
    let handler = unsafe { action.as_ref() }.map(|action| action.sa_sigaction);
    if is_default_already(number, handler) {
        // SAFETY: the caller gives a place for the old action, or none; all zeros is the default.
        unsafe { old.as_mut().map(|old| *old = std::mem::zeroed()) };
        return 0;
    }
    // SAFETY: passes on what the function was given.
    unsafe { signal::system(number, action, old) }
}

/// Stands before the C library's `signal`.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    if is_default_already(number, Some(handler)) {
        return libc::SIG_DFL;
    }
    type Signal = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;
    match SIGNAL.find() {
        // SAFETY: the C library's function has had this signature always.
        Some(own) => unsafe {
            std::mem::transmute::<*const libc::c_void, Signal>(own)(number, handler)
        },
        None => libc::SIG_ERR,
    }
}

/// Whether nothing is to be done, as the program only looks at a signal that is ours, or sets it to the
/// default, which it has for all that the program knows. Lets go of both signals if it takes one.
fn is_default_already(number: c_int, handler: Option<sighandler_t>) -> bool {
    if !fault_signals::NUMBERS.contains(&number) {
        return false;
    }
    if handler.is_none_or(|handler| handler == libc::SIG_DFL) {
        return mem::catches(number);
    }
    // SAFETY: errno's location is the thread's own and always valid.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    fault_signals::take();
    mem::stop_catching();
    // SAFETY: as above.
    unsafe { *errno = before };
    false
}
