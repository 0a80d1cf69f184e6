//! Every order in which the sampler and threads can act where they meet: what is read of a thread
//! that stood still is of one moment.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use pysamp::sampler::meeting::{Meeting, Word};

/// A word all of whose orders are tried.
struct Tried(AtomicU32);

impl Word for Tried {
    fn load(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn store(&self, value: u32) {
        self.0.store(value, Ordering::SeqCst);
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// What a thread changes as it runs: never half done, except when it is read in the middle.
struct Frames([AtomicU32; 2]);

impl Frames {
    fn new() -> Self {
        Self([AtomicU32::new(0), AtomicU32::new(0)])
    }

    fn run(&self, moment: u32) {
        self.0.iter().for_each(|half| half.store(moment, Ordering::Relaxed));
    }

    fn read(&self) -> [u32; 2] {
        [0, 1].map(|half: usize| self.0[half].load(Ordering::Relaxed))
    }
}

struct Process {
    meeting: Meeting<Tried>,
    frames: [Frames; 2],
}

impl Process {
    fn new() -> Arc<Self> {
        let word = || Tried(AtomicU32::new(0));
        let frames = [Frames::new(), Frames::new()];
        Arc::new(Self { meeting: Meeting::new(word(), word()), frames })
    }

    /// A thread that runs, gets a signal at some time, waits for some time, and runs on.
    fn begin_thread(self: &Arc<Self>, tid: u32, signals: u32) -> thread::JoinHandle<()> {
        let process = Arc::clone(self);
        thread::spawn(move || {
            let frames = &process.frames[tid as usize];
            for signal in 0..signals {
                frames.run(2 * signal + 1);
                if let Some(held) = process.meeting.come(tid) {
                    if process.meeting.state().load() == held.0 {
                        thread::yield_now();
                    }
                    process.meeting.leave(held);
                }
                frames.run(2 * signal + 2);
            }
        })
    }

    /// The sampler's turn. Returns whether the thread was read while it stood still.
    fn sample(&self, tid: u32) -> bool {
        let asked = self.meeting.invite(tid);
        if self.meeting.state().load() == asked.0 {
            thread::yield_now();
        }
        let Some(held) = self.meeting.withdraw(asked) else { return false };
        let [first, second] = self.frames[tid as usize].read();
        let stood_still = self.meeting.release(held);
        if stood_still {
            assert!(first == second && first % 2 == 1, "{first} and {second} were read");
        }
        stood_still
    }
}

/// Tries all orders, and checks that in some of them a thread was held, and in some it was not.
fn try_all(model: impl Fn() -> bool + Sync + Send + 'static) {
    let outcomes = Arc::new([0, 1].map(std::sync::atomic::AtomicU64::new));
    let counted = Arc::clone(&outcomes);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        counted[usize::from(model())].fetch_add(1, Ordering::Relaxed);
    });
    let counts = [0, 1].map(|held: usize| outcomes[held].load(Ordering::Relaxed));
    println!("not held and held: {counts:?}");
    assert!(counts[0] > 0 && counts[1] > 1, "{counts:?}");
}

#[test]
fn a_thread_that_was_held_stood_still() {
    try_all(|| {
        let process = Process::new();
        let thread = process.begin_thread(0, 1);
        let held = process.sample(0);
        thread.join().is_ok_and(|()| held)
    });
}

#[test]
fn a_late_signal_meets_another_turn_of_its_thread() {
    try_all(|| {
        let process = Process::new();
        let thread = process.begin_thread(0, 2);
        let held = [process.sample(0), process.sample(0)].contains(&true);
        thread.join().is_ok_and(|()| held)
    });
}

#[test]
fn a_thread_does_not_stand_in_for_another() {
    try_all(|| {
        let process = Process::new();
        let threads = [process.begin_thread(0, 1), process.begin_thread(1, 1)];
        let held = [process.sample(0), process.sample(1)].contains(&true);
        threads.into_iter().all(|thread| thread.join().is_ok()) && held
    });
}
