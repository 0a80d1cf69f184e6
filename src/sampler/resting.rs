//! Threads that have been idle for long: a few numbers tell of all of them together that none has run, and what
//! they stand for is recorded a few times a second.

use std::collections::HashSet;

use super::activity::State;
use super::snapshot::Outcome;
use super::{Sampler, Sink, Taken};
use crate::hash::FastHash;
use crate::layout::detect::Build;
use crate::mem::{Address, Memory};
use crate::os::clock;
use crate::reader::states::{self, Gil};
use crate::reader::threads::{self, ThreadState};

/// How long a thread has not run before it rests.
const IDLE_NS: u64 = 100_000_000;
/// Fewer are as well looked at one by one.
const WORTH_IT: usize = 8;
/// What rests is recorded after this long, or so many cycles: what is not is lost if the process is killed.
const UNRECORDED_NS: u64 = 100_000_000;
const UNRECORDED_CYCLES: u64 = 256;
/// Cycles between two looks for more of them, once some rest.
const PATIENCE: u64 = 64;
/// What a clock may seem to have moved while others were read. A thread that has been woken uses more.
const TOLERANCE_NS: u64 = 2_000;

/// Of clocks that are not known.
const UNKNOWN: u64 = 0;

/// Which threads rest.
#[derive(Debug, Default)]
pub(super) struct Resting {
    threads: Vec<ThreadState>,
    /// By place in the list of all threads.
    rests: Vec<bool>,
    /// Cycles for which they are not recorded yet, and when the last of them was.
    cycles: u64,
    until_ns: u64,
    recorded_ns: u64,
    /// All CPU time of the process but that of the other threads and of the sampler's: as little as was seen.
    clocks_ns: u64,
    /// As of the start of this cycle, and of the one before; nothing where there are none.
    gils: Vec<Gil>,
    gils_before: Vec<Gil>,
}

impl Resting {
    /// Whether the thread at a place in the list of all rests.
    pub(super) fn has(&self, place: usize) -> bool {
        self.rests.get(place).copied().unwrap_or(false)
    }

    /// Looks at the GILs, at the start of a cycle. Returns whether no resting thread can have had one since the
    /// cycle before: at most one other thread has taken each, and all that can be told is who had it at the ends.
    fn look_at_gils<M: Memory>(
        &mut self,
        memory: &M,
        build: &Build,
        interpreters: &[Address],
    ) -> bool {
        let now = interpreters.iter().map(|&at| states::gil(memory, build, at).ok().flatten());
        std::mem::swap(&mut self.gils, &mut self.gils_before);
        self.gils.clear();
        self.gils.extend(now.map_while(|gil| gil));
        let before = &self.gils_before;
        let is_known = before.len() == interpreters.len() && self.gils.len() == before.len();
        is_known
            && self.gils.iter().zip(before).all(|(now, before)| {
                now.at == before.at
                    && now.switches.wrapping_sub(before.switches) <= 1
                    && (now.holder == before.holder || !self.is_holder(now.holder))
            })
    }

    fn is_holder(&self, thread: Address) -> bool {
        self.threads.iter().any(|resting| resting.at == thread)
    }

    /// Whether the resting threads have not run, by what all others have used. A thread that runs on another
    /// processor may show there only once it is interrupted.
    fn are_clocks_unmoved(&mut self, own_tid: u32, all: &[ThreadState]) -> bool {
        if self.clocks_ns == UNKNOWN {
            return false;
        }
        let Some(clocks_ns) = self.measure(own_tid, all) else { return false };
        let is_unmoved = clocks_ns <= self.clocks_ns + TOLERANCE_NS;
        // Never more than it is, but for what the sampler itself has used meanwhile.
        self.clocks_ns = self.clocks_ns.min(clocks_ns);
        is_unmoved
    }

