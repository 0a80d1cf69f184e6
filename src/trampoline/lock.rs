//! A lock that a fork takes first, so that the child finds whole what it guards.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::os::{clock, thread};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody waits.
const WANTED: u32 = 2;

/// How long one wait lasts; who waits then looks again.
const PATIENCE_NS: u64 = 1_000_000_000;

/// What is locked, and its lock.
pub(super) struct ForkLock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by whoever holds the lock only, one thread at a time.
unsafe impl<T: Send> Sync for ForkLock<T> {}

/// The lock, held until this is dropped.
pub(super) struct Held<'a, T>(&'a ForkLock<T>);

impl<T> ForkLock<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { word: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    pub(super) fn lock(&self) -> Held<'_, T> {
        while !self.acquire_within(PATIENCE_NS) {}
        Held(self)
    }

    /// For those who must not wait.
    pub(super) fn try_lock(&self) -> Option<Held<'_, T>> {
        self.acquire().then_some(Held(self))
    }

    /// Takes the lock before a fork. False if it cannot be had in time: the child must not believe
    /// what is there.
    pub(super) fn lock_for_fork(&self) -> bool {
        self.acquire_within(PATIENCE_NS)
    }

    /// Lets go of the lock that a fork has taken, in the parent or in the child.
    ///
    /// # Safety
    ///
    /// [`ForkLock::lock_for_fork`] has taken it, in this thread or in the one it is a copy of.
    pub(super) unsafe fn unlock_after_fork(&self) {
        self.release();
    }

    /// In a child that was forked while another thread held the lock: begins anew with `value`. What
    /// was there is left as it is.
    ///
    /// # Safety
    ///
    /// The process has one thread, and it does not hold the lock.
    pub(super) unsafe fn replace_after_fork(&self, value: T) {
        // SAFETY: nobody else is there; the old value is not dropped, as it may be half changed.
        unsafe { self.value.get().write(value) };
        self.word.store(FREE, Ordering::Release);
    }

    fn acquire(&self) -> bool {
        self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn acquire_within(&self, patience_ns: u64) -> bool {
        if self.acquire() {
            return true;
        }
        let deadline = clock::monotonic_ns() + patience_ns;
        while self.word.swap(WANTED, Ordering::Acquire) != FREE {
            let left = deadline.saturating_sub(clock::monotonic_ns());
            if left == 0 {
                return false;
            }
            thread::futex_wait(&self.word, WANTED, left);
        }
        true
    }

    fn release(&self) {
        if self.word.swap(FREE, Ordering::Release) == WANTED {
            thread::futex_wake(&self.word);
        }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and this is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 20_000;
        let lock = ForkLock::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..ROUNDS).for_each(|_| *lock.lock() += 1));
            }
        });
        assert_eq!(*lock.lock(), THREADS * ROUNDS);
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(held);
        assert!(lock.lock_for_fork() && lock.try_lock().is_none());
        // SAFETY: it was taken just now.
        unsafe { lock.unlock_after_fork() };
        assert!(lock.try_lock().is_some());
    }
}
