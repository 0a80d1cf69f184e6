//! Signals of ours that the program may take for itself at any moment: from then on nothing is under way
//! that needs them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence, fence};
use std::time::{Duration, Instant};

use super::process;

/// One side of what two threads tell each other.
pub trait Flag {
    /// Whether it is set.
    fn get(&self) -> bool;
    /// Sets it, or takes it back.
    fn set(&self, value: bool);
    /// What this thread has set is on its way to the others before it looks at anything. Whoever closes the
    /// gate waits until it is there.
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

    /// Goes in, until what is returned is dropped; nothing is returned if it is closed.
    #[inline]
    pub fn enter(&self) -> Option<Within<'_, F>> {
        self.is_busy.set(true);
        F::settle();
        let within = Within(&self.is_busy);
        (!self.is_closed.get()).then_some(within)
    }

    /// Closes it, and waits for whoever is within, as long as `may_wait` says so. `settle` sees to it that
    /// whatever threads have set by now can be seen.
    pub fn close(&self, settle: impl FnOnce(), mut may_wait: impl FnMut() -> bool) {
        self.is_closed.set(true);
        settle();
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

    #[inline]
    fn settle() {
        compiler_fence(Ordering::SeqCst);
    }
}

/// What is known of signals that are ours until the program takes one of them.
pub struct Claim {
    gate: Gate<Plain>,
    /// The process in which somebody may be within; 0 if they were never ours.
    process: AtomicU32,
    /// How far giving them back has come.
    release: AtomicU32,
}

mod release {
    pub const NOT_BEGUN: u32 = 0;
    pub const UNDER_WAY: u32 = 1;
    pub const DONE: u32 = 2;
}

/// SIGSEGV and SIGBUS, by whose handler reads of memory live that may be gone.
pub static FAULTS: Claim = Claim::new();
/// SIGURG, in whose handler threads stand still while they are read.
pub static HOLDS: Claim = Claim::new();

impl Claim {
    const fn new() -> Self {
        Self {
            gate: Gate::new(Plain(AtomicBool::new(false)), Plain(AtomicBool::new(false))),
            process: AtomicU32::new(0),
            release: AtomicU32::new(release::NOT_BEGUN),
        }
    }

    /// To be kept while something is done that needs the signals; nothing if the program has them.
    #[inline]
    pub fn enter(&self) -> Option<Within<'_, Plain>> {
        self.gate.enter()
    }

    /// To be kept while the signals become ours; nothing if the program has them.
    pub fn establish(&self) -> Option<Within<'_, Plain>> {
        let within = self.gate.enter();
        // Whoever takes the signals from now on sees at once that somebody is within.
        fence(Ordering::SeqCst);
        if self.is_taken() {
            return None;
        }
        self.process.store(process::pid(), Ordering::SeqCst);
        within
    }

    /// Whether the program has taken one of them, be it that it has let go of it again.
    pub fn is_taken(&self) -> bool {
        self.gate.is_closed.get()
    }

    /// Nothing that needs them is begun any more.
    pub fn abandon(&self) {
        self.gate.is_closed.set(true);
    }

    /// The program takes one of them, in the calling thread, which may be in a signal handler. They are
    /// given back by `release` before, by whoever is first; nobody else may give them back then.
    pub fn take(&self, release: impl FnOnce()) {
        /// Who is within is so for a microsecond, but may have lost its processor there.
        const PATIENCE: Duration = Duration::from_millis(200);
        /// Far more than it takes until a processor's store is seen by all. The kernel could see to that,
        /// but a filter of system calls could end the process for asking.
        const SEEN: Duration = Duration::from_micros(20);
        let start = Instant::now();
        let has_patience = || {
            std::hint::spin_loop();
            start.elapsed() < PATIENCE
        };
        let settle = || {
            fence(Ordering::SeqCst);
            while self.process.load(Ordering::SeqCst) != 0 && start.elapsed() < SEEN {
                std::hint::spin_loop();
            }
        };
        // In a child, nobody is within who was so in its parent.
        let is_here = || [0, process::pid()].contains(&self.process.load(Ordering::SeqCst));
        self.gate.close(settle, || is_here() && has_patience());
        let (from, to) = (release::NOT_BEGUN, release::UNDER_WAY);
        match self.release.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => {
                release();
                self.release.store(release::DONE, Ordering::SeqCst);
            }
            Err(_) => {
                let is_under_way = || self.release.load(Ordering::SeqCst) == release::UNDER_WAY;
                while is_under_way() && has_patience() {}
            }
        }
    }

    /// What was under way in the parent is not in a forked child.
    pub fn forget_after_fork(&self) {
        self.gate.is_busy.set(false);
        let (from, to) = (release::UNDER_WAY, release::NOT_BEGUN);
        let _ = self.release.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// As if the program, here what runs the tests, had taken nothing.
    #[cfg(test)]
    pub fn give_back(&self) {
        self.gate.is_closed.set(false);
    }
}