    /// As of now.
    fn measure(&self, own_tid: u32, all: &[ThreadState]) -> Option<u64> {
        let others = all.iter().enumerate().filter(|&(place, _)| !self.has(place));
        let clocks = others.map(|(_, thread)| clock::thread_cpu_ns(thread.tid));
        let used_ns = clocks.sum::<Option<u64>>()? + clock::thread_cpu_ns(own_tid)?;
        clock::process_cpu_ns().checked_sub(used_ns)
    }

    /// Whether so many threads that have been idle for long are enough to let them rest.
    fn are_worth_it(&self, found: usize, cycle: u64) -> bool {
        let is_time = !self.threads.is_empty() && cycle.is_multiple_of(PATIENCE);
        found >= WORTH_IT || found > 0 && is_time
    }

    /// Whether a thread may rest: whoever had the GIL last may have it again without a trace.
    fn may_rest(&self, thread: Address) -> bool {
        !self.gils.is_empty() && self.gils.iter().all(|gil| gil.holder != thread)
    }

    /// The threads at these places in the list rest from now on, and no others. Their clocks are as they were a
    /// moment ago.
    fn rest(&mut self, own_tid: u32, all: &[ThreadState], rests: Vec<bool>) {
        self.set(all, rests);
        // Two states of one thread have one clock.
        let mut tids: Vec<u32> = all.iter().map(|thread| thread.tid).collect();
        tids.sort_unstable();
        let is_each_once = tids.windows(2).all(|pair| pair[0] != pair[1]);
        let clocks_ns = if is_each_once { self.measure(own_tid, all) } else { None };
        self.clocks_ns = clocks_ns.unwrap_or(UNKNOWN);
    }

    /// So do these as well, whose clocks together are at `clocks_ns`.
    fn rest_too(&mut self, all: &[ThreadState], rests: Vec<bool>, clocks_ns: u64) {
        self.set(all, rests);
        if self.clocks_ns != UNKNOWN {
            self.clocks_ns += clocks_ns;
        }
    }

    /// The list of all threads is this one now.
    pub(super) fn follow(&mut self, all: &[ThreadState]) {
        let resting = keys(&self.threads);
        let rests = all.iter().map(|thread| resting.contains(&key(thread))).collect();
        self.set(all, rests);
        // What the clocks of threads were that are gone is not known.
        self.clocks_ns = UNKNOWN;
    }

    fn set(&mut self, all: &[ThreadState], rests: Vec<bool>) {
        self.rests = rests;
        let resting = all.iter().zip(&self.rests).filter(|(_, rests)| **rests);
        self.threads = resting.map(|(thread, _)| *thread).collect();
    }

    /// Whether it is time to record what they stand for.
    fn is_due(&self) -> bool {
        self.cycles >= UNRECORDED_CYCLES
            || self.cycles > 0 && self.until_ns.saturating_sub(self.recorded_ns) >= UNRECORDED_NS
    }

    /// How many cycles are to be recorded, as of when; none from now on.
    fn take_cycles(&mut self) -> (u64, u64) {
        self.recorded_ns = self.until_ns;
        (std::mem::take(&mut self.cycles), self.until_ns)
    }
}

fn key(thread: &ThreadState) -> (Address, u32) {
    (thread.at, thread.tid)
}

fn keys(threads: &[ThreadState]) -> HashSet<(Address, u32), FastHash> {
    threads.iter().map(key).collect()
}

impl<M: Memory> Sampler<M> {
    /// One more cycle for the threads that rest, but for those that have run since the cycle before: they rest no
    /// more.
    pub(super) fn let_rest(&mut self, sink: &mut impl Sink) {
        let Self { resting, memory, build, threads, own_tid, interpreters, .. } = self;
        if threads.len() < WORTH_IT && resting.threads.is_empty() {
            resting.gils.clear();
            return;
        }
        let had_no_gil = resting.look_at_gils(memory, build, interpreters);
        if resting.threads.is_empty() {
            return;
        }
        let now = clock::monotonic_ns();
        if !(had_no_gil && resting.are_clocks_unmoved(*own_tid, threads)) {
            self.wake_those_that_have_run(sink);
        }
        self.resting.cycles += 1;
        self.resting.until_ns = now;
        if self.resting.is_due() {
            self.record_resting(sink);
        }
    }

