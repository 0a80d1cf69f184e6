//! `sigaction`, `signal` and its likes, which stand before the C library's: a program that takes a signal
//! gets it from us first, and never sees that it was not the default.
#![allow(unsafe_code)]

use libc::{c_int, sighandler_t};

use crate::mem;
use crate::os::claim::{FAULTS, HOLDS};
use crate::os::signal;
use crate::os::symbols::Next;
use crate::sampler::park;

type Action = *const libc::sigaction;
type Sigaction = unsafe extern "C" fn(c_int, Action, *mut libc::sigaction) -> c_int;
type Signal = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;

/// The argument of `sigset` that blocks a signal and leaves its handler alone (`signal.h`).
const SIG_HOLD: sighandler_t = 2;

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
    let pass_on = || {
        // SAFETY: passes on what the function was given.
        unsafe { signal::system(number, action, old) }
    };
    if !park::NUMBERS.contains(&number) && !mem::FAULTS.contains(&number) {
        return pass_on();
    }
    // SAFETY: the caller gives a valid action, or none.
    let handler = unsafe { action.as_ref() }.map(|action| action.sa_sigaction);
    let is_done = prepare(number, handler);
    let status = if is_done { 0 } else { pass_on() };
    // SAFETY: the caller gives a place for the old action, or none; all zeros is the default.
    unsafe {
        if status == 0
            && let Some(old) = old.as_mut().filter(|old| is_done || is_own(old.sa_sigaction))
        {
            *old = std::mem::zeroed();
        }
    }
    status
}

/// The C library's other name for [`sigaction`].
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sigaction(
    number: c_int,
    action: Action,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: passes on what the function was given.
    unsafe { sigaction(number, action, old) }
}

/// Stands before the C library's `sigset`.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigset(number: c_int, handler: sighandler_t) -> sighandler_t {
    if handler != SIG_HOLD {
        let_go(number);
    }
    call(&OWN.sigset, number, handler)
}

/// Functions of the form of `signal`, and where their own ones are looked up.
macro_rules! like_signal {
    ($($name:ident: $own:expr,)*) => {
        struct Own {
            sigset: Next,
            $($name: Next,)*
        }

        static OWN: Own = Own {
            sigset: Next::new(c"sigset"),
            $($name: Next::new($own),)*
        };

        impl Own {
            fn find(&self) {
                self.sigset.find();
                $(self.$name.find();)*
            }
        }

        $(
            /// Stands before the C library's function of this name.
            ///
            /// # Safety
            ///
            /// As the C library's.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(number: c_int, handler: sighandler_t) -> sighandler_t {
                change(&OWN.$name, number, handler)
            }
        )*

        /// Mentions the functions, so that a linker takes them in.
        pub(super) fn keep_linked() {
            std::hint::black_box([sigaction as Sigaction, __sigaction]);
            std::hint::black_box([sigset as Signal, $($name,)*]);
        }
    };
}

like_signal! {
    signal: c"signal",
    bsd_signal: c"bsd_signal",
    ssignal: c"ssignal",
    sysv_signal: c"sysv_signal",
    __sysv_signal: c"__sysv_signal",
}

/// Looks up the C library's own functions: neither in a handler, nor where the program could see it by
/// `dlerror`.
pub(super) fn look_up() {
    OWN.find();
    signal::prepare();
    // SAFETY: takes nothing, and forgets what could not be found.
    unsafe { libc::dlerror() };
}

fn change(own: &Next, number: c_int, handler: sighandler_t) -> sighandler_t {
    if prepare(number, Some(handler)) {
        return libc::SIG_DFL;
    }
    call(own, number, handler)
}

fn call(own: &Next, number: c_int, handler: sighandler_t) -> sighandler_t {
    let Some(own) = own.find() else { return libc::SIG_ERR };
    // SAFETY: the C library's functions have had this signature always.
    let old = unsafe { std::mem::transmute::<*const libc::c_void, Signal>(own)(number, handler) };
    if is_own(old) { libc::SIG_DFL } else { old }
}

/// Lets go of a signal for which the program has a handler. Returns whether nothing is left to do, as the
/// program only looks at a signal that is ours, or sets it to the default, which it has for all that the
/// program knows.
fn prepare(number: c_int, handler: Option<sighandler_t>) -> bool {
    if handler.is_none_or(|handler| handler == libc::SIG_DFL) {
        return signal::current_handler(number).is_some_and(is_own);
    }
    let_go(number);
    false
}

/// The program takes a signal, which may be one of ours.
fn let_go(number: c_int) {
    // SAFETY: errno's location is the thread's own and always valid.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    if mem::FAULTS.contains(&number) {
        FAULTS.take(mem::give_back_faults);
    } else if park::NUMBERS.contains(&number) {
        HOLDS.take(park::give_back);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Whether a handler is one of ours.
fn is_own(handler: sighandler_t) -> bool {
    mem::is_handler(handler) || park::is_handler(handler)
}
