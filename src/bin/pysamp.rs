//! The `pysamp` command.
#![allow(unsafe_code)]

use std::process::ExitCode;

/// Runs before Rust's runtime ignores SIGPIPE, so that the program can be given what pysamp was.
#[used]
// SAFETY: an entry of `.init_array` is a function that the loader calls once, before `main`; this one
// makes a system call and stores a flag, which needs nothing of the runtime.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = remember_sigpipe;

extern "C" fn remember_sigpipe() {
    pysamp::cli::child::remember_sigpipe();
}

fn main() -> ExitCode {
    pysamp::cli::main()
}
