//! Raw signal dispositions, for the two signals that signal-hook must not touch: faults and the
//! sampling signal.
#![allow(unsafe_code)]

use libc::{c_int, c_void, siginfo_t};

/// A handler in the three-argument form.
pub type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The address of the handler installed for a signal (`SIG_DFL`, `SIG_IGN` or a function).
pub fn current_handler(signal: c_int) -> Option<usize> {
    // SAFETY: an all-zero sigaction is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only queries; `action` is valid for writing.
    let status = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    (status == 0).then_some(action.sa_sigaction)
}

/// Whether nobody has set a handler for this signal.
pub fn is_default(signal: c_int) -> bool {
    current_handler(signal) == Some(libc::SIG_DFL)
}

/// Installs `handler` with an empty mask and the given extra flags. Returns whether it took.
pub fn install(signal: c_int, handler: Handler, flags: c_int) -> bool {
    set(signal, handler as usize, flags | libc::SA_SIGINFO)
}

/// Puts the default disposition back. Async-signal-safe.
pub fn restore_default(signal: c_int) -> bool {
    set(signal, libc::SIG_DFL, 0)
}

fn set(signal: c_int, handler: usize, flags: c_int) -> bool {
    // SAFETY: an all-zero sigaction is a valid value, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: `action` is fully initialised; a null old action is allowed. Handlers passed in have
    // the three-argument form that SA_SIGINFO asks for.
    unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) == 0 }
}

/// A real-time signal that nobody uses, or `None` where all are taken.
pub fn unused_realtime_signal() -> Option<c_int> {
    // From the top, away from SIGRTMIN, where libraries that pick "the first" look; the very last
    // few are popular as well.
    (libc::SIGRTMIN()..=libc::SIGRTMAX() - 4).rev().find(|&signal| is_default(signal))
}
