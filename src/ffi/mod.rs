//! The C functions: a thin boundary around the session, which no panic crosses.
//!
//! cbindgen makes `include/pysamp.h` of this module alone; the comments are what C programmers read.
#![allow(unsafe_code)]
// The documentation is for C programmers, to whom a string is what it is.
#![allow(clippy::missing_safety_doc)]

mod error;
mod status;

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::bootstrap::{self, Python};
use crate::config::Config;
use crate::layout::detect;
use crate::session::{self, SessionError, Target};
use crate::trampoline::{self, Backend};
pub use status::PysampStatus;
use status::{Failure, PysampStatus::*};

/// Starts to sample.
///
/// `options` are those of the environment variable `PYTHONSAMPLE`, such as
/// `"rate=5khz,format=collapsed,output=/tmp/p_%p.txt"`. `NULL`, `""`, `"1"` and `"on"` stand for
/// the defaults; `"0"` and `"off"` are invalid here. The variable itself is not looked at.
///
/// May be called before `Py_Initialize`: sampling begins as soon as Python code runs. It goes on
/// through `Py_Finalize` and any later `Py_Initialize`, and ends with `pysamp_stop`, at the end of
/// the duration that the options may set, which writes the profile, or with the process, which
/// writes it as it exits.
///
/// Prints nothing where it fails; `pysamp_last_error` tells more than the status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pysamp_start(options: *const c_char) -> PysampStatus {
    bootstrap::keep_linked();
    // SAFETY: the caller passes NULL or a C string.
    let options = unsafe { bytes(options) };
    guarded(|| start(options))
}

/// Starts to sample, or does not, as `PYTHONSAMPLE=value` would ask for; says in one line on stderr
/// why it cannot. Returns whether it has started a profile, which `pysamp_stop` ends.
///
/// For a CPython that has pysamp built in and reads the variable by its own rules. It defines the
/// symbol `pysamp_hosted`, whatever that is, upon which the library does not look at the variable
/// when it is loaded. In a process with raised privileges this starts nothing, nor does it with
/// `NULL` or where a profile is being taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pysamp_start_as_asked(value: *const c_char) -> bool {
    bootstrap::keep_linked();
    // SAFETY: the caller passes NULL or a C string.
    let value = OsStr::from_bytes(unsafe { bytes(value) });
    catch_unwind(|| bootstrap::start_as_asked(value.to_owned())).unwrap_or(false)
}

/// Stops sampling, writes the profile, and waits for that: a minute at most.
///
/// Sampling is over whatever this returns, unless that is `PYSAMP_TIMEOUT`. `PYSAMP_NO_PYTHON`
/// says that no Python code has run, so that there is no profile. `pysamp_start` may follow.
#[unsafe(no_mangle)]
pub extern "C" fn pysamp_stop() -> PysampStatus {
    bootstrap::keep_linked();
    guarded(|| Ok(session::stop()?))
}

/// Writes the profile of what has been sampled so far, and goes on sampling. Waits for the file to
/// be there: a minute at most.
///
/// `path` is the file to write, in the format that the options have chosen. With `NULL` or `""` the
/// profile goes where the options say: with `rotate`, `paused` or `%i` to the next number. A chosen
/// file is replaced, and never seen half written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pysamp_dump(path: *const c_char) -> PysampStatus {
    bootstrap::keep_linked();
    // SAFETY: the caller passes NULL or a C string.
    let path = unsafe { bytes(path) };
    let path = (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)));
    guarded(|| Ok(session::dump(path)?))
}

/// Whether a profile is being taken, or will be once Python code runs.
#[unsafe(no_mangle)]
pub extern "C" fn pysamp_is_active() -> bool {
    bootstrap::keep_linked();
    catch_unwind(session::is_active).unwrap_or(false)
}

/// Has each Python function run through a machine-code stub of its own, whose address tells `perf`
/// and its like which function it is. `backend` is `"perf"`, for a map in `/tmp/perf-<pid>.map`, or
/// `"perf_jit"`, for a dump in `/tmp/jit-<pid>.dump`, as in `sys.activate_stack_trampoline`.
///
/// Concerns the main interpreter's functions, from their next call on. With the GIL it is done when
/// this returns, without the GIL as soon as the main thread runs Python code. The backend may be
/// changed by another call. `PYSAMP_HOOK_TAKEN` says that another tool evaluates Python's frames:
/// CPython's own trampolines, a debugger, a compiler. Sampling goes on or not as it did.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pysamp_activate_stack_trampoline(backend: *const c_char) -> PysampStatus {
    bootstrap::keep_linked();
    // SAFETY: the caller passes NULL or a C string.
    let backend = unsafe { bytes(backend) };
    guarded(|| {
        let name = String::from_utf8_lossy(backend);
        let backend = Backend::of_python(&name).ok_or_else(|| {
            let sentence = format!("there is no backend '{name}'; it is one of perf, perf_jit");
            Failure::new(PysampInvalidOptions, sentence)
        })?;
        if let Some(outcome) = trampoline::activate_again(backend) {
            return Ok(outcome?);
        }
        let Target { symbols, code_type } = target()?;
        Ok(trampoline::activate(&symbols, code_type, backend)?)
    })
}

