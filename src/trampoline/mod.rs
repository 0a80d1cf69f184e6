//! Trampolines: each Python function runs through a stub of its own, whose address tells profilers
//! such as `perf` which function it is.
//!
//! CPython lets one function evaluate all frames (PEP 523). Ours, in [`entry`], jumps to the stub of
//! the frame's code object ([`table`], [`stub`]), which calls CPython's own evaluator. What a stub is
//! called is written to a map or a dump when its function first runs.
//!
//! All of this happens in threads of the application's, within calls that the interpreter makes. The
//! sampler's thread only asks for it to begin, and writes the files of a forked child.
#![allow(unsafe_code)]

mod engine;
mod entry;
mod file;
mod jitdump;
mod lock;
mod perf_map;
mod python;
mod side;
mod stub;
mod table;
mod unwinding;

use std::str::FromStr;

use crate::export::{UnknownName, by_name};
use crate::reader::codes::Code;
pub use engine::{
    activate, activate_again, activate_early, after_fork_in_child, after_fork_in_parent,
    before_fork, complaint, deactivate, has_begun, tend,
};

/// What is written for other profilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// `/tmp/perf-<pid>.map`: names and addresses.
    Map,
    /// `/tmp/jit-<pid>.dump`: also how stubs are unwound, and source lines.
    JitDump,
}

impl Backend {
    /// Every backend.
    pub const ALL: [Self; 2] = [Self::Map, Self::JitDump];

    /// The name that the option uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::JitDump => "jitdump",
        }
    }

    /// As `sys.activate_stack_trampoline` calls it.
    pub fn of_python(name: &str) -> Option<Self> {
        match name {
            "perf" => Some(Self::Map),
            "perf_jit" => Some(Self::JitDump),
            _ => None,
        }
    }
}

impl FromStr for Backend {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        by_name("perf trampoline", Self::ALL, Self::name, name)
    }
}

/// Why trampolines cannot be switched on or off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no interpreter.
    #[error("no Python code has run yet")]
    NoPython,
    /// They are off already.
    #[error("no trampolines are active")]
    NotActive,
    /// Somebody else evaluates frames.
    #[error(
        "Python's frames are evaluated by another tool already (CPython's own trampolines, a \
         debugger or a compiler); there can be only one"
    )]
    OtherHook,
    /// A function is missing.
    #[error("this Python does not have {0}, which trampolines need")]
    Missing(String),
    /// This Python cannot be profiled.
    #[error("{0}")]
    Unsupported(String),
    /// Memory cannot be read by system call.
    #[error("trampolines need process_vm_readv, which is forbidden here")]
    Unreadable,
    /// There is no machine code for the processor.
    #[error("there are no trampolines for this processor; there are for x86-64 and aarch64")]
    Processor,
    /// Memory cannot be had, or not be executed.
    #[error("there is no memory for trampolines that may be executed")]
    Memory,
    /// The interpreter is too busy to be asked.
    #[error("too many calls wait for Python's main thread")]
    Busy,
    /// The file cannot be written.
    #[error("the file for perf cannot be written: {0}")]
    File(String),
}

/// A stub and what it stands for.
struct Entry<'a> {
    address: u64,
    number: u32,
    code: &'a Code,
}

/// What a function is called, in one line.
fn name(code: &Code) -> String {
    let is_odd = |letter: char| letter.is_control();
    let name = format!("py::{}:{}", code.name, code.file);
    if name.contains(is_odd) {
        name.chars().map(|letter| if is_odd(letter) { ' ' } else { letter }).collect()
    } else {
        name
    }
}
