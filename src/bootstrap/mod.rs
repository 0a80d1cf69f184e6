//! Getting into a process and out of it again: the load-time constructor, and the hooks.
#![allow(unsafe_code)]

mod ends;
mod exec;
mod find;
mod fork;
mod signals;

use std::ffi::OsString;

use crate::config::{Config, ENV_VARIABLE};
use crate::os::process;
use crate::session::{self, Stderr, Target};
pub use find::{Python, find_python};

/// What the loader runs when the library is loaded, or the program it is linked into starts.
#[used]
// Miri, which checks the pure parts, cannot run it.
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static CONSTRUCTOR: extern "C" fn() = on_load;

extern "C" fn on_load() {
    let _ = std::panic::catch_unwind(|| {
        signals::look_up();
        if process::is_secure_execution() {
            return;
        }
        if is_active_elsewhere() {
            return;
        }
        // A Python that pysamp is linked into is told so about all of its variables.
        let is_preloaded = find::is_preloaded();
        if !is_preloaded && process::ignores_environment(&std::env::args_os().collect::<Vec<_>>()) {
            return;
        }
        let wish = std::env::var_os(ENV_VARIABLE).filter(|value| !value.is_empty());
        // Linked into a program, pysamp is silent until asked; preloading it is asking.
        if wish.is_none() && !is_preloaded {
            return;
        }
        if !is_preloaded && find::is_hosted() {
            // Here there is one thread, and nothing has looked at the environment yet.
            Stderr::follow();
            return;
        }
        let Some(python) = find_python(wish.is_some()) else { return };
        begin(wish, ENV_VARIABLE, python);
    });
}

/// Starts, or does not, as a host asks that has read [`ENV_VARIABLE`] or the like by its own rules.
/// Returns whether this has started a profile.
pub fn start_as_asked(wish: OsString) -> bool {
    if process::is_secure_execution() || session::is_active() || is_active_elsewhere() {
        return false;
    }
    find_python(true).is_some_and(|python| begin(Some(wish), "sampler options", python))
}

/// Takes the constructor and the functions that stand before the C library's into whatever program
/// takes the caller: a linker leaves out those members of an archive that nothing mentions.
pub fn keep_linked() {
    std::hint::black_box(&raw const CONSTRUCTOR);
    ends::keep_linked();
    exec::keep_linked();
    signals::keep_linked();
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

/// Starts, unless the wish is not to. Says in one line why it cannot; `source` is whence it comes.
fn begin(wish: Option<OsString>, source: &str, python: Python) -> bool {
    let started = read(wish, source).and_then(|config| {
        let Some(config) = config else { return Ok(false) };
        let target = match python {
            Python::Runtime(target) => target,
            Python::Other(what) => {
                session::decline(&config, &what);
                return Ok(false);
            }
        };
        Stderr::follow();
        install_hooks(&target);
        session::start(config, target).map_err(|error| error.to_string())?;
        Ok(true)
    });
    started.unwrap_or_else(|message| {
        Stderr::now().line(&format!("{message}; the program runs unprofiled"));
        false
    })
}

fn read(wish: Option<OsString>, source: &str) -> Result<Option<Config>, String> {
    let Some(value) = wish else { return Ok(Some(Config::default())) };
    Config::from_env_value(&value).map_err(|error| format!("{source}: {error}"))
}

/// Hooks that live as long as the process.
pub fn install_hooks(target: &Target) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: called once, before this process has a second thread of ours.
        unsafe { dlmalloc::enable_alloc_after_fork() };
        ends::install();
        exec::install();
        fork::install(target);
    });
}
