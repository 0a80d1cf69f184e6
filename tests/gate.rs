//! Every order in which the sampler and a program that takes its signals can act: once the program has
//! them, nothing is under way that needed them, and nothing begins.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering, fence};
use loom::thread;
use pysamp::os::claim::{Flag, Gate};

/// A flag all of whose orders are tried.
struct Tried(AtomicBool);

impl Flag for Tried {
    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, value: bool) {
        self.0.store(value, Ordering::Release);
    }

    fn settle() {
        fence(Ordering::SeqCst);
    }
}

#[test]
fn nothing_is_within_once_it_is_closed() {
    let outcomes = Arc::new([0, 1].map(std::sync::atomic::AtomicU64::new));
    let counted = Arc::clone(&outcomes);
    loom::model(move || {
        let flag = || Tried(AtomicBool::new(false));
        let gate = Arc::new(Gate::new(flag(), flag()));
        let is_taken = Arc::new(AtomicBool::new(false));
        let reader = {
            let (gate, is_taken) = (Arc::clone(&gate), Arc::clone(&is_taken));
            thread::spawn(move || {
                let reads = || {
                    let Some(_within) = gate.enter() else { return false };
                    assert!(!is_taken.load(Ordering::Relaxed), "a read is under way");
                    thread::yield_now();
                    assert!(!is_taken.load(Ordering::Relaxed), "a read is still under way");
                    true
                };
                (0..2).filter(|_| reads()).count()
            })
        };
        let may_wait = || {
            thread::yield_now();
            true
        };
        gate.close(|| fence(Ordering::SeqCst), may_wait);
        is_taken.store(true, Ordering::Relaxed);
        let reads = reader.join().unwrap();
        assert!(gate.enter().is_none());
        counted[usize::from(reads > 0)].fetch_add(1, Ordering::Relaxed);
    });
    let counts = [0, 1].map(|read: usize| outcomes[read].load(Ordering::Relaxed));
    println!("read nothing and something: {counts:?}");
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
}
