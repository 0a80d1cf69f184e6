//! The functions of CPython's that trampolines need, found at run time.
//!
//! PEP 523 lets one function in a process evaluate frames. From 3.9 on it is set by a function; in
//! 3.8 it is a field of the interpreter's.
#![allow(unsafe_code)]

use std::ffi::CStr;

use libc::{c_char, c_int, c_uint, c_void};

use super::Refusal;
use crate::layout::Version;
use crate::layout::detect::{self, Build, Symbols};
use crate::mem::{Address, KernelMemory, Memory, field};
use crate::os::symbols::{self, Executable};
use crate::reader::threads;

/// What a pending call is.
pub(super) type PendingCall = extern "C" fn(*mut c_void) -> c_int;
/// What is called when a code object dies, with what was put into it.
pub(super) type FreeFunction = extern "C" fn(*mut c_void);

/// `PyInterpreterState.eval_frame` in 3.8 (`internal/pycore_pystate.h`, v3.8.18), by `offsetof`. It is
/// believed only where `_PyEval_EvalFrameDefault` is found there, or what was put there.
const EVAL_FRAME_3_8: usize = 568;

/// A CPython whose frames can be hooked.
pub(super) struct Python {
    pub(super) build: Build,
    /// `PyCode_Type`, where it is exported.
    pub(super) code_type: Option<Address>,
    /// `_PyEval_EvalFrameDefault`.
    pub(super) evaluate: u64,
    main_interpreter: extern "C" fn() -> u64,
    current_thread: extern "C" fn() -> u64,
    is_initialized: extern "C" fn() -> c_int,
    add_pending_call: extern "C" fn(PendingCall, *mut c_void) -> c_int,
    at_exit: extern "C" fn(extern "C" fn()) -> c_int,
    /// Absent in 3.8.
    hook: Option<HookFunctions>,
    /// Where code objects have no version: up to 3.11.
    extra: Option<ExtraFunctions>,
    /// From 3.12 on.
    pub(super) write_map_entry: Option<MapEntry>,
}

/// `PyUnstable_WritePerfMapEntry`.
pub(super) type MapEntry = extern "C" fn(*const c_void, c_uint, *const c_char) -> c_int;

struct HookFunctions {
    get: extern "C" fn(u64) -> u64,
    set: extern "C" fn(u64, u64),
}

struct ExtraFunctions {
    request: extern "C" fn(FreeFunction) -> isize,
    get: extern "C" fn(u64, isize, *mut *mut c_void) -> c_int,
    set: extern "C" fn(u64, isize, *mut c_void) -> c_int,
}

/// Looks in the dynamic tables, and then in the executable's own, which is read once.
#[derive(Default)]
struct Lookup {
    executable: Option<Option<Executable>>,
}

impl Lookup {
    fn find(&mut self, name: &CStr) -> Result<u64, Refusal> {
        let missing = || Refusal::Missing(name.to_string_lossy().into_owned());
        symbols::dynamic(name)
            .or_else(|| {
                let executable = self.executable.get_or_insert_with(Executable::open).as_ref()?;
                executable.symbol(name.to_str().ok()?)
            })
            .ok_or_else(missing)
    }
}

impl Python {
    /// Looks everything up.
    pub(super) fn find(symbols: &Symbols, code_type: Option<Address>) -> Result<Self, Refusal> {
        let memory = KernelMemory::of_this_thread();
        if !memory.is_readable() {
            return Err(Refusal::Unreadable);
        }
        let build = detect::build(&memory, symbols)
            .map_err(|error| Refusal::Unsupported(error.to_string()))?;
        let Version { minor, .. } = build.version;
        let mut lookup = Lookup::default();
        let mut find = |name: &CStr| lookup.find(name);
        let thread =
            if minor < 13 { c"_PyThreadState_UncheckedGet" } else { c"PyThreadState_GetUnchecked" };
        // SAFETY: each is CPython's function of that name, whose signature has been this in all
        // versions in which it is looked up; objects and sizes are words, and `Py_ssize_t` is one.
        unsafe {
            use std::mem::transmute;
            let hook = match minor {
                ..=8 => None,
                _ => Some(HookFunctions {
                    get: transmute::<u64, extern "C" fn(u64) -> u64>(find(
                        c"_PyInterpreterState_GetEvalFrameFunc",
                    )?),
                    set: transmute::<u64, extern "C" fn(u64, u64)>(find(
                        c"_PyInterpreterState_SetEvalFrameFunc",
                    )?),
                }),
            };
            let extra = match minor {
                12.. => None,
                _ => Some(ExtraFunctions {
                    request: transmute::<u64, extern "C" fn(FreeFunction) -> isize>(find(
                        c"_PyEval_RequestCodeExtraIndex",
                    )?),
                    get: transmute::<u64, extern "C" fn(u64, isize, *mut *mut c_void) -> c_int>(
                        find(c"_PyCode_GetExtra")?,
                    ),
                    set: transmute::<u64, extern "C" fn(u64, isize, *mut c_void) -> c_int>(find(
                        c"_PyCode_SetExtra",
                    )?),
                }),
            };
            let write_map_entry = match minor {
                ..=11 => None,
                _ => find(c"PyUnstable_WritePerfMapEntry")
                    .ok()
                    .map(|at| transmute::<u64, MapEntry>(at)),
            };
            Ok(Self {
                code_type,
                evaluate: find(c"_PyEval_EvalFrameDefault")?,
                main_interpreter: transmute::<u64, extern "C" fn() -> u64>(find(
                    c"PyInterpreterState_Main",
                )?),
                current_thread: transmute::<u64, extern "C" fn() -> u64>(find(thread)?),
                is_initialized: transmute::<u64, extern "C" fn() -> c_int>(find(
                    c"Py_IsInitialized",
                )?),
                add_pending_call: transmute::<u64, extern "C" fn(PendingCall, *mut c_void) -> c_int>(
                    find(c"Py_AddPendingCall")?,
                ),
                at_exit: transmute::<u64, extern "C" fn(extern "C" fn()) -> c_int>(find(
                    c"Py_AtExit",
                )?),
                build,
                hook,
                extra,
                write_map_entry,
            })
        }
    }

