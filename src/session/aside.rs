//! The sampler's thread steps aside for a moment: its work stays behind for another one.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::output::Output;
use super::profiler::Profiler;
use super::{Shared, command, run, state, with_current};
use crate::mem::Address;
use crate::os::{clock, descriptors, process, thread};

/// Between two looks at what threads there are.
const PAUSE: Duration = Duration::from_micros(100);

/// What a thread leaves behind, and another one takes up.
pub(super) struct Work {
    pub(super) output: Output,
    /// None before the first thread has begun.
    pub(super) profiler: Option<Profiler>,
    /// Where the main thread was.
    frame: Option<Address>,
}

impl Work {
    /// Not begun.
    pub(super) fn new(output: Output) -> Self {
        Self { output, profiler: None, frame: None }
    }

    fn is_main_thread_back(&mut self) -> bool {
        let Some(profiler) = &mut self.profiler else { return true };
        profiler.move_here();
        let frame = profiler.top_frame();
        frame.is_none() || frame == self.frame
    }
}

/// Has the sampler's thread end for the moment, if it is the only one beside the caller, which must
/// be running Python code. Returns whether it has.
pub fn step_aside() -> bool {
    /// Mostly it takes some 100 microseconds; a busy machine may be slow to wake the thread. What a
    /// warning leads to where warnings are errors is worse than a wait.
    const PATIENCE_NS: u64 = 2_000_000_000;
    with_current(|shared| {
        if !shared.is_active() {
            return false;
        }
        if shared.state.load(Ordering::Acquire) == state::ASIDE {
            // It could not be started again after the fork before.
            return true;
        }
        let deadline = clock::monotonic_ns() + PATIENCE_NS;
        if !is_only_other_thread(deadline) {
            return false;
        }
        shared.ask(command::ASIDE);
        loop {
            let command = shared.command.load(Ordering::Acquire);
            if command & command::ASIDE == 0 {
                break;
            }
            let left = deadline.saturating_sub(clock::monotonic_ns());
            if left == 0 && shared.done(command::ASIDE) {
                return false;
            }
            thread::futex_wait(&shared.command, command, left);
        }
        if shared.state.load(Ordering::Acquire) != state::ASIDE {
            return false;
        }
        // It is about to end, and counts until it has.
        let mut looks = 0;
        while process::threads() != Some(1) && clock::monotonic_ns() < deadline {
            // Where processors are busy, a thread that only yields can keep one from ending.
            match looks {
                0..20 => std::thread::yield_now(),
                _ => std::thread::sleep(PAUSE),
            }
            looks += 1;
        }
        true
    })
    .unwrap_or(false)
}

/// Whether the process has two threads, but for the one more that writes a file at the moment: that
/// is waited for.
fn is_only_other_thread(deadline_ns: u64) -> bool {
    let mut was_counted_before = false;
    loop {
        let helped = descriptors::have_helper();
        match process::threads() {
            Some(2) => return true,
            Some(3) if helped || descriptors::have_helper() => {
                if clock::monotonic_ns() >= deadline_ns {
                    return false;
                }
                std::thread::sleep(PAUSE);
            }
            // It may have come and gone in between.
            Some(3) if !was_counted_before => was_counted_before = true,
            _ => return false,
        }
    }
}

/// Starts the thread again, `now` or if the main thread is back in the code where it was when the
/// thread stepped aside. Returns whether there is nothing left to do.
pub fn come_back(now: bool) -> bool {
    with_current(|shared| {
        if !shared.is_active() || shared.state.load(Ordering::Acquire) != state::ASIDE {
            return true;
        }
        let is_time = || match shared.aside.lock() {
            Ok(mut work) => work.as_mut().is_none_or(Work::is_main_thread_back),
            Err(_) => true,
        };
        if now || is_time() {
            shared.ensure_thread();
            return true;
        }
        false
    })
    .unwrap_or(true)
}

/// The end of a thread that steps aside, unless that is no longer wished for.
pub(super) fn leave(shared: &Shared, output: Output, mut profiler: Profiler) {
    let frame = profiler.top_frame();
    if let Ok(mut aside) = shared.aside.lock() {
        *aside = Some(Work { output, profiler: Some(profiler), frame });
    }
    // Who waits for the next thread is not to take it for dead because this one is.
    shared.sampler_tid.store(0, Ordering::Relaxed);
    shared.state.store(state::ASIDE, Ordering::SeqCst);
    if !shared.done(command::ASIDE) && shared.replace_state(state::ASIDE, state::RUNNING) {
        shared.take_up();
    }
}

/// Starts a thread for the work that lies aside.
pub(super) fn spawn(shared: &Arc<Shared>) -> std::io::Result<()> {
    let for_thread = Arc::clone(shared);
    thread::spawn("pysamp", move || for_thread.take_up())
}

impl Shared {
    /// Starts a thread, if it has stepped aside. Returns whether there is one.
    pub(super) fn ensure_thread(&self) -> bool {
        if !self.replace_state(state::ASIDE, state::RUNNING) {
            return true;
        }
        // SAFETY: what is shared always lives in an `Arc`.
        let shared = unsafe {
            Arc::increment_strong_count(self);
            Arc::from_raw(self)
        };
        let is_there = spawn(&shared).is_ok();
        if !is_there {
            self.state.store(state::ASIDE, Ordering::SeqCst);
        }
        is_there
    }

    /// Does the work that lies aside in this thread.
    pub(super) fn take_up(&self) {
        let work = self.aside.lock().ok().and_then(|mut aside| aside.take());
        if let Some(work) = work {
            run(self, work);
        }
    }
}
