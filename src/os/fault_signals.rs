//! SIGSEGV and SIGBUS, which the program may take for itself at any moment: from then on nothing is
//! under way whose fault a handler of ours would have to catch.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};
use std::time::Duration;

use super::clock;

/// The two signals.
pub const NUMBERS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// One side of what two threads tell each other.
pub trait Flag {
    /// Whether it is set.
    fn get(&self) -> bool;
    /// Sets it, or takes it back.
    fn set(&self, value: bool);
    /// What was set before this is seen by whoever later waits in [`Gate::close`], before anything is
    /// looked at behind this.
    fn settle();
}

/// Lets one thread at a time in, until it is closed for good.
pub struct Gate<F> {
    is_busy: F,
    is_closed: F,
}

impl<F: Flag> Gate<F> {
    /// Of two flags that are not set.
    pub const fn new(is_busy: F, is_closed: F) -> Self {
        Self { is_busy, is_closed }
    }

    /// Does what must not be under way once it is closed; nothing if it is.
    #[inline]
    pub fn within<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        self.is_busy.set(true);
        F::settle();
        let done = (!self.is_closed.get()).then(act);
        self.is_busy.set(false);
        done
    }

    /// Closes it, and waits for whoever is within, as long as `may_wait` says so.
    pub fn close(&self, mut may_wait: impl FnMut() -> bool) {
        self.is_closed.set(true);
        while self.is_busy.get() && may_wait() {}
    }
}

/// A flag in memory that costs the thread which goes in and out all the time next to nothing.
struct Plain(AtomicBool);

impl Flag for Plain {
    #[inline]
    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    #[inline]
    fn set(&self, value: bool) {
        self.0.store(value, Ordering::Release);
    }

    /// The processor may look ahead while the flag is on its way to the others: [`take`] waits longer
    /// than that takes.
    #[inline]
    fn settle() {
        compiler_fence(Ordering::SeqCst);
    }
}

static GATE: Gate<Plain> = Gate::new(Plain(AtomicBool::new(false)), Plain(AtomicBool::new(false)));
/// Whether there ever was a handler of ours.
static WERE_OURS: AtomicBool = AtomicBool::new(false);

/// Does something whose fault a handler of ours catches; nothing if the program has the signals.
#[inline]
pub fn caught<T>(act: impl FnOnce() -> T) -> Option<T> {
    GATE.within(act)
}

/// Installs the handlers, unless the program has the signals.
pub fn install(act: impl FnOnce() -> bool) -> bool {
    let install = || {
        // Whoever takes the signals from now on sees at once that somebody is within.
        fence(Ordering::SeqCst);
        if are_taken() {
            return false;
        }
        WERE_OURS.store(true, Ordering::SeqCst);
        act()
    };
    GATE.within(install).unwrap_or(false)
}

/// Whether the program has taken one of them, be it that it has let go of it again.
pub fn are_taken() -> bool {
    GATE.is_closed.get()
}

/// The program takes one of them, in the calling thread, which may be in a signal handler.
pub fn take() {
    /// Far more than it takes until a processor's store is seen by all.
    const SEEN: Duration = Duration::from_micros(20);
    /// Who is within is so for less than a microsecond, but may have lost its processor there.
    const PATIENCE: Duration = Duration::from_millis(200);
    let start = clock::monotonic_ns();
    let is_past = |time: Duration| clock::monotonic_ns() - start >= time.as_nanos() as u64;
    GATE.is_closed.set(true);
    fence(Ordering::SeqCst);
    if WERE_OURS.load(Ordering::SeqCst) {
        while !is_past(SEEN) {
            std::hint::spin_loop();
        }
    }
    GATE.close(|| {
        std::hint::spin_loop();
        !is_past(PATIENCE)
    });
}

/// Nobody is within in a forked child, whoever was in its parent.
pub fn forget_after_fork() {
    GATE.is_busy.set(false);
}
