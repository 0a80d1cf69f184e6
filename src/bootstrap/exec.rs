//! The `exec` functions, which stand before the C library's: another program takes this one's place,
//! and the profile is written before.
//!
//! A vforked child calls them, too. It runs in its parent's memory, so all that happens there is a
//! look at whose session it is, and the system call.
#![allow(unsafe_code)]

use std::ffi::CStr;

use libc::{c_char, c_int, c_void};

use crate::os::symbols::Next;
use crate::session;

type Words = *const *const c_char;
type Search = unsafe extern "C" fn(*const c_char, Words, Words) -> c_int;

/// The C library's own, which searches `PATH`.
static EXECVPE: Next = Next::new(c"execvpe");

unsafe extern "C" {
    static environ: Words;
}

/// Looks up what must not be looked up in a forked child.
pub(super) fn install() {
    EXECVPE.find();
}

/// Mentions the functions below, so that a linker takes them in.
pub(super) fn keep_linked() {
    type Plain = unsafe extern "C" fn(*const c_char, Words) -> c_int;
    type Descriptor = unsafe extern "C" fn(c_int, Words, Words) -> c_int;
    std::hint::black_box((
        [execve as Search, execvpe as Search],
        [execv as Plain, execvp as Plain],
        fexecve as Descriptor,
    ));
}

/// Does what replaces the program; what comes back has failed.
fn replace(may_succeed: impl FnOnce() -> bool, exec: impl FnOnce() -> c_int) -> c_int {
    if !session::is_active() || !may_succeed() {
        return exec();
    }
    let written = std::panic::catch_unwind(session::before_exec).unwrap_or_default();
    let failed = exec();
    // SAFETY: errno's location is the thread's own and always valid.
    let errno = unsafe { *libc::__errno_location() };
    // The profile goes on, and will be written again.
    session::take_back(&written);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    failed
}

/// Searching `PATH`, Python tries one name after another, most of which do not exist.
fn is_executable(path: *const c_char) -> bool {
    // SAFETY: the caller of exec gives a C string, or a bad pointer, which the kernel refuses.
    unsafe { libc::access(path, libc::X_OK) == 0 }
}

/// Stands before the C library's `execve`.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(path: *const c_char, arguments: Words, variables: Words) -> c_int {
    // SAFETY: the system call takes what the function was given.
    let call = || unsafe { libc::syscall(libc::SYS_execve, path, arguments, variables) as c_int };
    replace(|| is_executable(path), call)
}

/// Stands before the C library's `execv`.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, arguments: Words) -> c_int {
    // SAFETY: as for this function; `environ` is the C library's.
    unsafe { execve(path, arguments, environ) }
}

/// Stands before the C library's `fexecve`.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fexecve(file: c_int, arguments: Words, variables: Words) -> c_int {
    const NAMELESS: &CStr = c"";
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the system call takes what the function was given.
    let call = || unsafe {
        let path = NAMELESS.as_ptr();
        libc::syscall(libc::SYS_execveat, file, path, arguments, variables, flags) as c_int
    };
    replace(|| true, call)
}

/// Stands before the C library's `execvp`.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(file: *const c_char, arguments: Words) -> c_int {
    // SAFETY: as for this function; `environ` is the C library's.
    unsafe { execvpe(file, arguments, environ) }
}

/// Stands before the C library's `execvpe`.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvpe(file: *const c_char, arguments: Words, variables: Words) -> c_int {
    let Some(own) = EXECVPE.find() else {
        // SAFETY: errno's location is the thread's own and always valid.
        unsafe { *libc::__errno_location() = libc::ENOSYS };
        return -1;
    };
    // SAFETY: the C library's function has this signature, and is given what this one was.
    let call =
        || unsafe { std::mem::transmute::<*const c_void, Search>(own)(file, arguments, variables) };
    replace(|| true, call)
}
