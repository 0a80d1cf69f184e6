//! Finding the Python that is to be profiled, and how pysamp came to it: preloaded, or hosted.
#![allow(unsafe_code)]

use std::ffi::CStr;

use crate::layout::detect::{self, Symbols};
use crate::os::{process, symbols};
use crate::session::Target;

/// What kind of Python is in the process.
pub enum Python {
    /// A CPython with a runtime that can be looked at.
    Runtime(Target),
    /// One that can not be profiled, and why.
    Other(String),
}

/// Looks for Python. `thoroughly` also reads the executable's own symbol table, for programs that
/// have CPython linked in without exporting it.
pub fn find_python(thoroughly: bool) -> Option<Python> {
    let mut runtime =
        symbols::dynamic(detect::RUNTIME_SYMBOL).or_else(|| symbols::linked!("_PyRuntime"));
    let mut get_version =
        symbols::dynamic(detect::VERSION_SYMBOL).or_else(|| symbols::linked!("Py_GetVersion"));
    let mut code_type =
        symbols::dynamic(c"PyCode_Type").or_else(|| symbols::linked!("PyCode_Type"));
    let looks_like_python = || {
        thoroughly
            || process::executable().is_some_and(|path| path.to_string_lossy().contains("python"))
    };
    if runtime.is_none()
        && looks_like_python()
        && let Some(executable) = symbols::Executable::open()
    {
        let section = || executable.section(".PyRuntime");
        runtime = executable.symbol("_PyRuntime").or_else(section);
        get_version = get_version.or_else(|| executable.symbol("Py_GetVersion"));
        code_type = code_type.or_else(|| executable.symbol("PyCode_Type"));
    }
    let version = get_version.and_then(|address| {
        type GetVersion = extern "C" fn() -> *const libc::c_char;
        /// Older versions write the text anew at each call: what another thread has begun lacks its
        /// first letter.
        const TRIES: u32 = 1000;
        // SAFETY: `Py_GetVersion` has had this signature in every Python; it returns a C string
        // and needs neither the GIL nor an initialised interpreter.
        let text = || unsafe {
            let get_version: GetVersion = std::mem::transmute(address as usize);
            let text = get_version();
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        (0..TRIES).find_map(|_| detect::version_from_text(&text()?))
    });
    if let Some(runtime) = runtime {
        let debug = symbols::dynamic(detect::DEBUG_SYMBOL)
            .or_else(|| symbols::linked!("_Py_NegativeRefcount"))
            .is_some();
        let symbols = Symbols { runtime, version, debug };
        return Some(Python::Runtime(Target { symbols, code_type }));
    }
    if symbols::dynamic(c"pypy_main_startup").is_some() {
        return Some(Python::Other("PyPy is not supported; CPython 3.8 to 3.15 are".to_owned()));
    }
    Some(Python::Other(detect::Unsupported::Version(version?).to_string()))
}

/// Whether the library is in this process because `LD_PRELOAD` names it.
pub(super) fn is_preloaded() -> bool {
    let Some(preload) = std::env::var_os("LD_PRELOAD") else { return false };
    // SAFETY: an all-zero Dl_info is a valid value; dladdr fills it for an address of ours.
    let own_name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(find_python as *const libc::c_void, &mut info) == 0
            || info.dli_fname.is_null()
        {
            return false;
        }
        CStr::from_ptr(info.dli_fname).to_bytes()
    };
    preload
        .as_encoded_bytes()
        .split(|byte| matches!(byte, b':' | b' '))
        .any(|entry| !entry.is_empty() && (entry == own_name || own_name.ends_with(entry)))
}

/// Whether pysamp is linked into a program that reads `PYTHONSAMPLE` itself: one that defines
/// `pysamp_hosted`.
pub(super) fn is_hosted() -> bool {
    symbols::linked!("pysamp_hosted").is_some()
}
