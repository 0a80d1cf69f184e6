//! Which threads wait for the GIL.

use std::cmp::Reverse;

use super::Taken;
use super::activity::State;
use crate::layout::detect::Build;
use crate::mem::{Address, Memory};
use crate::os::c_library;
use crate::reader::states;

/// Marks the threads that wait, cycle by cycle.
///
/// A thread without the GIL that is where the interpreter looks whether others want it waits for it, also
/// where it is about to, or wakes up to ask again. Of others the GIL only counts how many wait; up to 3.14 no
/// thread says so. Where more threads could than do, they are such as have run lately: whoever waits for the GIL
/// wakes up every few milliseconds to ask for it. Of these, they are those that waited before and have not run since,
/// and then those that have run last.
#[derive(Debug)]
pub struct Contention {
    /// Where a condition variable counts who waits.
    waiters_at: Option<usize>,
    /// What is known of the GIL of each interpreter.
    gils: Vec<(i64, Option<(Address, u32)>)>,
    candidates: Vec<Candidate>,
}

/// Whoever waits for the GIL wakes up every `sys.getswitchinterval()`, which nobody changes.
const LONGEST_NAP_NS: u64 = 6_000_000;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    gil: Address,
    waiting: u32,
    /// Whether it is certain of this one.
    says_so: bool,
    has_run_lately: bool,
    /// Others are believed to run, which they may have done until a moment ago.
    is_off_cpu: bool,
    still_waits: bool,
    moved_ns: u64,
    /// Which of the threads it is.
    index: usize,
}

impl Default for Contention {
    fn default() -> Self {
        let waiters_at = c_library::condition_waiters();
        Self { waiters_at, gils: Vec::new(), candidates: Vec::new() }
    }
}

impl Contention {
    /// Marks which of the threads that were taken wait for the GIL.
    pub(super) fn mark(&mut self, memory: &impl Memory, build: &Build, taken: &mut [Taken]) {
        self.gils.clear();
        self.candidates.clear();
        for (index, taken) in taken.iter_mut().enumerate() {
            let Taken { thread, state, now, moved_ns, waited_ns, yields, .. } = taken;
            if state.has(State::HAS_GIL) {
                continue;
            }
            let says_so = || *yields || states::says_it_waits(memory, build, thread.at);
            match self.waiters(memory, build, thread.interpreter, thread.at) {
                Some((_, 0)) if !*yields => {}
                Some((gil, waiting)) => {
                    let has_run_lately = now.saturating_sub(*moved_ns) < LONGEST_NAP_NS;
                    self.candidates.push(Candidate {
                        gil,
                        waiting,
                        says_so: says_so(),
                        has_run_lately,
                        is_off_cpu: !state.has(State::ON_CPU),
                        still_waits: has_run_lately && *waited_ns > *moved_ns,
                        moved_ns: *moved_ns,
                        index,
                    });
                }
                None => *state = state.with(State::WAITS_FOR_GIL, says_so()),
            }
        }
        self.candidates.sort_unstable_by_key(|one| {
            let Candidate {
                gil, says_so, has_run_lately, is_off_cpu, still_waits, moved_ns, ..
            } = *one;
            (gil, Reverse((says_so, has_run_lately, is_off_cpu, still_waits, moved_ns)))
        });
        for of_one in self.candidates.chunk_by(|one, other| one.gil == other.gil) {
            let certain = of_one.iter().take_while(|one| one.says_so).count();
            for candidate in of_one.iter().take(certain.max(of_one[0].waiting as usize)) {
                let state = &mut taken[candidate.index].state;
                *state = state.with(State::WAITS_FOR_GIL, true).without(State::ON_CPU);
            }
        }
    }

    fn waiters(
        &mut self,
        memory: &impl Memory,
        build: &Build,
        interpreter: i64,
        thread: Address,
    ) -> Option<(Address, u32)> {
        if let Some((_, known)) = self.gils.iter().find(|(id, _)| *id == interpreter) {
            return *known;
        }
        let waiters = self.waiters_at.and_then(|waiters_at| {
            let at = states::interpreter(memory, build, thread);
            at.and_then(|at| states::waiters(memory, build, at, waiters_at)).ok().flatten()
        });
        self.gils.push((interpreter, waiters));
        waiters
    }
}