    fn wake_those_that_have_run(&mut self, sink: &mut impl Sink) {
        let Self { memory, build, tracked, resting, threads, .. } = self;
        let rests = |thread: &ThreadState| {
            let known = tracked.get(&key(thread));
            known.is_some_and(|known| known.cpu.is_unmoved(thread.tid))
                && !threads::is_attached(memory, build, thread.at)
        };
        let rests: Vec<bool> =
            (0..).zip(&*threads).map(|(at, thread)| resting.has(at) && rests(thread)).collect();
        if rests.iter().filter(|rests| **rests).count() < resting.threads.len() {
            self.record_resting(sink);
        }
        self.resting.rest(self.own_tid, &self.threads, rests);
    }

    /// Lets threads rest that have been idle for long.
    pub(super) fn find_idle(&mut self, sink: &mut impl Sink) {
        // Without a GIL there is no trace of who has run for a moment.
        let is_possible = self.has_fine_clocks && !self.build.free_threaded;
        if !is_possible || self.threads.len() < WORTH_IT {
            return;
        }
        let Self { memory, build, tracked, resting, threads, .. } = self;
        let has_tasks = self.snapshotter.tasks.is_some();
        let is_idle = |taken: &Taken| {
            let known = || tracked.get(&key(&taken.thread));
            taken.state.without(State::HAS_EXCEPTION) == State::default()
                && taken.now.saturating_sub(taken.moved_ns) >= IDLE_NS
                && !taken.yields
                && resting.may_rest(taken.thread.at)
                && known().is_some_and(|known| {
                    let is_settled = !has_tasks || known.shown.is_settled;
                    known.stands && known.number.is_some() && is_settled
                })
        };
        let idle = self.taken.iter().filter(|taken| is_idle(taken));
        if !resting.are_worth_it(idle.clone().count(), self.cycle) {
            return;
        }
        let mut idle: Vec<ThreadState> = idle.map(|taken| taken.thread).collect();
        // They may have run since they were looked at.
        let mut clocks_ns = 0;
        idle.retain(|thread| {
            let known = tracked.get(&key(thread));
            let is_unmoved = known.is_some_and(|known| known.cpu.is_unmoved(thread.tid))
                && !threads::is_attached(memory, build, thread.at);
            clocks_ns += known.filter(|_| is_unmoved).map_or(0, |known| known.cpu.cpu_ns());
            is_unmoved
        });
        let idle = keys(&idle);
        let rests: Vec<bool> = (0..)
            .zip(&*threads)
            .map(|(at, thread)| resting.has(at) || idle.contains(&key(thread)))
            .collect();
        self.record_resting(sink);
        if self.resting.threads.is_empty() {
            self.resting.rest(self.own_tid, &self.threads, rests);
        } else {
            self.resting.rest_too(&self.threads, rests, clocks_ns);
        }
    }

    /// Records what the threads that rest stand for. To be called before the profile is taken.
    pub fn record_resting(&mut self, sink: &mut impl Sink) {
        let (count, now) = self.resting.take_cycles();
        if count == 0 {
            return;
        }
        for place in 0..self.resting.threads.len() {
            let thread = self.resting.threads[place];
            let Some(tracked) = self.tracked.get_mut(&key(&thread)) else { continue };
            tracked.seen = self.cycle;
            tracked.target.take_again();
            tracked.cpu.stood_until(now);
            let state = tracked.state.only(State::HAS_EXCEPTION);
            let outcome = Outcome::Stack;
            let taken = Taken {
                thread,
                count,
                outcome,
                now,
                state,
                moved_ns: 0,
                waited_ns: 0,
                yields: false,
            };
            self.record(taken, sink);
        }
    }
}
