//! Getting into a process and out of it again: the load-time constructor, the hooks for fork and
//! exit, and finding the Python that is to be profiled.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{Config, ENV_VARIABLE};
use crate::layout::detect::{self, Symbols};
use crate::os::{process, signal, symbols, thread};
use crate::session::{self, SessionError, Stderr, Target};

/// What the loader runs when the library is loaded, or the program it is linked into starts.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = on_load;

extern "C" fn on_load() {
    let _ = std::panic::catch_unwind(|| {
        if process::is_secure_execution() {
            return;
        }
        if is_active_elsewhere() {
            return;
        }
        // A Python that pysamp is linked into is told so about all of its variables.
        let is_preloaded = is_preloaded();
        if !is_preloaded && process::ignores_environment(&std::env::args_os().collect::<Vec<_>>()) {
            return;
        }
        let wish = std::env::var_os(ENV_VARIABLE).filter(|value| !value.is_empty());
        // Linked into a program, pysamp is silent until asked; preloading it is asking.
        if wish.is_none() && !is_preloaded {
            return;
        }
        let Some(python) = find_python(wish.is_some()) else { return };
        if let Err(message) = begin(wish, python) {
            Stderr::now().line(&format!("{message}; the program runs unprofiled"));
        }
    });
}

/// Takes the constructor and the functions that stand before the C library's into whatever program
/// takes the caller: a linker leaves out those members of an archive that nothing mentions.
pub fn keep_linked() {
    let exits: [unsafe extern "C" fn(libc::c_int) -> !; 2] = [_exit, _Exit];
    std::hint::black_box((&raw const CONSTRUCTOR, exits));
}

/// Whether another copy of pysamp is at work in this process: a program that has it linked in may
/// run with it preloaded as well.
pub fn is_active_elsewhere() -> bool {
    // SAFETY: the name is a C string; the search begins behind this copy and loads nothing.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pysamp_is_active".as_ptr()) };
    if next.is_null() {
        return false;
    }
    // SAFETY: every pysamp has had this function with this signature.
    unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> bool>(next)() }
}

fn begin(wish: Option<OsString>, python: Python) -> Result<(), String> {
    let config = match wish {
        None => Config::default(),
        Some(value) => match Config::from_env_value(&value) {
            Ok(Some(config)) => config,
            Ok(None) => return Ok(()),
            Err(error) => return Err(format!("{ENV_VARIABLE}: {error}")),
        },
    };
    let target = match python {
        Python::Runtime(target) => target,
        Python::Other(what) => {
            session::decline(&config, &what);
            return Ok(());
        }
    };
    install_hooks();
    session::start(config, target).map_err(|error| error.to_string())
}

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
    let mut runtime = symbols::dynamic(detect::RUNTIME_SYMBOL);
    let mut get_version = symbols::dynamic(detect::VERSION_SYMBOL);
    let mut code_type = symbols::dynamic(c"PyCode_Type");
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
    let version_text = get_version.and_then(|address| {
        type GetVersion = extern "C" fn() -> *const libc::c_char;
        /// Older versions write the text anew at each call: what another thread has begun is empty.
        const TRIES: u32 = 1000;
        // SAFETY: `Py_GetVersion` has had this signature in every Python; it returns a C string
        // and needs neither the GIL nor an initialised interpreter.
        let version = || unsafe {
            let get_version: GetVersion = std::mem::transmute(address as usize);
            let text = get_version();
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        (0..TRIES).find_map(|_| version().filter(|text| !text.is_empty()))
    });
    if let Some(runtime) = runtime {
        let debug = symbols::dynamic(detect::DEBUG_SYMBOL).is_some();
        let symbols = Symbols { runtime, version_text, debug };
        return Some(Python::Runtime(Target { symbols, code_type }));
    }
    if symbols::dynamic(c"pypy_main_startup").is_some() {
        return Some(Python::Other("PyPy is not supported; CPython 3.8 to 3.15 are".to_owned()));
    }
    let version = detect::version_from_text(&version_text?)?;
    Some(Python::Other(detect::Unsupported::Version(version).to_string()))
}

/// Whether the library is in this process because `LD_PRELOAD` names it.
fn is_preloaded() -> bool {
    let Some(preload) = std::env::var_os("LD_PRELOAD") else { return false };
    // SAFETY: an all-zero Dl_info is a valid value; dladdr fills it for an address of ours.
    let own_name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(on_load as *const libc::c_void, &mut info) == 0 || info.dli_fname.is_null()
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

/// Hooks that live as long as the process.
pub fn install_hooks() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: called once, before this process has a second thread of ours.
        unsafe { dlmalloc::enable_alloc_after_fork() };
        // SAFETY: both functions stay loaded: the library is linked so that it cannot be unloaded,
        // or is part of the program.
        unsafe {
            libc::atexit(at_exit);
            libc::pthread_atfork(Some(before_fork), None, Some(in_forked_child));
        }
    });
}

extern "C" fn at_exit() {
    let _ = std::panic::catch_unwind(end_session);
}

fn end_session() {
    // Whatever else there is to say, the session has said.
    if let Err(error @ SessionError::Timeout) = session::stop() {
        Stderr::now().line(&error.to_string());
    }
}

/// Whether the fork under way was called by the main thread.
static FORKS_FROM_MAIN: AtomicBool = AtomicBool::new(true);

extern "C" fn before_fork() {
    FORKS_FROM_MAIN.store(thread::current_tid() == process::pid(), Ordering::SeqCst);
}

/// The child has the parent's memory but none of its threads: everything is begun anew.
extern "C" fn in_forked_child() {
    let _ = std::panic::catch_unwind(|| {
        let inherited = session::inherited();
        session::forget_after_fork();
        // A child that another thread forked ends when that thread's function returns, unless
        // there is a second thread: ours would keep it for ever.
        if !FORKS_FROM_MAIN.load(Ordering::SeqCst) {
            return;
        }
        if let Some((config, target)) = inherited {
            let _ = session::start(config, target);
        }
    });
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
