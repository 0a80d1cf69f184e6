//! Raw signal dispositions, for the two signals that signal-hook must not touch: faults and the
//! sampling signal.
#![allow(unsafe_code)]

use libc::{c_int, c_void, siginfo_t};

use super::symbols::Next;

/// A handler in the three-argument form.
pub type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The C library's own; before it stands one of ours, which is for the program.
static SIGACTION: Next = Next::new(c"sigaction");

/// Looks up what must not be looked up in a handler.
pub fn prepare() {
    SIGACTION.find();
}

/// The C library's `sigaction`. Async-signal-safe after [`prepare`].
///
/// # Safety
///
/// As the C library's.
pub unsafe fn system(
    signal: c_int,
    action: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    type Own = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
    match SIGACTION.find() {
        // SAFETY: the C library's function has had this signature always.
        Some(own) => unsafe { std::mem::transmute::<*const c_void, Own>(own)(signal, action, old) },
        None => -1,
    }
}

/// The address of the handler installed for a signal (`SIG_DFL`, `SIG_IGN` or a function).
pub fn current_handler(signal: c_int) -> Option<usize> {
    // SAFETY: an all-zero sigaction is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only queries; `action` is valid for writing.
    let status = unsafe { system(signal, std::ptr::null(), &mut action) };
    (status == 0).then_some(action.sa_sigaction)
}

/// Whether nobody has set a handler for this signal.
pub fn is_default(signal: c_int) -> bool {
    current_handler(signal) == Some(libc::SIG_DFL)
}

/// Installs `handler` with an empty mask and the given extra flags. Returns whether it took.
pub fn install(signal: c_int, handler: Handler, flags: c_int) -> bool {
    // SAFETY: an all-zero sigaction is a valid value, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = flags | libc::SA_SIGINFO;
    // SAFETY: `action` is fully initialised; a null old action is allowed. The handler has the
    // three-argument form that SA_SIGINFO asks for.
    unsafe { system(signal, &action, std::ptr::null_mut()) == 0 }
}

/// Puts the default disposition back, as it is in a new process: without the flag that the C library sets.
/// What is pending of a signal that is ignored by default is gone then. Async-signal-safe.
pub fn restore_default(signal: c_int) -> bool {
    /// Bytes of the kernel's set of signals.
    const SET_BYTES: usize = 8;
    // A handler, flags, perhaps a function that returns from it, and a set.
    let zeros = [0_u64; 4];
    let nothing = std::ptr::null::<u64>();
    // SAFETY: the system call reads the action, which is as long as the longest there is.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &zeros, nothing, SET_BYTES) == 0 }
}
