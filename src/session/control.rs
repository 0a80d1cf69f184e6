//! The signal by which a user controls the profile of a running process.
//!
//! It is taken only where the application has left it alone, and once in a process and its forked
//! children. An application that handles it later displaces ours, and that is that. Ours stays
//! after the profile, and then does nothing: a signal under way must not end the process.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{command, with_current};
use crate::config::ControlSignal;
use crate::os::signal;

/// Signals that were taken, as bits.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Somebody is at it. In a child that was forked meanwhile this stays: the lock inside signal-hook
/// may be held there by a thread that does not exist.
static TAKING: AtomicBool = AtomicBool::new(false);

/// Takes a signal; returns whether the application leaves it to us.
pub fn take(control: ControlSignal) -> bool {
    let number = control.number();
    let bit = 1 << number;
    if TAKEN.load(Ordering::SeqCst) & bit != 0 {
        return true;
    }
    if !signal::is_default(number) || TAKING.swap(true, Ordering::SeqCst) {
        return false;
    }
    // SAFETY: the action is async-signal-safe: it changes atomics and wakes a futex.
    let registered = unsafe { signal_hook::low_level::register(number, move || notice(control)) };
    if registered.is_ok() {
        TAKEN.fetch_or(bit, Ordering::SeqCst);
    }
    TAKING.store(false, Ordering::SeqCst);
    registered.is_ok()
}

fn notice(control: ControlSignal) {
    with_current(|shared| {
        if shared.is_active() && shared.config.control == Some(control) {
            shared.ask(command::SIGNAL);
        }
    });
}
