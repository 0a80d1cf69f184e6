//! Forks: the child begins a profile of its own, and the parent notices nothing.
//!
//! From 3.12 on, `os.fork` warns when the process has more than one thread, and asks the kernel for
//! their number just after the fork. Where pysamp's thread would be the only second one, it is not
//! there at that moment: it steps aside before the fork, leaving its work behind, and is started
//! again by a pending call, which CPython makes once `os.fork` has returned.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use libc::{c_int, c_void};

use crate::os::claim::{Claim, FAULTS, HOLDS};
use crate::os::{process, symbols, thread};
use crate::session::{self, Stderr, Target};
use crate::trampoline;

type PendingCall = extern "C" fn(*mut c_void) -> c_int;
type AddPendingCall = unsafe extern "C" fn(PendingCall, *mut c_void) -> c_int;

/// `Py_AddPendingCall`, where `os.fork` counts threads; else 0.
static ADD_PENDING_CALL: AtomicU64 = AtomicU64::new(0);

/// Whether the fork under way was called by the main thread.
static FORKS_FROM_MAIN: AtomicBool = AtomicBool::new(true);

/// Whether the sampler's thread has stepped aside for the fork under way.
static IS_ASIDE: AtomicBool = AtomicBool::new(false);

/// How often the pending call was made since the fork.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Hooks into forks.
pub(super) fn install(target: &Target) {
    const FIRST_TO_COUNT: (u8, u8) = (3, 12);
    let version = target.symbols.version;
    if version.is_some_and(|version| (version.major, version.minor) >= FIRST_TO_COUNT) {
        let address = symbols::dynamic(c"Py_AddPendingCall")
            .or_else(|| symbols::linked!("Py_AddPendingCall"))
            .unwrap_or(0);
        ADD_PENDING_CALL.store(address, Ordering::Relaxed);
    }
    // SAFETY: the functions stay loaded: the library is linked so that it cannot be unloaded, or is
    // part of the program.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

extern "C" fn before() {
    FORKS_FROM_MAIN.store(thread::current_tid() == process::pid(), Ordering::SeqCst);
    if ADD_PENDING_CALL.load(Ordering::Relaxed) != 0 {
        let is_aside = std::panic::catch_unwind(session::step_aside).unwrap_or(false);
        IS_ASIDE.store(is_aside, Ordering::SeqCst);
    }
    // Last: whoever steps aside may have to finish with them.
    trampoline::before_fork();
}

extern "C" fn in_parent() {
    trampoline::after_fork_in_parent();
    if IS_ASIDE.swap(false, Ordering::SeqCst) {
        CALLS.store(0, Ordering::SeqCst);
        if !call_soon() {
            come_back(true);
        }
    }
}

/// The child has the parent's memory but none of its threads: everything is begun anew.
extern "C" fn in_child() {
    IS_ASIDE.store(false, Ordering::SeqCst);
    [&FAULTS, &HOLDS].into_iter().for_each(Claim::forget_after_fork);
    let _ = std::panic::catch_unwind(|| {
        trampoline::after_fork_in_child();
        let inherited = session::inherited();
        session::forget_after_fork();
        // A child that another thread forked ends when that thread's function returns, unless there
        // is a second thread. Ours can only tell where `/proc` is.
        if !FORKS_FROM_MAIN.load(Ordering::SeqCst) && process::threads().is_none() {
            return;
        }
        if let Some((config, target)) = inherited {
            Stderr::inherit();
            let _ = session::start_in_fork(config, target);
        }
    });
}

fn call_soon() -> bool {
    let address = ADD_PENDING_CALL.load(Ordering::Relaxed);
    // SAFETY: the address is that of `Py_AddPendingCall`, which has had this signature always. It
    // may be called from any thread, with or without the GIL.
    unsafe {
        let add: AddPendingCall = std::mem::transmute(address as usize);
        add(on_pending_call, std::ptr::null_mut()) == 0
    }
}

/// Made with the GIL held, between two instructions of the main thread.
extern "C" fn on_pending_call(_: *mut c_void) -> c_int {
    /// A program can have Python code run at the fork's end, and the threads be counted after that.
    const MOST_CALLS: u32 = 10_000;
    let is_last = CALLS.fetch_add(1, Ordering::SeqCst) >= MOST_CALLS;
    if !come_back(is_last) && !call_soon() {
        come_back(true);
    }
    0
}

/// Has the thread started again, if it is time or `now`. Returns whether that is done.
fn come_back(now: bool) -> bool {
    std::panic::catch_unwind(|| session::come_back(now)).unwrap_or(true)
}
