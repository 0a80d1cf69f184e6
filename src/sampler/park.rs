//! Holding a thread still: a directed signal whose handler waits until its frames have been read.
//!
//! The signal is SIGURG, whose default is to be ignored. A signal that is under way while its
//! thread calls `execve` meets the default action in the new program: a real-time signal would
//! end it. Where the application uses SIGURG itself, no thread is ever held.
//!
//! The handler touches nothing but one static, so it is async-signal-safe. Both sides wait for a
//! bounded time only: a thread that does not come (its signals are blocked, it has gone) costs the
//! sampler [`PATIENCE_NS`], a sampler that does not answer costs the thread [`MOST_HELD_NS`].
#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use libc::{c_int, c_void, siginfo_t};

use super::meeting::{Held, Meeting};
use crate::os::claim::HOLDS;
use crate::os::{clock, process, signal, thread};

/// The signal: nothing happens where nobody handles it.
pub const NUMBERS: [c_int; 1] = [libc::SIGURG];

/// How long the sampler waits for the thread to stop.
const PATIENCE_NS: u64 = 3_000_000;
/// How long the thread waits for the sampler at most.
const MOST_HELD_NS: u64 = 10_000_000;
/// A thread that has not come so often, one time after the other, is left alone for a while.
const MOST_ABSENCES: u32 = 4;
const LEFT_ALONE_NS: u64 = 100_000_000;
/// How long either side spins before it sleeps, where there is more than one processor.
const SPIN_NS: u64 = 40_000;

static MEETING: Meeting<AtomicU32> = Meeting::new(AtomicU32::new(0), AtomicU32::new(0));
/// The process that is meant: not a forked child.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// Whether spinning makes sense.
static SPINS: AtomicU32 = AtomicU32::new(0);

/// The right to hold threads still; there is one sampler in a process.
#[derive(Debug)]
pub struct Parking {
    signal: c_int,
    pid: u32,
    absent: Cell<Absent>,
}

/// The last thread that did not come: most probably its signals are blocked.
#[derive(Clone, Copy, Debug, Default)]
struct Absent {
    tid: u32,
    /// How often, one after the other.
    times: u32,
    until_ns: u64,
}

/// A thread that stands still until this is released.
#[must_use]
pub struct Parked {
    held: Held,
}

impl Parking {
    /// Takes the signal; `None` where the application uses it.
    pub fn new() -> Option<Self> {
        let [signal] = NUMBERS;
        let _establishing = HOLDS.establish()?;
        if !signal::is_default(signal) && !is_ours(signal) {
            return None;
        }
        let pid = process::pid();
        PROCESS.store(pid as i32, Ordering::SeqCst);
        MEETING.clear();
        SPINS.store(u32::from(thread::processors() > 1), Ordering::SeqCst);
        signal::install(signal, on_signal, libc::SA_RESTART | libc::SA_ONSTACK).then(|| Self {
            signal,
            pid,
            absent: Cell::default(),
        })
    }

    /// Stops a thread; `None` if it did not stop in time.
    pub fn park(&self, tid: u32) -> Option<Parked> {
        let within = HOLDS.enter()?;
        if !is_ours(self.signal) || !self.may_come(tid) {
            return None;
        }
        let asked = MEETING.invite(tid);
        let is_sent = thread::send_signal(self.pid, tid, self.signal);
        drop(within);
        if is_sent {
            wait_while(asked.0, PATIENCE_NS);
        }
        let held = MEETING.withdraw(asked);
        self.note(tid, held.is_some());
        held.map(|held| Parked { held })
    }

    /// Whether it makes sense to stop a thread: it has not just stayed away time and again.
    pub fn may_come(&self, tid: u32) -> bool {
        let Absent { tid: absent, times, until_ns } = self.absent.get();
        absent != tid || times < MOST_ABSENCES || clock::monotonic_ns() >= until_ns
    }

    fn note(&self, tid: u32, has_come: bool) {
        let last = self.absent.get();
        if !has_come {
            let times = if last.tid == tid { last.times + 1 } else { 1 };
            let until_ns = clock::monotonic_ns() + LEFT_ALONE_NS;
            self.absent.set(Absent { tid, times, until_ns });
        } else if last.tid == tid {
            self.absent.set(Absent::default());
        }
    }
}

impl Drop for Parking {
    fn drop(&mut self) {
        // A signal under way must not meet the default action, which would end the process: the
        // handler stays, and does nothing.
        MEETING.clear();
    }
}

impl Parked {
    /// Lets the thread go on. Returns whether it stood still up to now.
    pub fn release(self) -> bool {
        let released = MEETING.release(self.held);
        thread::futex_wake(MEETING.state());
        released
    }
}

fn is_ours(signal: c_int) -> bool {
    signal::current_handler(signal).is_some_and(is_handler)
}

/// Gives the signal back, if it is ours, with all that is pending of it.
pub fn give_back() {
    for signal in NUMBERS.into_iter().filter(|&signal| is_ours(signal)) {
        signal::restore_default(signal);
    }
}

/// Whether this is the handler in which threads stand still.
pub fn is_handler(address: usize) -> bool {
    address == on_signal as *const () as usize
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
    if is_own && let Some(held) = MEETING.come(thread::current_tid()) {
        thread::futex_wake(MEETING.state());
        wait_while(held.0, MOST_HELD_NS);
        MEETING.leave(held);
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
                if MEETING.state().load(Ordering::Acquire) != state {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        if MEETING.state().load(Ordering::Acquire) != state {
            return;
        }
        let waited = clock::monotonic_ns().saturating_sub(start);
        if waited >= patience_ns {
            return;
        }
        if !spins || waited >= SPIN_NS {
            thread::futex_wait(MEETING.state(), state, patience_ns - waited);
        }
    }
}