    /// Whether an interpreter is there that pending calls can be left for.
    pub(super) fn is_initialized(&self) -> bool {
        (self.is_initialized)() != 0
    }

    /// Whether the interpreter is there, and not about to end.
    pub(super) fn is_alive(&self, memory: &KernelMemory) -> bool {
        let is_finalizing = threads::is_finalizing(memory, &self.build);
        self.interpreter() != 0 && is_finalizing == Ok(false)
    }

    /// Has the main thread make a call, with the GIL, between two instructions. False if too many
    /// wait already. Needs an interpreter that is alive.
    pub(super) fn call_soon(&self, call: PendingCall) -> bool {
        (self.add_pending_call)(call, std::ptr::null_mut()) == 0
    }

    /// Has a function called at the very end of `Py_Finalize`.
    pub(super) fn at_end(&self, function: extern "C" fn()) -> bool {
        (self.at_exit)(function) == 0
    }

    /// Whether the calling thread holds the GIL, or is attached, in the main interpreter.
    ///
    /// Up to 3.11 the thread state that CPython gives is that of whoever holds the GIL. If that is
    /// another thread, it may be gone by now; only this thread's says that it is this thread's.
    pub(super) fn is_attached(&self, memory: &KernelMemory) -> bool {
        let layout = &self.build.layout;
        let thread = (self.current_thread)();
        // SAFETY: pthread_self takes nothing and cannot fail.
        let own = unsafe { libc::pthread_self() } as u64;
        thread != 0
            && memory.word(field(thread, layout.thread_id)) == Ok(own)
            && memory.word(field(thread, layout.thread_interpreter)) == Ok(self.interpreter())
    }

    fn interpreter(&self) -> u64 {
        (self.main_interpreter)()
    }

    /// What evaluates frames. Needs an interpreter.
    pub(super) fn hook(&self, memory: &KernelMemory) -> Option<u64> {
        match &self.hook {
            Some(functions) => Some((functions.get)(self.interpreter())),
            None => memory.word(field(self.interpreter(), EVAL_FRAME_3_8)).ok(),
        }
    }

    /// Sets what evaluates frames. Needs the GIL.
    pub(super) fn set_hook(&self, memory: &KernelMemory, function: u64) -> bool {
        match &self.hook {
            Some(functions) => {
                (functions.set)(self.interpreter(), function);
                true
            }
            None => {
                // SAFETY: the caller has found there what evaluates frames, and holds the GIL,
                // without which no thread reads it.
                unsafe { memory.store(field(self.interpreter(), EVAL_FRAME_3_8), function).is_ok() }
            }
        }
    }

    /// Whether code objects have to be marked to hear of their end.
    pub(super) fn marks_code(&self) -> bool {
        self.extra.is_some()
    }

    /// A place in all code objects for a mark of ours. Needs the GIL.
    pub(super) fn request_mark(&self, when_freed: FreeFunction) -> Option<isize> {
        self.extra.as_ref().map(|extra| (extra.request)(when_freed)).filter(|index| *index >= 0)
    }

    /// Marks a code object with its own address, so that its end is heard of. Needs the GIL, and
    /// a code object that is alive. False where there is no memory.
    pub(super) fn mark(&self, index: isize, code: Address) -> bool {
        let Some(extra) = &self.extra else { return true };
        let mut there = std::ptr::null_mut();
        let is_marked = (extra.get)(code, index, &mut there) == 0 && !there.is_null();
        is_marked || (extra.set)(code, index, code as *mut c_void) == 0
    }
}
