//! `sigaction` and `signal`, which stand before the C library's: a program that takes a signal gets it
//! from us first, and never sees that it was not the default.
#![allow(unsafe_code)]

use libc::{c_int, sighandler_t};

use crate::mem;
use crate::os::symbols::Next;
use crate::os::{fault_signals, signal};
use crate::sampler::park;

/// The C library's own.
static SIGNAL: Next = Next::new(c"signal");

type Action = *const libc::sigaction;
type Signal = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;

/// Looks up what must not be looked up in a handler.
pub(super) fn install() {
    SIGNAL.find();
    signal::prepare();
}

/// Mentions the functions below, so that a linker takes them in.
pub(super) fn keep_linked() {
    type Sigaction = unsafe extern "C" fn(c_int, Action, *mut libc::sigaction) -> c_int;
    std::hint::black_box((sigaction as Sigaction, signal as Signal));
}

/// Stands before the C library's `sigaction`, with which faulthandler takes the signals of faults.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(
    number: c_int,
    action: Action,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: the caller gives a valid action, or none.
    let handler = unsafe { action.as_ref() }.map(|action| action.sa_sigaction);
    let is_done = is_default_already(number, handler);
    // SAFETY: passes on what the function was given.
    let status = if is_done { 0 } else { unsafe { signal::system(number, action, old) } };
    // SAFETY: the caller gives a place for the old action, or none; all zeros is the default.
    unsafe {
        if let Some(old) = old.as_mut().filter(|old| is_done || is_own(old.sa_sigaction)) {
            *old = std::mem::zeroed();
        }
    }
    status
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
    let Some(own) = SIGNAL.find() else { return libc::SIG_ERR };
    // SAFETY: the C library's function has had this signature always.
    let old = unsafe { std::mem::transmute::<*const libc::c_void, Signal>(own)(number, handler) };
    if is_own(old) { libc::SIG_DFL } else { old }
}

/// Whether nothing is to be done, as the program only looks at a signal that is ours, or sets it to the
/// default, which it has for all that the program knows. If it takes one that tells of faults, both are
/// let go of.
fn is_default_already(number: c_int, handler: Option<sighandler_t>) -> bool {
    if handler.is_none_or(|handler| handler == libc::SIG_DFL) {
        return signal::current_handler(number).is_some_and(is_own);
    }
    if fault_signals::NUMBERS.contains(&number) {
        // SAFETY: errno's location is the thread's own and always valid.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        let before = unsafe { *errno };
        fault_signals::take();
        mem::stop_catching();
        // SAFETY: as above.
        unsafe { *errno = before };
    }
    false
}

/// Whether a handler is one of ours.
fn is_own(handler: sighandler_t) -> bool {
    mem::is_handler(handler) || park::is_handler(handler)
}
