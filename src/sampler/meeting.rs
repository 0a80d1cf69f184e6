//! Where the sampler and the thread it wants to hold still meet: who has come, and who has left.
//!
//! One word: a turn number above two bits of phase. A thread that comes late meets another turn and
//! leaves. Either side may give up at any moment, and the other one learns of it.
//!
//! Generic over the word, so that a test can try every order in which the two sides can act.

use std::sync::atomic::{AtomicU32, Ordering};

const PHASE: u32 = 3;
const FREE: u32 = 0;
const ASKED: u32 = 1;
const HELD: u32 = 2;
const TURN: u32 = 4;

/// An atomic word, sequentially consistent.
pub trait Word {
    /// Its value.
    fn load(&self) -> u32;
    /// Gives it a value.
    fn store(&self, value: u32);
    /// Gives it the value `to` if it has the value `from`. Returns whether it had.
    fn change(&self, from: u32, to: u32) -> bool;
}

impl Word for AtomicU32 {
    fn load(&self) -> u32 {
        self.load(Ordering::SeqCst)
    }

    fn store(&self, value: u32) {
        self.store(value, Ordering::SeqCst);
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// The meeting point.
pub struct Meeting<W> {
    state: W,
    /// The thread that is meant.
    invited: W,
}

/// What the state is while the invited thread has not come.
#[derive(Clone, Copy)]
pub struct Asked(pub u32);

/// What the state is while the thread stands still.
#[derive(Clone, Copy)]
pub struct Held(pub u32);

impl<W: Word> Meeting<W> {
    /// Of two words that are zero.
    pub const fn new(state: W, invited: W) -> Self {
        Self { state, invited }
    }

    /// The word to wait on.
    pub fn state(&self) -> &W {
        &self.state
    }

    /// Ends a turn that nobody takes part in any more.
    pub fn clear(&self) {
        self.state.store(self.state.load() & !PHASE);
    }

    /// The sampler begins a turn.
    pub fn invite(&self, tid: u32) -> Asked {
        let asked = (self.state.load() & !PHASE).wrapping_add(TURN) | ASKED;
        self.invited.store(tid);
        self.state.store(asked);
        Asked(asked)
    }

    /// The sampler waits no more. Returns what there is if the thread has come.
    pub fn withdraw(&self, Asked(asked): Asked) -> Option<Held> {
        let held = Held((asked & !PHASE) | HELD);
        let has_gone = self.state.change(asked, (asked & !PHASE) | FREE);
        (!has_gone && self.state.load() == held.0).then_some(held)
    }

    /// The sampler lets the thread go. Returns whether it stood still up to now.
    pub fn release(&self, Held(held): Held) -> bool {
        self.state.change(held, (held & !PHASE) | FREE)
    }

    /// The thread comes, if it is invited. Async-signal-safe.
    pub fn come(&self, tid: u32) -> Option<Held> {
        let asked = self.state.load();
        if asked & PHASE != ASKED || self.invited.load() != tid {
            return None;
        }
        let held = (asked & !PHASE) | HELD;
        self.state.change(asked, held).then_some(Held(held))
    }

    /// The thread goes, whether it was let go or not. Async-signal-safe.
    pub fn leave(&self, held: Held) {
        // If the sampler has not let it go, it must learn that the thread moves again.
        self.release(held);
    }
}
