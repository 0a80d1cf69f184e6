//! Holding a thread still: a directed real-time signal whose handler waits until its frames have
//! been read.
//!
//! The handler touches nothing but one static, so it is async-signal-safe. Both sides wait for a
//! bounded time only: a thread that does not come (its signals are blocked, it has gone) costs the
//! sampler [`PATIENCE_NS`], a sampler that does not answer costs the thread [`MOST_HELD_NS`].
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use libc::{c_int, c_void, siginfo_t};

use crate::os::{clock, process, signal, thread};

/// How long the sampler waits for the thread to stop.
const PATIENCE_NS: u64 = 3_000_000;
/// How long the thread waits for the sampler at most.
const MOST_HELD_NS: u64 = 10_000_000;
/// How long either side spins before it sleeps, where there is more than one processor.
const SPIN_NS: u64 = 40_000;

/// The meeting point's state: a turn number above two bits of phase. A stale signal meets another
/// turn and leaves.
static MEETING: AtomicU32 = AtomicU32::new(0);
/// The thread that is meant.
static INVITED: AtomicU32 = AtomicU32::new(0);
/// The process that is meant: not a forked child.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// Whether spinning makes sense.
static SPINS: AtomicU32 = AtomicU32::new(0);

const PHASE: u32 = 3;
const FREE: u32 = 0;
const ASKED: u32 = 1;
const HELD: u32 = 2;
const TURN: u32 = 4;

/// The right to hold threads still; there is one sampler in a process.
#[derive(Debug)]
pub struct Parking {
    signal: c_int,
    pid: u32,
}

/// A thread that stands still until this is released.
#[must_use]
pub struct Parked {
    held: u32,
}

impl Parking {
    /// Takes a signal that nobody uses; `None` where there is none.
    pub fn new() -> Option<Self> {
        let signal = signal::unused_realtime_signal()?;
        let pid = process::pid();
        PROCESS.store(pid as i32, Ordering::SeqCst);
        MEETING.store(MEETING.load(Ordering::SeqCst) & !PHASE, Ordering::SeqCst);
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        SPINS.store(u32::from(processors > 1), Ordering::SeqCst);
        signal::install(signal, on_signal, libc::SA_RESTART | libc::SA_ONSTACK)
            .then_some(Self { signal, pid })
    }

    /// Whether the signal still leads to our handler.
    pub fn is_ours(&self) -> bool {
        signal::current_handler(self.signal) == Some(on_signal as *const () as usize)
    }

    /// Stops a thread; `None` if it did not stop in time.
    pub fn park(&self, tid: u32) -> Option<Parked> {
        if !self.is_ours() {
            return None;
        }
        let turn = (MEETING.load(Ordering::SeqCst) & !PHASE).wrapping_add(TURN);
        let (asked, held) = (turn | ASKED, turn | HELD);
        INVITED.store(tid, Ordering::SeqCst);
        MEETING.store(asked, Ordering::SeqCst);
        if thread::send_signal(self.pid, tid, self.signal) {
            wait_while(asked, PATIENCE_NS);
        }
        let withdrawn =
            MEETING.compare_exchange(asked, turn | FREE, Ordering::SeqCst, Ordering::SeqCst);
        (withdrawn == Err(held)).then_some(Parked { held })
    }
}

impl Drop for Parking {
    fn drop(&mut self) {
        // A signal under way must not meet the default action, which would end the process: the
        // handler stays, and does nothing.
        MEETING.store(MEETING.load(Ordering::SeqCst) & !PHASE, Ordering::SeqCst);
    }
}

impl Parked {
    /// Lets the thread go on. Returns whether it stood still up to now.
    pub fn release(self) -> bool {
        let free = self.held & !PHASE;
        let released =
            MEETING.compare_exchange(self.held, free, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        thread::futex_wake(&MEETING);
        released
    }
}

extern "C" fn on_signal(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: errno's location is the thread's own and always valid.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler; the sender's pid is there
    // for signals that tgkill sent.
    let is_own = unsafe {
        (*info).si_code == libc::SI_TKILL
            && (*info).si_pid() == PROCESS.load(Ordering::SeqCst)
            && libc::getpid() == (*info).si_pid()
    };
    let asked = MEETING.load(Ordering::SeqCst);
    if is_own && asked & PHASE == ASKED && INVITED.load(Ordering::SeqCst) == thread::current_tid() {
        let held = (asked & !PHASE) | HELD;
        if MEETING.compare_exchange(asked, held, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            thread::futex_wake(&MEETING);
            wait_while(held, MOST_HELD_NS);
            // If the sampler has not answered, it must learn that this thread moves again.
            let _ =
                MEETING.compare_exchange(held, held & !PHASE, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Waits while the meeting point is in a state, first spinning, then sleeping.
fn wait_while(state: u32, patience_ns: u64) {
    let start = clock::monotonic_ns();
    let spins = SPINS.load(Ordering::Relaxed) != 0;
    loop {
        if spins {
            for _ in 0..16 {
                if MEETING.load(Ordering::Acquire) != state {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        if MEETING.load(Ordering::Acquire) != state {
            return;
        }
        let waited = clock::monotonic_ns().saturating_sub(start);
        if waited >= patience_ns {
            return;
        }
        if !spins || waited >= SPIN_NS {
            thread::futex_wait(&MEETING, state, patience_ns - waited);
        }
    }
}
