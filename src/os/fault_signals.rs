//! SIGSEGV and SIGBUS, which the program may take for itself at any moment: from then on nothing is
//! under way whose fault a handler of ours would have to catch.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};
use std::time::{Duration, Instant};

/// The two signals.
pub const NUMBERS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// One side of what two threads tell each other.
pub trait Flag {
    /// Whether it is set.
    fn get(&self) -> bool;
    /// Sets it, or takes it back.
    fn set(&self, value: bool);
    /// What this thread has set is seen by others before it looks at anything: as seen by whoever
    /// calls [`settle_all`](Self::settle_all).
    fn settle();
    /// As [`settle`](Self::settle), and so it is for every thread that is in it meanwhile.
    fn settle_all();
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

    /// Goes in, until what is returned is dropped; nothing is returned if it is closed.
    #[inline]
    pub fn enter(&self) -> Option<Within<'_, F>> {
        self.is_busy.set(true);
        F::settle();
        let within = Within(&self.is_busy);
        (!self.is_closed.get()).then_some(within)
    }

    /// Closes it, and waits for whoever is within, as long as `may_wait` says so.
    pub fn close(&self, mut may_wait: impl FnMut() -> bool) {
        self.is_closed.set(true);
        F::settle_all();
        while self.is_busy.get() && may_wait() {}
    }
}

/// As long as it lasts, somebody is within.
pub struct Within<'a, F: Flag>(&'a F);

impl<F: Flag> Drop for Within<'_, F> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A flag in memory that costs the thread which goes in and out all the time next to nothing.
pub struct Plain(AtomicBool);

impl Flag for Plain {
    #[inline]
    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    #[inline]
    fn set(&self, value: bool) {
        self.0.store(value, Ordering::Release);
    }

    /// The processor may look ahead while what it has set is on its way to the others.
    #[inline]
    fn settle() {
        compiler_fence(Ordering::SeqCst);
    }

    /// Waits until that is over. Asking the kernel to see to it could end a process under a filter of
    /// system calls.
    fn settle_all() {
        /// Far more than it takes until a processor's store is seen by all.
        const SEEN: Duration = Duration::from_micros(20);
        fence(Ordering::SeqCst);
        let start = Instant::now();
        while WERE_OURS.load(Ordering::SeqCst) && start.elapsed() < SEEN {
            std::hint::spin_loop();
        }
    }
}

static GATE: Gate<Plain> = Gate::new(Plain(AtomicBool::new(false)), Plain(AtomicBool::new(false)));
/// Whether there ever was a handler of ours.
static WERE_OURS: AtomicBool = AtomicBool::new(false);

/// To be kept while something is done whose fault a handler of ours catches; nothing if the program has
/// the signals.
#[inline]
pub fn catching() -> Option<Within<'static, Plain>> {
    GATE.enter()
}

/// To be kept while the handlers are installed; nothing if the program has the signals.
pub fn installing() -> Option<Within<'static, Plain>> {
    let within = GATE.enter();
    // Whoever takes the signals from now on sees at once that somebody is within.
    fence(Ordering::SeqCst);
    if are_taken() {
        return None;
    }
    WERE_OURS.store(true, Ordering::SeqCst);
    within
}

/// Whether the program has taken one of them, be it that it has let go of it again.
pub fn are_taken() -> bool {
    GATE.is_closed.get()
}

/// The program takes one of them, in the calling thread, which may be in a signal handler.
pub fn take() {
    /// Who is within is so for less than a microsecond, but may have lost its processor there.
    const PATIENCE: Duration = Duration::from_millis(200);
    let start = Instant::now();
    GATE.close(|| {
        std::hint::spin_loop();
        start.elapsed() < PATIENCE
    });
}

/// Nobody is within in a forked child, whoever was in its parent.
pub fn forget_after_fork() {
    GATE.is_busy.set(false);
}

/// As if the program, here what runs the tests, had taken nothing.
#[cfg(test)]
pub fn give_back() {
    GATE.is_closed.set(false);
}