/// Ends what `pysamp_activate_stack_trampoline` began, at the same moment: functions that are called
/// from then on run without stubs. What was written stays. May be followed by another activation.
#[unsafe(no_mangle)]
pub extern "C" fn pysamp_deactivate_stack_trampoline() -> PysampStatus {
    bootstrap::keep_linked();
    guarded(|| Ok(trampoline::deactivate()?))
}

/// The version of pysamp, such as `"0.1.0"`. The text is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn pysamp_version() -> *const c_char {
    bootstrap::keep_linked();
    const { concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast() }
}

/// A status in a few words, for any number. The text is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn pysamp_strerror(status: c_int) -> *const c_char {
    PysampStatus::text_of(status).as_ptr()
}

/// One sentence about the calling thread's last call that has failed and returned a status, such as `"there is no option 'outptu'; did you mean 'output'?"`; `""` if none has.
///
/// The text lasts until the thread's next such call, or its end.
#[unsafe(no_mangle)]
pub extern "C" fn pysamp_last_error() -> *const c_char {
    error::remembered()
}

fn start(options: &[u8]) -> Result<(), Failure> {
    let config = if options.trim_ascii().is_empty() {
        Config::default()
    } else {
        Config::from_env_value(OsStr::from_bytes(options))?.ok_or_else(|| {
            Failure::new(PysampInvalidOptions, "these options switch profiling off")
        })?
    };
    if session::is_active() || bootstrap::is_active_elsewhere() {
        return Err(SessionError::AlreadyActive.into());
    }
    Ok(session::start(config, target()?)?)
}

/// The Python in this process, which gets the hooks that live as long as it.
fn target() -> Result<Target, Failure> {
    let target = match bootstrap::find_python(true) {
        Some(Python::Runtime(target)) => target,
        Some(Python::Other(what)) => return Err(Failure::new(PysampUnsupported, what)),
        None => {
            let sentence = "there is no CPython in this process";
            return Err(Failure::new(PysampNoPython, sentence));
        }
    };
    if let Some(unsupported) = detect::refusal(&target.symbols) {
        return Err(Failure::new(PysampUnsupported, unsupported.to_string()));
    }
    bootstrap::install_hooks(&target);
    Ok(target)
}

/// Runs the work of a call, and makes a status of whatever comes of it.
fn guarded(work: impl FnOnce() -> Result<(), Failure>) -> PysampStatus {
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return PysampOk,
        Ok(Err(failure)) => failure,
        Err(payload) => {
            // To drop it could panic once more.
            std::mem::forget(payload);
            Failure::new(PysampInternal, "an internal error; the program runs on")
        }
    };
    error::remember(&failure.sentence);
    failure.status
}

/// The bytes of a C string; none of `NULL`.
///
/// # Safety
///
/// `text` is `NULL` or a C string that lives as long as the result is used.
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: it is not NULL, so the caller vouches for it.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_error() -> &'static str {
        // SAFETY: the text lasts as long as the thread that runs one test.
        unsafe { CStr::from_ptr(pysamp_last_error()) }.to_str().unwrap()
    }

    // There is no Python in this process.
    #[test]
    fn calls_without_python_fail_as_they_should() {
        // SAFETY: all are NULL or C strings.
        let start = |options: *const c_char| unsafe { pysamp_start(options) };
        assert_eq!(start(std::ptr::null()), PysampNoPython);
        assert_eq!(start(c" ".as_ptr()), PysampNoPython);
        assert_eq!(last_error(), "there is no CPython in this process");
        assert_eq!(start(c"off".as_ptr()), PysampInvalidOptions);
        assert_eq!(start(c"outptu=x".as_ptr()), PysampInvalidOptions);
        assert_eq!(last_error(), "there is no option 'outptu'; did you mean 'output'?");
        assert_eq!(pysamp_stop(), PysampNotActive);
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { pysamp_dump(std::ptr::null()) }, PysampNotActive);
        assert_eq!(last_error(), "no profile is being taken");
        assert!(!pysamp_is_active());
        // SAFETY: both are NULL or C strings.
        let activate = |name: *const c_char| unsafe { pysamp_activate_stack_trampoline(name) };
        assert_eq!(activate(std::ptr::null()), PysampInvalidOptions);
        assert_eq!(last_error(), "there is no backend ''; it is one of perf, perf_jit");
        assert_eq!(activate(c"perf".as_ptr()), PysampNoPython);
        assert_eq!(pysamp_deactivate_stack_trampoline(), PysampNotActive);
        assert_eq!(last_error(), "no trampolines are active");
    }

    #[test]
    fn a_panic_becomes_a_status() {
        assert_eq!(guarded(|| panic!("on purpose")), PysampInternal);
        assert_eq!(last_error(), "an internal error; the program runs on");
    }
}
