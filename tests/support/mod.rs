//! What the tests by topic share: interpreters, profiled runs, and cores to run them on.

mod interpreters;
mod run;

pub use interpreters::{Interpreter, supported, unsupported};
pub use run::{
    Ended, FrameLine, Run, Stack, command, library, profile, profile_command, program, recorded,
    run_to_end,
};

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// How many cores are free, and a turnstile that keeps those who wait in line.
static FREE: Mutex<Option<usize>> = Mutex::new(None);
static FREED: Condvar = Condvar::new();
static TURNSTILE: Mutex<()> = Mutex::new(());

/// Cores held until dropped.
pub struct Cores(usize);

fn all_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Cores {
    /// One core: for runs that only look at what is in the profile.
    pub fn one() -> Self {
        Self::take(1)
    }

    /// The whole machine: for runs that look at when, how long or how much.
    pub fn all() -> Self {
        Self::take(all_cores())
    }

    fn take(wanted: usize) -> Self {
        let _in_line = TURNSTILE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        while *free.get_or_insert_with(all_cores) < wanted {
            free = FREED.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free = free.map(|free| free - wanted);
        Self(wanted)
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        *free = free.map(|free| free + self.0);
        FREED.notify_all();
    }
}

/// Checks one thing on every supported interpreter, names them, and fails with all that failed.
///
/// `cores` is what one check holds while it runs; checks run side by side as cores allow.
pub fn on_each(cores: fn() -> Cores, check: impl Fn(&Interpreter) -> Result<(), String> + Sync) {
    on_all(supported(), cores, check);
}

/// As [`on_each`], on the given interpreters.
pub fn on_all(
    interpreters: &[Interpreter],
    cores: fn() -> Cores,
    check: impl Fn(&Interpreter) -> Result<(), String> + Sync,
) {
    let check = &check;
    let outcomes: Vec<Result<(), String>> = thread::scope(|scope| {
        let running: Vec<_> = interpreters
            .iter()
            .map(|interpreter| {
                scope.spawn(move || {
                    let _held = cores();
                    check(interpreter)
                })
            })
            .collect();
        running
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err("panicked, see above".to_owned())))
            .collect()
    });
    let names: Vec<&str> = interpreters.iter().map(|one| one.name.as_str()).collect();
    println!("ran on {}", names.join(", "));
    let failures: Vec<String> = interpreters
        .iter()
        .zip(outcomes)
        .filter_map(|(one, outcome)| Some(format!("{}: {}", one.name, outcome.err()?)))
        .collect();
    assert!(failures.is_empty(), "failed on {}:\n{}", failures.len(), failures.join("\n"));
}

/// Turns a condition into a check's outcome.
pub fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}
